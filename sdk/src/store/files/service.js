/**
 * All transfers of one store: which files are on offer or under way with which peer.
 *
 * Rules of this module:
 *
 * - An offer goes out when the peer is connected, its program takes files, and fewer than `MAX_OPEN` are on offer. From
 *   then on it ends when another program has taken the other side's place, or when either side says goodbye.
 * - What is said about a transfer that is not known here is ignored.
 *
 * The course of one transfer is in `job`. This module does not know connections, nor where the user wants to have a
 * file.
 */
import { settings } from '../../client/settings.js';
import { FeatureMissing, UsageError } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { toBase64url } from '../../protocol/codec.js';
import { FILES } from '../../protocol/names.js';
import { ID_BYTES } from '../messages/control.js';
import { Job } from './job.js';
import { MAX_OPEN } from './window.js';

/**
 * @import { Callbacks } from '../../client/callbacks.js'
 * @import { AldisError } from '../../errors.js'
 * @import { ControlMessage, FileOffer } from '../messages/control.js'
 * @import { PeerDevice } from '../peers/device.js'
 * @import { Transfer } from './transfer.js'
 */

export class FileService {
  #onFile;
  /** @type {Map<PeerDevice, Set<Job>>} Those that are not over, in the order in which they were begun. */
  #jobs = new Map();

  /**
   * @param {Callbacks<Transfer>} onFile They are told of what others offer; while there are none, offers are declined.
   */
  constructor(onFile) {
    this.#onFile = onFile;
  }

  /**
   * Offer a file. Throws `UsageError` for what is no file, and what `PeerDevice.call` throws.
   *
   * @param {PeerDevice} peer
   * @param {Blob} file
   * @param {{ name?: string }} [options]
   * @param {boolean} [addressed] Else another device of the user will do as well, while this one has not heard of it.
   * @returns {Transfer}
   */
  send(peer, file, options, addressed = true) {
    if (!(file instanceof Blob)) throw new UsageError('no File or Blob');
    const { name } = settings({ name: /** @type {Partial<File>} */ (file).name ?? '' }, options);
    const { size, type: mime } = file;
    const job = this.#add(peer, { id: toBase64url(randomBytes(ID_BYTES)), name, size, mime }, file);
    job.addressed = addressed;
    try {
      peer.call();
    } catch (error) {
      job.cancel();
      throw error;
    }
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
    const sending = this.#of(peer).filter(({ file }) => file);
    let announced = sending.filter((job) => job.announced).length;
    for (const job of sending) {
      if (job.announced || job.isOver) continue;
      if (!features.includes(FILES)) job.end('failed', new FeatureMissing(peer.userId, FILES));
      else if (announced++ < MAX_OPEN) job.announce();
    }
  }

  /**
   * What is under way with this user will not get any further.
   *
   * @param {PeerDevice} peer
   * @param {AldisError & { reason?: string }} error
   * @param {boolean} [restarted] Another program has taken the peer's place, and can be offered what was not offered
   *   yet.
   */
  ended(peer, error, restarted) {
    for (const job of this.#of(peer)) {
      if (job.announced || !restarted) job.fail(error.reason ?? error.message, error);
    }
  }

  /**
   * The peer's store has said something.
   *
   * @param {PeerDevice} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    const all = this.#of(peer);
    const known = all.find(({ transfer }) => transfer.id === control.id);
    if (known) {
      known.received(control);
    } else if (control.type === 'file-offer') {
      const { transfer } = this.#add(peer, control, null);
      if (all.filter(({ file }) => !file).length >= MAX_OPEN) transfer.decline('too many files');
      else if (this.#onFile.size) this.#onFile.tell(transfer);
      else transfer.decline('no files here');
    }
  }

  /** End everything. */
  close() {
    for (const peer of this.#jobs.keys()) {
      for (const job of this.#of(peer)) job.giveUp('failed', 'the store was closed', '', null);
    }
  }

  /** @param {PeerDevice} peer */
  #of(peer) {
    return [...(this.#jobs.get(peer) ?? [])];
  }

  /**
   * @param {PeerDevice} peer
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file
   */
  #add(peer, offer, file) {
    return new Job(peer, offer, file, this.#all(peer), (peer) => this.#ended(peer));
  }

  /** @param {PeerDevice} peer */
  #all(peer) {
    const all = this.#jobs.get(peer) ?? new Set();
    this.#jobs.set(peer, all);
    return all;
  }

  /** @param {PeerDevice} peer A transfer with it is over. */
  #ended(peer) {
    const others = this.#of(peer);
    if (!others.length) this.#jobs.delete(peer);
    others.forEach(({ stir }) => stir()); // it may be their turn now
    // Not from within: the end of one that is not offered would be the end of the next one.
    if (others.some(({ announced }) => !announced)) queueMicrotask(() => this.connected(peer));
    peer.reconsider();
  }
}

/** @param {Job} job */
const isMovable = ({ addressed, announced }) => !(addressed || announced);
