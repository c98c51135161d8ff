/**
 * One transfer that is not over: offered, accepted, sent in pieces, confirmed as they are written. In Python it is a part of
 * `files/service.py`.
 *
 * Rules of this module:
 *
 * - Everything that is said goes through control messages (`control`), which arrive once and in order over however many
 *   connections. So a transfer does not notice a path that is lost and mended, and nothing is ever sent twice.
 * - It ends once. The side that ends it early says so (`file-cancel`), even if the other side seems to be gone. So
 *   neither side waits for one that has given up.
 * - A peer that breaks the rules of a transfer (a wrong offset, more than was offered or than the window allows, data
 *   before the file was accepted, a confirmation of what was not sent) loses the transfer, and nothing else.
 * - The arithmetic is that of `window`; `disk` reads and writes; `transfer` is what the application sees.
 */
import { StateError, TransferFailed } from '../../errors.js';
import { messageOf } from '../../peer/engine.js';
import { clean } from '../../protocol/codec.js';
import { check, violation } from '../../protocol/shapes.js';
import { encodeControl, encodePiece, MAX_PIECE } from '../messages/control.js';
import { read, Sink } from './disk.js';
import { Transfer } from './transfer.js';
import { ReceiveWindow, SendWindow, share } from './window.js';

/**
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { ControlMessage, FileMessage, FileOffer, Piece } from '../messages/control.js'
 * @import { PeerDevice } from '../peers/device.js'
 * @import { TransferState } from './transfer.js'
 */

export class Job {
  /** Whether the other side knows of it: the offer has gone out, or come in. */
  announced;
  /** Something has changed: what is sent can go on, perhaps. */
  stir = () => {};
  /** It is for this device and no other of the user. */
  addressed = true;
  #all;
  #ended;
  #outgoing;
  #incoming;
  /** @type {Sink | undefined} */
  #sink;

  /**
   * @param {PeerDevice} peer
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file What is sent; null when it is received.
   * @param {Set<Job>} all Those with this peer that are not over.
   * @param {(peer: PeerDevice) => void} ended Is called at the end.
   */
  constructor(peer, offer, file, all, ended) {
    this.transfer = new Transfer(this, peer.userId, file ? 'out' : 'in', offer);
    this.file = file;
    this.announced = !file;
    this.peer = peer;
    this.#all = all.add(this);
    this.#ended = ended;
    this.#outgoing = new SendWindow(offer.size);
    this.#incoming = new ReceiveWindow(offer.size);
  }

  /** The device that knows of it. */
  get device() {
    return this.announced ? this.peer.name : null;
  }

  get isRunning() {
    return this.transfer.state === 'running';
  }

  get isOver() {
    return !this.#all.has(this);
  }

  /**
   * It is for another device now.
   *
   * @param {PeerDevice} peer
   * @param {Set<Job>} all
   */
  move(peer, all) {
    this.#all.delete(this);
    this.#all = all.add(this);
    this.peer = peer;
  }

  // --- for the application (`Transfer`) ------------------------------------------------------------------------------

  /** @param {WritableStream<Bytes>} [stream] */
  accept(stream) {
    this.#checkOffered();
    if (this.isOver) return;
    this.#sink = new Sink(stream);
    this.#move('running');
    this.#tell({ type: 'file-accept', id: this.transfer.id });
    if (!this.transfer.size) void this.#write(this.#sink);
  }

  /** @param {string} reason */
  decline(reason) {
    this.#checkOffered();
    this.giveUp('declined', 'declined', reason, 'file-decline');
  }

  /** @param {string} [reason] */
  cancel(reason) {
    this.giveUp('cancelled', 'cancelled', reason);
  }

  #checkOffered() {
    if (this.file || this.isRunning) throw new StateError('the file is not on offer');
  }

  // --- the other side ------------------------------------------------------------------------------------------------

  /** Offer the file. */
  announce() {
    const { id, name, size, mime } = this.transfer;
    this.announced = true;
    this.#tell({ type: 'file-offer', id, name, size, mime });
  }

  /**
   * The other side has said something of it. What is said twice, or by the wrong side, changes nothing.
   *
   * @param {ControlMessage} control
   */
  received(control) {
    const { file } = this;
    try {
      switch (control.type) {
        case 'file-cancel':
          this.giveUp('cancelled', 'cancelled by the other side', control.reason, null);
          break;
        case 'file-decline':
          if (file) this.giveUp('declined', 'declined', control.reason, null);
          break;
        case 'file-accept':
          if (file && !this.isRunning) {
            this.#move('running');
            void this.#send(file);
          }
          break;
        case 'file-received':
          if (file) this.#confirmed(control.bytes);
          break;
        case 'piece':
          if (!file) this.#arrived(control);
      }
    } catch (error) {
      this.fail(`the other side breaks the protocol: ${violation(error)}`);
    }
  }

  #checkRunning() {
    check(this.isRunning, 'the file was not accepted');
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  /** @param {Blob} file */
  async #send(file) {
    const outgoing = this.#outgoing;
    try {
      while (this.isRunning && outgoing.sent < outgoing.size) {
        const running = [...this.#all].filter((each) => each.file && each.isRunning);
        const room = Math.min(outgoing.room(share(running.indexOf(this), running.length)), MAX_PIECE);
        if (!room) {
          await new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.stir = resolve));
          continue;
        }
        const data = await read(file, outgoing.sent, room);
        if (this.isRunning) {
          const piece = encodePiece(this.transfer.id, outgoing.sent, data);
          outgoing.sent += room;
          this.#tell(piece);
        }
      }
    } catch {
      this.fail('the file has changed, or is gone');
    }
  }

  /** @param {number} count */
  #confirmed(count) {
    this.#checkRunning();
    if (this.#outgoing.received(count)) this.end('done', null, count);
    else this.#move('running', count);
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /** @param {Piece} piece */
  #arrived({ offset, data }) {
    this.#checkRunning();
    const sink = /** @type {Sink} */ (this.#sink);
    check(sink.hasRoom, 'too many pieces');
    this.#incoming.arrive(offset, data.length);
    void this.#write(sink, data);
  }

  /**
   * Write a piece, behind those before it, and what there is to be done then.
   *
   * @param {Sink} sink
   * @param {Bytes} [data]
   */
  async #write(sink, data) {
    const incoming = this.#incoming;
    const { id, size, mime } = this.transfer;
    try {
      if (data) await sink.write(data);
      const due = incoming.wrote(data?.length ?? 0);
      const { written } = incoming;
      const isWhole = written === size;
      const blob = isWhole ? await sink.finish(mime) : null;
      if (!this.isRunning) return;
      if (isWhole || due) this.#tell({ type: 'file-received', id, bytes: written });
      if (isWhole) this.end('done', null, size, blob);
      else this.#move('running', written);
    } catch (error) {
      this.fail(`the recipient cannot write it: ${messageOf(error)}`);
    }
  }

  // --- both ----------------------------------------------------------------------------------------------------------

  /**
   * @param {TransferState} state
   * @param {number} [transferred]
   */
  #move(state, transferred) {
    Transfer.move(this.transfer, state, null, transferred);
    this.stir();
  }

  /**
   * Say something without which the transfer cannot go on.
   *
   * @param {FileMessage | Bytes} message
   */
  #tell(message) {
    try {
      this.peer.sendControl(message instanceof Uint8Array ? message : encodeControl(message));
    } catch (error) {
      this.fail(/** @type {AldisError} */ (error).message, error);
    }
  }

  /**
   * It fails here, and the other side is told.
   *
   * @param {string} reason
   * @param {unknown} [cause]
   */
  fail(reason, cause) {
    this.giveUp('failed', '', reason, 'file-cancel', cause);
  }

  /**
   * The file does not arrive.
   *
   * @param {TransferState} state
   * @param {string} what Goes before the reason.
   * @param {string} [reason]
   * @param {'file-cancel' | 'file-decline' | null} [type] How to tell the other side; null: not at all.
   * @param {unknown} [cause]
   */
  giveUp(state, what, reason = '', type = 'file-cancel', cause) {
    const { id, userId, name } = this.transfer;
    reason = clean(reason);
    const text = [what, reason].filter(Boolean).join(': ');
    if (this.end(state, new TransferFailed(userId, name, text, { cause })) && type && this.announced) {
      try {
        this.peer.sendControl(encodeControl({ type, id, reason }));
      } catch {} // it is over in either case
    }
  }

  /**
   * The transfer is over, unless it was already.
   *
   * @param {TransferState} state
   * @param {AldisError | null} error
   * @param {number} [transferred]
   * @param {Blob | null} [blob]
   * @returns {boolean} Whether it was not.
   */
  end(state, error, transferred, blob) {
    if (!this.#all.delete(this)) return false;
    if (error) this.#sink?.discard(error);
    Transfer.move(this.transfer, state, error, transferred, blob);
    this.stir();
    this.#ended(this.peer);
    return true;
  }
}
