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

/** @typedef {{ path: string, blob: Blob }} FolderFile A file of a folder, and where it belongs. */

/**
 * @typedef {object} TransferOwner What a transfer asks of its `job.Job`; see the methods of `Transfer`.
 * @property {string | null} device
 * @property {boolean} canKeep
 * @property {boolean} needsDirect
 * @property {(sink: WritableStream<Bytes> | undefined, hold: boolean) => void} accept
 * @property {(reason: string) => void} decline
 * @property {(reason: string) => void} cancel
 * @property {() => Promise<void>} release
 */

/**
 * A file on its way to or from another user. Its properties are there to be read; `subscribe` tells when they change.
 *
 * `id`: its name between the two programs. `userId`: the other user. `name`: that of the file, safe to be used in a
 * folder. `size` in bytes; null for a stream that has not ended. `mime`: the type of the content, as the sender says.
 * `isFolder`: it is a folder; `size` includes the list of its files.
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
  isFolder;
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
  /** @type {number | null} */
  #size;
  #transferred = 0;
  #resumed = 0;
  #kept = false;
  #keptProblem = '';
  /** @type {AldisError | null} */
  #error = null;
  /** @type {Blob | null} */
  #blob = null;
  /** @type {readonly FolderFile[]} */
  #files = [];
  /** @type {Callbacks<Transfer>} */
  #watchers = new Callbacks();
  #owner;

  /**
   * @param {TransferOwner} owner
   * @param {string} userId
   * @param {'in' | 'out'} direction
   * @param {Omit<FileOffer, 'type'>} offer
   */
  constructor(owner, userId, direction, { id, name, size, mime, manifest, stream }) {
    this.id = id;
    this.userId = userId;
    this.direction = direction;
    this.name = safeName(name);
    this.#size = stream ? null : size;
    this.isFolder = !!manifest;
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

  get size() {
    return this.#size;
  }

  /** How it stands. */
  get state() {
    return this.#state;
  }

  /** How many bytes the recipient has written, as far as it is known here. */
  get transferred() {
    return this.#transferred;
  }

  /** How many bytes the recipient had from an earlier transfer. */
  get resumed() {
    return this.#resumed;
  }

  /**
   * Whether the journal has all that the next page needs to go on: it does so by itself (`onResumedFile`). Of what is sent it
   * has a copy then. Of what has arrived it has all, until `release`.
   */
  get kept() {
    return this.#kept;
  }

  /** Why it is not kept, in plain words; empty when it is, when nobody tries, and while it is being copied. */
  get keptProblem() {
    return this.#keptProblem;
  }

  /** Whether the journal would keep it, if it is accepted now and without a sink. */
  get canKeep() {
    return this.#owner.canKeep;
  }

  /**
   * Whether it waits for a direct path: it is too large for the relay, which is all that there is now. It changes with the
   * `path` of the peer, of which the state of the store tells.
   */
  get needsDirect() {
    return this.#owner.needsDirect;
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

  /** The files of a folder that was received, once it is done. Their paths are safe to be used. */
  get files() {
    return this.#files;
  }

  /**
   * Take the file. Nothing happens when the transfer is over already. What an earlier transfer of it has left is not sent
   * again, unless there is a `sink`.
   *
   * @param {{ sink?: WritableStream<Bytes>, hold?: boolean }} [options] `sink`: where to write it, instead of into `blob`;
   *   closed at the end, and aborted when the file does not arrive. `hold`: with a journal, it stays there when it has arrived,
   *   until `release`. false
   * @throws {StateError} for a file of our own, or one that was accepted before.
   * @throws {ConfigError} for what is no stream, or one that is in use; for a folder with a sink.
   */
  accept(options) {
    const { sink, hold } = settings(
      { sink: /** @type {WritableStream<Bytes> | undefined} */ (undefined), hold: false },
      options,
    );
    if (sink && (!sink.getWriter || sink.locked)) throw new ConfigError('sink', 'not a free WritableStream');
    if (sink && this.isFolder) throw new ConfigError('sink', 'a folder cannot go into a stream');
    this.#owner.accept(sink, hold);
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
   * You have what has arrived (`hold`): the journal need not keep it any more. `blob` stays as long as the page.
   *
   * @returns {Promise<void>} Resolves when the next page does not get it any more; rejects with `JournalError`, which nobody
   *   has to handle, when the journal cannot be written now.
   */
  release() {
    const released = this.#owner.release();
    released.catch(() => {});
    return released;
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
   * A stream has ended after so many bytes.
   *
   * @param {Transfer} transfer
   * @param {number} size
   */
  static ended(transfer, size) {
    transfer.#size = size;
  }

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

  /**
   * The recipient has kept so much of it.
   *
   * @param {Transfer} transfer
   * @param {number} resumed
   */
  static started(transfer, resumed) {
    transfer.#resumed = resumed;
    Transfer.move(transfer, transfer.#state, null, resumed);
  }

  /**
   * Whether the journal keeps it.
   *
   * @param {Transfer} transfer
   * @param {boolean} kept
   * @param {string} [problem]
   */
  static kept(transfer, kept, problem = '') {
    transfer.#kept = kept;
    transfer.#keptProblem = problem;
    transfer.#watchers.tell(transfer);
  }

  /**
   * These are the files of the folder.
   *
   * @param {Transfer} transfer
   * @param {readonly FolderFile[]} files
   */
  static opened(transfer, files) {
    transfer.#files = files;
  }
}
