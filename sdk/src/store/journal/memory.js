/**
 * A journal in memory: for tests, and to see what a store does with one. It is lost with the program.
 *
 * The rows stay after `close`, so the next journal on this backend finds them, as after a restart.
 */
import { JournalInUse } from '../../errors.js';

/**
 * @import { BlockBackend, JournalBackend, Row } from './backend.js'
 * @import { JournalError } from '../../errors.js'
 */

/** @implements {BlockBackend} */
export class MemoryBlocks {
  /** @type {Map<string, Blob>} */
  #blocks = new Map();

  /** @param {string} key @param {Blob} block */
  async put(key, block) {
    this.#blocks.set(key, block);
  }

  /** @param {string} key */
  async get(key) {
    return this.#blocks.get(key) ?? new Blob();
  }

  async keys() {
    return [...this.#blocks.keys()].sort();
  }

  /** @param {string} file */
  async read(file) {
    const keys = (await this.keys()).filter((key) => key.startsWith(`${file}/`));
    return keys.flatMap((key) => this.#blocks.get(key) ?? []);
  }

  /** @param {string} file */
  async remove(file) {
    for (const key of this.#blocks.keys()) if (key.startsWith(`${file}/`)) this.#blocks.delete(key);
  }

  clear() {
    this.#blocks.clear();
  }
}

/** @implements {JournalBackend} */
export class MemoryBackend {
  /** @type {(error: JournalError) => void} */
  onLost = () => {};
  blocks = new MemoryBlocks();
  /** @type {Map<string, unknown>} */
  #rows = new Map();
  #open = false;

  /** @param {string} [name] */
  constructor(name = ':memory:') {
    this.name = name;
  }

  /** What is in it now. @returns {Row[]} */
  get rows() {
    return structuredClone([...this.#rows].sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  async load() {
    if (this.#open) throw new JournalInUse(this.name, 'is in use by another store of this page');
    this.#open = true;
    return this.rows;
  }

  /** @param {Row[]} rows */
  async write(rows) {
    for (const [key, value] of structuredClone(rows)) {
      if (value === undefined) this.#rows.delete(key);
      else this.#rows.set(key, value);
    }
  }

  async erase() {
    this.#rows.clear();
    this.blocks.clear();
  }

  close() {
    this.#open = false;
  }
}
