/**
 * Slots for attempts: only a few peer connections of a page are being made at the same time.
 *
 * A new connection costs a processor some 10 ms. Hundreds that start together delay each other until all time out, and
 * no peer is connected. So an attempt waits for a slot, and its time starts when it gets the slot.
 *
 * Rules:
 * - Our calls and our answers have separate slots. An answer never waits for a call, so two pages that have used all
 *   their slots for calls to each other still answer.
 * - A slot ends with the attempt, when its channel opens, or after some time (`SLOT_SECONDS`). So a peer that is far
 *   away or gone does not delay others. The attempt itself goes on.
 * - When attempts take long because the machine is busy, slots last as long as the attempts, up to `MAX_SLOT_SECONDS`.
 *   Otherwise all attempts would be under way together in the end, and delay each other.
 * - An attempt that has sent its offer costs nothing until the answer comes, so it does not count meanwhile, up to
 *   `MAX_UNANSWERED`. It does count while offers of others wait here, because then this page is too slow already.
 * - Calls are fair between their owners (`owner`), however many an owner wants. For each peer one offer waits, the
 *   newest.
 * - Every queue is bounded. An offer that cannot wait, or has waited too long, gets a refusal.
 *
 * It does not know what a connection is, or how one is made.
 */

import { timers } from '../client/timers.js';

/** @import { Timers } from '../client/timers.js' */

/** How many calls, and how many answers, may be under way at once. */
export const CALLS = 8;
export const ANSWERS = 8;
/** On a quiet machine an attempt takes 0.02 s with a near peer, and 1 s with a peer on the other side of the world. */
export const SLOT_SECONDS = 1;
export const MAX_SLOT_SECONDS = 8;
// A slot lasts so many times as long as recent successful attempts; each new one has this weight.
const PATIENCE = 2;
const SMOOTHING = 0.125;
/** Our attempts with a slot, including those that wait for an answer. Each has a few open sockets, and its peer may keep the offer waiting. */
export const MAX_UNANSWERED = 64;
/** Waiting offers of all peers together. Each has at most 64 KiB. */
export const MAX_WAITING = 128;
/** The other side gives its attempt 30 s, in which it also has to find a path. */
export const MAX_WAIT = 10;

/**
 * One attempt's slot, or its place in the queue.
 * @typedef {object} Slot
 * @property {boolean} granted
 * @property {(opened?: boolean) => void} release frees the slot, or leaves the queue; idempotent. `opened`: the attempt
 *   has succeeded
 * @property {(unanswered: boolean) => void} setUnanswered sets whether the attempt only waits for the other side's
 *   answer; ignored unless it has the slot
 */

/** The slots of one kind. */
export class SlotQueue {
  #limit;
  #timers;
  #busy;
  #drained;
  #usual = 0; // seconds that an attempt usually takes
  #held = new Set();
  #unanswered = new Set(); // had a slot, and wait for the other side
  /** @type {Map<unknown, { take: () => void }[]>} by owner; the first one is next */
  #lines = new Map();
  #soon = false;

  /**
   * @param {number} limit
   * @param {Timers} timers
   * @param {object} [more]
   * @param {() => boolean} [more.busy] whether attempts that wait for an answer count like the others
   * @param {() => void} [more.drained] called when nothing waits any more
   */
  constructor(limit, timers, { busy = () => false, drained = () => {} } = {}) {
    this.#limit = limit;
    this.#timers = timers;
    this.#busy = busy;
    this.#drained = drained;
  }

  /** The number of attempts with a slot that are at work now. */
  get held() {
    return this.#held.size;
  }

  /** The number of attempts with a slot that wait for an answer now. */
  get unanswered() {
    return this.#unanswered.size;
  }

  /** The number of attempts that wait for a slot. */
  get waiting() {
    return [...this.#lines.values()].reduce((sum, line) => sum + line.length, 0);
  }

  /**
   * Return a slot. It is granted at once if one is free and nothing waits. Otherwise `start` is called later.
   *
   * @param {unknown} owner
   * @param {() => void} start
   * @returns {Slot}
   */
  ask(owner, start) {
    let cancel = () => {};
    let since = NaN; // when it was granted, or when the answer came; until it is released
    const end = () => {
      if (this.#held.delete(slot) || this.#unanswered.delete(slot)) this.look();
    };
    const hold = () => {
      cancel();
      this.#held.add(slot);
      since = this.#timers.time();
      const seconds = Math.min(Math.max(SLOT_SECONDS, PATIENCE * this.#usual), MAX_SLOT_SECONDS);
      cancel = this.#timers.callLater(seconds, end);
    };
    const slot = {
      granted: false,
      take: () => {
        slot.granted = true;
        hold();
      },
      start,
      release: (opened = false) => {
        if (opened && since) this.#usual += SMOOTHING * (this.#timers.time() - since - this.#usual);
        since = NaN;
        cancel();
        end();
        const line = this.#lines.get(owner);
        if (slot.granted || !line?.includes(slot)) return;
        line.splice(line.indexOf(slot), 1);
        if (!line.length) this.#lines.delete(owner);
        if (!this.#lines.size) this.#drained();
      },
      /** @param {boolean} unanswered */
      setUnanswered: (unanswered) => {
        if (unanswered && this.#held.delete(slot)) {
          this.#unanswered.add(slot);
          this.look();
          // After an answer, the attempt takes its slot back even if all are in use, to finish first what was started.
        } else if (!unanswered && this.#unanswered.delete(slot)) hold();
      },
    };
    if (!this.#lines.size && this.#free) slot.take();
    else this.#lines.set(owner, [...(this.#lines.get(owner) ?? []), slot]);
    return slot;
  }

  /** Grant free slots to waiting attempts, soon. */
  look() {
    if (this.#soon || !this.#lines.size) return;
    this.#soon = true;
    // No timer: those of a hidden tab are throttled.
    queueMicrotask(() => {
      this.#soon = false;
      this.#next();
    });
  }

  get #free() {
    const all = this.held + this.unanswered;
    return (this.#busy() ? all : this.held) < this.#limit && all < MAX_UNANSWERED;
  }

  #next() {
    const [first] = this.#lines;
    if (!first || !this.#free) return;
    const [owner, line] = first;
    const slot = /** @type {ReturnType<SlotQueue['ask']> & { take: () => void, start: () => void }} */ (line.shift());
    this.#lines.delete(owner);
    if (line.length) this.#lines.set(owner, line); // behind all others
    slot.take();
    this.look(); // before the call, which may throw
    if (!this.#lines.size) this.#drained();
    slot.start();
  }
}

/** All slots of a page. */
export class AttemptSlots {
  /**
   * @param {Timers} timers
   * @param {number} [calls]
   * @param {number} [answers]
   */
  constructor(timers, calls = CALLS, answers = ANSWERS) {
    this.timers = timers;
    this.answers = new SlotQueue(answers, timers, { drained: () => this.calls.look() });
    // While offers of others wait here, this page is too slow already.
    this.calls = new SlotQueue(calls, timers, { busy: () => this.answers.waiting > 0 });
  }
}

export const slots = new AttemptSlots(timers);

/**
 * What waits between us and one peer: at most one call of ours, and at most one offer of theirs.
 * @template Offer
 */
export class PeerSlots {
  /** @type {Slot | null} */
  #call = null;
  /** @type {Slot | null} */
  #answer = null;
  /** @type {{ name: string, offer: Offer, cancel: () => void } | null} */
  #waits = null;
  #slots;
  #owner;
  #to;

  /**
   * @param {AttemptSlots} slots
   * @param {unknown} owner
   * @param {{ call: () => void, answer: (name: string, offer: Offer) => void,
   *   refuse: (name: string, offer: Offer, reason: string) => void }} to `call` and `answer` start the attempt when its
   *   slot is granted, perhaps at once; `refuse` tells the other side that its offer is not answered
   */
  constructor(slots, owner, to) {
    this.#slots = slots;
    this.#owner = owner;
    this.#to = to;
  }

  /** Whether a call waits. */
  get calling() {
    return this.#call?.granted === false;
  }

  /**
   * Whether the offer of that name waits.
   * @param {string} name
   */
  keeps(name) {
    return this.#waits?.name === name;
  }

  /** Start a call when its slot is granted, unless one waits already. */
  call() {
    if (this.#call) return;
    this.#call = this.#slots.calls.ask(this.#owner, () => {
      if (this.#waits)
        this.#take(); // their call is here already, and ours would cross it
      else this.#to.call();
    });
    if (this.#call.granted) this.#to.call();
  }

  /**
   * Answer an offer that starts an attempt, when its slot is granted.
   * @param {string} name
   * @param {Offer} offer
   */
  offered(name, offer) {
    const { answers, timers } = this.#slots;
    this.#drop('replaced by a newer attempt');
    if (this.#call?.granted || this.#answer?.granted) this.#to.answer(name, offer);
    else if (answers.waiting >= MAX_WAITING) this.#to.refuse(name, offer, 'busy');
    else {
      this.#waits = { name, offer, cancel: () => {} };
      this.#answer = answers.ask(this.#owner, () => this.#take());
      if (this.#answer.granted) this.#take();
      else this.#waits.cancel = timers.callLater(MAX_WAIT, () => this.#drop('busy'));
    }
  }

  /**
   * The other side has ended that attempt.
   * @param {string} name
   */
  withdrawn(name) {
    if (this.keeps(name)) this.#drop();
  }

  /**
   * Set whether our current call only waits for its answer.
   * @param {boolean} unanswered
   */
  setUnanswered(unanswered) {
    this.#call?.setUnanswered(unanswered);
  }

  /**
   * No attempt is under way any more: it failed, or its channel is open.
   * @param {boolean} opened
   */
  settled(opened) {
    if (this.#call?.granted) {
      this.#call.release(opened);
      this.#call = null;
    }
    if (this.#answer?.granted) {
      this.#answer.release(opened);
      this.#answer = null;
    }
  }

  /**
   * Start nothing any more.
   * @param {string} reason
   */
  close(reason) {
    this.#drop(reason);
    this.#call?.release();
    this.#answer?.release();
    this.#call = this.#answer = null;
  }

  #forget() {
    const waits = this.#waits;
    this.#waits = null;
    waits?.cancel();
    if (this.#answer?.granted === false) {
      this.#answer.release();
      this.#answer = null;
    }
    return waits;
  }

  #take() {
    const waits = this.#forget();
    if (waits) this.#to.answer(waits.name, waits.offer);
  }

  /** @param {string} [reason] to be told, if any */
  #drop(reason) {
    const waits = this.#forget();
    if (waits && reason !== undefined) this.#to.refuse(waits.name, waits.offer, reason);
  }
}
