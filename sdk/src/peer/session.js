/**
 * One session with the program at the other end: HELLO, heartbeat and GOODBYE, over any path.
 *
 * Rules:
 * - It does no I/O. It sends frames through its `Path`. Calls report what has happened, with the time, and return the
 *   events, in order. Call `tick` when `deadline` has come.
 * - The first frame of each side is its only HELLO. Anything else breaks the protocol, and so does a HELLO with another
 *   version.
 * - Every frame is a sign of life. Messages and acknowledgements are passed on unread.
 * - PINGs are sent only after our HELLO.
 * - On a path that is `early`, frames of the store may be sent behind our HELLO, before theirs has come.
 *
 * It does not know what the path is, or whether there are other paths to the same peer. `tests/vectors/session.json`
 * checks it against the Python session; `alive` exists only there, because no browser reports its own signs of life.
 */

import { ProtocolViolation } from '../errors.js';
import {
  decode,
  encodeGoodbye,
  encodeHello,
  encodePing,
  encodePong,
  MAX_FRAME,
  unbundle,
  VERSION,
} from '../protocol/channel.js';
import { BUNDLES } from '../protocol/names.js';
import { check, violation } from '../protocol/shapes.js';
import { Quality } from './quality.js';

/** @import { Ack, Chunk, Frame, Hello, OurHello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */

/**
 * Carries the frames of a session, whole and in order.
 * @typedef {object} Path
 * @property {number} room how many bytes may be sent now; less than 0 when too much waits already
 * @property {boolean} closed whether nothing can be sent any more
 * @property {boolean} mayBundle whether the other side reads BUNDLE frames: small frames may go together
 * @property {(frame: Bytes) => boolean} send false when the path is about to close
 */

/**
 * The result of a call. A HELLO is reported once, before any other frame.
 * @typedef {Hello | Chunk | Ack | { type: 'pathLost' } | { type: 'pathRestored' }
 *   | { type: 'ended', reason: string, orderly: boolean } | { type: 'violated', reason: string }} SessionEvent
 */

/** One session, see the module. All times in seconds. */
export class PeerSession {
  greeted = false; // their HELLO has come, and its version is ours
  lost = false; // nothing arrives
  #path;
  #timing;
  #quality;
  #open = false; // our HELLO has left
  #blocked = false; // a frame was refused, because there was no room
  #beatAt = Infinity;
  #probeAt = Infinity;
  #probeReason = '';

  /** The first of some frames; null where it breaks the protocol, which a session finds too. @param {Bytes[]} frames */
  static firstOf([frame]) {
    try {
      return frame ? decode(frame) : null;
    } catch {
      return null;
    }
  }

  /**
   * @param {Path} path
   * @param {number} now
   * @param {{ silence: number, heartbeat: number, probe: number, early?: boolean }} timing see `PeerTiming`
   */
  constructor(path, now, timing) {
    this.#path = path;
    this.#timing = timing;
    this.#quality = new Quality(timing.silence, timing.heartbeat);
    this.#quality.heard(now);
  }

  // --- queries -----------------------------------------------------------------------------------------------------

  /** Seconds; null before the first PONG. */
  get roundTripTime() {
    return this.#quality.roundTripTime;
  }

  /** What the heartbeat has measured. */
  get pulse() {
    return this.#quality.pulse;
  }

  /** When `tick` is due; `Infinity` when nothing is due. */
  get deadline() {
    return Math.min(this.#beatAt, this.#probeAt);
  }

  /**
   * Whether `tick` is about to report that the path is lost. Ask the engine first (`answered`).
   *
   * @param {number} now
   */
  silent(now) {
    const isLate = now - this.#beatAt > this.#timing.heartbeat;
    return !this.lost && this.#beatAt <= now && !isLate && !this.#quality.silentIn(now);
  }

  // --- from this side ----------------------------------------------------------------------------------------------

  /**
   * Send HELLO; the heartbeat starts.
   *
   * @param {OurHello} hello
   * @param {number} now
   */
  open(hello, now) {
    this.#path.send(encodeHello(hello));
    this.#open = true;
    return this.#beat(now);
  }

  /**
   * Send a frame of the store. False before HELLOs are exchanged (`early`: before ours is sent) and when there is no
   * room; then `drained` will report when there is.
   *
   * @param {Bytes} frame
   */
  send(frame) {
    if (!(this.greeted || this.#timing.early) || !this.#open || this.#path.closed) return false;
    const fits = frame.length <= this.#path.room;
    this.#blocked ||= !fits;
    return fits && this.#path.send(frame);
  }

  /**
   * Send GOODBYE as the last frame, unless the path is lost. Returns whether it was sent.
   *
   * @param {string} reason
   */
  goodbye(reason) {
    return !this.lost && !this.#path.closed && this.#path.send(encodeGoodbye(reason));
  }

  /** Stop the heartbeat: nothing waits on this path, and something else tells whether the other side is there. */
  rest() {
    this.#beatAt = Infinity;
  }

  /**
   * Start the heartbeat again after `rest`; does nothing otherwise.
   *
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  wake(now) {
    if (this.#beatAt < Infinity || !this.#open) return [];
    this.#quality.heard(now);
    return this.#beat(now);
  }

  /**
   * The silence that was reported has another cause than the other side: it counts from now on.
   *
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  excuse(now) {
    this.lost = false;
    this.#quality.heard(now);
    return this.#beat(now);
  }

  /**
   * A message says that this session is over. End it for that reason if nothing arrives soon.
   *
   * @param {string} reason
   * @param {number} now
   */
  probe(reason, now) {
    if (this.#probeAt < Infinity) return;
    this.ping(now);
    this.#probeAt = now + this.#timing.probe;
    this.#probeReason = reason;
  }

  /**
   * A frame of so many bytes was sent that gets an acknowledgement. Without one a PING asks soon, and nothing in answer
   * to that means a lost path. Returns whether `deadline` may be earlier now.
   *
   * @param {number} size
   * @param {number} now
   */
  expect(size, now) {
    const isFirst = this.#quality.sent(size, now);
    if (isFirst && this.#beatAt < Infinity) this.#beatAt = Math.min(this.#beatAt, now + this.#quality.pingIn(now));
    return isFirst;
  }

  /**
   * There is reason to doubt the path: the network has changed, or this device has slept. Unless something arrives
   * within `SUSPICION` of quality.js, it is lost.
   *
   * @param {number} now
   */
  suspect(now) {
    if (this.lost || this.#beatAt === Infinity) return;
    this.#quality.suspect(now);
    this.ping(now);
    this.#beatAt = Math.min(this.#beatAt, now + this.#quality.silentIn(now));
  }

  // --- from the path -----------------------------------------------------------------------------------------------

  /**
   * Ask for a sign of life, because the path may work again.
   *
   * @param {number} now
   */
  ping(now) {
    if (this.#open) this.#path.send(encodePing(this.#quality.ping(now)));
  }

  /**
   * The engine has got something from the other side at that time, be it no frame. Call it before the `tick` that would
   * report that the path is lost.
   *
   * @param {number} at
   */
  answered(at) {
    this.#quality.answered(at);
  }

  /** The path itself reports that nothing arrives. */
  lose() {
    this.lost = true;
  }

  /** There is room again; returns whether a frame was refused before. */
  drained() {
    const blocked = this.#blocked;
    this.#blocked = false;
    return blocked;
  }

  /**
   * A message has arrived. Never throws for its content.
   *
   * @param {ArrayBuffer | string} data
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  received(data, now) {
    /** @type {SessionEvent[]} */
    const events = [];
    try {
      framesOf(data).forEach((bytes, index) => {
        const frame = decode(bytes);
        check(this.greeted || frame?.type === 'hello' || frame?.type === 'goodbye', 'the first frame is no HELLO');
        if (!index) events.push(...this.#heard(now));
        events.push(...this.#take(frame, now));
      });
    } catch (error) {
      events.push({ type: 'violated', reason: `the other side broke the protocol: ${violation(error)}` });
    }
    return events;
  }

  /**
   * @param {Frame | null} frame null: a kind of a later version
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  #take(frame, now) {
    switch (frame?.type) {
      case 'chunk':
      case 'ack':
        return [frame];
      case 'ping':
        this.#quality.pinged(frame.token);
        // Keep no answers for a side that reads nothing; the bytes that wait for it show enough life.
        if (this.#path.room >= 0) this.#path.send(encodePong(frame.token));
        break;
      case 'pong':
        this.#quality.ponged(frame.token, now);
        break;
      case 'hello':
        check(!this.greeted, 'a second HELLO');
        this.greeted = frame.version === VERSION;
        this.#path.mayBundle = frame.features.includes(BUNDLES);
        if (this.greeted) return [frame];
        return [
          {
            type: 'violated',
            reason: `it speaks version ${frame.version} of the channel protocol, we speak ${VERSION}`,
          },
        ];
      case 'goodbye':
        return [{ type: 'ended', reason: frame.reason || 'the other side said goodbye', orderly: true }];
    }
    return [];
  }

  /**
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  #heard(now) {
    this.#quality.heard(now);
    this.#probeAt = Infinity;
    if (!this.lost) return [];
    this.lost = false;
    return [{ type: 'pathRestored' }];
  }

  // --- time --------------------------------------------------------------------------------------------------------

  /**
   * Handle the deadlines; call this when `deadline` has come.
   *
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  tick(now) {
    if (this.#probeAt <= now) {
      this.#probeAt = Infinity;
      // This is a farewell: a tab that closes often cannot send its GOODBYE any more, but its bye arrives.
      return [{ type: 'ended', reason: this.#probeReason || 'the other side ended the connection', orderly: true }];
    }
    if (this.#beatAt > now) return [];
    if (now - this.#beatAt > this.#timing.heartbeat) {
      // This page or its machine slept. What has come meanwhile will be read next, or nothing has.
      this.#quality.doubt(now);
      this.ping(now);
    }
    return this.#beat(now);
  }

  /**
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  #beat(now) {
    if (!this.#quality.pingIn(now)) this.ping(now);
    const left = this.#quality.silentIn(now);
    this.#beatAt = now + Math.min(this.#quality.pingIn(now), left || Infinity);
    if (left || this.lost) return [];
    this.lost = true;
    return [{ type: 'pathLost' }];
  }
}

/**
 * The frames in a message of the path. Throws `ProtocolViolation`.
 *
 * @param {ArrayBuffer | string} data
 */
function framesOf(data) {
  if (typeof data === 'string') throw new ProtocolViolation('a text message in place of a frame');
  check(data.byteLength <= MAX_FRAME, `a frame of ${data.byteLength} bytes; the limit is ${MAX_FRAME}`);
  return unbundle(new Uint8Array(data));
}
