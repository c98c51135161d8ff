/**
 * What a journal is kept in, and what becomes of its errors. `indexed_db` and `memory` are backends; both pass the tests
 * in `sdk/test/support/journal_contract.js`.
 *
 * A backend keeps values by keys, which are strings in an order, and beside them blocks of files, which are large: no value
 * waits for a block, and none fails with it. It knows nothing of streams, messages and files.
 *
 * @import { JournalError } from '../../errors.js'
 */

/** @typedef {[key: string, value: unknown]} Row A value; undefined: there is none any more. */

/**
 * @typedef {object} JournalBackend All of it rejects with `JournalError`.
 * @property {string} name For people.
 * @property {() => Promise<Row[]>} load All that is kept, in the order of the keys. Called once, before anything is written.
 * @property {(rows: Row[], strict: boolean) => Promise<void>} write Make these changes, together or not at all. They
 *   survive the end of the page, and a power cut if they are `strict`.
 * @property {BlockBackend} blocks
 * @property {() => Promise<void>} erase Keep nothing any more, no blocks either.
 * @property {() => void} close Let go of it: another store may open it. May be called again.
 * @property {(error: JournalError) => void} onLost Is called when it is lost before `close`: for good, or until a
 *   `write` succeeds.
 */

/**
 * @typedef {object} BlockBackend The blocks of files: the name of a file, `/`, and a number with `digits` is the key of one.
 *   All of it rejects with `JournalError`.
 * @property {(key: string, block: Blob) => Promise<void>} put Keep one. Survives the end of the page.
 * @property {(key: string) => Promise<Blob>} get One as it is kept: out of memory, where the browser has a disk.
 * @property {() => Promise<string[]>} keys Of all that are kept.
 * @property {(file: string) => Promise<Blob[]>} read Those of one file, in the order of their numbers.
 * @property {(file: string) => Promise<void>} remove Keep those of one file no more. Blobs that were given back stay as long as the page.
 */

// Enough for each number that JavaScript keeps exactly.
const DIGITS = 16;

/** A number as a part of a key, so that the order of the keys is that of the numbers. @param {number} number */
export const digits = (number) => String(number).padStart(DIGITS, '0');
