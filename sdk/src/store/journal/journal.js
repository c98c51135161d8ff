/**
 * The durable queues of one user's device at one server: what it has to send, what has arrived and was not handed over,
 * and where each stream stands.
 *
 * Rules of this module:
 *
 * - What is to change is gathered (`write`) while a change before is written; one transaction makes all of it. So a busy
 *   store makes few large ones, and an idle one loses no time.
 * - Only a transaction with messages, sent or arrived, is strict: their senders may forget them then. That anything else
 *   is lost in a power cut costs a message that is sent again and skipped, or given to the application once more.
 * - When a transaction fails, new messages fail with it. All else is written later: with the next message, and every
 *   `RETRY` seconds.
 * - One store has it. It is closed with that.
 *
 * Keys: `w` whose it is; `g` up to which place the application may have had messages; `s/STREAM` one stream of ours,
 * `o/STREAM/NUMBER` a message in it; `p/USER/DEVICE` how far their streams have arrived; `i/PLACE` a message that has;
 * `f/NAME` a file that is under way.
 */
import { timers } from '../../client/timers.js';
import { JournalCorrupt, JournalError, JournalForeign, JournalInUse, StateError } from '../../errors.js';
import { decode } from '../messages/content.js';
import { digits } from './backend.js';
import { content, text, whole } from './checked.js';
import { JournalFiles } from './files.js';
import { JournalMailbox } from './mailbox.js';
import { JournalStream } from './stream.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { StreamPosition } from '../../protocol/channel.js'
 * @import { Received } from '../messages/content.js'
 * @import { QueuedMessage } from '../messages/mailbox.js'
 * @import { StreamOwner, StreamSeams } from '../messages/stream.js'
 * @import { Peer } from '../peers/peer.js'
 * @import { PeerServices } from '../services.js'
 * @import { StoreLimits } from '../state.js'
 * @import { JournalBackend, Row } from './backend.js'
 * @import { Kept } from './queues.js'
 * @import { StoredStream, StreamRow } from './stream.js'
 */

/** @typedef {Omit<QueuedMessage, 'redelivered'>} ArrivedRow */
/** @typedef {{ stream: JournalStream, kept: Kept, place: number, message: ArrivedRow | null }} Arrival */
/** @typedef {{ peer: (userId: string) => Peer, publish: () => void, handOver: () => void, loadServices: () => Promise<PeerServices> }} Peers */

const RETRY = 5; // seconds
const EXPIRY = 3600; // seconds; how often it is looked at what has waited for too long
const STEP = 24 * 3600 * 1000; // milliseconds; see `lookAtClock`
/** How many messages the application may have before the journal has to be told again. */
const AHEAD = 64;
/**
 * Numbers of a stream that have no message, when a journal is loaded: each takes some 100 bytes. Control messages leave a
 * few hundred, messages that have moved to another device so many at most; a damaged number leaves any.
 */
const MAX_VOIDS = 2 ** 20;
/** Devices whose streams are known. Only the last few can still send something that was seen here. */
const MAX_POSITIONS = 4096;

class Batch {
  /** By key; a function gives the value at the moment of writing. @type {Map<string, unknown>} */
  rows = new Map();
  /** Up to which number what is queued is in it. @type {Map<JournalStream, number>} */
  queued = new Map();
  /** @type {Arrival[]} */
  arrived = [];
  /** The streams that may send all that they have when it is written. @type {Set<JournalStream>} */
  freed = new Set();
  /** See `Journal.leave`. @type {[key: string, settle: (error: JournalError | null) => void][]} */
  left = [];
  given = 0;
  strict = false;
}

export class Journal {
  /** Why it cannot be written now. @type {JournalError | null} */
  error = null;
  /** This run of the program. */
  run = crypto.randomUUID();
  /** Files under way. */
  files;
  #backend;
  #batch = new Batch();
  /** What is being written. @type {Batch | null} */
  #flying = null;
  /** @type {Promise<void> | null} */
  #writing = null;
  #scheduled = false;
  #closed = false;
  /** It was let go of. @type {JournalError | null} */
  #gone = null;
  #cancelRetry = () => {};
  #cancelExpiry = () => {};
  /** @type {(() => Peers) | null} */
  #peers = null;
  /** @type {JournalMailbox | null} */
  #mailbox = null;
  /** @type {unknown} */
  #owner;
  #given = 0; // all up to this place the application may have
  #had = 0; // the last one that it had
  #place = 0; // the last one that was used
  /** @type {Map<string, StreamPosition[]>} */
  #positions = new Map();
  /** What is not in the hands of a `JournalStream` yet, by address; as a rule one. @type {Map<string, StoredStream[]>} */
  #stored = new Map();
  /** @type {Map<number, ArrivedRow>} */
  #unread = new Map();
  /** @type {Set<JournalStream>} */
  #streams = new Set();
  #ahead = Date.now() - performance.now();

  /** @param {JournalBackend} backend */
  constructor(backend) {
    this.#backend = backend;
    this.files = new JournalFiles(this, backend.blocks);
    backend.onLost = (error) => this.#failed(error);
  }

  /**
   * Called by `openJournal`, and by tests.
   *
   * @param {JournalBackend} backend
   */
  static async open(backend) {
    const journal = new Journal(backend);
    try {
      await journal.#load();
    } catch (error) {
      backend.close();
      throw error;
    }
    return journal;
  }

  async #load() {
    /** @type {Map<string, StoredStream>} */
    const streams = new Map();
    for (const [key, value] of await this.#backend.load()) {
      try {
        this.#read(key, value, streams);
      } catch (cause) {
        throw new JournalCorrupt(this.name, `is damaged at '${key}'`, { cause });
      }
    }
    for (const [stream, stored] of streams) {
      const { userId, device, messages, last } = stored;
      const [first = 0] = messages.keys();
      const missing = Math.max(last, [...messages.keys()].at(-1) ?? 0) - first - messages.size;
      if (messages.size && missing > MAX_VOIDS)
        throw new JournalCorrupt(this.name, `is damaged: numbers of ${stream} are missing`);
      const address = `${userId}/${device ?? ''}`;
      if (messages.size && !userId) throw new JournalCorrupt(this.name, `is damaged: nobody has the stream ${stream}`);
      if (messages.size) this.#stored.set(address, [...(this.#stored.get(address) ?? []), stored]);
      else this.write(`s/${stream}`, undefined); // a new one begins with the next message
    }
    this.files.loaded();
    this.#place = Math.max(this.#given, [...this.#unread.keys()].at(-1) ?? 0);
    this.#had = this.#given;
  }

  /**
   * @param {string} key
   * @param {any} value
   * @param {Map<string, StoredStream>} streams
   */
  #read(key, value, streams) {
    const [kind, ...names] = key.split('/');
    const [name = '', number = ''] = names;
    switch (kind) {
      case 'w':
        this.#owner = text(value);
        break;
      case 'g':
        this.#given = whole(value);
        break;
      case 'i':
        for (const each of [value.sender, value.device, value.stream]) text(each);
        this.#unread.set(whole(+name), { ...content(value), sequence: whole(value.sequence) });
        break;
      case 'p':
        this.#positions.set(
          `${name}/${number}`,
          value.map((/** @type {any} */ { stream, sequence }) => ({ stream: text(stream), sequence: whole(sequence) })),
        );
        break;
      case 'f':
        this.files.records.set(key.slice(2), value);
        break;
      case 's':
        stored(streams, name, { ...value, userId: text(value.userId), last: whole(value.last) });
        if (value.sent !== undefined) whole(value.sent);
        if (value.device !== null) text(value.device);
        break;
      case 'o':
        whole(value.queuedAt);
        stored(streams, name, {}).messages.set(whole(+number), content(value));
    }
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /** For people: what it was opened as. */
  get name() {
    return this.#backend.name;
  }

  /** What waits to be delivered, of this run of the program and of earlier ones. `queuedAt`: milliseconds since 1970. */
  get queued() {
    return [...this.#streams].flatMap((stream) =>
      stream.waitingMessages.map(({ delivery, queuedAt, content, data }) => ({
        userId: delivery.userId,
        delivery,
        queuedAt,
        content: /** @type {Received} */ (decode(content, data)),
      })),
    );
  }

  /** Forget everything. The journal is closed then. Only when no store has it. Rejects with `JournalError`. */
  async erase() {
    if (this.#peers) throw new StateError('a store has the journal');
    await this.#writing;
    await this.#backend.erase();
    this.#closed = true;
    this.#backend.close();
  }

  /**
   * Write what is to be written, and let go of it: now, or when the application has handed over what it has. A store does
   * this when it is closed. May be called again.
   */
  async close() {
    this.lookAtClock();
    this.#closed = true;
    this.#cancelExpiry();
    this.#cancelRetry();
    if (this.#given > this.#had) this.#batch.rows.set('g', this.#had); // it is known exactly now
    await this.#flush();
    let left = false;
    const leave = () => {
      if (!left) void this.#flush().then(() => this.#letGo());
      left = true;
    };
    if (!this.#mailbox) leave();
    else this.#mailbox.whenIdle(leave);
    if (left) await this.#flush();
  }

  #letGo() {
    this.#backend.close();
    this.#gone = new JournalInUse(this.name, 'is closed');
    for (const [, settle] of this.#batch.left.splice(0)) settle(this.#gone); // nobody writes it any more
  }

  /**
   * The page goes away: a browser makes no transaction that waits for another. So what waits is written now, with what that
   * one has; again if the page stays. What the application may have, and has not got, is marked anew.
   */
  hurry() {
    this.lookAtClock();
    const [flying, batch] = [this.#flying, this.#batch];
    if (Math.max(this.#given, flying?.given ?? 0, batch.given) > this.#had) {
      this.write('g', (this.#given = this.#had));
      for (const each of [flying, batch]) if (each) each.given = 0;
    }
    if (!flying || !batch.rows.size) return;
    this.#backend.write(made(new Map([...flying.rows, ...batch.rows])), flying.strict || batch.strict).catch(() => {});
  }

  async #flush() {
    do {
      await this.#writing;
      this.#commit();
    } while (this.#writing && !this.error);
    await this.#writing;
  }

  // --- for the store -------------------------------------------------------------------------------------------------

  #expireLater() {
    this.#cancelExpiry = timers.callLater(EXPIRY, () => {
      for (const stream of this.#streams) stream.expire();
      this.lookAtClock();
      this.files.expire();
      this.#expireLater();
    });
  }

  /**
   * The store is about to connect: bring back what waits. Throws `JournalForeign`, and `StateError` when it is closed.
   *
   * @param {Pick<SignalingClient, 'server' | 'userId' | 'device'>} client
   * @returns {Promise<void> | undefined} Files take a while: the part of the SDK for them is loaded. Rejects with
   *   `LoadFailed`.
   */
  claim({ server, userId, device }) {
    if (this.#closed) throw new StateError('the journal was closed');
    const owner = `${userId}/${device} at ${server}`;
    if (this.#owner === undefined) this.write('w', (this.#owner = owner));
    if (this.#owner !== owner) throw new JournalForeign(this.name, `belongs to ${this.#owner}, not to ${owner}`);
    for (const { userId: peer, device: name } of [...this.#stored.values()].flat()) {
      try {
        this.#peers?.().peer(peer).device(name);
      } catch (error) {
        // It stays where it is, and comes back another time.
        console.warn(`what waits for ${peer} stays in the journal: ${error}`);
      }
    }
    this.#cancelExpiry();
    this.#expireLater();
    return this.files.restore(this.#peers?.());
  }

  /**
   * A store has taken it.
   *
   * @param {StoreLimits} limits
   * @param {() => Peers} peers
   */
  mailbox(limits, peers) {
    if (this.#mailbox || this.#closed) throw new StateError('a journal is for one store; open it again');
    this.#peers = peers;
    this.#mailbox = new JournalMailbox(this, limits, () => peers().handOver());
    for (const [place, message] of this.#unread) {
      this.#mailbox.reserve(message.data.length);
      this.#mailbox.put({ ...message, place, redelivered: place <= this.#given });
    }
    this.#unread.clear();
    return this.#mailbox;
  }

  /**
   * The messages between us and a device.
   *
   * @param {StreamOwner} owner
   * @param {StreamSeams} seams
   */
  stream(owner, seams) {
    const address = `${owner.userId}/${owner.name ?? ''}`;
    const stored = this.#stored.get(address) ?? [];
    this.#stored.delete(address);
    const stream = new JournalStream(owner, seams, this, stored);
    if (stored.length) this.#streams.add(stream);
    return stream;
  }

  // --- for the streams and the mailbox -------------------------------------------------------------------------------

  /** Nothing of a stream waits any more. @param {JournalStream} stream */
  emptied(stream) {
    this.#streams.delete(stream);
  }

  /** What waits, of all streams. @returns {[messages: number, size: number]} */
  get waiting() {
    let messages = 0;
    let size = 0;
    for (const { outbox } of this.#streams) {
      messages += outbox.messages;
      size += outbox.size;
    }
    return [messages, size];
  }

  /**
   * See whether the wall clock was set by `STEP` or more: nothing is older by that. (Sleep makes smaller steps, where
   * `performance.now()` does not count it.) To be called before anything begins to wait, and before the end of the page.
   */
  lookAtClock() {
    const before = this.#ahead;
    this.#ahead = Date.now() - performance.now();
    const step = Math.round(this.#ahead - before);
    if (Math.abs(step) < STEP) return;
    for (const stream of this.#streams) stream.clockWasSet(step);
    this.files.clockWasSet(step);
  }

  /** How far the streams of a device had arrived. @param {string} address */
  positions(address) {
    return this.#positions.get(address) ?? [];
  }

  /**
   * Have a row written, soon.
   *
   * @param {string} key
   * @param {unknown} value undefined: there is none any more. A function gives it at the moment of writing.
   */
  write(key, value) {
    this.#batch.rows.set(key, value);
    this.#soon();
  }

  /**
   * A message is queued, or a number used.
   *
   * @param {JournalStream} stream
   * @param {number} number
   * @param {boolean} isMessage
   */
  accepted(stream, number, isMessage) {
    this.#streams.add(stream);
    stream.reserve(number);
    this.#batch.queued.set(stream, number);
    this.#batch.strict ||= isMessage;
    this.#soon(isMessage);
  }

  /**
   * The numbers behind this one may be those of other messages now: they do not count as stored when what they were is.
   *
   * @param {JournalStream} stream
   * @param {number} number
   */
  notBeyond(stream, number) {
    for (const batch of [this.#batch, this.#flying]) {
      if (batch && number < (batch.queued.get(stream) ?? 0)) batch.queued.set(stream, number);
    }
  }

  /**
   * Call `freed` when all that was said so far is written.
   *
   * @param {JournalStream} stream
   */
  free(stream) {
    this.#batch.freed.add(stream);
  }

  /**
   * A row that is being written, and is another's business from now on: one that cannot be written is removed.
   *
   * @param {string} key
   * @param {(error: JournalError | null) => void} settle Hears why it was not written; null: it was.
   */
  leave(key, settle) {
    if (this.#gone) return settle(this.#gone);
    const batch = this.#batch.rows.has(key) ? this.#batch : (this.#flying ?? this.#batch);
    batch.left.push([key, settle]);
  }

  /**
   * Something has arrived.
   *
   * @param {JournalStream} stream
   * @param {Kept} kept
   * @param {ArrivedRow | null} message null: one of the programs', which is done with.
   */
  arrived(stream, kept, message) {
    const batch = this.#batch;
    if (!message && !batch.arrived.length && !this.#writing) {
      stream.keptByJournal(kept);
      return;
    }
    const place = message ? ++this.#place : 0;
    batch.arrived.push({ stream, kept, place, message });
    if (message) {
      const { sender, device, stream: name, sequence, content, data } = message;
      batch.strict = true;
      batch.rows.set(`i/${digits(place)}`, { sender, device, stream: name, sequence, content, data });
      this.#keepPositions(stream);
      this.#mailbox?.reserve(data.length);
      if (this.#mailbox?.eager) this.#mark(place);
    }
    this.#soon();
  }

  /** @param {JournalStream} stream */
  #keepPositions(stream) {
    const { address } = stream;
    const before = this.positions(address);
    this.#positions.delete(address);
    this.#positions.set(address, before); // as the last one
    this.#batch.rows.set(`p/${address}`, () => {
      const { reached } = stream;
      if (this.#positions.has(address)) this.#positions.set(address, reached);
      return reached;
    });
    const [oldest = ''] = this.#positions.keys();
    if (this.#positions.size > MAX_POSITIONS) {
      this.#positions.delete(oldest);
      this.#batch.rows.set(`p/${oldest}`, undefined);
    }
  }

  /** @param {number} place */
  mayGive(place) {
    if (place > this.#given && place > this.#batch.given) this.#mark(Math.min(place + AHEAD, this.#place));
    if (place > this.#given) return false;
    this.#had = Math.max(this.#had, place);
    return true;
  }

  /** The application may have all up to this place, as soon as that is written. @param {number} place */
  #mark(place) {
    this.#batch.given = place;
    this.write('g', place);
  }

  /** @param {number} place */
  handedOver(place) {
    this.write(`i/${digits(place)}`, undefined);
  }

  // --- writing -------------------------------------------------------------------------------------------------------

  /** @param {boolean} [urgent] Somebody waits for it, also while the journal cannot be written. */
  #soon(urgent = false) {
    if (this.#scheduled || this.#writing || this.#closed || (this.error && !urgent)) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#commit();
    });
  }

  #commit() {
    const batch = this.#batch;
    if (this.#writing || !(batch.rows.size || batch.queued.size || batch.arrived.length)) return;
    this.#batch = new Batch();
    this.#flying = batch;
    this.#cancelRetry();
    this.#writing = this.#backend.write(made(batch.rows), batch.strict).then(
      () => this.#written(batch),
      (error) => this.#notWritten(batch, error),
    );
  }

  /** @param {Batch} batch */
  #written(batch) {
    this.#writing = this.#flying = null;
    for (const [, settle] of batch.left) settle(null);
    if (this.error) {
      this.error = null;
      this.#peers?.().publish();
    }
    this.#given = Math.max(this.#given, batch.given);
    for (const stream of batch.freed) stream.freed();
    for (const [stream, number] of batch.queued) stream.stored(number);
    for (const { stream, kept } of batch.arrived) stream.keptByJournal(kept);
    for (const { place, message } of batch.arrived) {
      if (message) this.#mailbox?.put({ ...message, place });
    }
    for (const stream of new Set(batch.arrived.map((each) => each.stream))) stream.acknowledge();
    this.#mailbox?.serve();
    this.#commit();
  }

  /**
   * @param {Batch} batch
   * @param {unknown} cause
   */
  #notWritten(batch, cause) {
    const error = cause instanceof JournalError ? cause : new JournalError(this.name, `cannot be written: ${cause}`);
    const later = this.#batch;
    // What was to be written then, and has not changed since, is to be written still.
    for (const [key, value] of batch.rows) if (!later.rows.has(key)) later.rows.set(key, value);
    later.arrived.unshift(...batch.arrived);
    for (const stream of batch.freed) later.freed.add(stream);
    later.given = Math.max(later.given, batch.given);
    later.strict ||= batch.strict;
    const streams = new Set([...batch.queued.keys(), ...later.queued.keys()]);
    later.queued.clear();
    this.#flying = null;
    for (const [key, settle] of [...batch.left, ...later.left.splice(0)]) {
      later.rows.set(key, undefined);
      settle(error);
    }
    this.#failed(error);
    for (const stream of streams) stream.notStored(error);
    this.#writing = null;
  }

  /** @param {JournalError} error */
  #failed(error) {
    this.error = error;
    this.#batch.rows.set('w', this.#owner); // there is something to write, so there is a next attempt
    this.#peers?.().publish();
    this.#cancelRetry();
    if (!this.#closed) this.#cancelRetry = timers.callLater(RETRY, () => this.#commit());
  }
}

/** What is to be written, as it is now. @param {Map<string, unknown>} rows @returns {Row[]} */
const made = (rows) => Array.from(rows, ([key, value]) => [key, typeof value === 'function' ? value() : value]);

/**
 * A stream with what waits in it, made when its first row is read.
 *
 * @param {Map<string, StoredStream>} streams
 * @param {string} stream
 * @param {Partial<StreamRow>} row
 * @returns {StoredStream}
 */
function stored(streams, stream, row) {
  const found = streams.get(stream) ?? { userId: '', device: null, last: 0, stream, messages: new Map() };
  streams.set(stream, Object.assign(found, row));
  return found;
}
