/**
 * The people that somebody talks to: a list without doubles, remembered in this browser for each name of ours.
 */

/** @import { Verified } from './person.js' */
import { remember } from './memory.js';
import { Person } from './person.js';

export class People {
  /** @type {Person[]} */
  list = [];

  #key;

  /** @param {string} owner  our own name */
  constructor(owner) {
    this.#key = `aldis.people.${owner}`;
    const kept = remember(() => JSON.parse(localStorage.getItem(this.#key) ?? '[]'));
    for (const { name, verified = null } of Array.isArray(kept) ? kept : []) {
      this.list.push(Object.assign(new Person(name), { verified }));
    }
  }

  get names() {
    return this.list.map((person) => person.name);
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
    this.#keep();
    return person;
  }

  /** @param {Person} person */
  remove(person) {
    this.list = this.list.filter((other) => other !== person);
    this.#keep();
  }

  /** @param {Person} person @param {Verified | null} verified */
  verify(person, verified) {
    person.verified = verified;
    this.#keep();
  }

  #keep() {
    const kept = this.list.map(({ name, verified }) => ({ name, verified }));
    remember(() => localStorage.setItem(this.#key, JSON.stringify(kept)));
  }
}
