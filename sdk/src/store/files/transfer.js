/**
 * One file on its way, as the application sees it.
 *
 * Rules: what it tells is what its owner (`job`) has last said of it; what is asked of it is passed on there.
 * An application need not ask what becomes of it, and a failure that nobody asks for complains nowhere.
 */
import { Callbacks } from '../../client/callbacks.js';
import { settings } from '../../client/settings.js';
import { ConfigError } from '../../errors.js';
import { bind } from '../../proxies.js';
import { safeMime, safeName } from './names.js';

/**
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { FileOffer } from '../messages/control.js'
 */

/**
 * @typedef {'offered' | 'running' | 'done' | 'declined' | 'cancelled' | 'failed'} TransferState
 *   `declined`: by the recipient. `cancelled`: by either side, on purpose, or because something failed at the other side.
 *   `failed`: something failed here, or the other side is gone.
 */

/**
 * @typedef {object} TransferOwner What a transfer asks of its `job.Job`; see the methods of `Transfer`.
 * @property {string | null} device
 * @property {(sink: WritableStream<Bytes> | undefined) => void} accept
 * @property {(reason: string) => void} decline
 * @property {(reason: string) => void} cancel
 */

/**
 * A file on its way to or from another user. Its properties are there to be read; `subscribe` tells when they change.
 *
 * `id`: its name between the two programs. `userId`: the other user. `name`: that of the file, safe to be used in a
 * folder. `size` in bytes. `mime`: the type of the content, as the sender says.
 *
 * What is for `Job` alone is static, so that applications do not see it at their transfers.
 */
export class Transfer {
  // As fields, since TypeScript takes `@readonly` for no property that a constructor makes.
  /** @readonly */
  id;
  /** @readonly */
  userId;
  /** @readonly */
  direction;
  /** @readonly */
  name;
  /** @readonly */
  size;
  /** @readonly */
  mime;
  /**
   * Resolves when the file is whole and written; rejects with `error`, which nobody has to handle.
   *
   * @readonly
   * @type {Promise<void>}
   */
  finished;
  /** @type {TransferState} */
  #state = 'offered';
  #transferred = 0;
  /** @type {AldisError | null} */
  #error = null;
  /** @type {Blob | null} */
  #blob = null;
  /** @type {Callbacks<Transfer>} */
  #watchers = new Callbacks();
  #owner;

  /**
   * @param {TransferOwner} owner
   * @param {string} userId
   * @param {'in' | 'out'} direction
   * @param {Omit<FileOffer, 'type'>} offer
   */
  constructor(owner, userId, direction, { id, name, size, mime }) {
    this.id = id;
    this.userId = userId;
    this.direction = direction;
    this.name = safeName(name);
    this.size = size;
    this.mime = safeMime(mime);
    this.finished = new Promise((resolve, reject) => {
      this.#watchers.add(({ state, error }) => (error ? reject(error) : state === 'done' && resolve()));
    });
    this.finished.catch(() => {});
    this.#owner = owner;
    bind(this, 'Transfer');
  }

  /** The other user's device; null before the file was offered to one. */
  get device() {
    return this.#owner.device;
  }

  /** How it stands. */
  get state() {
    return this.#state;
  }

  /** How many bytes the recipient has written, as far as it is known here. */
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
   * @throws {ConfigError} for what is no stream, or one that is in use.
   */
  accept(options) {
    const { sink } = settings({ sink: /** @type {WritableStream<Bytes> | undefined} */ (undefined) }, options);
    if (sink && (!sink.getWriter || sink.locked)) throw new ConfigError('sink', 'not a free WritableStream');
    this.#owner.accept(sink);
  }

  /**
   * Refuse the file; the sender is told the reason. Nothing happens when the transfer is over already.
   *
   * @param {string} [reason]
   * @throws {StateError} for a file of our own, or one that was accepted before: `cancel` it.
   */
  decline(reason = '') {
    this.#owner.decline(reason);
  }

  /**
   * Give up, as sender or as recipient; the other side is told the reason. Nothing happens when the transfer is over.
   *
   * @param {string} [reason]
   */
  cancel(reason = '') {
    this.#owner.cancel(reason);
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

  // --- for `Job` -----------------------------------------------------------------------------------------------------

  /**
   * Something has changed.
   *
   * @param {Transfer} transfer
   * @param {TransferState} state
   * @param {AldisError | null} error
   * @param {number} [transferred]
   * @param {Blob | null} [blob]
   */
  static move(transfer, state, error, transferred = transfer.#transferred, blob = null) {
    transfer.#state = state;
    transfer.#error = error;
    transfer.#transferred = transferred;
    transfer.#blob = blob;
    transfer.#watchers.tell(transfer);
  }
}
