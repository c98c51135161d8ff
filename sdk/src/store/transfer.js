/**
 * Files between two users: offered, accepted, sent in pieces, confirmed as they are written.
 *
 * Rules of this module:
 *
 * - Everything that is said goes through control messages (`controls`), which arrive once and in order over however many
 *   connections. So a transfer does not notice a path that is lost and mended, and nothing is ever sent twice.
 * - The sender keeps at most `WINDOW` bytes under way beyond what the recipient has confirmed as written, so that a
 *   message waits behind little more. Several files to one peer share that, four at a time; the others wait for their
 *   turn.
 * - An offer goes out when the peer is connected and its program takes files. From then on it ends when the other side is
 *   not the same program any more, or when either has taken leave.
 * - Who ends a transfer before its time says so (`file-cancel`), also when the other side is believed to be gone; so no
 *   end waits for one that has given up. What is said about a transfer that is not known here is ignored.
 * - A peer that breaks the rules of a transfer (a wrong offset, more than was offered or than the window allows, data
 *   before the file was accepted, a confirmation of what was not sent) loses the transfer, and nothing else.
 */
import { FeatureMissing, StateError, TransferFailed, UsageError } from '../errors.js';
import { toBase64url } from '../protocol/codec.js';
import { ID_BYTES, MAX_PIECE, clean, encodeControl, encodePiece, safeMime, safeName } from './controls.js';
import { Callbacks, call } from './feeds.js';

/**
 * @import { AldisError } from '../errors.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Control, FileOffer, FileWord, Piece } from './controls.js'
 */

/** The most that is under way to one peer, in bytes. */
export const WINDOW = 1024 * 1024;
/** How many bytes more have to be written for another confirmation. */
export const CONFIRM = 256 * 1024;
/** How many files may be on offer or under way from one peer. */
export const MAX_OPEN = 64;
const AT_ONCE = WINDOW / CONFIRM; // a share of the window is never less than CONFIRM, or the two sides would wait
const MAX_PIECES = 1024; // that are not written yet; honest ones fill the window with 16
// What a browser shows without running anything that is in it. All else is bytes, whatever the sender says.
const HARMLESS = /^(audio|video)\/|^image\/(?!svg)|^text\/plain$/;

/**
 * @typedef {'offered' | 'running' | 'done' | 'declined' | 'cancelled' | 'failed'} TransferState
 *   `declined`: by the recipient. `cancelled`: by either side, on purpose, or because something failed at the other side.
 *   `failed`: something failed here, or the other side is gone.
 */

/**
 * @typedef {object} Route The way to the peers.
 * @property {(userId: string, control: Bytes) => unknown} sendControl Queue a control message. Throws `AldisError`.
 * @property {(userId: string) => readonly string[] | null} features What the peer's program can do; null while it is not
 *   connected.
 * @property {(userId: string) => void} open Have the peer called, from now on for as long as `Transfers.busy`. Throws
 *   where that is in vain.
 */

/**
 * What is known of a transfer from the beginning.
 *
 * @typedef {{ id: string, userId: string, direction: 'in' | 'out', name: string, size: number, mime: string }} Facts
 */

/**
 * What is known of a transfer, and changes.
 *
 * @typedef {object} Job
 * @property {Transfer} transfer
 * @property {Blob | null} file What is sent; null when it is received.
 * @property {Callbacks<Transfer>} callbacks
 * @property {(error: AldisError | null) => void} settle
 * @property {boolean} announced The offer has gone out, or come in.
 * @property {number} moved How much was sent, or has arrived.
 * @property {number} confirmed How much the recipient has said that it has.
 * @property {Bytes[]} parts What has arrived and is not written yet.
 * @property {WritableStreamDefaultWriter<Bytes>} [writer] Where it is written, instead of into the blob.
 * @property {() => void} stir There is something to do, or to end.
 */

/** @param {Job} job */
const isRunning = ({ transfer }) => transfer.state === 'running';
/** @param {Job} job */
const isOpen = (job) => job.transfer.state === 'offered' || isRunning(job);

/**
 * A file on its way to or from another user.
 *
 * `id`: its name between the two programs. `userId`: the other user. `name`: that of the file, safe to be used in a
 * folder. `size` in bytes. `mime`: the type of the content, as the sender says.
 */
export class Transfer {
  /** How it stands. @type {TransferState} @readonly */
  state = 'offered';
  /** How many bytes the recipient has written. @type {number} @readonly */
  transferred = 0;
  /** Why the file does not arrive; null as long as it may, and when it has. @type {AldisError | null} @readonly */
  error = null;
  /**
   * What was received, once it is done and unless it went to a sink. Its `type` is `mime` for pictures (not SVG), sound,
   * video and plain text only: nothing that a stranger sends should run when somebody opens it.
   * @type {Blob | null}
   * @readonly
   */
  blob = null;
  /** @type {Callbacks<Transfer>} */
  #callbacks;
  #act;

  /**
   * @param {Facts} facts
   * @param {Callbacks<Transfer>} callbacks
   * @param {Promise<void>} finished
   * @param {{ accept(sink?: WritableStream<Bytes>): void, end(state: 'declined' | 'cancelled', reason?: string): void }} act
   */
  constructor({ id, userId, direction, name, size, mime }, callbacks, finished, act) {
    this.id = id;
    this.userId = userId;
    this.direction = direction;
    this.name = name;
    this.size = size;
    this.mime = mime;
    /** Resolves when the file is whole and written; rejects with `error`, which nobody has to handle. */
    this.finished = finished;
    this.#callbacks = callbacks;
    this.#act = act;
  }

  /**
   * Take the file. Nothing happens when the transfer is over already.
   *
   * @param {{ sink?: WritableStream<Bytes> }} [options] Where to write it, instead of into `blob`; closed at the end, and
   *   aborted when the file does not arrive.
   * @throws {StateError} for a file of our own, or one that was accepted before.
   */
  accept({ sink } = {}) {
    this.#act.accept(sink);
  }

  /**
   * Refuse the file; the sender is told the reason. Nothing happens when the transfer is over already.
   *
   * @param {string} [reason]
   * @throws {StateError} for a file of our own, or one that was accepted before: `cancel` it.
   */
  decline(reason) {
    this.#act.end('declined', reason);
  }

  /**
   * Give up, as sender or as recipient; the other side is told the reason. Nothing happens when the transfer is over.
   *
   * @param {string} [reason]
   */
  cancel(reason) {
    this.#act.end('cancelled', reason);
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it.
   *
   * @param {(transfer: Transfer) => void} run
   */
  subscribe(run) {
    const unsubscribe = this.#callbacks.add(run);
    call(run, this);
    return unsubscribe;
  }
}

/** All transfers of one store. */
export class Transfers {
  #route;
  #onFile;
  /** @type {Map<string, Job[]>} those that are not over, by user, in the order in which they were begun */
  #jobs = new Map();

  /**
   * @param {Route} route
   * @param {Callbacks<Transfer>} onFile They are told of what others offer; while there are none, offers are declined.
   */
  constructor(route, onFile) {
    this.#route = route;
    this.#onFile = onFile;
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /**
   * Offer a file.
   *
   * @param {string} userId
   * @param {Blob} file
   * @param {{ name?: string }} [options]
   * @returns {Transfer}
   */
  send(userId, file, { name } = {}) {
    if (!(file instanceof Blob)) {
      throw new UsageError('neither a File nor a Blob');
    }
    const id = toBase64url(crypto.getRandomValues(new Uint8Array(ID_BYTES)));
    const given = name ?? /** @type {Partial<File>} */ (file).name ?? '';
    const job = this.#add(userId, { type: 'file-offer', id, name: given, size: file.size, mime: file.type }, file);
    try {
      this.#route.open(userId);
    } catch (error) {
      this.#end(job, 'failed', `${error}`);
      throw error;
    }
    this.#announce(userId);
    return job.transfer;
  }

  // --- from the store ------------------------------------------------------------------------------------------------

  /**
   * Whether a connection with this user is needed. An offer that nobody has answered needs none: else strangers could
   * make us call them.
   *
   * @param {string} userId
   */
  busy(userId) {
    return this.#of(userId).some((job) => job.file || isRunning(job));
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {string} userId
   * @param {readonly string[]} _features
   */
  connected(userId, _features) {
    this.#announce(userId);
  }

  /**
   * What is under way with this user will not get any further.
   *
   * @param {string} userId
   * @param {AldisError} error
   * @param {boolean} [restarted] Somebody else has taken the peer's place, to whom what was not offered yet can be.
   */
  ended(userId, error, restarted = false) {
    const { reason } = /** @type {{ reason?: string }} */ (/** @type {unknown} */ (error));
    for (const job of this.#of(userId)) {
      if (job.announced || !restarted) {
        this.#giveUp(job, 'failed', reason ?? error.message);
      }
    }
  }

  /**
   * The peer's store has said something.
   *
   * @param {string} userId
   * @param {Control} control
   */
  received(userId, control) {
    if (control.type === 'file-offer') {
      this.#offered(userId, control);
      return;
    }
    const job = this.#of(userId).find((job) => job.transfer.id === control.id && job.announced);
    if (!job) {
      return;
    }
    // What is said twice, or by the wrong side, changes nothing.
    switch (control.type) {
      case 'file-cancel':
        this.#end(job, 'cancelled', words('cancelled by the other side', control.reason));
        break;
      case 'file-decline':
        if (job.file) {
          this.#end(job, 'declined', words('declined', control.reason));
        }
        break;
      case 'file-accept':
        if (job.file && !isRunning(job)) {
          this.#change(job, { state: 'running' });
          this.#read(job, job.file);
        }
        break;
      case 'file-received':
        if (job.file) {
          this.#confirmed(job, control.bytes);
        }
        break;
      case 'piece':
        if (!job.file) {
          this.#arrived(job, control);
        }
    }
  }

  /** End everything. */
  close() {
    for (const job of [...this.#jobs.values()].flat()) {
      this.#end(job, 'failed', 'the store was closed');
    }
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  /**
   * Offer what waits for that, as far as the other side will take it.
   *
   * @param {string} userId
   */
  #announce(userId) {
    const features = this.#route.features(userId);
    const sending = features ? this.#of(userId).filter((job) => job.file) : [];
    for (const [index, job] of sending.entries()) {
      const { id, name, size, mime } = job.transfer;
      if (!features?.includes('files')) {
        this.#end(job, 'failed', new FeatureMissing(userId, 'files'));
      } else if (!job.announced && isOpen(job) && index < MAX_OPEN) {
        job.announced = true;
        this.#tell(job, { type: 'file-offer', id, name, size, mime });
      }
    }
  }

  /**
   * Send a file that was accepted.
   *
   * @param {Job} job
   * @param {Blob} file
   */
  async #read(job, file) {
    const { id, size } = job.transfer;
    try {
      while (isRunning(job) && job.moved < size) {
        const room = this.#room(job);
        if (!room) {
          await stirred(job);
          continue;
        }
        const data = new Uint8Array(await file.slice(job.moved, job.moved + room).arrayBuffer());
        for (let start = 0; start < data.length && isRunning(job); start += MAX_PIECE) {
          const piece = data.subarray(start, start + MAX_PIECE);
          this.#tell(job, encodePiece(id, job.moved, piece));
          job.moved += piece.length;
        }
      }
    } catch {
      // Browsers notice that a file has changed on the disk, and do not say more than this.
      this.#giveUp(job, 'failed', 'the file has changed, or is gone');
    }
  }

  /**
   * How much of a file may be sent now, in whole pieces, the last one aside.
   *
   * @param {Job} job
   */
  #room(job) {
    const running = this.#of(job.transfer.userId).filter((other) => other.file && isRunning(other));
    if (running.indexOf(job) >= AT_ONCE) {
      return 0;
    }
    const left = job.transfer.size - job.moved;
    const allowed = job.confirmed + Math.floor(WINDOW / Math.min(running.length, AT_ONCE)) - job.moved;
    return left <= allowed ? left : Math.max(allowed - (allowed % MAX_PIECE), 0);
  }

  /**
   * @param {Job} job
   * @param {number} bytes
   */
  #confirmed(job, bytes) {
    if (!isRunning(job) || bytes > job.moved || bytes < job.confirmed) {
      this.#violated(job);
      return;
    }
    job.confirmed = bytes;
    if (bytes === job.transfer.size) {
      this.#end(job, 'done', null, { transferred: bytes });
    } else {
      this.#change(job, { transferred: bytes });
    }
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /**
   * @param {string} userId
   * @param {FileOffer} offer
   */
  #offered(userId, offer) {
    const jobs = this.#of(userId);
    const { id } = offer;
    if (jobs.some((job) => job.transfer.id === id)) {
      return; // random ids do not meet by chance
    }
    const many = jobs.filter((job) => !job.file).length >= MAX_OPEN;
    if (many || !this.#onFile.size) {
      const reason = many ? 'too many files are on offer' : 'this program takes no files';
      this.#say(userId, { type: 'file-decline', id, reason });
      return;
    }
    this.#onFile.tell(this.#add(userId, offer, null).transfer);
  }

  /**
   * @param {Job} job
   * @param {Piece} piece
   */
  #arrived(job, { offset, data }) {
    const end = offset + data.length;
    const allowed = Math.min(job.confirmed + WINDOW, job.transfer.size);
    if (!isRunning(job) || offset !== job.moved || end > allowed || job.parts.length >= MAX_PIECES) {
      this.#violated(job);
      return;
    }
    job.moved = end;
    job.parts.push(data);
    job.stir();
  }

  /**
   * Take a file.
   *
   * @param {Job} job
   * @param {WritableStream<Bytes>} [sink]
   */
  #accept(job, sink) {
    checkOffered(job);
    if (isOpen(job)) {
      job.writer = sink?.getWriter();
      this.#change(job, { state: 'running' });
      this.#tell(job, { type: 'file-accept', id: job.transfer.id });
      this.#write(job).catch((error) => {
        this.#giveUp(job, 'failed', `the recipient cannot write it: ${error?.message ?? error}`);
      });
    }
  }

  /**
   * Receive a file.
   *
   * @param {Job} job
   */
  async #write(job) {
    const { writer } = job;
    const { id, userId, size, mime } = job.transfer;
    /** @type {Blob[]} */
    const blobs = [];
    /** @type {Bytes[]} */
    let held = [];
    let written = 0;
    while (isRunning(job) && written < size) {
      const part = job.parts.shift();
      if (!part) {
        await stirred(job);
        continue;
      }
      await (writer ? writer.write(part) : held.push(part));
      written += part.length;
      if (written - job.confirmed >= CONFIRM || written === size) {
        blobs.push(new Blob(held)); // out of the memory of scripts
        held = [];
        job.confirmed = written;
        if (written < size && isRunning(job)) {
          this.#tell(job, { type: 'file-received', id, bytes: written });
        }
      }
      if (isRunning(job)) {
        this.#change(job, { transferred: written });
      }
    }
    if (isRunning(job)) {
      await writer?.close();
    }
    if (isRunning(job)) {
      this.#say(userId, { type: 'file-received', id, bytes: size });
      const type = HARMLESS.test(mime) ? mime : '';
      this.#end(job, 'done', null, { transferred: size, blob: writer ? null : new Blob(blobs, { type }) });
    }
  }

  // --- both ----------------------------------------------------------------------------------------------------------

  /** @param {string} userId */
  #of(userId) {
    return [...(this.#jobs.get(userId) ?? [])];
  }

  /**
   * @param {string} userId
   * @param {FileOffer} offer
   * @param {Blob | null} file
   */
  #add(userId, { id, name, size, mime }, file) {
    const callbacks = /** @type {Callbacks<Transfer>} */ (new Callbacks());
    /** @type {Job['settle']} */
    let settle = () => {};
    /** @type {Promise<void>} */
    const finished = new Promise((resolve, reject) => {
      settle = (error) => (error ? reject(error) : resolve());
    });
    finished.catch(() => {});
    const direction = file ? 'out' : 'in';
    const facts = /** @type {const} */ ({ id, userId, direction, name: safeName(name), size, mime: safeMime(mime) });
    const transfer = new Transfer(facts, callbacks, finished, {
      accept: (sink) => this.#accept(job, sink),
      end: (state, reason = '') => {
        if (state === 'declined') {
          checkOffered(job);
        }
        this.#giveUp(job, state, words(state, reason), reason);
      },
    });
    /** @type {Job} */
    const job = {
      transfer,
      file,
      callbacks,
      settle,
      announced: !file,
      moved: 0,
      confirmed: 0,
      parts: [],
      stir: () => {},
    };
    this.#jobs.set(userId, [...this.#of(userId), job]);
    return job;
  }

  /**
   * Say something; what keeps it from being said is returned.
   *
   * @param {string} userId
   * @param {FileWord | Bytes} word
   * @returns {AldisError | undefined}
   */
  #say(userId, word) {
    try {
      this.#route.sendControl(userId, word instanceof Uint8Array ? word : encodeControl(word));
    } catch (error) {
      return /** @type {AldisError} */ (error);
    }
    return undefined;
  }

  /**
   * Say something without which the transfer cannot go on.
   *
   * @param {Job} job
   * @param {FileWord | Bytes} word
   */
  #tell(job, word) {
    const error = this.#say(job.transfer.userId, word);
    if (error) {
      this.#end(job, 'failed', error.message);
    }
  }

  /** @param {Job} job */
  #violated(job) {
    this.#giveUp(job, 'failed', 'the other side breaks the protocol');
  }

  /**
   * End a transfer from this side, and say so.
   *
   * @param {Job} job
   * @param {'declined' | 'cancelled' | 'failed'} state
   * @param {string} why
   * @param {string} [told] What the other side hears instead.
   */
  #giveUp(job, state, why, told = why) {
    const { id, userId } = job.transfer;
    if (isOpen(job)) {
      if (job.announced) {
        this.#say(userId, { type: state === 'declined' ? 'file-decline' : 'file-cancel', id, reason: clean(told) });
      }
      this.#end(job, state, why);
    }
  }

  /**
   * A transfer is over, unless it was already.
   *
   * @param {Job} job
   * @param {TransferState} state
   * @param {string | AldisError | null} why
   * @param {Partial<Transfer>} [more]
   */
  #end(job, state, why, more) {
    const { userId, name } = job.transfer;
    if (!isOpen(job)) {
      return;
    }
    const error = typeof why === 'string' ? new TransferFailed(userId, name, why) : why;
    const others = this.#of(userId).filter((other) => other !== job);
    this.#jobs.set(userId, others);
    if (!others.length) {
      this.#jobs.delete(userId);
    }
    job.parts = [];
    if (error) {
      job.writer?.abort(error).catch(() => {});
    }
    job.settle(error);
    this.#change(job, { state, error, ...more });
    // It may be their turn now.
    others.forEach((other) => other.stir());
    queueMicrotask(() => this.#announce(userId));
  }

  /**
   * @param {Job} job
   * @param {Partial<Transfer>} changes
   */
  #change(job, changes) {
    Object.assign(job.transfer, changes);
    job.stir();
    job.callbacks.tell(job.transfer);
  }
}

/** @param {Job} job */
function checkOffered(job) {
  if (job.file || isRunning(job)) {
    throw new StateError('the file is not on offer');
  }
}

/**
 * Until something has changed.
 *
 * @param {Job} job
 * @returns {Promise<void>}
 */
const stirred = (job) => new Promise((resolve) => (job.stir = resolve));

/**
 * @param {string} what
 * @param {string} reason
 */
const words = (what, reason) => (clean(reason) ? `${what}: ${clean(reason)}` : what);
