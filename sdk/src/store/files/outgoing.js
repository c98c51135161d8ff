/**
 * A file that is sent: read in pieces, and taken back where messages must not wait for it.
 *
 * Rules of this module:
 *
 * - The recipient says what it has kept. If the checksum of that is the one of our beginning, we go on behind it; else we
 *   start from 0.
 * - What is larger than the server takes in sealed messages waits for a direct path (`isTooLarge`), also in the middle.
 * - When a session of the relay begins, the pieces that are not acknowledged are taken back, and sent again later: the
 *   messages need not wait for them. The recipient may have got some of them. A program without the feature FILES_3 takes no
 *   piece twice, so of its pieces only those are taken back that were never sent.
 * - The arithmetic is that of `window`, and of `pace` while there is a direct path.
 */
import { encodeControl, MAX_PIECE } from '../messages/control.js';
import { BLOCK, Digest } from './digest.js';
import { read } from './disk.js';
import { Pace } from './pace.js';
import { encodePiece } from './piece.js';
import { Transfer } from './transfer.js';
import { RELAY_WINDOW, SendWindow, share } from './window.js';

/** @import { Bytes } from '../../protocol/codec.js' */
/** @import { Delivery } from '../messages/delivery.js' */
/** @import { PeerDevice } from '../peers/device.js' */
/** @import { Job } from './job.js' */

// At a time: each reading of a file asks another process of the browser.
const READ_BYTES = 4 * MAX_PIECE;
/** What is known of the direct paths. @type {WeakMap<PeerDevice, Pace>} */
const paces = new WeakMap();

/** @param {PeerDevice} peer */
function paceOf(peer) {
  const known = paces.get(peer) ?? new Pace();
  paces.set(peer, known);
  return known;
}

export class Outgoing {
  /** Something has changed: it can go on, perhaps. */
  stir = () => {};
  #job;
  #file;
  #isChecked;
  #skips;
  /**
   * Pieces and the end: said, perhaps not acknowledged, in order; how much was on its way with each, and when.
   *
   * @type {[delivery: Delivery, control: Bytes, onItsWay: number, at: number][]}
   */
  #said = [];
  /** Those that were taken back, or had no room, in order. @type {Bytes[]} */
  #waiting = [];

  /**
   * @param {Job} job
   * @param {Blob} file
   * @param {boolean} isChecked The other side takes part in the check.
   * @param {boolean} skips It skips a piece that has come before.
   */
  constructor(job, file, isChecked, skips) {
    this.window = new SendWindow(file.size);
    this.#job = job;
    this.#file = file;
    this.#isChecked = isChecked;
    this.#skips = skips;
  }

  get #isCurrent() {
    return this.#job.isRunning && this.#job.outgoing === this;
  }

  /**
   * @param {number} from What the other side has kept.
   * @param {string} kept The checksum of that.
   */
  async send(from, kept) {
    const job = this.#job;
    const { window } = this;
    const file = this.#file;
    let digest = new Digest();
    try {
      if (from) {
        for (let at = 0; at < from && this.#isCurrent; at += BLOCK) digest.update(await read(file, at, BLOCK));
        const isSame = (await digest.result()) === kept;
        if (!this.#isCurrent) return;
        if (isSame) {
          window.sent = window.confirmed = from;
          Transfer.started(job.transfer, from);
        } else {
          digest = new Digest();
        }
      }
      let data = new Uint8Array(0); // what was read and is not said
      while (this.#isCurrent && window.sent < window.size) {
        if (!data.length) {
          data = await read(file, window.sent, Math.min(READ_BYTES, window.size - window.sent));
          if (this.#isChecked) digest.update(data);
          continue;
        }
        const { sending } = job;
        const room = Math.min(window.room(share(sending.indexOf(job), sending.length)), data.length, MAX_PIECE);
        if (!room || this.#waiting.length || !this.#hasRoom) {
          await this.#stirred();
          continue;
        }
        const piece = encodePiece(job.id, window.sent, data.subarray(0, room));
        window.sent += room;
        data = data.subarray(room);
        this.#tell(piece);
      }
      if (this.#isChecked) {
        const sha256 = await digest.result();
        if (this.#isCurrent) this.#say(encodeControl({ type: 'file-end', id: job.id, bytes: window.sent, sha256 }));
      }
      while (this.#isCurrent) await this.#stirred(); // something may be taken back
    } catch {
      if (job.outgoing === this) job.fail('the file has changed, or is gone');
    }
  }

  /** Wait until something has changed, unless what waits can be said. */
  async #stirred() {
    if (this.#waiting.length && this.#hasRoom) this.#tell(/** @type {Bytes} */ (this.#waiting.shift()));
    else await new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.stir = resolve));
  }

  /** Whether the path takes one more piece now. */
  get #hasRoom() {
    const { peer, isTooLarge } = this.#job;
    if (peer.fileLimit < Infinity) return !isTooLarge && this.#onItsWay < RELAY_WINDOW;
    const pace = paceOf(peer);
    return !pace.limits || pace.allows(this.#onItsWay);
  }

  /** How many bytes of all files are said to the peer, and not acknowledged. */
  get #onItsWay() {
    return this.#job.sending.reduce((sum, { outgoing }) => sum + (outgoing?.flying ?? 0), 0);
  }

  /** How many bytes are said, and not acknowledged. */
  get flying() {
    return this.#said.reduce((sum, [{ done }, { length }]) => (done ? sum : sum + length), 0);
  }

  /** @param {Bytes} control */
  #say(control) {
    if (this.#waiting.length || !this.#hasRoom) this.#waiting.push(control);
    else this.#tell(control);
  }

  /** @param {Bytes} control */
  #tell(control) {
    this.#settle();
    const onItsWay = this.#onItsWay + control.length;
    const delivery = this.#job.tell(control);
    if (delivery) this.#said.push([delivery, control, onItsWay, performance.now()]);
  }

  /** The peer has acknowledged something. */
  acknowledged() {
    this.#settle();
    this.stir();
  }

  #settle() {
    const { peer } = this.#job;
    for (let first; (first = this.#said[0])?.[0].done; this.#said.shift()) {
      const [{ delivered }, , onItsWay, at] = first;
      if (delivered && peer.fileLimit === Infinity) paceOf(peer).took(onItsWay, (performance.now() - at) / 1000);
    }
  }

  /** A session of the relay begins. */
  relayed() {
    paces.delete(this.#job.peer);
    const back = this.#said.filter(([{ done, sent }]) => !done && (this.#skips || !sent));
    if (!back.length) return;
    this.#said = this.#said.filter((each) => !back.includes(each));
    this.#job.peer.messages.takeBack(back.map(([delivery]) => delivery));
    this.#waiting.unshift(...back.map(([, control]) => control));
  }
}
