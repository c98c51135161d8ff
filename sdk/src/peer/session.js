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
 *
 * It does not know what the path is, or whether there are other paths to the same peer. `tests/vectors/session.json`
 * checks it against the Python session; `alive` exists only there, because no browser reports its own signs of life.
 */

import { ProtocolViolation } from '../errors.js';
import { decode, encodeGoodbye, encodeHello, encodePing, encodePong, MAX_FRAME, VERSION } from '../protocol/channel.js';
import { check, violation } from '../protocol/shapes.js';
import { Quality } from './quality.js';

/** @import { Ack, Chunk, Frame, Hello, OurHello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */

/**
 * Carries the frames of a session, whole and in order.
 * @typedef {object} Path
 * @property {number} room how many bytes may be sent now; less than 0 when too much waits already
 * @property {boolean} closed whether nothing can be sent any more
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

  /**
   * @param {Path} path
   * @param {number} now
   * @param {{ silence: number, heartbeat: number, probe: number }} timing see `PeerTiming`
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

  /** When `tick` is due; `Infinity` when nothing is due. */
  get deadline() {
    return Math.min(this.#beatAt, this.#probeAt);
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
   * Send a frame of the store. False before HELLOs are exchanged and when there is no room; then `drained` will report
   * when there is.
   *
   * @param {Bytes} frame
   */
  send(frame) {
    if (!this.greeted || !this.#open || this.#path.closed) return false;
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

  // --- from the path -----------------------------------------------------------------------------------------------

  /**
   * Ask for a sign of life, because the path may work again.
   *
   * @param {number} now
   */
  ping(now) {
    if (this.#open) this.#path.send(encodePing(this.#quality.ping(now)));
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
    try {
      const frame = this.#read(data);
      return [...this.#heard(now), ...this.#take(frame, now)];
    } catch (error) {
      return [{ type: 'violated', reason: `the other side broke the protocol: ${violation(error)}` }];
    }
  }

  /**
   * @param {ArrayBuffer | string} data
   * @returns {Frame | null}
   */
  #read(data) {
    if (typeof data === 'string') throw new ProtocolViolation('a text message in place of a frame');
    check(data.byteLength <= MAX_FRAME, `a frame of ${data.byteLength} bytes; the limit is ${MAX_FRAME}`);
    const frame = decode(new Uint8Array(data));
    check(this.greeted || frame?.type === 'hello' || frame?.type === 'goodbye', 'the first frame is no HELLO');
    return frame;
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
    // This page or its machine slept. What has come meanwhile will be read next.
    if (now - this.#beatAt > this.#timing.heartbeat) this.#quality.heard(now);
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
