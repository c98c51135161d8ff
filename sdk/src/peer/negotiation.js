/**
 * Decides which side offers and answers, and which of several connections to one peer is current; without I/O.
 *
 * Rules:
 * - Calls report what has happened, with the time (seconds) if it matters. They return what to do, in order. Results
 *   come back as calls again. Time and randomness are arguments.
 * - Perfect negotiation (https://www.w3.org/TR/webrtc/, section 10.7), with one connection for each first offer. The
 *   polite side is the one whose user id sorts first by UTF-8 bytes. When two first offers cross, the offer of the
 *   impolite side stands, and is sent once more; the polite side answers it on a fresh connection.
 * - `connection` names a connection (an attempt here). ICE restarts and renegotiations keep the name; a replacement
 *   takes a new one. Messages for unknown names are dropped, but candidates for an unknown name are kept for a while.
 * - Make before break: a new attempt lives beside the current connection, and replaces it only when its channel opens.
 *   So what the server repeats, reorders or forges costs an attempt at most, never a connection that works. A `bye`
 *   through the server only starts a check (`probe`) of an open connection.
 * - Nothing waits for ever (`deadline`, `tick`). A renegotiation without an answer is repeated, ever more seldom; it
 *   ends nothing.
 *
 * It does not know engines, signatures (its input has been checked), the contents of channels, or addresses.
 * `tests/vectors/negotiation.json` checks it against the Python machine; `renegotiate` exists only here.
 */

import { sortsBefore } from '../protocol/addresses.js';
import { toBase64url } from '../protocol/codec.js';
import { NO_PATH } from '../protocol/codes.js';
import {
  advance,
  answer,
  belongs,
  create,
  described,
  expire,
  flush,
  insist,
  isDue,
  isOffering,
  isOfSame,
  make,
  NEVER,
  offer,
  over,
  overdue,
  pauseOf,
  refuse,
  renegotiateIfDue,
  restart,
} from './attempts.js';
import { limit } from './bounded.js';

/** @import { Bytes } from '../protocol/codec.js' */
/** @import { RefusalCode } from '../protocol/codes.js' */
/** @import { Candidate, Capabilities } from '../protocol/messages.js' */
/** @import { Attempt, Command, Outcome } from './attempts.js' */
/** @import { Signed } from './trust.js' */

/**
 * The state of this user's connection to one other user.
 *
 * - `new`: nothing has been tried yet.
 * - `connecting`: an attempt is under way, ours or the other side's.
 * - `connected`: the channel is open and HELLOs have been exchanged.
 * - `disconnected`: was connected, and nothing arrives any more. Recovers by itself or by an ICE restart, or ends.
 * - `failed`: the attempt or the connection is given up; the error says why. `connect()` makes another attempt.
 * - `closed`: ended on purpose: by the other side (as after `failed`), or by our own `close()`, for good.
 * @typedef {'new' | 'connecting' | 'connected' | 'disconnected' | 'failed' | 'closed'} PeerState
 */

/**
 * The events of a connection, by its name. (tsc breaks a union over two lines.)
 * @typedef {'offerMade' | 'answerMade' | 'candidateGathered' | 'operationFailed' | 'renegotiate'} Described
 * @typedef {'channelOpened' | 'channelReady' | 'pathLost' | 'pathRestored' | 'attemptEnded' | 'abandon'} Lived
 * @typedef {Described | Lived} Happening
 */

/**
 * The arguments after the name.
 * @template {Happening} Call
 * @typedef {Parameters<Negotiation[Call]> extends [string, ...infer Rest] ? Rest : never} Told
 */

/**
 * All inputs of the machine.
 * @typedef {'offerReceived' | 'answerReceived' | 'candidateReceived' | 'byeReceived'} Received
 * @typedef {Happening | Received | 'connect' | 'leave' | 'close' | 'refuse' | 'networkChanged' | 'tick'} Input
 */

/** 128 random bits, so no two connections share a name. */
export const NAME_BYTES = 16;
/** An ICE agent gathers a dozen candidates. Each accepted one costs checks towards an address that a stranger chooses. */
export const MAX_CANDIDATES = 128;
export const MAX_EARLY_NAMES = 4;
export const MAX_GONE_NAMES = 64;
/** Each first offer makes the engine open sockets. A correct peer makes one in `OFFER_WINDOW` seconds. */
export const MAX_OFFERS = 10;
export const OFFER_WINDOW = 10;
/** Versions without the code `NO_PATH` use these words. */
const NO_PATH_REASONS = ['no path was found', 'it took too long'];
/** Seconds: a peer that has sent a bad offer will hardly send a better one at once. */
const BAD_OFFER_PAUSE = 10;
/** All connections between two users, open ones and attempts. */
export class Negotiation {
  /** @type {boolean} */ polite;
  /** @type {Outcome | null} */ outcome = null;
  #setup;
  /** @type {Attempt[]} oldest first */ #attempts = [];
  /** @type {Map<string, Attempt>} those of which nothing but candidates has come */ #early = new Map();
  /** @type {Set<string>} the names of those that are over */ #gone = new Set();
  /** @type {number[]} when the last first offers came */ #offers = [];
  /** @type {number[]} when the last refusals went */ #refusals = [];
  #closed = false;

  /**
   * @param {string} local our user id, without device
   * @param {string} remote the other's
   * @param {object} setup
   * @param {Capabilities} setup.capabilities what our engine can do
   * @param {(size: number) => Bytes} setup.random
   * @param {number} setup.attemptSeconds from the offer to HELLOs exchanged
   * @param {number} setup.healSeconds from the loss of a path to its return
   */
  constructor(local, remote, setup) {
    this.polite = sortsBefore(local, remote);
    this.#setup = setup;
  }

  // --- queries -----------------------------------------------------------------------------------------------------

  /** @returns {PeerState} the state of all connections together */
  get state() {
    if (this.#closed) return 'closed';
    if (this.#attempts.some((attempt) => attempt.ready && !attempt.lost && !attempt.left)) return 'connected';
    if (this.#attempts.some((attempt) => !attempt.ready)) return 'connecting';
    if (this.#attempts.length) return 'disconnected';
    if (!this.outcome) return 'new';
    return this.outcome.orderly ? 'closed' : 'failed';
  }

  /** The attempt with an open channel: there is at most one. */
  get current() {
    return this.#attempts.find((attempt) => attempt.opened);
  }

  /** When `tick` is due; `NEVER` when nothing is due. */
  get deadline() {
    return Math.min(
      ...this.#attempts.map((attempt) => (isDue(attempt) ? 0 : Math.min(attempt.deadline, attempt.offerDeadline))),
    );
  }

  /**
   * Whether an answer for this name would be used; if not, it need not be checked.
   * @param {string} name
   */
  awaitsAnswer(name) {
    return this.#find(name)?.phase === 'offered';
  }

  /**
   * Whether there was an attempt of that name recently.
   * @param {string} name
   */
  isOver(name) {
    return this.#gone.has(name);
  }

  /** @param {string} name */
  #find(name) {
    return this.#attempts.find((attempt) => attempt.name === name);
  }

  #pending() {
    return this.#attempts.filter((attempt) => !attempt.opened);
  }

  /** Whether there is an attempt whose channel is not open yet. */
  get attempting() {
    return this.#pending().length > 0;
  }

  /** Whether all attempts wait for an answer of the other side. */
  get unanswered() {
    return this.#pending().every(({ phase }) => phase === 'offered');
  }

  /** Whether `connect` would make a new connection. */
  get needsAttempt() {
    const { current } = this;
    return !(this.#closed || this.attempting || (current && !current.left && !current.lost));
  }

  // --- from the owner ----------------------------------------------------------------------------------------------

  /**
   * Start an attempt, unless something is under way or the connection works. Beside a lost connection too, whether ICE is
   * restarted there or not: SCTP waits for up to 3 s before it uses a path that is back, and a new channel does not.
   * @param {number} now
   * @returns {Command[]}
   */
  connect(now) {
    return this.needsAttempt ? this.#offerAnew(now) : [];
  }

  /**
   * The messages go another way from now on. HELLO is said once on a channel, so they do not come back to this one:
   * `connect` makes another connection beside it.
   * @param {number} now
   * @returns {Command[]}
   */
  leave(now) {
    const { current } = this;
    if (current?.ready && !current.left) {
      current.left = true;
      current.deadline = Math.min(current.deadline, now + this.#setup.healSeconds);
    }
    return [];
  }

  /**
   * The tracks on an open connection have changed, so it needs another offer, now or as soon as possible. Ignored
   * before HELLOs are exchanged, because the first offer comes by itself.
   * @param {string} name
   * @param {number} now
   * @returns {Command[]}
   */
  renegotiate(name, now) {
    const attempt = this.#find(name);
    if (!attempt?.ready) return [];
    attempt.wanted = true;
    return renegotiateIfDue(attempt, now);
  }

  /**
   * End everything for good; later calls have no effect.
   * @param {string} reason
   * @returns {Command[]}
   */
  close(reason) {
    this.#closed = true;
    return this.#attempts.flatMap((attempt) => this.#drop(attempt, reason));
  }

  // --- from the other side (checked) -------------------------------------------------------------------------------

  /**
   * A proven offer has arrived: the first of its name, an ICE restart, or a renegotiation.
   * @param {string} name
   * @param {string} sdp
   * @param {Capabilities} capabilities
   * @param {number} now
   * @returns {Command[]}
   */
  offerReceived(name, sdp, capabilities, now) {
    if (this.#closed) return [];
    if (this.isOver(name)) return over(name);
    const known = this.#find(name);
    // A correct peer does not offer on top of our unanswered first offer, or with another certificate.
    if (known && !isOfSame(known, sdp)) {
      return refuse(name, 'it does not fit the connection', 'invalid-offer', BAD_OFFER_PAUSE);
    }
    const ours = (known ? [known] : this.#pending().filter((each) => !each.fingerprints)).find(isOffering);
    if (ours && !this.polite) return insist(ours);
    if (known) {
      known.offerDeadline = NEVER; // the engine drops our offer; if it is still needed, the engine says so
      return answer(known, sdp, capabilities);
    }
    const pause = pauseOf(this.#offers, now, MAX_OFFERS, OFFER_WINDOW);
    if (pause) return refuse(name, 'too many offers', 'rate-limited', pause);
    const commands = ours ? this.#drop(ours) : [];
    const [oldest, another] = this.#pending();
    // Two beside an open connection, because a late offer may come beside the attempt that replaced it.
    if (oldest && another) commands.push(...this.#drop(oldest, 'replaced by a newer attempt'));
    return [...commands, create(name, false), ...answer(this.#add(name, now), sdp, capabilities)];
  }

  /**
   * Refuse an offer that failed the check. Not if that would end an attempt under way here, because the sender need not
   * be the peer; and not more often than offers are accepted.
   * @param {string} name
   * @param {string} reason
   * @param {RefusalCode} code
   * @param {number} retryAfter
   * @param {number} now
   * @returns {Command[]}
   */
  refuse(name, reason, code, retryAfter, now) {
    if (this.#closed || this.#find(name) || this.isOver(name) || pauseOf(this.#refusals, now, MAX_OFFERS, OFFER_WINDOW))
      return [];
    return refuse(name, reason, code, retryAfter);
  }

  /**
   * A proven answer has arrived. An answer for a connection that is over need not be proven.
   * @param {string} name
   * @param {string} sdp
   * @param {Capabilities} capabilities
   * @param {number} now
   * @returns {Command[]}
   */
  answerReceived(name, sdp, capabilities, now) {
    if (this.isOver(name) && !this.#closed) return over(name);
    const attempt = this.#find(name);
    if (attempt?.phase !== 'offered') return [];
    if (attempt.fingerprints && !isOfSame(attempt, sdp)) {
      // The program there was restarted, and does not know this connection.
      const commands = this.#end(attempt, 'the other side has been restarted', { bye: 'you have been restarted' });
      return this.#pending().length ? commands : [...commands, ...this.#offerAnew(now)];
    }
    advance(attempt, 'answerReceived');
    const { offerDeadline, tries } = attempt;
    attempt.answered = attempt.restart ? undefined : { offerDeadline, tries };
    attempt.offerDeadline = NEVER;
    return [{ type: 'applyAnswer', name, serial: attempt.serial, sdp }, ...described(attempt, sdp, capabilities)];
  }

  /**
   * A candidate has arrived. It need not be proven, because a forged one cannot complete the DTLS handshake.
   * @param {string} name
   * @param {Candidate | null} candidate
   * @returns {Command[]}
   */
  candidateReceived(name, candidate) {
    if (this.#closed || this.isOver(name)) return [];
    const attempt = this.#find(name) ?? this.#early.get(name) ?? make(name);
    if (attempt.phase === 'new') this.#early.set(name, attempt);
    limit(this.#early, MAX_EARLY_NAMES);
    if (attempt.candidates++ >= MAX_CANDIDATES) return [];
    if (attempt.fingerprints && attempt.phase !== 'offered' && belongs(candidate, attempt)) {
      return [{ type: 'addCandidate', name, candidate }];
    }
    attempt.incoming.push(candidate);
    return [];
  }

  /**
   * The other side (or the server, which may lie) says that a connection is over, or that it refuses an offer now.
   * @param {string} name
   * @param {string} reason
   * @param {string | null} [code]
   * @param {number | null} [retryAfter]
   * @returns {Command[]}
   */
  byeReceived(name, reason, code = null, retryAfter = null) {
    const attempt = this.#find(name);
    if (attempt?.opened) return [{ type: 'probe', name, reason }];
    if (attempt && code && code !== NO_PATH) {
      this.outcome = { name, orderly: false, reason: `the other side refuses: ${reason || code}`, code, retryAfter };
      return this.#drop(attempt);
    }
    const noPath = code === NO_PATH || NO_PATH_REASONS.includes(reason);
    return this.#end(attempt, 'the other side gave up' + (reason && `: ${reason}`), { noPath });
  }

  // --- from the engine ---------------------------------------------------------------------------------------------

  /**
   * The engine has made the offer of that serial.
   * @param {string} name
   * @param {number} serial
   * @param {Signed} made
   */
  offerMade(name, serial, made) {
    return this.#made('sendOffer', name, serial, made, 'offerMade');
  }

  /**
   * The engine has made the answer of that serial.
   * @param {string} name
   * @param {number} serial
   * @param {Signed} made
   */
  answerMade(name, serial, made) {
    return this.#made('sendAnswer', name, serial, made, 'answerMade');
  }

  /**
   * @param {'sendOffer' | 'sendAnswer'} type
   * @param {string} name
   * @param {number} serial
   * @param {Signed} made
   * @param {'offerMade' | 'answerMade'} step
   * @returns {Command[]}
   */
  #made(type, name, serial, made, step) {
    const attempt = this.#find(name);
    if (attempt?.serial !== serial) return [];
    advance(attempt, step);
    attempt.made = made;
    return [{ type, name, serial, sdp: made }, ...flush(attempt)];
  }

  /**
   * The engine has a candidate for the other side; it is sent after its description.
   * @param {string} name
   * @param {Candidate | null} candidate
   * @returns {Command[]}
   */
  candidateGathered(name, candidate) {
    const attempt = this.#find(name);
    if (!attempt) return [];
    attempt.outgoing.push(candidate);
    return attempt.phase === 'offering' || attempt.phase === 'answering' ? [] : flush(attempt);
  }

  /**
   * The engine has failed to offer, answer or accept, or the description could not be sent.
   * @param {string} name
   * @param {number} serial
   * @param {unknown} reason
   * @returns {Command[]}
   */
  operationFailed(name, serial, reason) {
    const attempt = this.#find(name);
    if (attempt?.serial !== serial) return [];
    if (!attempt.opened) return this.#end(attempt, reason, { bye: 'it could not be made' });
    // The connection stands. A restart may be tried again; a renegotiation is repeated at its deadline, also when the
    // engine refuses the answer: the tracks were not taken.
    if ((isOffering(attempt) && !attempt.restart) || attempt.answered)
      Object.assign(attempt, attempt.answered, { wanted: true });
    else attempt.offerDeadline = NEVER;
    advance(attempt, 'failed');
    return [];
  }

  /**
   * The channel of an attempt is open: this connection is the current one, and all others end.
   * @param {string} name
   * @returns {Command[]}
   */
  channelOpened(name) {
    const attempt = this.#find(name);
    if (!attempt) return [];
    attempt.opened = true;
    return this.#attempts.flatMap((each) =>
      each === attempt ? [] : this.#drop(each, 'replaced by another connection'),
    );
  }

  /**
   * HELLOs have been exchanged.
   * @param {string} name
   * @returns {Command[]}
   */
  channelReady(name) {
    const attempt = this.#find(name);
    if (attempt) {
      attempt.ready = true;
      attempt.deadline = NEVER;
    }
    return [];
  }

  /**
   * Nothing arrives any more. `final`: the engine says that only a restart can help.
   * @param {string} name
   * @param {number} now
   * @param {boolean} final
   * @returns {Command[]}
   */
  pathLost(name, now, final) {
    const attempt = this.#find(name);
    if (!attempt || ((attempt.lost || !attempt.ready) && !final)) return [];
    if (!attempt.ready)
      return this.#end(attempt, 'no path to the other side was found', { bye: 'no path was found', noPath: true });
    const canRestart = this.#canRestart(attempt);
    if (final && !canRestart) return this.#end(attempt, 'the path to the other side was lost');
    attempt.lost = true;
    attempt.deadline = Math.min(attempt.deadline, now + this.#setup.healSeconds);
    return canRestart ? restart(attempt, now, this.#setup.healSeconds) : [];
  }

  /**
   * This device has another network: look for a path from there at once, if the engines can. The one that there is stays
   * in use as long as it works. An attempt that has begun before knows no address of this network: another one takes its
   * place. The other side is not told: it leaves the one before when this one opens.
   * @param {number} now
   * @returns {Command[]}
   */
  networkChanged(now) {
    const { current } = this;
    const commands = current?.ready && this.#canRestart(current) ? restart(current, now, this.#setup.healSeconds) : [];
    const before = this.#pending();
    for (const attempt of before) commands.push(...this.#drop(attempt));
    return before.length ? [...commands, ...this.#offerAnew(now)] : commands;
  }

  /**
   * Data arrives again.
   * @param {string} name
   * @returns {Command[]}
   */
  pathRestored(name) {
    const attempt = this.#find(name);
    if (attempt?.lost) {
      attempt.lost = false;
      if (!attempt.left) attempt.deadline = NEVER;
    }
    return [];
  }

  /**
   * The other side has closed its end; `orderly` after a GOODBYE on the channel.
   * @param {string} name
   * @param {string} reason
   * @param {boolean} orderly
   * @returns {Command[]}
   */
  attemptEnded(name, reason, orderly) {
    const attempt = this.#find(name);
    // A GOODBYE in place of a HELLO is a refusal, so the attempt has failed.
    return this.#end(attempt, reason, { orderly: orderly && attempt?.ready });
  }

  /**
   * The other side breaks the protocol: end this attempt.
   * @param {string} name
   * @param {string} reason
   * @returns {Command[]}
   */
  abandon(name, reason) {
    return this.#end(this.#find(name), reason, { bye: reason });
  }

  // --- time --------------------------------------------------------------------------------------------------------

  /**
   * Handle the deadlines; call this when `deadline` has come.
   * @param {number} now
   * @returns {Command[]}
   */
  tick(now) {
    return this.#attempts.flatMap((attempt) => {
      expire(attempt, now);
      return attempt.deadline <= now
        ? // A bye can end an open connection, so send none when only its path is lost.
          this.#end(attempt, overdue(attempt, this.#setup), {
            bye: attempt.lost || attempt.left ? undefined : 'it took too long',
            noPath: !attempt.opened && attempt.phase === 'settled',
          })
        : renegotiateIfDue(attempt, now);
    });
  }

  // --- internal ----------------------------------------------------------------------------------------------------

  /**
   * @param {string} name
   * @param {number} now
   */
  #add(name, now) {
    const attempt = this.#early.get(name) ?? make(name);
    this.#early.delete(name);
    attempt.deadline = now + this.#setup.attemptSeconds;
    this.#attempts.push(attempt);
    return attempt;
  }

  /**
   * @param {number} now
   * @returns {Command[]}
   */
  #offerAnew(now) {
    const name = toBase64url(this.#setup.random(NAME_BYTES));
    return [create(name, true), ...offer(this.#add(name, now), false)];
  }

  /** @param {Attempt} attempt */
  #canRestart(attempt) {
    return this.#setup.capabilities.restart && attempt.capabilities?.restart;
  }

  /**
   * @param {Attempt} attempt
   * @param {string} [bye]
   * @param {string} [code]
   * @returns {Command[]}
   */
  #drop({ name }, bye, code) {
    this.#attempts = this.#attempts.filter((attempt) => attempt.name !== name);
    this.#gone.add(name);
    limit(this.#gone, MAX_GONE_NAMES);
    /** @type {Command[]} */
    const goodbye = bye === undefined ? [] : [{ type: 'sendBye', name, reason: bye, ...(code && { code }) }];
    return [...goodbye, { type: 'dropConnection', name }];
  }

  /**
   * @param {Attempt | undefined} attempt
   * @param {unknown} reason
   * @param {{ bye?: string, orderly?: boolean, noPath?: boolean }} [more]
   * @returns {Command[]}
   */
  #end(attempt, reason, { bye, orderly = false, noPath = false } = {}) {
    if (!attempt) return [];
    this.outcome = { name: attempt.name, orderly, reason, ...(noPath && { noPath }) };
    return this.#drop(attempt, bye, noPath ? NO_PATH : undefined);
  }
}
