/**
 * The transfers of one store, or of two that hear each other, with nothing between them.
 */
import assert from 'node:assert/strict';
import { Callbacks } from '../../src/client/callbacks.js';
import { decodeControl } from '../../src/store/messages/control.js';
import { storeLimits } from '../../src/store/state.js';
import { FileService } from '../../src/store/files/service.js';

export const ID = 'AAECAwQFBgc';

/** One store, the other user of which is called `peer`. */
export class Side {
  /** @type {readonly string[] | null} */
  features = ['files'];
  /** @type {Uint8Array[]} */
  sent = [];
  /** What is not acknowledged. @type {[any, any][]} */
  waiting = [];
  /** What is said does not get through. */
  isSilent = false;
  #deliveries = new WeakMap();
  limit = Infinity;
  opened = 0;
  reconsidered = 0;
  /** @type {Error | null} */
  refusal = null;
  onFile = new Callbacks();
  /** @type {Side | null} */
  other = null;

  /** What the service sees of the peer. */
  peer;

  onResumedFile = new Callbacks();

  /** @param {any} [journal] @param {any} [limits] */
  constructor(journal, limits) {
    const side = this;
    const { onResumedFile } = this;
    this.transfers = new FileService(this.onFile, { onResumedFile, journal, limits: storeLimits(limits) });
    this.peer = {
      userId: 'peer',
      name: 'main',
      get features() {
        return side.features;
      },
      get fileLimit() {
        return side.limit;
      },
      relayOnly: false,
      sendControl(bytes) {
        if (side.refusal) throw side.refusal;
        const delivery = { done: false, sent: false, delivered: false };
        side.#deliveries.set(bytes, delivery);
        side.sent.push(bytes);
        if (side.other) side.deliver();
        else queueMicrotask(() => side.#acknowledge(delivery));
        return delivery;
      },
      messages: {
        takeBack(back) {
          assert.ok(!back.some(({ done }) => done));
          side.waiting = side.waiting.filter(([delivery]) => !back.includes(delivery));
        },
      },
      call() {
        if (side.refusal) throw side.refusal;
        side.opened++;
      },
      reconsider: () => void side.reconsidered++,
    };
  }

  /** Hand what was said to the other side, if there is one. */
  deliver() {
    const { other } = this;
    while (other && this.sent.length) {
      const bytes = /** @type {any} */ (this.sent.shift());
      const control = decodeControl(bytes);
      if (!control) continue;
      this.waiting.push([this.#deliveries.get(bytes), control]);
      queueMicrotask(() => this.#arrive(other));
    }
  }

  /** @param {Side} other */
  #arrive(other) {
    if (this.isSilent || !this.waiting.length) return;
    const [delivery, control] = /** @type {[any, any]} */ (this.waiting.shift());
    other.transfers.received(other.peer, control);
    this.#acknowledge(delivery);
  }

  /** @param {any} delivery */
  #acknowledge(delivery) {
    delivery.done = delivery.delivered = true;
    this.transfers.acknowledged(this.peer);
  }

  /** A session of the relay begins, with a server that takes files of so many bytes. @param {number} limit */
  relay(limit) {
    this.limit = limit;
    this.transfers.relayed(this.peer);
    this.#connect();
  }

  /** There is a direct path again. */
  direct() {
    this.limit = Infinity;
    this.#connect();
  }

  #connect() {
    this.isSilent = false;
    for (const _ of this.waiting) queueMicrotask(() => this.#arrive(/** @type {Side} */ (this.other)));
    this.transfers.connected(this.peer);
  }

  /** The pieces that wait. */
  get pieces() {
    return this.waiting.filter(([, { type }]) => type === 'piece');
  }

  /** What was said since, for a side that stands alone. */
  take() {
    return this.sent.splice(0).map((bytes) => decodeControl(/** @type {any} */ (bytes)));
  }

  /** @param {any} control */
  hear(control) {
    this.transfers.received(this.peer, control);
  }

  /** @param {any[]} controls */
  hearAll(...controls) {
    controls.forEach((control) => this.hear(control));
  }
}

/** Two stores. */
export function pair() {
  const [alice, bob] = [new Side(), new Side()];
  alice.other = bob;
  bob.other = alice;
  return [alice, bob];
}

/**
 * @param {number} size
 * @param {string} [type]
 */
export function fileOf(size, type = 'image/png') {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 31 + (index >> 8)) % 256);
  return { bytes, file: new File([bytes], 'a.png', { type }) };
}

/** Until everything that can happen without anybody's doing has happened. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/**
 * @param {() => boolean} holds
 */
export async function until(holds) {
  for (let round = 0; !holds(); round++) {
    assert.ok(round < 10_000, 'it did not come true');
    await settle();
  }
}

/** @param {any} piece */
export const piece = (piece) => ({ type: 'piece', id: ID, offset: 0, data: new Uint8Array(1), ...piece });
export const offer = { type: 'file-offer', id: ID, name: 'a.bin', size: 10, mime: '' };

/** A side to which a file of `size` bytes was offered. @param {number} size */
export function offered(size) {
  const side = new Side();
  /** @type {any[]} */
  const files = [];
  side.onFile.add((transfer) => files.push(transfer));
  side.hear({ ...offer, size });
  return { side, transfer: files[0] };
}
