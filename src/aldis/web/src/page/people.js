/**
 * The people that somebody talks to: a list without doubles, remembered in this browser for each name of ours, and whose
 * conversation is open.
 *
 * Whoever connects to us comes on the list, so it is bounded: of strangers, the first to come are the first to go.
 */

/** @import { Verified } from './person.js' */
import { readFingerprint } from './invitation.js';
import { remember } from './memory.js';
import { Person } from './person.js';
import { nameProblem } from './words.js';

const MAX_PEOPLE = 500; // more than anybody looks through

export class People {
  /** @type {Person[]} */
  list = [];
  /** @type {Person | null} whose conversation is open */
  current = null;

  #changed;
  #key;

  /** @param {string} owner  our own name @param {() => void} changed */
  constructor(owner, changed) {
    this.#changed = changed;
    this.#key = `aldis.people.${owner}`;
    const kept = remember(() => JSON.parse(localStorage.getItem(this.#key) ?? '[]'));
    // Other programs of this origin may have written there. One name that cannot be one, and no other would be watched.
    for (const { name, verified } of Array.isArray(kept) ? kept.map(Object) : []) {
      if (typeof name !== 'string' || nameProblem(name) || name === owner || this.find(name)) continue;
      this.list.push(Object.assign(new Person(name), { verified: isVerified(verified) ? verified : null }));
    }
  }

  get names() {
    return this.list.map((person) => person.name);
  }

  /** How many messages nobody has seen. */
  get unread() {
    return this.list.reduce((sum, person) => sum + person.unread, 0);
  }

  /** @param {string} name */
  find(name) {
    return this.list.find((person) => person.name === name) ?? null;
  }

  /** The one with this name, put on the list when it is new. @param {string} name */
  get(name) {
    const known = this.find(name);
    if (known) return known;
    const person = new Person(name);
    this.list.push(person);
    this.#makeRoom(person);
    this.#keep();
    return person;
  }

  /** Show a conversation, or the list. @param {Person | null} person */
  show(person) {
    this.current = person;
    this.look();
  }

  /** The page may have come into sight, and with it the end of the open conversation. */
  look() {
    if (this.current && !document.hidden && !this.current.away) this.current.unread = 0;
    this.#changed();
  }

  /** Something has come from somebody. @param {Person} person */
  notice(person) {
    person.unread += 1;
    this.look();
  }

  /** @param {Person} person */
  remove(person) {
    this.list = this.list.filter((other) => other !== person);
    if (this.current === person) this.current = null;
    this.#keep();
    this.#changed();
  }

  /** Remember that somebody has made sure whose key this is. @param {Person} person @param {Verified | null} verified */
  verify(person, verified) {
    person.verified = verified;
    this.#keep();
    this.#changed();
  }

  /** @param {Person} fresh */
  #makeRoom(fresh) {
    if (this.list.length <= MAX_PEOPLE) return;
    const strangers = this.list.filter((person) => person.isStranger && person !== fresh && person !== this.current);
    // Who has said something, and got no answer, goes after those who never did.
    const gone = strangers.find((person) => person.entries.length === 0) ?? strangers[0];
    this.list = this.list.filter((person) => person !== gone);
  }

  #keep() {
    const kept = this.list.map(({ name, verified }) => ({ name, verified }));
    remember(() => localStorage.setItem(this.#key, JSON.stringify(kept)));
  }
}

/** @param {any} value @returns {value is Verified} */
function isVerified(value) {
  const { fingerprint } = Object(value);
  const isOne = typeof fingerprint === 'string' && readFingerprint(fingerprint) === fingerprint;
  return isOne && (value.how === 'invitation' || value.how === 'compared');
}
