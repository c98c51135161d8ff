/** What a program of a `crash_world` has: a journal's backend that is done when it is told so, and a line to each device. */
import { JournalDiskFull, ProtocolViolation } from '../../src/errors.js';
import { decode, encodeHello } from '../../src/protocol/channel.js';
import { MemoryBlocks } from '../../src/store/journal/memory.js';
import { storeLimits } from '../../src/store/state.js';

export const LIMITS = storeLimits({ unreadMessages: 8 });
const FULL = new JournalDiskFull('test', 'has no room');

/** Which message this is, or the first piece of; null for what is none of the application's. */
export const keyOf = (data) => {
  const found = /^(\d+):/.exec(new TextDecoder().decode(data.subarray(0, 20)));
  return found && Number(found[1]);
};

/** A backend whose disk is done when it is told so. */
export class HeldBackend {
  name = 'test';
  onLost = () => {};
  blocks = new MemoryBlocks();
  broken = false; // the disk is full for good
  #held = [];

  constructor(rows, onWritten) {
    this.rows = rows;
    this.onWritten = onWritten;
  }

  async load() {
    return structuredClone([...this.rows].sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  write(rows) {
    if (this.broken) return Promise.reject(FULL);
    const copy = structuredClone(rows);
    return new Promise((resolve, reject) => this.#held.push({ rows: copy, resolve, reject }));
  }

  run() {
    for (const { rows, resolve } of this.#held.splice(0)) {
      for (const [key, value] of rows) {
        if (value === undefined) this.rows.delete(key);
        else this.rows.set(key, value);
      }
      this.onWritten(rows);
      resolve();
    }
  }

  fail() {
    for (const { reject } of this.#held.splice(0)) reject(FULL);
  }

  /** The program is dead: it hears nothing any more. */
  die() {
    this.#held = [];
    this.write = () => new Promise(() => {});
  }

  close() {}
}

/** What a program says to one device: the stream, and a path for it. */
export class Line {
  wire = [];
  room = 0;
  greeted = false;

  constructor(journal, mailbox, userId, name, onFrame) {
    this.owner = { userId, name };
    this.onFrame = onFrame;
    this.stream = journal.stream(this.owner, {
      limits: LIMITS,
      path: this,
      recipient: mailbox,
      control: () => {},
      timers: { time: () => 0, callLater: () => () => {} },
    });
  }

  sendFrame(frame) {
    if (!this.greeted || !this.room) return false;
    this.room--;
    this.#put(frame);
    return true;
  }

  /** There is room again, and the time to acknowledge has come. */
  sendsWhatIsDue() {
    this.stream.flush();
    this.stream.pump();
  }

  combines() {
    return true;
  }

  #put(frame) {
    this.onFrame(frame);
    this.wire.push(frame);
  }

  connect() {
    this.lose();
    this.#put(encodeHello(this.stream.hello()));
  }

  lose() {
    this.wire = [];
    this.greeted = false;
    this.stream.closed();
  }

  /** False when the channel has to begin anew. */
  arrive(data) {
    const frame = decode(data);
    if (frame.type !== 'hello') {
      this.stream.received(frame);
      return true;
    }
    this.greeted = true;
    try {
      this.stream.opened(frame);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      return false;
    }
    return true;
  }
}
