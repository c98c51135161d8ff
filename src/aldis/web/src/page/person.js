/**
 * Somebody to talk to, as the page remembers them: the conversation, what is unread, how the connection has been.
 *
 * Knows neither the SDK nor the screen. What is kept is bounded: the oldest goes first.
 */

/** @import { AldisError, PeerQuality, PeerStats, PeerView, Transfer, TransferFailed } from '../sdk/index.js' */
/** @import { Fault } from './words.js' */
import { bytes } from './words.js';

export const SAMPLED_SECONDS = 60; // how long round-trip times are remembered
const MAX_ENTRIES = 1000; // what a browser draws without effort
// Characters. A message may have 16 million, and a thousand of those fill any memory.
const MAX_SHOWN = 65_536; // of one message
const MAX_KEPT = 2_000_000; // of one person's messages
const MAX_LAID_OUT = 4096; // of a JSON value that gets a line for each of its parts, which may make it a hundred times as long

/** @typedef {{ kind: 'text', mine: boolean, at: Date, text: string, more: number, whole: string, code: boolean, state: 'waiting' | 'delivered' | 'failed', stored: boolean, error: unknown }} TextEntry  `more`: characters that `text` lacks at its end; `whole`: what is to be sent, for as long as it may be sent again; `stored`: it waits on when this page ends, if that is possible at all */
/** @typedef {{ kind: 'file', mine: boolean, at: Date, transfer: Transfer, taking: boolean, onDisk: File | null, saved: boolean }} FileEntry */
/** @typedef {{ kind: 'note', mine: boolean, at: Date, text: string }} NoteEntry  something that has happened, such as a call */
/** @typedef {TextEntry | FileEntry | NoteEntry} Entry */
/** @typedef {{ fingerprint: string, how: 'invitation' | 'compared' }} Verified */
/** @typedef {{ error: any, before: string, after: string }} NewKey  a `PeerKeyChanged`, and the fingerprints of the two keys */
/** @typedef {{ at: number, seconds: number | null }} Sample  a round-trip time, `at` in seconds; null: no connection */
/** @typedef {'connected' | 'connecting' | 'interrupted' | 'online' | 'offline' | 'unknown' | 'blocked'} Presence */

export class Person {
  /** @type {PeerView | null} what the store says */
  view = null;
  /** @type {Entry[]} */
  entries = [];
  unread = 0;
  /** Somebody reads further up in this conversation, and does not see what comes. */
  away = false;
  /** @type {Verified | null} the key that somebody has made sure of */
  verified = null;
  /** @type {Sample[]} */
  samples = [];
  /** @type {PeerStats | null} */
  stats = null;
  /** @type {PeerQuality | null} null while there is no connection */
  quality = null;
  /** @type {AldisError | null} why the last attempt to connect has failed */
  failure = null;
  /** @type {NewKey | null} */
  newKey = null;
  /** @type {Fault | null} an invitation that has meant another key, until somebody has put that away */
  mismatch = null;
  /** We want nothing to do with them: nothing goes to them or comes from them. */
  blocked = false;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** @returns {Presence} */
  get presence() {
    if (this.blocked) return 'blocked';
    if (this.view?.state === 'connected' || this.view?.state === 'connecting') return this.view.state;
    if (this.view?.state === 'disconnected') return 'interrupted';
    if (this.view?.online == null) return 'unknown';
    return this.view.online ? 'online' : 'offline';
  }

  /** Whether messages go through the server, which cannot read them, because there is no direct path, or none yet. */
  get isRelayed() {
    return this.presence === 'connected' && this.view?.path === 'relay';
  }

  /** Whether nothing is lost when they are forgotten: they once came to us, we have said nothing, and they are gone. */
  get isStranger() {
    const here = ['connected', 'connecting', 'interrupted'].includes(this.presence);
    return !here && !this.isKnown;
  }

  /** Whether we have had to do with them: said something, called them or taken a call, or made sure of their key. */
  get isKnown() {
    return this.verified !== null || this.entries.some((entry) => entry.mine);
  }

  /** What is wrong just now, null when nothing is. */
  get problem() {
    if (this.presence === 'connected') return null;
    return this.failure ?? this.view?.error ?? null;
  }

  /** Whether it is open who they are: nothing is sent until somebody has decided about their key. */
  get isUndecided() {
    const faults = this.presence === 'connected' ? [] : [this.problem, this.mismatch];
    return faults.some((fault) => fault?.name === 'PeerKeyChanged' || fault?.name === 'FingerprintMismatch');
  }

  /** Whether nothing can be said to them: somebody has to decide something first. */
  get isShut() {
    return this.blocked || this.isUndecided;
  }

  /**
   * Whether something would be lost with this page, or with this person: a message that waits, a file that is under way or
   * was not saved.
   *
   * @param {boolean} isKept  whether what waits is kept; of files, each knows whether it is, too
   */
  isUnfinished(isKept) {
    const lost = (/** @type {Entry} */ entry) =>
      entry.kind === 'file' && isOpen(entry) && entry.transfer.state !== 'offered' && !(isKept && entry.transfer.kept);
    return (!isKept && (this.view?.queued ?? 0) > 0) || this.entries.some(lost);
  }

  /** Whether their program can do something besides messages. @param {'files' | 'files-2' | 'calls'} feature */
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
    // Files stay for as long as they can be taken or saved: nobody shall lose one by what is said after it.
    const oldest = this.entries.findIndex((each) => each.kind !== 'file' || !isOpen(each));
    if (this.entries.length > MAX_ENTRIES && oldest >= 0) this.entries.splice(oldest, 1);
    const texts = this.entries.filter((each) => each.kind === 'text');
    let kept = texts.reduce((sum, { text }) => sum + text.length, 0);
    const gone = new Set();
    for (const each of texts.slice(0, -1)) {
      if (kept <= MAX_KEPT) break;
      kept -= each.text.length;
      gone.add(each);
    }
    if (gone.size) this.entries = this.entries.filter((each) => !gone.has(each));
    return entry;
  }

  /** @param {string} text @param {Date} [at]  when it was written, if not now */
  wrote(text, at = new Date()) {
    return this.#addText(text, { mine: true, whole: text, state: 'waiting', at });
  }

  /** What waits is told anew: by the journal, which knows what has been delivered meanwhile. */
  forgetWaiting() {
    this.entries = this.entries.filter((entry) => entry.kind !== 'text' || entry.state !== 'waiting');
  }

  /** @param {unknown} content  text; or, from other programs than this page, bytes or a JSON value */
  heard(content) {
    const isText = typeof content === 'string';
    const isBytes = content instanceof Uint8Array;
    const text = isText ? content : isBytes ? `${bytes(content.length)} of data` : laidOut(content);
    this.#addText(text, { mine: false, whole: '', code: !isText, state: 'delivered' });
  }

  /** @param {string} whole @param {Pick<TextEntry, 'mine' | 'whole' | 'state'> & Partial<TextEntry>} facts */
  #addText(whole, facts) {
    const more = Math.max(0, whole.length - MAX_SHOWN);
    // A part of a string may keep all of it in memory; what has gone through JSON is a copy.
    const text = more ? JSON.parse(JSON.stringify(whole.slice(0, MAX_SHOWN))) : whole;
    /** @type {TextEntry} */
    const entry = { kind: 'text', at: new Date(), text, more, code: false, stored: false, error: null, ...facts };
    return this.add(entry);
  }

  /** @param {Transfer} transfer  one that goes on takes the place of what it was before */
  file(transfer) {
    const mine = transfer.direction === 'out';
    const at = new Date();
    /** @type {FileEntry} */
    const entry = { kind: 'file', mine, at, transfer, taking: false, onDisk: null, saved: false };
    const before = this.entries.findIndex(
      (each) => each.kind === 'file' && each.mine === mine && each.transfer.id === transfer.id && goesOn(each.transfer),
    );
    if (before < 0) this.add(entry);
    else this.entries.splice(before, 1, { ...entry, at: this.entries[before]?.at ?? at });
    return before < 0;
  }

  /** Take something off the conversation. @param {Entry} entry */
  drop(entry) {
    this.entries = this.entries.filter((each) => each !== entry);
  }

  /** @param {string} text @param {boolean} [mine]  whether we have taken part in it */
  note(text, mine = false) {
    this.add({ kind: 'note', mine, at: new Date(), text });
  }

  /** Remember the round-trip time of now. @param {number} now  in seconds */
  sample(now) {
    const seconds = this.presence === 'connected' ? (this.view?.roundTripTime ?? null) : null;
    this.samples.push({ at: now, seconds });
    while (this.samples[0] && this.samples[0].at < now - SAMPLED_SECONDS - 1) this.samples.shift();
  }
}

/** A JSON value to be read by people. @param {unknown} value */
function laidOut(value) {
  try {
    const text = JSON.stringify(value) ?? '';
    return text.length > MAX_LAID_OUT ? text : JSON.stringify(value, null, 2);
  } catch {
    return 'data that cannot be shown'; // too much, or too deep
  }
}

/** Whether a transfer has stopped, and goes on by itself later. @param {Pick<Transfer, 'error'>} transfer */
export const goesOn = ({ error }) => error?.name === 'TransferFailed' && /** @type {TransferFailed} */ (error).kept;

/** Whether a file is on offer, on its way, or not saved yet. @param {FileEntry} entry */
function isOpen({ transfer, mine, saved }) {
  const { state } = transfer;
  return state === 'offered' || state === 'running' || (state === 'done' && !mine && !saved);
}
