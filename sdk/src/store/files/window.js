/**
 * The arithmetic of a file transfer: what may be sent, what must be confirmed, and what breaks the protocol.
 *
 * Rules of this module:
 *
 * - The sender sends pieces in order, at most `WINDOW` bytes beyond what the recipient has confirmed as written. So
 *   neither end keeps more than that in memory, and a message of the application waits behind little more.
 * - Several files to one peer share the window. `AT_ONCE` of them go at a time, the others wait. A share is never less
 *   than `CONFIRM`, or the two sides would wait for each other. A file that others join keeps what it has on its way: while
 *   four begin, that may come to two windows.
 * - The recipient confirms when `CONFIRM` bytes more are written, and once more when the file is complete.
 * - To confirm every byte is to say that the file is complete. So of a stream whose end is not known the recipient confirms
 *   all but the last byte, and one piece earlier: the sender has one piece less on its way.
 * - A piece that has come before is skipped: a sender may not know that it has (`outgoing`).
 * - A transfer may start behind what the recipient has kept of it. The sender starts from 0 all the same where that is
 *   not the beginning of its file.
 * - What the other side says may be wrong in any way; `ProtocolViolation` says how, and the transfer ends.
 *
 * Pure: no I/O, no clock. It does not know what a transfer is, nor how bytes are read or written.
 */
import { check } from '../../protocol/shapes.js';
import { MAX_PIECE } from '../messages/control.js';

/** The most that is under way to one peer, in bytes. */
export const WINDOW = 1024 * 1024;
/** How many bytes more have to be written for another confirmation. */
export const CONFIRM = 256 * 1024;
/** What a message waits behind on the relay, where this takes a second: one piece is on its way while the other is acknowledged. */
export const RELAY_WINDOW = 2 * MAX_PIECE;
/** How many files to one peer go at a time: a small one need not wait for the end of a large one. */
export const AT_ONCE = WINDOW / CONFIRM;
/** Files on offer or under way from one peer; more are refused, so that offers cannot fill the memory. */
export const MAX_OPEN = 64;

/**
 * How many bytes of the window a file may use; 0 when it is not its turn.
 *
 * @param {number} position Its place among the files that run, from 0.
 * @param {number} running How many run.
 */
export const share = (position, running) => (position < AT_ONCE ? Math.floor(WINDOW / Math.min(running, AT_ONCE)) : 0);

/** A file that is sent; sizes and positions in bytes. */
export class SendWindow {
  /**
   * @param {number} size
   * @param {number} [start]
   */
  constructor(size, start = 0) {
    this.size = size;
    this.sent = this.confirmed = start;
  }

  /**
   * How much may be sent now, in whole pieces, the last one aside; 0 when it is time to wait.
   *
   * @param {number} most The file's share of the window.
   */
  room(most) {
    const left = this.size - this.sent;
    const allowed = this.confirmed + most - this.sent;
    return left <= allowed ? left : Math.max(allowed - (allowed % MAX_PIECE), 0);
  }

  /**
   * The recipient has written so many bytes.
   *
   * @param {number} count
   * @returns {boolean} Whether that is all.
   * @throws {ProtocolViolation}
   */
  received(count) {
    check(count >= this.confirmed && count <= this.sent, 'a confirmation of what was not sent');
    this.confirmed = count;
    return count === this.size;
  }
}

/** A file that is received. */
export class ReceiveWindow {
  /** The sender starts from 0: what was kept is not the beginning of its file. */
  restarted = false;
  #start;
  #confirmed;
  #isEndKnown;

  /**
   * @param {number | null} size Null for a stream, until it `ends`.
   * @param {number} [start]
   */
  constructor(size, start = 0) {
    this.size = size ?? Number.MAX_SAFE_INTEGER;
    this.#isEndKnown = size !== null;
    this.arrived = this.written = this.#start = this.#confirmed = start;
  }

  /** The sender has sent everything. @param {number} size */
  ends(size) {
    this.size = size;
    this.#isEndKnown = true;
  }

  /**
   * A piece has come.
   *
   * @param {number} offset
   * @param {number} size
   * @returns {boolean} Whether it had not come before.
   * @throws {ProtocolViolation} for one that is not due, or comes too early.
   */
  arrive(offset, size) {
    const end = offset + size;
    if (!offset && this.#start && this.arrived === this.#start) {
      this.restarted = true;
      this.arrived = this.written = this.#start = this.#confirmed = 0;
    }
    if (offset >= this.#start && end <= this.arrived) return false;
    check(offset === this.arrived && end <= this.size && end <= this.#confirmed + WINDOW, 'a piece that is not due');
    this.arrived = end;
    return true;
  }

  /**
   * So many bytes more are written.
   *
   * @param {number} size
   * @returns {number | null} What to confirm now, if it is time. The end is confirmed when the file is closed.
   */
  wrote(size) {
    this.written += size;
    const unconfirmed = this.written - this.#confirmed;
    if (!this.#isEndKnown) return unconfirmed > CONFIRM - MAX_PIECE ? (this.#confirmed = this.written - 1) : null;
    return unconfirmed < CONFIRM || this.written === this.size ? null : (this.#confirmed = this.written);
  }
}
