/**
 * One transfer that is not over: offered, accepted, sent in pieces, confirmed as they are written. In Python it is a part of
 * `files/service.py`.
 *
 * Rules of this module:
 *
 * - Everything that is said goes through control messages (`control`), which arrive once and in order over however many
 *   connections. So a transfer does not notice a path that is lost and mended. Only when the relay takes over, pieces are
 *   taken back, and sent later.
 * - It ends once. The side that ends it early says so (`file-cancel`), even if the other side seems to be gone. So
 *   neither side waits for one that has given up.
 * - A peer that breaks the rules of a transfer (a wrong offset, more than was offered or than the window allows, data
 *   before the file was accepted, a confirmation of what was not sent) loses the transfer, and nothing else.
 * - A checked transfer (docs/protocol.md) is resumed behind what the recipient has kept of it, is offered once more to a
 *   program that was started anew, and is complete only if its checksum fits.
 * - With a journal it outlives the page (`kept`). When the other side has left and may come back, or our page has ended, it
 *   is offered again with another id. A recipient that has accepted it goes on by itself.
 * - `outgoing` sends the content; the arithmetic is that of `window`; `disk` reads and writes; `transfer` is what the
 *   application sees.
 */
import { StateError, TransferFailed } from '../../errors.js';
import { messageOf } from '../../peer/platform.js';
import { randomBytes } from '../../identity/keys.js';
import { clean, toBase64url } from '../../protocol/codec.js';
import { check, violation } from '../../protocol/shapes.js';
import { encodeControl, ID_BYTES } from '../messages/control.js';
import { BLOCK } from './digest.js';
import { Sink } from './disk.js';
import { openFolder } from './folder.js';
import { Outgoing } from './outgoing.js';
import { Transfer } from './transfer.js';
import { ReceiveWindow } from './window.js';

/**
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { ControlMessage, FileAccept, FileEnd, FileMessage, FileOffer, Piece } from '../messages/control.js'
 * @import { Delivery } from '../messages/delivery.js'
 * @import { PeerDevice } from '../peers/device.js'
 * @import { FileRecord, KeptFile, KeptTransfers } from './kept.js'
 * @import { Leftovers } from './leftovers.js'
 * @import { TransferState } from './transfer.js'
 */

/** A name for a transfer between the two programs. */
export const newId = () => toBase64url(randomBytes(ID_BYTES));

/**
 * What a transfer needs of all of them.
 *
 * @typedef {object} JobOwner
 * @property {Leftovers} leftovers
 * @property {KeptTransfers | null} kept null without a journal.
 * @property {Set<Transfer>} held What has arrived, and is in the journal until the application has it.
 * @property {(peer: PeerDevice) => void} over A transfer with it is over.
 */

/** Those with one peer that are not over, in the order in which they were begun. @extends {Set<Job>} */
export class Jobs extends Set {
  /** Of these, those that the other side knows of: few, however many wait. @type {Set<Job>} */
  told = new Set();

  /** @override @param {Job} job */
  delete(job) {
    this.told.delete(job);
    return super.delete(job);
  }
}

export class Job {
  /** Its name between the two programs; the application knows the first one. */
  id;
  /** When it was offered first, in milliseconds since 1970. */
  begun = Date.now();
  /** It ends now, and goes on later if the journal keeps it. */
  later = false;
  /** The application has it already, or has not heard of it: nothing is told. */
  isSilent = false;
  /** Whether the other side knows of it: the offer has gone out, or come in. */
  announced;
  /** Something has changed: what is sent can go on, perhaps. */
  stir = () => this.outgoing?.stir();
  /** It is for this device and no other of the user. */
  addressed = true;
  #all;
  #owner;
  #offer;
  /** What the journal keeps of it. @type {KeptFile | null} */
  #kept = null;
  /** What was accepted, and has arrived, before. @type {FileRecord | null} */
  #before = null;
  /** What is sent, once it was accepted. @type {Outgoing | null} */
  outgoing = null;
  #incoming;
  /** Both sides take part in the check. */
  #isChecked;
  /** The other side skips a piece that has come before. */
  #skips = false;
  /** `file-accept` was said. */
  #isReady = false;
  /** The other side has broken it, so nothing of it is kept. */
  #isSpoiled = false;
  #isFinishing = false;
  /** @type {FileEnd | null} */
  #end = null;
  /** @type {Sink | undefined} */
  #sink;

  /**
   * @param {PeerDevice} peer
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file What is sent; null when it is received.
   * @param {Jobs} all
   * @param {JobOwner} owner
   */
  constructor(peer, offer, file, all, owner) {
    this.id = offer.id;
    this.transfer = new Transfer(this, peer.userId, file ? 'out' : 'in', { ...offer, id: offer.resumes || offer.id });
    this.file = file;
    this.announced = !file;
    this.peer = peer;
    this.#all = all.add(this);
    if (!file) all.told.add(this);
    this.#owner = owner;
    this.#offer = offer;
    this.#isChecked = !file && !!offer.version;
    this.#incoming = new ReceiveWindow(0);
  }

  /** The device that knows of it. */
  get device() {
    return this.announced ? this.peer.name : null;
  }

  /** Whether it goes on when the page, or the other side, is back. */
  get isKept() {
    return !!this.#kept?.isKept;
  }

  get isRunning() {
    return this.transfer.state === 'running';
  }

  /** Whether it is too large for the path that there is, and waits for another one. */
  get isTooLarge() {
    return (this.transfer.size ?? Infinity) > this.peer.fileLimit;
  }

  get needsDirect() {
    return !this.isOver && this.isTooLarge;
  }

  get isOver() {
    return !this.#all.has(this);
  }

  /**
   * It is for another device now.
   *
   * @param {PeerDevice} peer
   * @param {Jobs} all
   */
  move(peer, all) {
    this.#all.delete(this);
    this.#all = all.add(this);
    this.peer = peer;
  }

  // --- for the application (`Transfer`) ------------------------------------------------------------------------------

  /** Whether the journal has room for it. */
  get canKeep() {
    const { kept } = this.#owner;
    return !!kept && this.#isKeepable && !kept.obstacle('in', this.#offer.size);
  }

  get #isKeepable() {
    return this.#isChecked && !this.#offer.stream;
  }

  /**
   * @param {WritableStream<Bytes>} [stream]
   * @param {boolean} [hold] It stays in the journal until `release`.
   */
  accept(stream, hold = false) {
    this.#checkOffered();
    if (this.isOver) return;
    const kept = !stream && this.#isKeepable && this.#keep('in', { ...this.record, ...(hold && { hold }) });
    this.#move('running'); // which tells whether it is kept
    this.#receive(new Sink(stream, stream ? undefined : this.#owner.leftovers.get(this.#key), kept || null));
  }

  /**
   * It was accepted by an earlier page, or before the other side has left: go on. Whoever is told of it is told first.
   *
   * @param {FileRecord} before
   */
  async resume(before) {
    this.#move('running');
    if (before.sha256 !== undefined) {
      this.#before = before;
      const kept = before.size - (before.size % BLOCK);
      // What comes is thrown away: only the checksum counts.
      this.#sink = new Sink(new WritableStream());
      return this.#begin(kept, before.whole);
    }
    const kept = this.#keep('in', before);
    const digest = await kept?.restore();
    if (!digest || this.isOver) return;
    const blob = new Blob(kept?.parts);
    this.#receive(new Sink(undefined, blob.size ? { blob, digest } : undefined, kept));
  }

  /** @param {Sink} sink */
  #receive(sink) {
    this.#sink = sink;
    if (sink.kept) void sink.digest.result().then((sha256) => this.#begin(sink.kept, sha256));
    else this.#begin(0);
  }

  /** What the journal may keep of it. @returns {FileRecord} */
  get record() {
    const { version = '', manifest = 0, mime } = this.#offer;
    const { id, userId, name, size } = this.transfer;
    return { id, userId, device: this.peer.name, name, size: size ?? 0, mime, version, manifest, begun: this.begun };
  }

  /**
   * Have the journal keep it from now on.
   *
   * @param {'in' | 'out'} direction
   * @param {FileRecord} record
   */
  #keep(direction, record) {
    const changed = (/** @type {KeptFile} */ { isKept, problem }) => Transfer.kept(this.transfer, isKept, problem);
    return (this.#kept = this.#owner.kept?.add(direction, record, changed) ?? null);
  }

  /**
   * The same for what is sent. Without a record it is a new one, and copied.
   *
   * @param {FileRecord} [record]
   */
  keep(record) {
    const device = this.addressed ? this.peer.name : null;
    const kept = this.#keep('out', record ?? { ...this.record, device });
    if (record) Transfer.kept(this.transfer, !!kept?.isKept, kept?.problem);
    else if (this.file) void kept?.copy(this.file);
    return kept;
  }

  /**
   * Say that it is wanted, from what was kept on.
   *
   * @param {number} from
   * @param {string} [sha256] Of that.
   */
  #begin(from, sha256) {
    if (this.isOver) return;
    const { size } = this.transfer;
    this.#isReady = true;
    this.#incoming = new ReceiveWindow(size, from);
    if (from) Transfer.started(this.transfer, from);
    this.tell({ type: 'file-accept', id: this.id, ...(from && sha256 && { from, sha256 }) });
    if (size === 0) void this.#write(/** @type {Sink} */ (this.#sink));
  }

  /** What is transferred, the same for the same content. */
  get #key() {
    const { name, size, version, manifest } = this.#offer;
    return JSON.stringify([this.transfer.userId, name, size, version, manifest]);
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

  /** The application has what has arrived. */
  async release() {
    this.#owner.held.delete(this.transfer);
    if (this.transfer.state === 'done') await this.#kept?.handedOver();
  }

  #checkOffered() {
    if (this.file || this.isRunning) throw new StateError('the file is not on offer');
  }

  // --- the other side ------------------------------------------------------------------------------------------------

  /**
   * Offer the file.
   *
   * @param {boolean} isChecked The other side takes part in the check.
   * @param {boolean} skips It skips a piece that has come before.
   */
  announce(isChecked, skips) {
    const { name, mime, id: first } = this.transfer;
    const { size, version = '', manifest } = this.#offer;
    const { id } = this;
    this.announced = true;
    this.#all.told.add(this);
    this.#isChecked = isChecked;
    this.#skips = skips;
    this.#kept?.bind(this.peer.name);
    const more = isChecked && { version, ...(manifest && { manifest }), ...(id !== first && { resumes: first }) };
    this.tell({ type: 'file-offer', id, name, size, mime, ...more });
  }

  /**
   * Another program has taken the place of the other, or it has left and may come back: offer it once more. False when that
   * ends the transfer.
   *
   * @param {boolean} left The other side may still say that the old one has ended.
   */
  restarted(left) {
    if (!this.file || !this.#isChecked) return false;
    this.announced = false;
    this.#all.told.delete(this);
    if (left) this.id = newId();
    this.#move('offered', 0);
    this.outgoing = null;
    return true;
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
            this.#accepted(control, file);
          }
          break;
        case 'file-received':
          if (file) this.#confirmed(control.bytes);
          break;
        case 'file-end':
          if (!file) this.#allSent(control);
          break;
        case 'piece':
          if (!file) this.#arrived(control);
      }
    } catch (error) {
      this.#violated(error);
    }
  }

  /** @param {unknown} error */
  #violated(error) {
    const problem = violation(error);
    this.#isSpoiled = true;
    this.fail(`the other side breaks the protocol: ${problem}`);
  }

  #checkRunning() {
    check(this.isRunning, 'the file was not accepted');
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  /** Those to this peer that are accepted, and not over. */
  get sending() {
    return [...this.#all.told].filter((each) => each.file && each.isRunning);
  }

  /**
   * @param {FileAccept} accept
   * @param {Blob} file
   */
  #accepted({ from = 0, sha256 = '' }, file) {
    check(
      !from || (this.#isChecked && sha256 && from <= file.size && !(from % BLOCK)),
      'it has kept what it cannot have',
    );
    this.#move('running');
    this.outgoing = new Outgoing(this, file, this.#isChecked, this.#skips);
    void this.outgoing.send(from, sha256);
  }

  /** @param {number} count */
  #confirmed(count) {
    this.#checkRunning();
    if (this.outgoing?.window.received(count)) this.end('done', null, count);
    else this.#move('running', count);
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /** @param {Piece} piece */
  #arrived({ offset, data }) {
    this.#checkRunning();
    const sink = /** @type {Sink} */ (this.#sink);
    const incoming = this.#incoming;
    check(this.#isReady, 'the file was not accepted');
    if (!incoming.arrive(offset, data.length)) return; // it has come before
    check(sink.hasRoom, 'too many pieces');
    if (incoming.restarted) {
      incoming.restarted = false;
      sink.restart();
      Transfer.started(this.transfer, 0);
    }
    void this.#write(sink, data);
  }

  /** @param {FileEnd} end */
  #allSent(end) {
    const incoming = this.#incoming;
    if (!this.#isChecked || !this.#isReady || this.#end) return;
    check(
      end.bytes === incoming.arrived && (this.#offer.stream || end.bytes === incoming.size),
      'it ends where it does not end',
    );
    incoming.ends(end.bytes);
    Transfer.ended(this.transfer, end.bytes);
    this.#end = end;
    void this.#write(/** @type {Sink} */ (this.#sink));
  }

  /**
   * Write a piece, behind those before it, and what there is to be done then.
   *
   * @param {Sink} sink
   * @param {Bytes} [data]
   */
  async #write(sink, data) {
    const incoming = this.#incoming;
    const { id } = this;
    try {
      if (data) await sink.write(data);
      const due = incoming.wrote(data?.length ?? 0);
      const { written } = incoming;
      if (written < incoming.size || (this.#isChecked && !this.#end)) {
        if (!this.isRunning || !data) return;
        if (due) this.tell({ type: 'file-received', id, bytes: due });
        this.#move('running', written);
      } else if (!this.#isFinishing) {
        this.#isFinishing = true;
        await this.#finish(sink);
      }
    } catch (error) {
      this.fail(`the recipient cannot write it: ${messageOf(error)}`);
    }
  }

  /**
   * Everything is written: check it, and give it to the application.
   *
   * @param {Sink} sink
   */
  async #finish(sink) {
    const bytes = this.#incoming.size;
    const manifest = this.#offer.manifest ?? 0;
    const sha256 = this.#before?.sha256 ?? (await sink.digest.result());
    if (this.#end && sha256 !== this.#end.sha256) {
      this.#isSpoiled = true;
      this.fail('what arrived does not fit the checksum of the sender');
      return;
    }
    const blob = await sink.finish(this.transfer.mime);
    if (manifest && blob) {
      try {
        const files = await openFolder(blob, manifest);
        Transfer.opened(this.transfer, files);
      } catch (error) {
        this.#violated(error);
      }
    }
    if (this.isRunning) await this.#kept?.arrived(sha256, await sink.digest.cut(bytes - (bytes % BLOCK)).result());
    if (!this.isRunning) return;
    this.tell({ type: 'file-received', id: this.id, bytes });
    this.end('done', null, bytes, blob);
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
   * @returns {Delivery | void}
   */
  tell(message) {
    try {
      return this.peer.sendControl(message instanceof Uint8Array ? message : encodeControl(message));
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
    const { userId, name } = this.transfer;
    reason = clean(reason);
    const text = [what, reason].filter(Boolean).join(': ');
    const kept = this.later && this.isKept;
    const error = Object.assign(new TransferFailed(userId, name, text, { cause }), { kept });
    if (this.end(state, error) && type && this.announced) {
      try {
        this.peer.sendControl(encodeControl({ type, id: this.id, reason }));
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
    const owner = this.#owner;
    const { leftovers } = owner;
    leftovers.delete(this.#key);
    // What has arrived is kept by its own rules (`KeptFile.arrived`).
    if (this.later) this.#kept?.release();
    else if (error || this.file) this.#kept?.forget();
    if (error) {
      const isLeft = state === 'failed' && this.#isKeepable && !this.#isSpoiled && this.#sink?.isBlob && !this.isKept;
      const left = isLeft && this.#sink?.keep();
      if (left) leftovers.set(this.#key, left);
      this.#sink?.discard(error);
    }
    if (state === 'done' && this.isKept) owner.held.add(this.transfer);
    Transfer.move(this.transfer, state, error, transferred, blob);
    this.stir();
    owner.over(this.peer);
    return true;
  }
}
