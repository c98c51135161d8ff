/**
 * Who offers, who answers, and which of several connections to one peer is the one: a machine without I/O.
 *
 * Rules:
 * - Calls tell what has happened, with the time (seconds) where it matters; what they return is what has to be done, in
 *   order. Results come back as calls again. Time and randomness are arguments.
 * - Perfect negotiation (https://www.w3.org/TR/webrtc/, section 10.7), with one connection per first offer: of two peers
 *   the one whose user id sorts first by UTF-8 bytes is polite. When two first offers cross, the impolite side's stands
 *   and is sent once more; the polite side answers it on a fresh connection.
 * - `connection` names a connection (a link here). ICE restarts and renegotiations keep the name, a replacement takes a
 *   new one. Messages for other names are dropped; candidates for a name not heard of are kept for a while.
 * - Make before break: a new attempt lives beside what there is, and takes over only when its channel opens. So what the
 *   server repeats, reorders or makes up costs an attempt at most, never a connection that works; and a `bye` that comes
 *   through the server makes an open connection only be looked at (`probe`).
 * - Nothing waits for ever (`deadline`, `tick`). A renegotiation that is not answered is made again, ever more seldom; it
 *   ends nothing.
 *
 * It does not know engines, signatures (what is fed in here has been checked), channels' contents or addresses.
 * `tests/vectors/negotiation.json` holds it to the Python machine; `renegotiate` exists here only.
 */

import { sortsBefore } from '../protocol/addresses.js';
import { toBase64url } from '../protocol/codec.js';
import {
  answer,
  belongs,
  described,
  fingerprints,
  flush,
  hasCome,
  insist,
  isDue,
  isOffering,
  make,
  offer,
} from './links.js';

/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Capabilities } from '../protocol/messages.js' */
/** @import { Command, Link } from './links.js' */

/**
 * How this user stands with one other user.
 *
 * - `new`: nothing has been tried yet.
 * - `connecting`: an attempt is under way, ours or the other side's.
 * - `connected`: the channel is open and HELLOs have been exchanged.
 * - `disconnected`: was connected, and nothing comes through any more. Heals by itself, by an ICE restart, or ends.
 * - `failed`: this attempt, or this connection, is given up; the error says why. `connect()` makes another attempt.
 * - `closed`: ended on purpose: by the other side (as after `failed`), or by our own `close()`, for good.
 * @typedef {'new' | 'connecting' | 'connected' | 'disconnected' | 'failed' | 'closed'} PeerState
 */

/**
 * How the last link ended: its name, whether on purpose, and why in plain words.
 * @typedef {{ name: string, orderly: boolean, reason: string }} Outcome
 */

/** 128 random bits: no two connections in the world share a name. */
export const NAME_BYTES = 16;
/** Attempts beside an open connection. Two, because a late offer may stand beside the attempt that replaced it. */
export const MAX_ATTEMPTS = 2;
/** An ICE agent gathers a dozen candidates; each one taken costs checks towards an address of a stranger's choice. */
export const MAX_CANDIDATES = 128;
export const MAX_EARLY_NAMES = 4;
export const MAX_GONE_NAMES = 64;
/** Each first offer makes the engine open sockets: a peer in its right mind makes one in `OFFER_WINDOW` seconds. */
export const MAX_OFFERS = 10;
export const OFFER_WINDOW = 10;
/** Seconds after which a renegotiation is made again, doubled with each that nobody answers, four times at most. */
export const RENEGOTIATION = 5;

const OVER = 'this connection is over';

/** All connections, made and in the making, between two users. */
export class Negotiation {
  /** @type {boolean} */ polite;
  /** @type {Outcome | null} */ outcome = null;
  /** @type {Capabilities} */ #capabilities;
  /** @type {(size: number) => Bytes} */ #random;
  /** @type {number} */ #attemptSeconds;
  /** @type {number} */ #healSeconds;
  /** @type {Map<string, Link>} oldest first */ #links = new Map();
  /** @type {Map<string, (Candidate | null)[]>} */ #early = new Map();
  /** @type {string[]} */ #gone = [];
  /** @type {number[]} */ #offers = [];
  #closed = false;

  /**
   * @param {string} local our user id, without device
   * @param {string} remote the other's
   * @param {object} options
   * @param {Capabilities} options.capabilities what our engine can do
   * @param {(size: number) => Bytes} options.random
   * @param {number} options.attemptSeconds from the offer to HELLOs exchanged
   * @param {number} options.healSeconds from the loss of a path to its return
   */
  constructor(local, remote, { capabilities, random, attemptSeconds, healSeconds }) {
    this.polite = sortsBefore(local, remote);
    this.#capabilities = capabilities;
    this.#random = random;
    this.#attemptSeconds = attemptSeconds;
    this.#healSeconds = healSeconds;
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** @returns {PeerState} what all of it amounts to */
  get state() {
    const current = this.current;
    if (this.#closed) return 'closed';
    if (current?.ready && !current.lost) return 'connected';
    if (this.#attempts().length || (current && !current.ready)) return 'connecting';
    if (current) return 'disconnected';
    if (!this.outcome) return 'new';
    return this.outcome.orderly ? 'closed' : 'failed';
  }

  /** @returns {Readonly<Link> | null} the link with an open channel: there is at most one */
  get current() {
    for (const link of this.#links.values()) if (link.opened) return link;
    return null;
  }

  /** @returns {number | null} when `tick` is due */
  get deadline() {
    let first = Infinity;
    for (const link of this.#links.values()) {
      first = Math.min(first, link.deadline ?? first, link.offerDeadline ?? first, isDue(link) ? 0 : first);
    }
    return first < Infinity ? first : null;
  }

  /**
   * Whether an answer for this name would be of use; if not, nobody need check it.
   * @param {string} name
   */
  awaitsAnswer(name) {
    return this.#links.get(name)?.phase === 'offered';
  }

  /**
   * Whether there was a link of that name, not long ago.
   * @param {string} name
   */
  isOver(name) {
    return this.#gone.includes(name);
  }

  #attempts() {
    return [...this.#links.values()].filter((link) => !link.opened);
  }

  // --- from the owner ----------------------------------------------------------------------------------------------

  /**
   * Start an attempt or a restart, unless something is under way or works already.
   * @param {number} now
   * @returns {Command[]}
   */
  connect(now) {
    const current = /** @type {Link | null} */ (this.current);
    if (this.#closed || this.#attempts().length || (current && !current.lost)) return [];
    return current && this.#canRestart(current) ? this.#restart(current, now) : this.#offerAnew(now);
  }

  /**
   * What is sent on an open connection has changed (tracks): it takes another offer. Now or as soon as it can be made.
   * Ignored before HELLOs have been exchanged: the first offer comes by itself.
   * @param {string} name
   * @param {number} now
   * @returns {Command[]}
   */
  renegotiate(name, now) {
    const link = this.#links.get(name);
    if (!link?.ready) return [];
    link.wanted = true;
    return this.#renegotiateIfDue(link, now);
  }

  /**
   * The end; whatever is told afterwards leads to nothing.
   * @param {string} reason
   * @returns {Command[]}
   */
  close(reason) {
    const commands = [...this.#links.values()].flatMap((link) => this.#drop(link, reason));
    this.#closed = true;
    return commands;
  }

  // --- from the other side (checked) -------------------------------------------------------------------------------

  /**
   * A proven offer has arrived.
   * @param {string} name
   * @param {string} sdp
   * @param {Capabilities} capabilities
   * @param {number} now
   * @returns {Command[]}
   */
  offerReceived(name, sdp, capabilities, now) {
    if (this.#closed) return [];
    const known = this.#links.get(name);
    if (known) return this.#offerAgain(known, sdp, capabilities);
    if (this.isOver(name)) return [{ type: 'sendBye', name, reason: OVER }];
    const ours = this.#attempts().find((each) => isOffering(each) && !each.fingerprints);
    if (ours && !this.polite) return insist(ours);
    const [oldest] = this.#offers;
    if (oldest !== undefined && this.#offers.length === MAX_OFFERS) {
      if (now - oldest < OFFER_WINDOW) return [];
      this.#offers.shift();
    }
    this.#offers.push(now);
    const commands = ours ? this.#drop(ours) : [];
    const attempts = this.#attempts();
    if (attempts[0] && attempts.length >= MAX_ATTEMPTS) {
      commands.push(...this.#drop(attempts[0], 'replaced by a newer attempt'));
    }
    const link = this.#add(name, 'answering', now);
    link.incoming = this.#early.get(name) ?? [];
    this.#early.delete(name);
    link.candidates = link.incoming.length;
    return [...commands, { type: 'createConnection', name, openChannel: false }, ...answer(link, sdp, capabilities)];
  }

  /**
   * An offer on a connection that exists: an ICE restart, or a renegotiation.
   * @param {Link} link
   * @param {string} sdp
   * @param {Capabilities} capabilities
   * @returns {Command[]}
   */
  #offerAgain(link, sdp, capabilities) {
    // An offer on top of our unanswered first one, or with another certificate, is not of a sane peer.
    if (!link.fingerprints || fingerprints(sdp) !== link.fingerprints) return [];
    if (isOffering(link) && !this.polite) return insist(link);
    link.offerDeadline = null; // of ours, which the engine drops; if it is still needed, the engine says so
    return answer(link, sdp, capabilities);
  }

  /**
   * A proven answer has arrived; one for a connection that is over need not be proven.
   * @param {string} name
   * @param {string} sdp
   * @param {Capabilities} capabilities
   * @param {number} now
   * @returns {Command[]}
   */
  answerReceived(name, sdp, capabilities, now) {
    if (this.isOver(name) && !this.#closed) return [{ type: 'sendBye', name, reason: OVER }];
    const link = this.#links.get(name);
    if (link?.phase !== 'offered') return [];
    if (link.fingerprints && fingerprints(sdp) !== link.fingerprints) {
      // The program there was started anew, and has never heard of this connection.
      const commands = this.#end(link, 'the other side has been restarted', 'you have been restarted');
      return this.#attempts().length ? commands : [...commands, ...this.#offerAnew(now)];
    }
    link.phase = 'settled';
    link.offerDeadline = null;
    return [{ type: 'applyAnswer', name, serial: link.serial, sdp }, ...described(link, sdp, capabilities)];
  }

  /**
   * A candidate has arrived, from whomever: a forged one cannot complete the DTLS handshake.
   * @param {string} name
   * @param {Candidate | null} candidate
   * @returns {Command[]}
   */
  candidateReceived(name, candidate) {
    if (this.#closed || this.isOver(name)) return [];
    const link = this.#links.get(name);
    if (!link) this.#keepEarly(name, candidate);
    else if (link.candidates < MAX_CANDIDATES) {
      link.candidates++;
      if (link.fingerprints && link.phase !== 'offered' && belongs(candidate, link)) {
        return [{ type: 'addCandidate', name, candidate }];
      }
      link.incoming.push(candidate);
    }
    return [];
  }

  /**
   * @param {string} name
   * @param {Candidate | null} candidate
   */
  #keepEarly(name, candidate) {
    const kept = this.#early.get(name) ?? [];
    this.#early.set(name, kept);
    if (kept.length < MAX_CANDIDATES) kept.push(candidate);
    if (this.#early.size > MAX_EARLY_NAMES) this.#early.delete([...this.#early.keys()][0] ?? '');
  }

  /**
   * The other side says, or the server says that it says, that a connection is over.
   * @param {string} name
   * @param {string} reason
   * @returns {Command[]}
   */
  byeReceived(name, reason) {
    const link = this.#links.get(name);
    if (link?.opened) return [{ type: 'probe', name, reason }];
    return this.#end(link, 'the other side gave up' + (reason && `: ${reason}`));
  }

  // --- from the engine ---------------------------------------------------------------------------------------------

  /**
   * The engine has made the offer of that serial.
   * @param {string} name
   * @param {number} serial
   * @param {string} sdp
   * @returns {Command[]}
   */
  offerMade(name, serial, sdp) {
    const link = this.#links.get(name);
    if (link?.serial !== serial) return [];
    link.phase = 'offered';
    link.offerSdp = sdp;
    return [{ type: 'sendOffer', name, serial, sdp }, ...flush(link)];
  }

  /**
   * The engine has made the answer of that serial.
   * @param {string} name
   * @param {number} serial
   * @param {string} sdp
   * @returns {Command[]}
   */
  answerMade(name, serial, sdp) {
    const link = this.#links.get(name);
    if (link?.serial !== serial) return [];
    link.phase = 'settled';
    return [{ type: 'sendAnswer', name, serial, sdp }, ...flush(link)];
  }

  /**
   * The engine has a candidate for the other side; it must not overtake its description.
   * @param {string} name
   * @param {Candidate | null} candidate
   * @returns {Command[]}
   */
  candidateGathered(name, candidate) {
    const link = this.#links.get(name);
    if (!link) return [];
    link.outgoing.push(candidate);
    return link.phase === 'offering' || link.phase === 'answering' ? [] : flush(link);
  }

  /**
   * The engine has refused to offer, answer or accept, or the description could not be sent.
   * @param {string} name
   * @param {number} serial
   * @param {string} reason
   * @returns {Command[]}
   */
  operationFailed(name, serial, reason) {
    const link = this.#links.get(name);
    if (link?.serial !== serial) return [];
    if (!link.opened) return this.#end(link, reason, 'it could not be made');
    // The connection stands. A restart may be tried again; a renegotiation is, at its deadline.
    if (isOffering(link) && !link.restart) link.wanted = true;
    else link.offerDeadline = null;
    link.phase = 'settled';
    return [];
  }

  /**
   * The channel of a link is open: it is the one from now on, and all others go.
   * @param {string} name
   * @returns {Command[]}
   */
  channelOpened(name) {
    const link = this.#links.get(name);
    if (!link) return [];
    link.opened = true;
    return [...this.#links.values()].flatMap((other) =>
      other === link ? [] : this.#drop(other, 'replaced by another connection'),
    );
  }

  /**
   * HELLOs have been exchanged.
   * @param {string} name
   * @returns {Command[]}
   */
  channelReady(name) {
    const link = this.#links.get(name);
    if (link) {
      link.ready = true;
      link.deadline = null;
    }
    return [];
  }

  /**
   * Nothing comes through any more. `final`: the engine says that without a restart nothing will.
   * @param {string} name
   * @param {number} now
   * @param {boolean} final
   * @returns {Command[]}
   */
  pathLost(name, now, final) {
    const link = this.#links.get(name);
    if (!link) return [];
    if (!link.ready) return final ? this.#end(link, 'no path to the other side was found', 'no path was found') : [];
    if (link.lost && !final) return [];
    const canRestart = this.#canRestart(link);
    if (final && !canRestart) return this.#end(link, 'the path to the other side was lost', 'the path was lost');
    if (!link.lost) {
      link.lost = true;
      link.deadline = now + this.#healSeconds;
    }
    return canRestart ? this.#restart(link, now) : [];
  }

  /**
   * Something comes through again.
   * @param {string} name
   * @returns {Command[]}
   */
  pathRestored(name) {
    const link = this.#links.get(name);
    if (link?.lost) {
      link.lost = false;
      link.deadline = null;
    }
    return [];
  }

  /**
   * The other side has closed its end; `orderly` when it has said goodbye on the channel.
   * @param {string} name
   * @param {string} reason
   * @param {boolean} orderly
   * @returns {Command[]}
   */
  linkEnded(name, reason, orderly) {
    const link = this.#links.get(name);
    // A goodbye in place of a HELLO is a refusal: the attempt has failed.
    return this.#end(link, reason, null, orderly && link?.ready);
  }

  /**
   * The other side misbehaves: end this link.
   * @param {string} name
   * @param {string} reason
   * @returns {Command[]}
   */
  abandon(name, reason) {
    return this.#end(this.#links.get(name), reason, reason);
  }

  // --- time --------------------------------------------------------------------------------------------------------

  /**
   * Look at the deadlines; to be called when `deadline` has come.
   * @param {number} now
   * @returns {Command[]}
   */
  tick(now) {
    /** @type {Command[]} */
    const commands = [];
    for (const link of [...this.#links.values()]) {
      if (hasCome(link.offerDeadline, now)) {
        link.offerDeadline = null;
        if (isOffering(link)) {
          link.phase = 'settled'; // nobody has answered; a restart may be tried again, a renegotiation is
          link.wanted ||= !link.restart;
        }
      }
      if (hasCome(link.deadline, now)) commands.push(...this.#end(link, this.#overdue(link), 'it took too long'));
      else commands.push(...this.#renegotiateIfDue(link, now));
    }
    return commands;
  }

  /** @param {Link} link */
  #overdue(link) {
    const within = ` within ${this.#attemptSeconds} s`;
    if (link.lost) return `the path to the other side did not come back within ${this.#healSeconds} s`;
    if (link.opened) return `the channel opened, but no HELLO came${within}`;
    if (link.phase === 'settled') return `no path to the other side was found${within}`;
    if (link.phase === 'offered') return `no answer${within}`;
    return `the WebRTC engine made no description${within}`;
  }

  // --- within ------------------------------------------------------------------------------------------------------

  /**
   * @param {string} name
   * @param {Link['phase']} phase
   * @param {number} now
   */
  #add(name, phase, now) {
    const link = make(name, phase, now + this.#attemptSeconds);
    this.#links.set(name, link);
    return link;
  }

  /**
   * @param {number} now
   * @returns {Command[]}
   */
  #offerAnew(now) {
    const name = toBase64url(this.#random(NAME_BYTES));
    return [{ type: 'createConnection', name, openChannel: true }, ...offer(this.#add(name, 'offering', now), false)];
  }

  /** @param {Link} link */
  #canRestart(link) {
    return this.#capabilities.restart && link.capabilities.restart;
  }

  /**
   * @param {Link} link
   * @param {number} now
   * @returns {Command[]}
   */
  #restart(link, now) {
    if (link.phase !== 'settled') {
      // A restart is under way, ours or theirs. A mere renegotiation of ours is overtaken, and made anew later.
      if (!isOffering(link) || link.restart) return [];
      link.wanted = true;
    }
    link.offerDeadline = now + this.#healSeconds;
    return offer(link, true);
  }

  /**
   * @param {Link} link
   * @param {number} now
   * @returns {Command[]}
   */
  #renegotiateIfDue(link, now) {
    if (!isDue(link)) return [];
    link.wanted = false;
    link.offerDeadline = now + RENEGOTIATION * 2 ** Math.min(link.tries++, 4);
    return offer(link, false);
  }

  /**
   * @param {Link} link
   * @param {string | null} [bye]
   * @returns {Command[]}
   */
  #drop({ name }, bye = null) {
    this.#links.delete(name);
    this.#gone.push(name);
    if (this.#gone.length > MAX_GONE_NAMES) this.#gone.shift();
    /** @type {Command[]} */
    const goodbye = bye === null ? [] : [{ type: 'sendBye', name, reason: bye }];
    return [...goodbye, { type: 'dropConnection', name }];
  }

  /**
   * @param {Link | undefined} link
   * @param {string} reason
   * @param {string | null} [bye]
   * @param {boolean} [orderly]
   * @returns {Command[]}
   */
  #end(link, reason, bye, orderly = false) {
    if (!link) return [];
    this.outcome = { name: link.name, orderly, reason };
    return this.#drop(link, bye);
  }
}
