/**
 * All transfers of one store: which files are on offer or under way with which peer.
 *
 * Rules of this module:
 *
 * - An offer goes out when the peer is connected, its program takes files, and fewer than `MAX_OPEN` are on offer. When
 *   another program has taken the other side's place, it is offered once more what it can resume, and the rest ends.
 *   A goodbye of either ends all, but for what the journal keeps (`kept`): that is offered again when the other side is back.
 * - Of transfers that fail, what has arrived is kept for a while in memory (`leftovers`).
 * - What is said about a transfer that is not known here is ignored.
 *
 * The course of one transfer is in `job`. This module does not know connections, nor where the user wants to have a
 * file.
 */
import { settings } from '../../client/settings.js';
import { FeatureMissing, PeerBlocked, SignalingError, StateError, TransferFailed } from '../../errors.js';
import { FILES, FILES_2, FILES_3 } from '../../protocol/names.js';
import { safeType } from './disk.js';
import { folderOf, openFolder } from './folder.js';
import { Job, Jobs, newId } from './job.js';
import { KeptTransfers } from './kept.js';
import { Leftovers } from './leftovers.js';
import { MAX_MANIFEST } from './manifest.js';
import { Transfer } from './transfer.js';
import { MAX_OPEN } from './window.js';

/**
 * @import { Callbacks } from '../../client/callbacks.js'
 * @import { AldisError } from '../../errors.js'
 * @import { ControlMessage, FileOffer } from '../messages/control.js'
 * @import { PeerDevice } from '../peers/device.js'
 * @import { ServiceCallbacks } from '../services.js'
 * @import { Found } from './folder.js'
 * @import { FileRecord } from './kept.js'
 * @import { FolderFile } from './transfer.js'
 */

/** What is not kept has no limits. @type {Pick<ServiceCallbacks, 'onResumedFile' | 'journal' | 'limits'>} */
const ALONE = {};

export class FileService {
  #onFile;
  #onResumed;
  #limits;
  #journal;
  leftovers = new Leftovers();
  kept;
  #restored = false;
  /** What has arrived, and is in the journal until the application has it. @type {Set<Transfer>} */
  held = new Set();
  /** @type {Map<PeerDevice, Jobs>} */
  #jobs = new Map();

  /**
   * @param {Callbacks<Transfer>} onFile They are told of what others offer; while there are none, offers are declined.
   * @param {Pick<ServiceCallbacks, 'onResumedFile' | 'journal' | 'limits'>} [setup] `onResumedFile` are told of what goes on from
   *   an earlier page, or from before the other side has left.
   */
  constructor(onFile, { onResumedFile, journal, limits } = ALONE) {
    this.#onFile = onFile;
    this.#onResumed = onResumedFile;
    this.#limits = limits;
    this.#journal = journal;
    this.kept = journal && limits ? new KeptTransfers(journal.files, limits) : null;
    if (journal) {
      journal.files.expire = () => this.#expire();
      journal.files.clockWasSet = (step) => this.#clockWasSet(step);
    }
  }

  /** Those that are not over, and those that have arrived and are held. */
  get transfers() {
    return [...this.held, ...this.#open.flatMap((job) => (job.isSilent ? [] : job.transfer))];
  }

  /**
   * The store is about to connect: go on with what the journal has.
   *
   * @param {(userId: string, device: string | null) => PeerDevice} find May throw `AldisError`.
   */
  async restore(find) {
    const { kept } = this;
    if (this.#restored || !kept) return;
    this.#restored = true;
    for (const record of kept.idle('in')) {
      if (record.sha256 !== undefined && !record.empty) await this.#hold(kept, record);
    }
    for (const record of kept.idle('out')) {
      const { userId, device, id: resumes } = record;
      try {
        const peer = find(userId, device);
        const job = this.#add(peer, { ...record, id: newId(), resumes }, new Blob());
        job.addressed = device !== null;
        job.begun = record.begun;
        job.file = (await job.keep(record)?.content()) ?? new Blob();
        this.#onResumed?.tell(job.transfer);
        if (job.file.size !== record.size) job.fail('the page ended before this browser had a copy of it');
      } catch (error) {
        console.warn(`a file for ${userId} stays in the journal: ${error}`);
      }
    }
    this.#expire();
  }

  /**
   * The application has not said yet that it has this one.
   *
   * @param {KeptTransfers} kept
   * @param {FileRecord} record
   */
  async #hold(kept, record) {
    const { userId, device, manifest, size, mime } = record;
    const release = () => {
      this.held.delete(transfer);
      return file.handedOver();
    };
    const nothing = () => {};
    const owner = {
      device,
      canKeep: false,
      needsDirect: false,
      accept: nothing,
      decline: nothing,
      cancel: nothing,
      release,
    };
    const transfer = new Transfer(owner, userId, 'in', record);
    const file = kept.add('in', record, ({ isKept, problem }) => Transfer.kept(transfer, isKept, problem));
    const content = await file.content();
    if (content.size !== size) return file.forget(); // the browser has lost a part of it
    const blob = content.slice(0, size, safeType(mime));
    if (manifest) Transfer.opened(transfer, await openFolder(blob, manifest));
    Transfer.kept(transfer, file.isKept, file.problem);
    Transfer.move(transfer, 'done', null, size, blob);
    this.held.add(transfer);
    this.#onResumed?.tell(transfer);
  }

  /** Give up what has waited for too long. */
  #expire() {
    const age = this.#limits?.queueAge ?? 0;
    const before = Date.now() - age * 1000;
    for (const job of this.#open) {
      if (!job.file || job.begun > before || job.peer.features) continue;
      const { userId, name } = job.transfer;
      const error = new TransferFailed(userId, name, `it has waited for more than ${age} s`);
      job.end('failed', Object.assign(error, { expired: true }));
    }
    this.kept?.expire(before);
  }

  /** The wall clock was set: nothing has grown older by that. @param {number} step In milliseconds. */
  #clockWasSet(step) {
    for (const job of this.#open) job.begun += step;
    this.kept?.clockWasSet(step);
  }

  /**
   * Offer a file, or the files of a folder. Throws `UsageError` for what is neither, and what `PeerDevice.call` throws.
   *
   * @param {PeerDevice} peer
   * @param {Blob | Iterable<File | FolderFile>} content
   * @param {{ name?: string }} [options]
   * @param {boolean} [addressed] Else another device of the user will do as well, while this one has not heard of it.
   * @returns {Transfer}
   */
  send(peer, content, options, addressed = true) {
    const { file, ...found } = content instanceof Blob ? fileOf(content) : folderOf(content);
    const { name } = settings({ name: found.name }, options);
    const id = newId();
    this.#journal?.lookAtClock();
    const job = this.#add(peer, { ...found, id, name, size: file.size, mime: file.type }, file);
    job.addressed = addressed;
    try {
      peer.call();
    } catch (error) {
      job.cancel();
      throw error;
    }
    job.keep();
    this.connected(peer);
    return job.transfer;
  }

  /**
   * Whether a connection with this user is needed. An offer that nobody has answered needs none: else strangers could
   * make us call them.
   *
   * @param {PeerDevice} peer
   */
  busy(peer) {
    return this.#of(peer).some((job) => job.file || job.isRunning);
  }

  /** @param {PeerDevice} peer Whether something was not offered yet, and is not for exactly this device. */
  movable(peer) {
    return this.#of(peer).some(isMovable);
  }

  /**
   * Offer to the other device what was not offered to this one.
   *
   * @param {PeerDevice} peer
   * @param {PeerDevice} other
   */
  moved(peer, other) {
    for (const job of this.#of(peer).filter(isMovable)) job.move(other, this.#all(other));
    if (!this.#of(peer).length) this.#jobs.delete(peer);
    // Later: it may end a transfer, and no callback may come between what moves with it.
    queueMicrotask(() => this.connected(other));
  }

  /**
   * The peer is connected, now or again: offer what waits for that, as far as the other side takes it.
   *
   * @param {PeerDevice} peer
   */
  connected(peer) {
    const { features } = peer;
    if (!features) return;
    if (peer.relayOnly) this.notDirect(peer);
    let announced = 0;
    for (const { stir, file } of this.#told(peer)) {
      if (file) announced++;
      stir(); // it may have waited for this path
    }
    for (const job of this.#jobs.get(peer) ?? []) {
      if (announced >= MAX_OPEN) break;
      if (job.announced || job.isTooLarge) continue;
      const isChecked = features.includes(FILES_2);
      const missing = features.includes(FILES) ? !isChecked && job.transfer.isFolder && FILES_2 : FILES;
      if (missing) job.end('failed', new FeatureMissing(peer.userId, missing));
      else job.announce(isChecked, features.includes(FILES_3));
      if (job.announced) announced++;
    }
  }

  /** A session of the relay begins, and carries the messages from now on. Only while no channel is open. @param {PeerDevice} peer */
  relayed(peer) {
    for (const { outgoing } of this.#told(peer)) outgoing?.relayed();
  }

  /** The peer has acknowledged something. @param {PeerDevice} peer */
  acknowledged(peer) {
    for (const { outgoing } of this.#told(peer)) outgoing?.acknowledged();
  }

  /** There is no direct path: what is too large for the relay, and was not offered yet, fails. @param {PeerDevice} peer */
  notDirect(peer) {
    for (const job of this.#of(peer)) {
      if (!job.announced && job.isTooLarge) job.giveUp('failed', 'it needs a direct path');
    }
  }

  /**
   * What is under way with this user will not get any further.
   *
   * @param {PeerDevice} peer
   * @param {AldisError & { reason?: string }} error
   * @param {boolean | 'same' | 'left'} [restarted] Another program has taken the peer's place, and can be offered what was not
   *   offered yet and, with the same key, what it can resume. Or the peer has left, and may come back.
   */
  ended(peer, error, restarted) {
    const isLeft = restarted === 'left';
    const isOurs = error instanceof StateError || error instanceof SignalingError;
    for (const job of this.#of(peer)) {
      const waits = isLeft ? job.isKept : restarted;
      if (job.file && waits && (!job.announced || (restarted !== true && job.restarted(isLeft)))) continue;
      job.later = isOurs || (!job.file && (isLeft || restarted === 'same'));
      job.fail(error.reason ?? error.message, error);
    }
    if (restarted === true || error instanceof PeerBlocked) this.kept?.forgetAccepted(peer.userId);
  }

  /**
   * The peer's store has said something.
   *
   * @param {PeerDevice} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    const all = this.#told(peer);
    const known = all.find(({ id }) => id === control.id);
    if (known) {
      known.received(control);
    } else if (control.type === 'file-offer') {
      const job = this.#add(peer, control, null);
      const { transfer } = job;
      const before = this.kept?.taken(job.record);
      const { version, size, manifest = 0, stream } = control;
      const isOdd = manifest > Math.min(size, MAX_MANIFEST) || (stream && (size || manifest));
      if (all.filter(({ file }) => !file).length >= MAX_OPEN) transfer.decline('too many files');
      else if (isOdd || ((manifest || stream) && !version)) transfer.decline('no file, folder or stream');
      else if (before) this.#goOn(job, before);
      else if (this.#onFile.size) this.#onFile.tell(transfer);
      else transfer.decline('no files here');
    }
  }

  /**
   * What is on offer was accepted before.
   *
   * @param {Job} job
   * @param {FileRecord} before
   */
  #goOn(job, before) {
    job.isSilent = before.sha256 !== undefined; // the application has it
    void job.resume(before);
    if (!job.isSilent) this.#onResumed?.tell(job.transfer);
  }

  /** End everything. */
  close() {
    for (const job of this.#open) {
      job.later = true;
      job.giveUp('failed', 'the store was closed', '', null);
    }
  }

  get #open() {
    return [...this.#jobs.values()].flatMap((all) => [...all]);
  }

  /** @param {PeerDevice} peer */
  #of(peer) {
    return [...(this.#jobs.get(peer) ?? [])];
  }

  /** @param {PeerDevice} peer Those that the other side knows of: few, however many wait. */
  #told(peer) {
    return [...(this.#jobs.get(peer)?.told ?? [])];
  }

  /**
   * @param {PeerDevice} peer
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file
   */
  #add(peer, offer, file) {
    return new Job(peer, offer, file, this.#all(peer), this);
  }

  /** @param {PeerDevice} peer */
  #all(peer) {
    const all = this.#jobs.get(peer) ?? new Jobs();
    this.#jobs.set(peer, all);
    return all;
  }

  /** @param {PeerDevice} peer A transfer with it is over. */
  over(peer) {
    const others = this.#all(peer);
    if (!others.size) this.#jobs.delete(peer);
    others.told.forEach(({ stir }) => stir()); // it may be their turn now
    // Not from within: the end of one that is not offered would be the end of the next one.
    if (others.size > others.told.size) queueMicrotask(() => this.connected(peer));
    peer.reconsider();
  }
}

/**
 * @param {Blob} file
 * @returns {Found}
 */
function fileOf(file) {
  const { name = '', lastModified } = /** @type {Partial<File>} */ (file);
  // What is no file is nowhere else.
  return { file, name, version: lastModified ? `${lastModified}-${file.size}` : newId() };
}

/** @param {Job} job */
const isMovable = ({ addressed, announced }) => !(addressed || announced);
