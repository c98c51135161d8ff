/**
 * Transfers that outlive the page: what the journal keeps of them, as records and blocks.
 *
 * Rules of this module:
 *
 * - A page has no paths, and a file that somebody has chosen is a stranger to the next page: so all of its content is copied
 *   into the journal, in blocks. So is what arrives, as it arrives. In Python a path is enough.
 * - All content of one direction may have `limits.journalFileSize` bytes, as its records say: what others send takes no room
 *   from what we send. At most `limits.journalFiles` records of each direction are kept.
 * - What does not fit, and what the browser has no room for, is transferred all the same, and not kept: `problem` says why.
 *   Nothing of it stays then.
 * - A record stays until the transfer ends. The end of the page, and of the other program, do not count as ends.
 * - Of what has arrived the record stays on, with its checksums: a sender that was killed before it heard of the end offers
 *   it once more, and the recipient must not have it twice. Those make room for others first, then what was accepted and
 *   does not come.
 */
import { BLOCK, Digest } from './digest.js';
import { read } from './disk.js';

/**
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { JournalError } from '../../errors.js'
 * @import { JournalFiles } from '../journal/files.js'
 * @import { StoreLimits } from '../state.js'
 */

/**
 * @typedef {object} FileRecord What the journal keeps of a transfer, besides its blocks.
 * @property {string} id With which it was offered first.
 * @property {string} userId
 * @property {string | null} device The one that it is for, or from; null for any.
 * @property {string} name
 * @property {number} size
 * @property {string} mime
 * @property {string} version
 * @property {number} manifest
 * @property {number} begun When, in milliseconds since 1970.
 * @property {boolean} [hold] The application says when it has it.
 * @property {string} [sha256] The checksum, when all of it has arrived.
 * @property {string} [whole] That of its whole blocks.
 * @property {boolean} [empty] The application has it: there are no blocks.
 */

const WORDS = /** @type {const} */ (['id', 'userId', 'name', 'version']);
const NUMBERS = /** @type {const} */ (['size', 'manifest', 'begun']);

/** @param {any} record @returns {record is FileRecord} */
const isRecord = (record) =>
  WORDS.every((name) => typeof record?.[name] === 'string') && NUMBERS.every((name) => record[name] >= 0);

/** @param {FileRecord} one @param {FileRecord} other */
const isSame = (one, other) =>
  /** @type {const} */ (['name', 'size', 'version', 'manifest']).every((each) => one[each] === other[each]);

/** @param {'in' | 'out'} direction @param {FileRecord} record */
const nameOf = (direction, { userId, id }) => (direction === 'in' ? `in/${userId}/${id}` : `out/${id}`);

/** All transfers of a store that its journal keeps. */
export class KeptTransfers {
  /** @type {Map<string, FileRecord>} by name, the oldest first */
  #kept = new Map();
  /** @type {Set<string>} names of those that are under way now */
  #inUse = new Set();
  /** @type {Set<string>} names of those of these that have arrived, and wait for the application to take them */
  #held = new Set();
  #limits;

  /**
   * @param {JournalFiles} files
   * @param {Pick<StoreLimits, 'journalFiles' | 'journalFileSize'>} limits
   */
  constructor(files, limits) {
    this.files = files;
    this.#limits = limits;
    let unreadable = 0;
    for (const [name, record] of files.records) {
      if (isRecord(record)) this.#kept.set(name, record);
      else unreadable += files.remove(name);
    }
    this.#kept = new Map([...this.#kept].sort(([, one], [, other]) => one.begun - other.begun));
    if (unreadable) console.warn(`the journal forgets ${unreadable} files under way that cannot be read`);
  }

  /** What is not under way now, the oldest first. @param {'in' | 'out'} direction */
  idle(direction) {
    return [...this.#kept].flatMap(([name, record]) =>
      name.startsWith(direction) && !this.#inUse.has(name) ? [record] : [],
    );
  }

  /**
   * What was accepted before, if the same is on offer again and is not under way. What is held is not: it has arrived.
   *
   * @param {FileRecord} offered
   */
  taken(offered) {
    const name = nameOf('in', offered);
    const found = this.#kept.get(name);
    const isIdle = !this.#inUse.has(name) || this.#held.has(name);
    return found && isIdle && isSame(found, offered) ? found : null;
  }

  /**
   * Why one cannot be kept; empty when it can.
   *
   * @param {'in' | 'out'} direction
   * @param {number} size
   */
  obstacle(direction, size) {
    const { journalFiles, journalFileSize } = this.#limits;
    if (size > journalFileSize) return `it is larger than what the journal keeps of files, ${journalFileSize} bytes`;
    const others = [...this.#kept].filter(
      ([name]) => name.startsWith(direction) && (this.#inUse.has(name) || direction === 'out'),
    );
    const taken = others.reduce((sum, [, record]) => sum + (record.empty ? 0 : record.size), 0);
    const isFull = others.length >= journalFiles || taken + size > journalFileSize;
    return isFull ? 'the journal keeps as many files as it may' : '';
  }

  /**
   * One is under way from now on.
   *
   * @param {'in' | 'out'} direction
   * @param {FileRecord} record
   * @param {(kept: KeptFile) => void} changed Whether it is kept is another matter now.
   */
  add(direction, record, changed) {
    const name = nameOf(direction, record);
    const kept = new KeptFile(this, name, record, changed);
    const before = this.#kept.get(name);
    const isNew = before !== record;
    const problem = this.#inUse.has(name) ? 'it is under way already' : isNew && this.obstacle(direction, record.size);
    if (problem) return kept.fail(problem);
    if (before && isNew) this.forget(name); // another file under the same id
    if (isNew) this.#makeRoom(direction, record);
    this.#inUse.add(name);
    this.#kept.set(name, record);
    if (isNew) kept.store();
    else kept.isKept = true;
    if (!isNew && record.sha256 !== undefined) this.hold(name);
    return kept;
  }

  /** The journal has all of one, and the application does not have it yet. @param {string} name */
  hold(name) {
    this.#held.add(name);
  }

  /** What makes room for others goes. @param {'in' | 'out'} direction @param {FileRecord} record */
  #makeRoom(direction, { size }) {
    const { journalFiles, journalFileSize } = this.#limits;
    const idle = direction === 'in' ? this.idle(direction) : [];
    for (const each of idle.sort((one, other) => +!one.empty - +!other.empty)) {
      const all = [...this.#kept].filter(([other]) => other.startsWith(direction));
      const bytes = all.reduce((sum, [, record]) => sum + (record.empty ? 0 : record.size), size);
      if (all.length < journalFiles && bytes <= journalFileSize) return;
      this.forget(nameOf(direction, each));
    }
  }

  /** One is not under way any more, and stays. @param {string} name */
  release(name) {
    this.#inUse.delete(name);
    this.#held.delete(name);
  }

  /** One need not be kept any more. @param {string} name */
  forget(name) {
    this.release(name);
    this.#kept.delete(name);
    this.files.remove(name);
  }

  /** What was accepted from a user, and is not under way, is asked for when it comes again. @param {string} userId */
  forgetAccepted(userId) {
    for (const record of this.idle('in')) if (record.userId === userId) this.forget(nameOf('in', record));
  }

  /** Forget what was begun before that time, and is not under way. @param {number} before */
  expire(before) {
    for (const direction of /** @type {const} */ (['in', 'out'])) {
      for (const record of this.idle(direction)) if (record.begun < before) this.forget(nameOf(direction, record));
    }
  }

  /** The wall clock was set: nothing that waits has grown older by that. @param {number} step In milliseconds. */
  clockWasSet(step) {
    for (const [name, record] of this.#kept) {
      record.begun += step;
      void this.files.put(name, record);
    }
  }
}

/** One of them, while it is under way. Of what arrives it is also where that goes. */
export class KeptFile {
  /** The journal has all that the next page needs. */
  isKept = false;
  /** Why it is not, in plain words. */
  problem = '';
  /** What has arrived. @type {Blob[]} */
  parts = [];
  /** How many of these are whole blocks. */
  #blocks = 0;
  #last = 0; // bytes of the parts behind these
  #all;
  #name;
  #record;
  #changed;
  #over = false;
  /** @type {Promise<unknown>} The last block is being written. */
  #writing = Promise.resolve();
  /** That the application has it is being written. @type {Promise<JournalError | null> | null} */
  #handed = null;

  /**
   * @param {KeptTransfers} all
   * @param {string} name
   * @param {FileRecord} record
   * @param {(kept: KeptFile) => void} changed
   */
  constructor(all, name, record, changed) {
    this.#all = all;
    this.#name = name;
    this.#record = record;
    this.#changed = changed;
  }

  /** Have the record written. What arrives is kept from then on, what is sent when it is copied. */
  store() {
    const isWhole = this.#name.startsWith('out/');
    void this.#put().then((written) => {
      if (written && !isWhole && !this.#over) this.#kept(true);
    });
  }

  /** @returns {Promise<boolean>} Whether that was possible. */
  async #put() {
    const error = await this.#all.files.put(this.#name, this.#record);
    if (error) this.fail(error.message);
    return !error;
  }

  /** @param {boolean} isKept */
  #kept(isKept) {
    this.isKept = isKept;
    this.#changed(this);
  }

  /** It is not kept after all, and goes on without. @param {string} problem */
  fail(problem) {
    if (this.#over) return this;
    this.problem = problem;
    this.#over = true;
    // What it has in the name of another one is none of its business.
    if (this.#all.files.records.get(this.#name) === this.#record) this.#all.forget(this.#name);
    this.#kept(false);
    return this;
  }

  /** @param {unknown} error */
  #failed(error) {
    this.fail(/** @type {Error} */ (error).message);
  }

  /** It is not under way any more, and goes on later. */
  release() {
    this.#over = true;
    this.#all.release(this.#name);
  }

  /** It is over for good. */
  forget() {
    if (this.#over) return;
    this.#over = true;
    this.isKept = false;
    this.#all.forget(this.#name);
  }

  // --- what is sent ----------------------------------------------------------------------------------------------------

  /** Have all of a file in the journal. @param {Blob} file */
  async copy(file) {
    try {
      for (let at = 0; at * BLOCK < file.size && !this.#over; at++) {
        await this.#all.files.putBlock(this.#name, at, file.slice(at * BLOCK, (at + 1) * BLOCK));
      }
      if (!this.#over) this.#kept(true);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** It is for this device now. @param {string | null} device */
  bind(device) {
    if (this.#over || this.#record.device === device) return;
    this.#record.device = device;
    void this.#put();
  }

  /** All that the journal has of it. */
  async content() {
    return new Blob(await this.#all.files.readBlocks(this.#name).catch(() => []));
  }

  // --- what arrives ----------------------------------------------------------------------------------------------------

  /** Take back what is kept of it. Returns the checksum of that. */
  async restore() {
    const digest = new Digest();
    const blocks = await this.#all.files.readBlocks(this.#name).catch((error) => (this.#failed(error), []));
    for (const block of blocks) {
      if (block.size !== BLOCK || this.#over) break; // behind it there is nothing
      digest.update(await read(block, 0, BLOCK));
      this.parts.push(block);
    }
    this.#blocks = this.parts.length;
    return digest;
  }

  /** Begin with these whole blocks, which an earlier transfer has left in memory, unless they are here. @param {Blob} blob */
  begin(blob) {
    for (let at = this.#blocks * BLOCK; at < blob.size; at += BLOCK) {
      this.parts.push(blob.slice(at, at + BLOCK));
      void this.#block();
    }
  }

  /** What was kept is not the beginning of it. */
  clear() {
    this.parts = [];
    this.#blocks = this.#last = 0; // the next ones take the places of those in the journal
    if (!this.#over) this.#all.files.empty(this.#name);
  }

  /**
   * The next bytes. Returns when the journal has the block before the last whole one: so no more than two are in memory.
   *
   * @param {Bytes} data
   */
  async write(data) {
    for (let at = 0; at < data.length;) {
      const part = data.subarray(at, at + BLOCK - this.#last);
      this.parts.push(new Blob([part]));
      at += part.length;
      this.#last += part.length;
      if (this.#last === BLOCK) await this.#block();
    }
  }

  /** What has come behind the last block is one. */
  async #block() {
    const number = this.#blocks++;
    const block = new Blob(this.parts.splice(number));
    this.parts.push(block);
    this.#last = 0;
    if (this.#over) return;
    await this.#writing;
    this.#writing = this.#putBlock(number, block);
  }

  /** @param {number} number @param {Blob} block */
  async #putBlock(number, block) {
    if (this.#over) return;
    try {
      const { files } = this.#all;
      await files.putBlock(this.#name, number, block);
      const stored = await files.getBlock(this.#name, number);
      if (this.parts[number] === block && stored.size === block.size) this.parts[number] = stored;
    } catch (error) {
      this.#failed(error);
    }
  }

  /**
   * All of it has arrived. Unless the application wants it to stay, it is kept no longer.
   *
   * @param {string} sha256
   * @param {string} whole The checksum of its whole blocks.
   */
  async arrived(sha256, whole) {
    const { hold = false } = this.#record;
    if (hold && !this.#over) {
      if (this.#last) await this.#block();
      await this.#writing;
    }
    if (this.#over) return;
    Object.assign(this.#record, { sha256, whole, empty: !hold });
    if (hold) {
      if (!(await this.#put()) || this.#over) return;
      this.#all.hold(this.#name);
      this.#kept(true);
    } else {
      void this.#emptied();
    }
  }

  /** There is nothing in the blocks that anybody needs. */
  #emptied() {
    const written = this.#all.files.putEmpty(this.#name, this.#record);
    this.release();
    this.#kept(false);
    return written;
  }

  /** The application has it. Returns when that is written; rejects with `JournalError`. */
  async handedOver() {
    if (!this.#over) {
      this.#record.empty = true;
      this.#handed = this.#emptied();
    }
    const error = await this.#handed;
    if (error) throw error;
  }
}
