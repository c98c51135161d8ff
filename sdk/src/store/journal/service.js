/**
 * The part of the SDK for journals, which is loaded when it is first used (`store/services.openJournal`).
 */
import { IndexedDBBackend } from './indexed_db.js';
import { Journal } from './journal.js';

/**
 * See `openJournal`.
 *
 * @param {string} name
 * @param {{ wait?: boolean, signal?: AbortSignal }} [options]
 */
export const open = async (name, options) => Journal.open(await IndexedDBBackend.open(name, options));
