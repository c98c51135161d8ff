/**
 * All transfers of one store: which files are on offer or under way with which peer.
 *
 * What a transfer does, and the rules, are in `transfer`.
 */
import { UsageError } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { toBase64url } from '../../protocol/codec.js';
import { ID_BYTES } from '../messages/control.js';
import { Transfer } from './transfer.js';

/** @import { Callbacks } from '../../client/callbacks.js' */
/** @import { AldisError } from '../../errors.js' */
/** @import { ControlMessage, FileOffer } from '../messages/control.js' */
/** @import { Peer } from '../peers/peer.js' */

/** How many files may be on offer or under way from one peer. */
export const MAX_OPEN = 64;

/** All transfers of one store. */
export class FileService {
  #onFile;
  /** @type {Map<Peer, Set<Transfer>>} those that are not over */
  #open = new Map();

  /**
   * @param {Callbacks<Transfer>} onFile They are told of what others offer; while there are none, offers are declined.
   */
  constructor(onFile) {
    this.#onFile = onFile;
  }

  /**
   * Offer a file.
   *
   * @param {Peer} peer
   * @param {Blob} file
   * @param {{ name?: string }} [options]
   * @returns {Transfer}
   */
  send(peer, file, { name = /** @type {Partial<File>} */ (file).name ?? '' } = {}) {
    if (!(file instanceof Blob)) {
      throw new UsageError('no File or Blob');
    }
    const { size, type: mime } = file;
    const transfer = this.#add(peer, { id: toBase64url(randomBytes(ID_BYTES)), name, size, mime }, file);
    try {
      peer.call();
    } catch (error) {
      transfer.cancel();
      throw error;
    }
    this.connected(peer);
    return transfer;
  }

  /**
   * Whether a connection with this user is needed. An offer that nobody has answered needs none: else strangers could
   * make us call them.
   *
   * @param {Peer} peer
   */
  busy(peer) {
    return this.#of(peer).some(({ direction, state }) => direction === 'out' || state === 'running');
  }

  /**
   * The peer is connected, now or again: offer what waits for that.
   *
   * @param {Peer} peer
   */
  connected(peer) {
    const { features } = peer;
    if (features) {
      this.#of(peer).forEach((transfer) => Transfer.offer(transfer, features));
    }
  }

  /**
   * What is under way with this user will not get any further.
   *
   * @param {Peer} peer
   * @param {AldisError} error
   * @param {boolean} [restarted] Somebody else has taken the peer's place, to whom what was not offered yet can be.
   */
  ended(peer, error, restarted) {
    this.#of(peer).forEach((transfer) => Transfer.lost(transfer, error, restarted));
    if (!this.#open.get(peer)?.size) {
      this.#open.delete(peer);
    }
  }

  /**
   * The peer's store has said something.
   *
   * @param {Peer} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    const all = this.#of(peer);
    const known = all.find(({ id }) => id === control.id);
    if (known) {
      Transfer.hear(known, control);
    } else if (control.type === 'file-offer') {
      const transfer = this.#add(peer, control, null);
      if (all.filter(({ direction }) => direction === 'in').length >= MAX_OPEN) {
        transfer.decline('too many files');
      } else if (this.#onFile.size) {
        this.#onFile.tell(transfer);
      } else {
        transfer.decline('no files here');
      }
    }
  }

  /** End everything. */
  close() {
    for (const peer of this.#open.keys()) {
      this.#of(peer).forEach(Transfer.close);
    }
  }

  /** @param {Peer} peer */
  #of(peer) {
    return [...(this.#open.get(peer) ?? [])];
  }

  /**
   * @param {Peer} peer
   * @param {Omit<FileOffer, 'type'>} offer
   * @param {Blob | null} file
   */
  #add(peer, offer, file) {
    const all = this.#open.get(peer) ?? new Set();
    this.#open.set(peer, all);
    return new Transfer(peer, all, offer, file);
  }
}
