/**
 * The registration of a name: `register`, `challenge`, `prove`, `registered` (docs/protocol.md, "Registration").
 *
 * It writes the request and the bytes to sign, checks the server's answers, and knows the key to register with. The
 * machine decides when to register, and what follows.
 *
 * @import { RequestFailed } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Challenge, Register, Registered, SealKey } from '../protocol/messages.js'
 * @import { Backoff } from './backoff.js'
 * @import { Pending } from './requests.js'
 */
import * as proofs from '../identity/proofs.js';
import { fromBase64, toBase64 } from '../protocol/codec.js';
import { check } from '../protocol/shapes.js';

/**
 * @typedef {object} MachineSettings
 * @property {string} host The text of the `Host` header, because the proof signs it.
 * @property {string} userId
 * @property {string} device
 * @property {string | (() => string | null) | null} [token] A function: the program gets another token before each
 *   registration, and the function returns the newest one.
 * @property {() => SealKey | undefined} [sealKey] The sealing key for the next registration, if the client has one.
 * @property {Backoff} backoff
 * @property {number} requestTimeout Seconds.
 *
 * @typedef {object} Joining A registration that is planned or under way.
 * @property {Pending} request
 * @property {Identity} identity The key to prove.
 */

/** The registrations of one client. */
export class Handshake {
  /** @type {Identity | null} The key under which the client registers again; null before the first registration. */
  identity = null;
  /** @type {Joining | null} */
  joining = null;
  #settings;

  /** @param {MachineSettings} settings */
  constructor(settings) {
    this.#settings = settings;
  }

  /** Whether a new connection has to be registered. */
  get wanted() {
    return !!(this.joining || this.identity);
  }

  /**
   * The request for the name.
   *
   * @param {Identity} identity
   * @param {{ session: string, secret: string, received: number } | undefined} resume
   * @returns {Register}
   */
  register({ publicKey }, resume) {
    const { userId, device, token } = this.#settings;
    const shown = typeof token === 'function' ? token() : token;
    const sealKey = this.#settings.sealKey?.();
    return {
      type: 'register',
      userId,
      publicKey: toBase64(publicKey),
      device,
      token: shown || undefined,
      sealKey,
      resume,
    };
  }

  /** Whether another token may help after a refusal. @param {RequestFailed} failure */
  mayRenew({ code }) {
    return code === 'token-expired' && typeof this.#settings.token === 'function';
  }

  /** Whether a message with this `re` belongs to the registration that is under way. @param {unknown} re */
  belongs(re) {
    return !!this.joining && (re ?? this.joining.request.number) === this.joining.request.number;
  }

  /** The bytes that a challenge asks to sign; throws `ProtocolViolation`. @param {Challenge} challenge */
  signed({ nonce }) {
    const { host, userId, device } = this.#settings;
    return proofs.registration(host, fromBase64(nonce, proofs.NONCE_BYTES), userId, device);
  }

  /** Throws `ProtocolViolation` when the server has registered another name than ours. @param {Registered} message */
  check({ userId, device, resumed }) {
    const asked = this.joining?.request.message;
    check(
      userId === this.#settings.userId &&
        (device ?? this.#settings.device) === this.#settings.device &&
        (!resumed || (asked?.type === 'register' && asked.resume)),
      'registered as nobody asked for',
    );
  }

  /** The server has registered the name with this key. @param {Joining} joining */
  admitted({ identity }) {
    this.identity = identity;
    this.joining = null;
  }
}
