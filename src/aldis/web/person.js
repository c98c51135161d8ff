/**
 * Somebody to talk to, as the page remembers them: the conversation, what is unread, how the connection has been.
 *
 * Knows neither the SDK nor the screen. What is kept is bounded: the oldest goes first.
 */

/** @import { AldisError, PeerStats, PeerView, Transfer } from './aldis.js' */
import { bytes } from './words.js';

export const SAMPLED_SECONDS = 60; // how long round-trip times are remembered
const MAX_ENTRIES = 1000; // what a browser draws without effort

/** @typedef {{ kind: 'text', mine: boolean, at: Date, text: string, code: boolean, state: 'waiting' | 'delivered' | 'failed', error: unknown }} TextEntry */
/** @typedef {{ kind: 'file', mine: boolean, at: Date, transfer: Transfer, onDisk: File | null, saved: boolean }} FileEntry */
/** @typedef {{ kind: 'note', mine: boolean, at: Date, text: string }} NoteEntry  something that has happened, such as a call */
/** @typedef {TextEntry | FileEntry | NoteEntry} Entry */
/** @typedef {{ fingerprint: string, how: 'invitation' | 'compared' }} Verified */
/** @typedef {{ at: number, seconds: number | null }} Sample  a round-trip time, `at` in seconds; null: no connection */
/** @typedef {'connected' | 'connecting' | 'interrupted' | 'online' | 'offline' | 'unknown'} Presence */

export class Person {
  /** @type {PeerView | null} what the store says */
  view = null;
  /** @type {Entry[]} */
  entries = [];
  unread = 0;
  /** @type {Verified | null} the key that somebody has made sure of */
  verified = null;
  /** @type {Sample[]} */
  samples = [];
  /** @type {PeerStats | null} */
  stats = null;
  /** @type {AldisError | null} why the last attempt to connect has failed */
  failure = null;
  /** @type {{ error: unknown, before: string, after: string } | null} the fingerprints of a changed key */
  newKey = null;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** @returns {Presence} */
  get presence() {
    if (this.view?.state === 'connected' || this.view?.state === 'connecting') return this.view.state;
    if (this.view?.state === 'disconnected') return 'interrupted';
    if (this.view?.online == null) return 'unknown';
    return this.view.online ? 'online' : 'offline';
  }

  /** What is wrong just now, null when nothing is. */
  get problem() {
    if (this.presence === 'connected') return null;
    return this.failure ?? this.view?.error ?? null;
  }

  /** Whether something would be lost with this page: a message that waits, a file that is under way or was not saved. */
  get unfinished() {
    return (this.view?.queued ?? 0) > 0 || this.entries.some((entry) => entry.kind === 'file' && isOpen(entry));
  }

  /** Whether their program can do something besides messages. @param {'files' | 'calls'} feature */
  can(feature) {
    return this.view?.features.includes(feature) ?? false;
  }

  get fingerprint() {
    return this.view?.fingerprint ?? null;
  }

  /** How it was made sure that the key of now is theirs, null when it was not. */
  get verifiedHow() {
    return this.verified && this.verified.fingerprint === this.fingerprint ? this.verified.how : null;
  }

  /**
   * @template {Entry} E
   * @param {E} entry
   */
  add(entry) {
    this.entries.push(entry);
    if (this.entries.length > MAX_ENTRIES) this.entries.shift();
    return entry;
  }

  /** @param {string} text */
  wrote(text) {
    /** @type {TextEntry} */
    const entry = {
      kind: 'text',
      mine: true,
      at: new Date(),
      text,
      code: false,
      state: 'waiting',
      error: null,
    };
    return this.add(entry);
  }

  /** @param {unknown} content  text; or, from other programs than this page, bytes or a JSON value */
  heard(content) {
    const isText = typeof content === 'string';
    const isBytes = content instanceof Uint8Array;
    const text = isText ? content : isBytes ? `${bytes(content.length)} of data` : JSON.stringify(content, null, 2);
    this.add({
      kind: 'text',
      mine: false,
      at: new Date(),
      text,
      code: !isText,
      state: 'delivered',
      error: null,
    });
  }

  /** @param {Transfer} transfer */
  file(transfer) {
    this.add({
      kind: 'file',
      mine: transfer.direction === 'out',
      at: new Date(),
      transfer,
      onDisk: null,
      saved: false,
    });
  }

  /** @param {string} text */
  note(text) {
    this.add({ kind: 'note', mine: false, at: new Date(), text });
  }

  /** Remember the round-trip time of now. @param {number} now  in seconds */
  sample(now) {
    const seconds = this.presence === 'connected' ? (this.view?.roundTripTime ?? null) : null;
    this.samples.push({ at: now, seconds });
    while (this.samples[0] && this.samples[0].at < now - SAMPLED_SECONDS - 1) this.samples.shift();
  }
}

/** @param {FileEntry} entry */
function isOpen({ transfer, mine, saved }) {
  return transfer.state === 'running' || (transfer.state === 'done' && !mine && !saved);
}
