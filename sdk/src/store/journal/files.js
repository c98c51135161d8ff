/**
 * Files under way, as the journal keeps them: small records by name, which `store/files/kept` writes and reads, and blocks of
 * their content. In Python there are records alone: the content is on the disk anyway.
 *
 * A record is a row among the others: it is written with them, and again when that has failed. Blocks are not: one that
 * cannot be written is the business of its file. They go when the journal has it that nobody needs them. If they went before,
 * a page that ends in between would leave a record of what has gone. Of what is in a record it knows only `empty`.
 */
import { digits } from './backend.js';

/**
 * @import { JournalError } from '../../errors.js'
 * @import { BlockBackend } from './backend.js'
 * @import { Peers } from './journal.js'
 */

/**
 * @typedef {object} RowWriter The journal.
 * @property {JournalError | null} error Why it cannot be written now.
 * @property {(key: string, value: unknown) => void} write
 * @property {(key: string, settle: (error: JournalError | null) => void) => void} leave
 */

export class JournalFiles {
  /** By name: what `put` was given. @type {Map<string, any>} */
  records = new Map();
  /** Is called when it is time to look what is too old. */
  expire = () => {};
  /** The wall clock was set. @type {(step: number) => void} In milliseconds. */
  clockWasSet = () => {};
  #journal;
  #blocks;
  #cleaned = Promise.resolve();
  /** Files whose blocks go when it is written that nobody needs them. @type {Set<string>} */
  #unneeded = new Set();

  /**
   * @param {RowWriter} journal
   * @param {BlockBackend} blocks
   */
  constructor(journal, blocks) {
    this.#journal = journal;
    this.#blocks = blocks;
  }

  /** The records are known: remove what belongs to none, since the page may have ended between the two. */
  loaded() {
    this.#cleaned = this.#clean().catch(() => {}); // it takes room, and is tried again by the next page
  }

  /**
   * Go on with what there is; the part of the SDK for files is loaded for it. Rejects with `LoadFailed`.
   *
   * @param {Peers} [peers]
   * @returns {Promise<void> | undefined} undefined when there is nothing.
   */
  restore(peers) {
    if (!peers || !this.records.size) return undefined;
    const find = (/** @type {string} */ userId, /** @type {string | null} */ device) =>
      peers.peer(userId).device(device);
    return peers
      .loadServices()
      .then(({ files }) => files.get())
      .then((files) => files.restore(find));
  }

  async #clean() {
    const files = new Set((await this.#blocks.keys()).map((key) => key.slice(0, key.lastIndexOf('/'))));
    for (const name of files) {
      const record = this.records.get(name);
      if (!record || record.empty) await this.#blocks.remove(name);
    }
  }

  /**
   * Keep a record in place of one with the same name.
   *
   * @param {string} name
   * @param {object} record
   * @returns {Promise<JournalError | null>} Why it cannot be written, when it cannot. It is forgotten then.
   */
  put(name, record) {
    if (this.#unneeded.delete(name)) this.empty(name); // before there are others of that name
    this.records.set(name, record);
    return this.#write(name, record);
  }

  /**
   * The same for one that is `empty`.
   *
   * @param {string} name
   * @param {object} record
   */
  async putEmpty(name, record) {
    this.records.set(name, record);
    return this.#writeEmpty(name, record);
  }

  /** Forget a record, and its blocks. Returns how many there were. @param {string} name */
  remove(name) {
    if (!this.records.delete(name)) return 0;
    void this.#writeEmpty(name, undefined);
    return 1;
  }

  /** @param {string} name @param {object | undefined} record @returns {Promise<JournalError | null>} */
  #write(name, record) {
    this.#journal.write(`f/${name}`, record);
    return new Promise((resolve) => this.#journal.leave(`f/${name}`, resolve));
  }

  /** @param {string} name @param {object | undefined} record */
  async #writeEmpty(name, record) {
    this.#unneeded.add(name);
    const writing = this.#write(name, record);
    const error = this.#journal.error ?? (await writing); // a full disk wants the room of the blocks now
    if (this.#unneeded.delete(name)) this.empty(name);
    return error;
  }

  /** Forget the blocks. @param {string} name */
  empty(name) {
    this.#blocks.remove(name).catch(() => {}); // the next page does
  }

  /**
   * Keep a block; see `BlockBackend`.
   *
   * @param {string} name
   * @param {number} number
   * @param {Blob} block
   */
  async putBlock(name, number, block) {
    await this.#cleaned; // what was there before under this name
    await this.#blocks.put(`${name}/${digits(number)}`, block);
  }

  /** @param {string} name @param {number} number */
  async getBlock(name, number) {
    return this.#blocks.get(`${name}/${digits(number)}`);
  }

  /** @param {string} name */
  async readBlocks(name) {
    return this.#blocks.read(name);
  }
}
