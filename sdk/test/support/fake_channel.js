/** The data channels of `fake_rtc.js`: they buffer, and close. */
import { fault } from './fake_descriptions.js';

const later = globalThis.setImmediate;

export class FakeChannel {
  readyState = 'connecting';
  binaryType = 'blob';
  bufferedAmount = 0;
  bufferedAmountLowThreshold = 0;
  /** @type {FakeChannel | null} */ peer = null;
  onopen = null;
  onmessage = null;
  onclose = null;
  onbufferedamountlow = null;
  /** As in Chromium, a channel that the other side has made is announced as open before it can send; what is sent before
   *  something has come is gone without a word. */
  unready = false;
  #queue = [];
  #owner;

  constructor(owner, label) {
    this.#owner = owner;
    this.label = label;
  }

  send(data) {
    if (this.readyState !== 'open') throw fault('InvalidStateError', `the channel is ${this.readyState}`);
    if (this.unready) return;
    this.#queue.push(data);
    this.bufferedAmount += data.length;
    if (this.bufferedAmount > 16 * 1024 * 1024) throw fault('OperationError', 'the buffer is full');
    later(() => this.flush());
  }

  flush() {
    if (this.readyState === 'closed' || this.#owner.network.stalled || this.#owner.severed) return;
    const { peer } = this;
    for (const data of this.#queue.splice(0)) {
      const before = this.bufferedAmount;
      this.bufferedAmount -= data.length;
      if (before > this.bufferedAmountLowThreshold && this.bufferedAmount <= this.bufferedAmountLowThreshold) {
        this.onbufferedamountlow?.({});
      }
      if (peer?.readyState === 'open' || peer?.readyState === 'closing') peer.#deliver(data);
    }
    if (this.readyState === 'closing') this.#end();
  }

  #deliver(data) {
    if (typeof data !== 'string' && this.binaryType !== 'arraybuffer') throw new Error('a Blob');
    this.unready = false;
    this.onmessage?.({ data: typeof data === 'string' ? data : Uint8Array.from(data).buffer });
  }

  open() {
    this.readyState = 'open';
    this.onopen?.({});
  }

  close() {
    if (this.readyState === 'closing' || this.readyState === 'closed') return;
    this.readyState = 'closing';
    later(() => this.flush());
  }

  #end() {
    for (const end of [this, this.peer]) {
      if (!end || end.readyState === 'closed' || end.#owner.signalingState === 'closed') continue;
      end.readyState = 'closed';
      later(() => end.onclose?.({}));
    }
  }

  /** The connection is gone. */
  die() {
    this.readyState = 'closed';
  }
}
