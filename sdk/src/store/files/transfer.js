/**
 * Files between two users: offered, accepted, sent in pieces, confirmed as they are written.
 *
 * Rules of this module:
 *
 * - Everything that is said goes through control messages (`control`), which arrive once and in order over however many
 *   connections. So a transfer does not notice a path that is lost and mended, and nothing is ever sent twice.
 * - The sender keeps at most `WINDOW` bytes under way beyond what the recipient has confirmed as written, and sends one
 *   file after the other, so that a message waits behind little more. A file that was accepted waits for its turn.
 * - An offer goes out when the peer is connected and its program takes files. From then on it ends when the other side is
 *   not the same program any more, or when either has taken leave.
 * - Who ends a transfer before its time says so (`file-cancel`), also when the other side is believed to be gone; so no
 *   end waits for one that has given up. What is said about a transfer that is not known here is ignored.
 * - A peer that breaks the rules of a transfer (a wrong offset, more than was offered or than the window allows, data
 *   before the file was accepted, a confirmation of what was not sent) loses the transfer, and nothing else.
 */
import { Callbacks } from '../../client/callbacks.js';
import { FeatureMissing, StateError, TransferFailed } from '../../errors.js';
import { messageOf } from '../../peer/engine.js';
import { clean } from '../../protocol/codec.js';
import { FILES } from '../../protocol/names.js';
import { bind } from '../../proxies.js';
import { MAX_PIECE, encodeControl, encodePiece, safeMime, safeName } from '../messages/control.js';

/**
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { ControlMessage, FileOffer, FileMessage, Piece } from '../messages/control.js'
 * @import { Peer } from '../peers/peer.js'
 */

/** The most that is under way to one peer, in bytes. */
export const WINDOW = 1024 * 1024;
/** How many bytes more have to be written for another confirmation. */
export const CONFIRM = 256 * 1024;
const MAX_UNWRITTEN = 1024; // pieces; honest ones fill the window with 16
// What a browser shows without running anything that is in it. All else is bytes, whatever the sender says.
const HARMLESS = /^(audio|video)\/|^image\/(?!svg)|^text\/plain$/;

/**
 * @typedef {'offered' | 'running' | 'done' | 'declined' | 'cancelled' | 'failed'} TransferState
 *   `declined`: by the recipient. `cancelled`: by either side, on purpose, or because something failed at the other side.
 *   `failed`: something failed here, or the other side is gone.
 */

/**
 * A file on its way to or from another user. Its properties are there to be read; `subscribe` tells when they change.
 *
 * `id`: its name between the two programs. `userId`: the other user. `name`: that of the file, safe to be used in a
 * folder. `size` in bytes. `mime`: the type of the content, as the sender says.
 *
 * What is for `FileService` alone is static, so that applications do not see it at their transfers.
 */
export class Transfer {
  /** @type {TransferState} */
  #state = 'offered';
  #transferred = 0;
  /** @type {AldisError | null} */
  #error = null;
  /** @type {Blob | null} */
  #blob = null;
  /** @type {Callbacks<Transfer>} */
  #watchers = new Callbacks();
  #peer;
  #all;
  #file;
  /** Whether the other side knows of it: the offer has gone out, or come in. */
  #announced;
  /** How much was sent, or has arrived. */
  #moved = 0;
  /** Pieces that have arrived and are not written. */
  #unwritten = 0;
  /** @type {WritableStreamDefaultWriter<Bytes> | undefined} */
  #writer;
  /** What is sent can go on, perhaps. */
  #stir = () => {};

  /**
   * @param {Peer} peer
   * @param {Set<Transfer>} all Those with this user that are not over.
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file What is sent; null when it is received.
   */
  constructor(peer, all, { id, name, size, mime }, file) {
    this.id = id;
    this.userId = peer.userId;
    /** @type {'in' | 'out'} */
    this.direction = file ? 'out' : 'in';
    this.name = safeName(name);
    this.size = size;
    this.mime = safeMime(mime);
    /**
     * Resolves when the file is whole and written; rejects with `error`, which nobody has to handle.
     *
     * @type {Promise<void>}
     */
    this.finished = new Promise((resolve, reject) => {
      this.#watchers.add(({ state, error }) => (error ? reject(error) : state === 'done' && resolve()));
    });
    this.finished.catch(() => {});
    this.#peer = peer;
    this.#all = all.add(this);
    this.#file = file;
    this.#announced = !file;
    bind(this, 'Transfer');
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /** How it stands. */
  get state() {
    return this.#state;
  }

  /** How many bytes the recipient has written, and said so. */
  get transferred() {
    return this.#transferred;
  }

  /** Why the file does not arrive; null as long as it may, and when it has. */
  get error() {
    return this.#error;
  }

  /**
   * What was received, once it is done and unless it went to a sink. Its `type` is `mime` for pictures (not SVG), sound,
   * video and plain text only: nothing that a stranger sends should run when somebody opens it.
   */
  get blob() {
    return this.#blob;
  }

  /**
   * Take the file. Nothing happens when the transfer is over already.
   *
   * @param {{ sink?: WritableStream<Bytes> }} [options] Where to write it, instead of into `blob`; closed at the end, and
   *   aborted when the file does not arrive.
   * @throws {StateError} for a file of our own, or one that was accepted before.
   */
  accept({ sink = this.#toBlob() } = {}) {
    this.#checkOffered();
    if (this.state === 'offered') {
      this.#writer = sink.getWriter();
      this.#change('running');
      this.#tell({ type: 'file-accept', id: this.id });
      void this.#write(0); // there may be nothing to wait for
    }
  }

  /**
   * Refuse the file; the sender is told the reason. Nothing happens when the transfer is over already.
   *
   * @param {string} [reason]
   * @throws {StateError} for a file of our own, or one that was accepted before: `cancel` it.
   */
  decline(reason = '') {
    this.#checkOffered();
    this.#end('declined', clean(reason), 'declined', 'file-decline');
  }

  /**
   * Give up, as sender or as recipient; the other side is told the reason. Nothing happens when the transfer is over.
   *
   * @param {string} [reason]
   */
  cancel(reason = '') {
    this.#end('cancelled', clean(reason), 'cancelled', 'file-cancel');
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it. Bound to its transfer, as `NetworkStore.subscribe`.
   *
   * @param {(transfer: Transfer) => void} run
   * @returns {() => void}
   */
  subscribe(run) {
    return this.#watchers.follow(run, this);
  }

  // --- for `FileService` -----------------------------------------------------------------------------------------------

  /**
   * Offer it, unless that was done before, or it is over.
   *
   * @param {Transfer} transfer
   * @param {readonly string[]} features
   */
  static offer(transfer, features) {
    const { id, userId, name, size, mime, state } = transfer;
    if (!transfer.#announced && state === 'offered') {
      if (features.includes(FILES)) {
        transfer.#announced = true;
        transfer.#tell({ type: 'file-offer', id, name, size, mime });
      } else {
        transfer.#end('failed', new FeatureMissing(userId, FILES));
      }
    }
  }

  /**
   * The other side has said something of it. What is said twice, or by the wrong side, changes nothing.
   *
   * @param {Transfer} transfer
   * @param {ControlMessage} control
   */
  static hear(transfer, control) {
    const file = transfer.#file;
    switch (control.type) {
      case 'file-cancel':
        transfer.#end('cancelled', control.reason, 'cancelled by the other side');
        break;
      case 'file-decline':
        if (file) {
          transfer.#end('declined', control.reason, 'declined');
        }
        break;
      case 'file-accept':
        if (file && !transfer.#isRunning) {
          const before = [...transfer.#all].filter((other) => other.#file && other.#isRunning);
          transfer.#change('running');
          void transfer.#read(file, before);
        }
        break;
      case 'file-received':
        if (file && transfer.#isFair(control.bytes >= transfer.transferred && control.bytes <= transfer.#moved)) {
          transfer.#progress(control.bytes);
        }
        break;
      case 'piece':
        if (!file) {
          transfer.#arrived(control);
        }
    }
  }

  /**
   * See `FileService.ended`.
   *
   * @param {Transfer} transfer
   * @param {AldisError & { reason?: string }} error
   * @param {boolean} [restarted]
   */
  static lost(transfer, error, restarted) {
    if (transfer.#announced || !restarted) {
      transfer.#fail(error.reason ?? error.message, error);
    }
  }

  /**
   * The store goes away; the other side sees that by itself.
   *
   * @param {Transfer} transfer
   */
  static close(transfer) {
    transfer.#end('failed', 'the store was closed');
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  /**
   * Send a file that was accepted.
   *
   * @param {Blob} file
   * @param {Transfer[]} before Whose turn it is.
   */
  async #read(file, before) {
    await Promise.allSettled(before.map(({ finished }) => finished));
    try {
      while (this.#isRunning && this.#moved < this.size) {
        const start = this.#moved;
        const end = Math.min(start + MAX_PIECE, this.size);
        if (end > this.transferred + WINDOW) {
          await new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#stir = resolve));
          continue;
        }
        const data = await file.slice(start, end).arrayBuffer();
        if (this.#isRunning) {
          this.#moved = end;
          this.#tell(encodePiece(this.id, start, new Uint8Array(data)));
        }
      }
    } catch {
      // Browsers notice that a file has changed on the disk, and do not say more than this.
      this.#fail('the file has changed, or is gone');
    }
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /** @param {Piece} piece */
  #arrived({ offset, data }) {
    const end = offset + data.length;
    const most = Math.min(this.transferred + WINDOW, this.size);
    if (this.#isFair(offset === this.#moved && end <= most && this.#unwritten < MAX_UNWRITTEN)) {
      this.#moved = end;
      this.#unwritten++;
      void this.#write(end, data);
    }
  }

  /**
   * Write a piece, behind those before it, and what there is to be done then.
   *
   * @param {number} end
   * @param {Bytes} [data]
   */
  async #write(end, data) {
    const writer = /** @type {WritableStreamDefaultWriter<Bytes>} */ (this.#writer);
    const isWhole = end === this.size;
    try {
      if (data) {
        await writer.write(data);
        this.#unwritten--;
      }
      if (isWhole) {
        await writer.close();
      }
      if (this.#isRunning && (isWhole || end >= this.transferred + CONFIRM)) {
        this.#tell({ type: 'file-received', id: this.id, bytes: end });
        this.#progress(end);
      }
    } catch (error) {
      this.#fail(`the recipient cannot write it: ${messageOf(error)}`);
    }
  }

  /** @returns {WritableStream<Bytes>} */
  #toBlob() {
    /** @type {Blob[]} */
    const parts = []; // out of the memory of scripts
    return new WritableStream({
      write: (part) => void parts.push(new Blob([part])),
      close: () => {
        this.#blob = new Blob(parts, { type: HARMLESS.test(this.mime) ? this.mime : '' });
      },
    });
  }

  #checkOffered() {
    if (this.#file || this.#isRunning) {
      throw new StateError('the file is not on offer');
    }
  }

  // --- both ----------------------------------------------------------------------------------------------------------

  /**
   * It fails here, and the other side is told.
   *
   * @param {string} reason
   * @param {unknown} [cause]
   */
  #fail(reason, cause) {
    this.#end('failed', reason, '', 'file-cancel', cause);
  }

  /**
   * It is over, unless it was before.
   *
   * @param {TransferState} state
   * @param {string | AldisError | null} why
   * @param {string} [prefix] Goes before the reason.
   * @param {'file-cancel' | 'file-decline'} [type] How to tell the other side.
   * @param {unknown} [cause]
   */
  #end(state, why, prefix, type, cause) {
    if (this.#all.delete(this)) {
      const { id, userId, name } = this;
      const reason = clean(typeof why === 'string' ? why : '');
      const text = [prefix, reason].filter(Boolean).join(': ');
      this.#error = typeof why === 'string' ? new TransferFailed(userId, name, text, { cause }) : why;
      if (why !== null) {
        this.#writer?.abort(this.#error).catch(() => {});
      }
      this.#change(state);
      if (type && this.#announced) {
        this.#tell({ type, id, reason });
      }
      this.#peer.dialer.reconsider();
    }
  }

  get #isRunning() {
    return this.state === 'running';
  }

  /** @param {number} bytes */
  #progress(bytes) {
    this.#transferred = bytes;
    if (bytes === this.size) {
      this.#end('done', null);
    } else {
      this.#change(this.state);
    }
  }

  /** @param {TransferState} state */
  #change(state) {
    this.#state = state;
    this.#stir();
    this.#watchers.tell(this);
  }

  /**
   * Say something without which the transfer cannot go on.
   *
   * @param {FileMessage | Bytes} message
   */
  #tell(message) {
    try {
      this.#peer.sendControl(message instanceof Uint8Array ? message : encodeControl(message));
    } catch (error) {
      this.#fail(/** @type {AldisError} */ (error).message, error);
    }
  }

  /**
   * Whether what the other side does is right, and the time for it. It ends the transfer if not.
   *
   * @param {boolean} isRight
   */
  #isFair(isRight) {
    const isFair = isRight && this.#isRunning;
    if (!isFair) {
      this.#fail('the other side breaks the protocol');
    }
    return isFair;
  }
}
