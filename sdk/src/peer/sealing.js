/**
 * Seals the frames that two devices exchange through the server, and opens them: keys, counters and layout.
 *
 *     handshake: 01 01 session(16) fromSealKey(32) toSealKey(32) enc(32) ciphertext
 *     frames:    01 02 session(16) counter(8, big-endian) ciphertext
 *
 * Rules:
 * - The first byte is the suite, the second the kind. Suite 01 is that of `hpke.js`. Everything else is `unknown`, so
 *   that a later suite can be told apart.
 * - A handshake is encrypted to the recipient's sealing key. `info` names both users, both devices, the session and both
 *   sealing keys; the sender's identity signs all of it, `enc` and the suite. So a handshake opens only for the two
 *   devices that it was made for.
 * - Both directions have a key and a base nonce of their own, exported from the handshake. The nonce of a message is the
 *   base nonce XOR its counter (RFC 9180, section 5.2), and everything before the ciphertext is authenticated with it.
 * - The plaintext is frames, each with its length in 4 bytes before it.
 *
 * It knows no state: which counter comes next and which session counts is up to `relay.js`. Whether a key is the pinned
 * one is up to the caller. Unlike in Python, all cryptography is a promise.
 */
import { PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify } from '../identity/keys.js';
import { SEAL_KEY_BYTES } from '../identity/seal_keys.js';
import { view } from '../protocol/message_frames.js';
import { toUtf8 } from '../protocol/codec.js';
import { concat, Direction, ENC_BYTES, KEY_BYTES, NONCE_BYTES, setupRecipient, setupSender } from './hpke.js';

/** @import { Identity } from '../identity/keys.js' */
/** @import { SealKeyPair } from '../identity/seal_keys.js' */
/** @import { Bytes } from '../protocol/codec.js' */

export const SUITE = 1; // 2 is kept for a hybrid with ML-KEM-768
const HANDSHAKE = 1;
const FRAMES = 2;

export const SESSION_BYTES = 16;
const COUNTER_BYTES = 8;
const TAG_BYTES = 16;
/** What each frame costs beside itself, in bytes. */
export const FRAME_OVERHEAD = 4;

const SESSION_END = 2 + SESSION_BYTES;
const HANDSHAKE_HEADER = SESSION_END + 2 * SEAL_KEY_BYTES + ENC_BYTES;
const FRAMES_HEADER = SESSION_END + COUNTER_BYTES;
const SIGNED_BYTES = PUBLIC_KEY_BYTES + SIGNATURE_BYTES;
/** What a handshake has beside its frames, in bytes; other messages have less. */
export const HANDSHAKE_OVERHEAD = HANDSHAKE_HEADER + SIGNED_BYTES + TAG_BYTES;
const FRAMES_OVERHEAD = FRAMES_HEADER + TAG_BYTES;

const HANDSHAKE_KIND = Uint8Array.of(SUITE, HANDSHAKE);
const INITIATOR = toUtf8('aldis relay initiator');
const RESPONDER = toUtf8('aldis relay responder');

/** A sealed message that this side does not take: it is forged, damaged, or not meant for it. Has no effect. */
export class Unopened extends Error {}

/** @typedef {{ fromUser: string, fromDevice: string, toUser: string, toDevice: string }} Parties Who talks to whom. */
/** @typedef {{ type: 'unknown', session: Bytes }} Unknown A message of an unknown suite or kind. */
/**
 * @typedef {{ type: 'handshake', session: Bytes, fromSealKey: Bytes, toSealKey: Bytes, enc: Bytes, ciphertext: Bytes
 *   }} Handshake A handshake, not opened yet.
 */
/**
 * @typedef {{ type: 'frames', session: Bytes, counter: number, header: Bytes, ciphertext: Bytes }} Sealed A frames
 *   message, not opened yet.
 */
/**
 * @typedef {{ publicKey: Bytes, frames: Bytes[], keys: SessionKeys }} Opened An opened handshake: the identity key that
 *   has signed it, its frames, and the keys of the session.
 */

/** The keys of one session: seals what this side says, opens what the other side says. */
export class SessionKeys {
  #sending;
  #receiving;

  /** @param {Bytes} session @param {Direction} sending @param {Direction} receiving */
  constructor(session, sending, receiving) {
    this.session = session;
    this.#sending = sending;
    this.#receiving = receiving;
  }

  /** @param {Bytes} session @param {Bytes} sending 44 exported bytes: key and base nonce. @param {Bytes} receiving */
  static async of(session, sending, receiving) {
    return new SessionKeys(session, await directionOf(sending), await directionOf(receiving));
  }

  /**
   * The bytes of a frames message. Each counter, from 0, may be used once.
   *
   * @param {number} counter
   * @param {readonly Uint8Array[]} frames
   */
  async seal(counter, frames) {
    const header = concat(Uint8Array.of(SUITE, FRAMES), this.session, new Uint8Array(COUNTER_BYTES));
    view(header).setBigUint64(SESSION_END, BigInt(counter));
    return concat(header, await this.#sending.seal(counter, join(frames), header));
  }

  /** The frames of a message of this session. Rejects with `Unopened`. @param {Sealed} sealed */
  async open({ counter, ciphertext, header }) {
    return split(await opened(this.#receiving.open(counter, ciphertext, header), 'it was not sealed in this session'));
  }
}

/**
 * Tell what kind of message this is. Throws `Unopened` for one that is too short for its kind.
 *
 * @param {Bytes} bytes
 * @returns {Handshake | Sealed | Unknown}
 */
export function read(bytes) {
  const [suite, kind] = bytes;
  const session = part(bytes, 2, SESSION_END);
  if (suite !== SUITE || (kind !== HANDSHAKE && kind !== FRAMES)) return { type: 'unknown', session };
  if (kind === HANDSHAKE) {
    part(bytes, 0, HANDSHAKE_OVERHEAD);
    const middle = SESSION_END + SEAL_KEY_BYTES;
    const end = middle + SEAL_KEY_BYTES;
    return {
      type: 'handshake',
      session,
      fromSealKey: bytes.slice(SESSION_END, middle),
      toSealKey: bytes.slice(middle, end),
      enc: bytes.slice(end, HANDSHAKE_HEADER),
      ciphertext: bytes.slice(HANDSHAKE_HEADER),
    };
  }
  part(bytes, 0, FRAMES_OVERHEAD);
  const header = bytes.slice(0, FRAMES_HEADER);
  // Beyond 2^53 it is not exact: such a counter is a gap in any case, and its nonce another one, so nothing opens.
  const counter = Number(view(header).getBigUint64(SESSION_END));
  return { type: 'frames', session, counter, header, ciphertext: bytes.slice(FRAMES_HEADER) };
}

/** @param {Bytes} bytes @param {number} start @param {number} end */
function part(bytes, start, end) {
  if (bytes.length < end) throw new Unopened('it is too short');
  return bytes.slice(start, end);
}

/**
 * Make a handshake with the device of `theirSealKey`; resolves with its bytes and the keys of the session.
 *
 * Rejects with `Unopened` when their key is none.
 *
 * @param {Parties} parties
 * @param {Bytes} session
 * @param {readonly Uint8Array[]} frames
 * @param {object} keys
 * @param {Pick<Identity, 'publicKey' | 'sign'>} keys.identity
 * @param {Bytes} keys.sealKey The public sealing key of this side.
 * @param {Bytes} keys.theirSealKey
 * @param {SealKeyPair} [keys.ephemeral] Only test vectors give one.
 * @returns {Promise<[sealed: Bytes, keys: SessionKeys]>}
 */
export async function start(parties, session, frames, { identity, sealKey, theirSealKey, ephemeral }) {
  const info = handshakeInfo(parties, session, sealKey, theirSealKey);
  const setup = setupSender(theirSealKey, info, ephemeral);
  const [enc, context] = await opened(setup, 'their sealing key is no X25519 key');
  const plaintext = concat(identity.publicKey, await identity.sign(signed(info, enc)), join(frames));
  const first = await Direction.of(context.key, context.baseNonce);
  const ciphertext = await first.seal(0, plaintext, HANDSHAKE_KIND);
  const [ours, theirs] = await exported(context);
  return [
    concat(HANDSHAKE_KIND, session, sealKey, theirSealKey, enc, ciphertext),
    await SessionKeys.of(session, ours, theirs),
  ];
}

/**
 * Open a handshake with the sealing key of ours that it was made for. Whether the identity key belongs to the sender is
 * up to the caller. Rejects with `Unopened`: damaged, forged, or made for other parties.
 *
 * @param {Parties} parties
 * @param {Handshake} handshake
 * @param {SealKeyPair} pair
 * @returns {Promise<Opened>}
 */
export async function accept(parties, { session, fromSealKey, toSealKey, enc, ciphertext }, pair) {
  const info = handshakeInfo(parties, session, fromSealKey, toSealKey);
  const [context, plaintext] = await opened(
    setupRecipient(enc, pair, info).then(async (context) => {
      const first = await Direction.of(context.key, context.baseNonce);
      return /** @type {const} */ ([context, await first.open(0, ciphertext, HANDSHAKE_KIND)]);
    }),
    'it was not sealed for this device',
  );
  const publicKey = plaintext.slice(0, PUBLIC_KEY_BYTES);
  const signature = plaintext.slice(PUBLIC_KEY_BYTES, SIGNED_BYTES);
  if (!(await verify(publicKey, signature, signed(info, enc)))) throw new Unopened('its signature is wrong');
  const [theirs, ours] = await exported(context);
  return {
    publicKey,
    frames: split(plaintext.slice(SIGNED_BYTES)),
    keys: await SessionKeys.of(session, ours, theirs),
  };
}

/**
 * The `info` of HPKE: everything that the two sides must agree on.
 *
 * @param {Parties} parties
 * @param {Bytes} session
 * @param {Bytes} fromSealKey
 * @param {Bytes} toSealKey
 */
export function handshakeInfo({ fromUser, fromDevice, toUser, toDevice }, session, fromSealKey, toSealKey) {
  const names = ['aldis relay v1', fromUser, fromDevice, toUser, toDevice, ''].join('\0');
  return concat(toUtf8(names), session, fromSealKey, toSealKey);
}

/** What the sender's identity signs. @param {Bytes} info @param {Bytes} enc */
const signed = (info, enc) => concat(info, enc, Uint8Array.of(SUITE));

/** The keys of both directions, the initiator's first. @param {import('./hpke.js').Context} context */
const exported = async (context) => {
  const size = KEY_BYTES + NONCE_BYTES;
  return /** @type {const} */ ([await context.export(INITIATOR, size), await context.export(RESPONDER, size)]);
};

/** @param {Bytes} bytes */
const directionOf = (bytes) => Direction.of(bytes.slice(0, KEY_BYTES), bytes.slice(KEY_BYTES));

/** @template T @param {Promise<T>} work @param {string} problem */
const opened = (work, problem) =>
  work.catch(() => {
    throw new Unopened(problem);
  });

/** @param {readonly Uint8Array[]} frames */
function join(frames) {
  return concat(
    ...frames.flatMap((frame) => {
      const length = new Uint8Array(FRAME_OVERHEAD);
      view(length).setUint32(0, frame.length);
      return [length, frame];
    }),
  );
}

/** @param {Bytes} plaintext */
function split(plaintext) {
  const frames = [];
  for (let at = 0; at < plaintext.length;) {
    const start = at + FRAME_OVERHEAD;
    at = start + (start > plaintext.length ? 0 : view(plaintext).getUint32(at));
    if (at > plaintext.length) throw new Unopened('a frame is longer than its message');
    frames.push(plaintext.slice(start, at));
  }
  return frames;
}
