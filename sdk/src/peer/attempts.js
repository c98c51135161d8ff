/**
 * One connection in the negotiation, and its commands: the small steps of `negotiation`.
 *
 * Rules: nothing here decides which offer stands or which connection is current, and nothing here knows the time.
 */

/** @import { RefusalCode } from '../protocol/codes.js' */
/** @import { Candidate, Capabilities } from '../protocol/messages.js' */
/** @import { Signed } from './trust.js' */

/**
 * A command. For `makeOffer`, `makeAnswer`, `applyAnswer`, `sendOffer` and `sendAnswer` a call with the same `serial`
 * follows: the result, or `operationFailed`. A result comes back as it was given, to be sent.
 * @typedef {{ type: 'createConnection', name: string, openChannel: boolean }
 *   | { type: 'makeOffer', name: string, serial: number, restart: boolean }
 *   | { type: 'makeAnswer' | 'applyAnswer', name: string, serial: number, sdp: string }
 *   | { type: 'sendOffer' | 'sendAnswer', name: string, serial: number, sdp: Signed }
 *   | { type: 'addCandidate' | 'sendCandidate', name: string, candidate: Candidate | null }
 *   | { type: 'sendBye' | 'probe', name: string, reason: string, code?: string }
 *   | { type: 'refuse', name: string, reason: string, code: RefusalCode, retryAfter: number }
 *   | { type: 'dropConnection', name: string }} Command
 */

/**
 * One connection, as the negotiation sees it. `phase`: the engine is making our offer; the offer was sent; the engine
 * is making our answer; the engine has both descriptions, or is taking them.
 * @typedef {object} Attempt
 * @property {string} name
 * @property {Phase} phase `new` while only candidates have come
 * @property {number} deadline when to give up: the attempt, or a lost path
 * @property {number} offerDeadline of an offer on an open connection
 * @property {number} serial
 * @property {boolean} [opened] its channel is open
 * @property {boolean} [ready] and HELLOs have been exchanged
 * @property {boolean} [lost] and nothing arrives
 * @property {boolean} [left] and the messages go another way, so only another connection is of use
 * @property {Signed} [made] our latest description
 * @property {boolean} [restart] whether our latest offer is an ICE restart
 * @property {boolean} [wanted] a renegotiation is due as soon as it is possible
 * @property {number} tries renegotiations since one was answered
 * @property {{ offerDeadline: number, tries: number }} [answered] of our latest renegotiation, while the engine takes its answer
 * @property {Capabilities} [capabilities] the other side's
 * @property {string} [fingerprints] of the other side's certificates; absent before their first description
 * @property {string[]} fragments
 * @property {(Candidate | null)[]} incoming before their description
 * @property {(Candidate | null)[]} outgoing before ours is on its way
 * @property {number} candidates
 */

/**
 * How the last attempt ended: its name, whether on purpose, and why (in words, or the exception). `noPath`: there was
 * no path to the other side. A refusal also has a `code`, and maybe the number of seconds after which the other side
 * may take another offer.
 * @typedef {{ name: string, orderly: boolean, reason: unknown, noPath?: true, code?: string, retryAfter?: number | null }} Outcome
 */

/**
 * The phases of an attempt's descriptions, as in `aldis.peer.attempts`. Only here, `offer` also follows on `offering`
 * and `offered`, because a restart of ours replaces our pending renegotiation.
 * @typedef {'new' | 'offering' | 'offered' | 'answering' | 'settled'} Phase
 * @typedef {'offer' | 'offerMade' | 'answerReceived' | 'offerReceived' | 'answerMade' | 'failed' | 'expired'} Step
 * @type {Record<Phase, Partial<Record<Step, Phase>>>}
 */
export const PHASES = {
  new: { offer: 'offering', offerReceived: 'answering' },
  offering: {
    offer: 'offering',
    offerMade: 'offered',
    offerReceived: 'answering',
    failed: 'settled',
    expired: 'settled',
  },
  offered: {
    offer: 'offering',
    answerReceived: 'settled',
    offerReceived: 'answering',
    failed: 'settled',
    expired: 'settled',
  },
  answering: { answerMade: 'settled', offerReceived: 'answering', failed: 'settled' },
  settled: { offer: 'offering', offerMade: 'offered', offerReceived: 'answering', failed: 'settled' },
};

/**
 * Take a step of `PHASES`.
 * @param {Attempt} attempt
 * @param {Step} step
 */
export function advance(attempt, step) {
  const next = PHASES[attempt.phase][step];
  if (!next) throw new Error(`no ${step} while ${attempt.phase}`);
  attempt.phase = next;
}

export const NEVER = Infinity;

/**
 * @param {string} name
 * @returns {Attempt}
 */
export function make(name) {
  return {
    name,
    phase: 'new',
    deadline: NEVER,
    offerDeadline: NEVER,
    serial: 0,
    tries: 0,
    candidates: 0,
    fragments: [],
    incoming: [],
    outgoing: [],
  };
}

/** @param {Attempt} attempt */
export function isOffering({ phase }) {
  return phase === 'offering' || phase === 'offered';
}

/** @param {Attempt} attempt */
export function isDue(attempt) {
  return attempt.wanted && !attempt.lost && attempt.phase === 'settled' && attempt.offerDeadline === NEVER;
}

/**
 * @param {string} name
 * @param {boolean} openChannel
 * @returns {Command}
 */
export function create(name, openChannel) {
  return { type: 'createConnection', name, openChannel };
}

/**
 * Tell the other side that a connection is over, because it has missed that.
 * @param {string} name
 * @returns {Command[]}
 */
export function over(name) {
  return [{ type: 'sendBye', name, reason: 'this connection is over' }];
}

/**
 * @param {Attempt} attempt
 * @param {boolean} restart
 * @returns {Command[]}
 */
export function offer(attempt, restart) {
  advance(attempt, 'offer');
  attempt.restart = restart;
  attempt.answered = undefined;
  return [{ type: 'makeOffer', name: attempt.name, serial: ++attempt.serial, restart }];
}

/** Seconds after which a renegotiation is repeated; doubled after each one without an answer, four times at most. */
export const RENEGOTIATION = 5;

/**
 * Restart ICE, unless a restart is under way, ours or theirs.
 * @param {Attempt} attempt
 * @param {number} now
 * @param {number} seconds for the answer to come
 * @returns {Command[]}
 */
export function restart(attempt, now, seconds) {
  if (attempt.phase !== 'settled') {
    // A restart replaces our pending renegotiation, which is made again later.
    if (!isOffering(attempt) || attempt.restart) return [];
    attempt.wanted = true;
  }
  attempt.offerDeadline = now + seconds;
  return offer(attempt, true);
}

/**
 * @param {Attempt} attempt
 * @param {number} now
 * @returns {Command[]}
 */
export function renegotiateIfDue(attempt, now) {
  if (!isDue(attempt)) return [];
  attempt.wanted = false;
  attempt.offerDeadline = now + RENEGOTIATION * 2 ** Math.min(attempt.tries++, 4);
  return offer(attempt, false);
}

/**
 * Give up an offer of ours without an answer. A restart may be tried again; a renegotiation is always repeated.
 * @param {Attempt} attempt
 * @param {number} now
 */
export function expire(attempt, now) {
  if (attempt.offerDeadline > now) return;
  attempt.offerDeadline = NEVER;
  if (!isOffering(attempt)) return;
  advance(attempt, 'expired');
  attempt.wanted ||= !attempt.restart;
}

/**
 * Send our offer again, because it stands and may have been lost; nothing while it is still being made.
 * @param {Attempt} attempt
 * @returns {Command[]}
 */
export function insist({ name, serial, made, phase }) {
  return phase === 'offered' ? [{ type: 'sendOffer', name, serial, sdp: /** @type {Signed} */ (made) }] : [];
}

/**
 * @param {Attempt} attempt
 * @param {string} sdp
 * @param {Capabilities} capabilities
 * @returns {Command[]}
 */
export function answer(attempt, sdp, capabilities) {
  advance(attempt, 'offerReceived');
  attempt.answered = undefined;
  return [
    { type: 'makeAnswer', name: attempt.name, serial: ++attempt.serial, sdp },
    ...described(attempt, sdp, capabilities),
  ];
}

/**
 * Note that the engine gets the other side's description; release the candidates that waited for it.
 * @param {Attempt} attempt
 * @param {string} sdp
 * @param {Capabilities} capabilities
 * @returns {Command[]}
 */
export function described(attempt, sdp, capabilities) {
  const waiting = attempt.incoming;
  attempt.capabilities = capabilities;
  attempt.fingerprints = fingerprints(sdp) || 'none'; // an engine refuses one without, and it equals no other
  attempt.fragments = captured(sdp, /^a=ice-ufrag:(\S+)\s*$/gm);
  attempt.candidates = attempt.tries = 0;
  attempt.incoming = [];
  return waiting
    .filter((each) => belongs(each, attempt))
    .map((candidate) => ({ type: 'addCandidate', name: attempt.name, candidate }));
}

/**
 * @param {Attempt} attempt
 * @returns {Command[]}
 */
export function flush(attempt) {
  return attempt.outgoing.splice(0).map((candidate) => ({ type: 'sendCandidate', name: attempt.name, candidate }));
}

/**
 * Whether a description has the certificate of the other side's first one, so is from the same program.
 * @param {Attempt} attempt
 * @param {string} sdp
 */
export function isOfSame(attempt, sdp) {
  return fingerprints(sdp) === attempt.fingerprints;
}

/**
 * The fingerprints in a description, as one text that is the same for the same certificates.
 * @param {string} sdp
 */
function fingerprints(sdp) {
  const found = captured(sdp, /^a=fingerprint:(\S+ +\S+)\s*$/gm).map((each) => each.toLowerCase());
  return [...new Set(found)].sort().join();
}

/**
 * @param {string} sdp
 * @param {RegExp} pattern
 */
function captured(sdp, pattern) {
  return Array.from(sdp.matchAll(pattern), (match) => match[1] ?? '');
}

/**
 * Whether a candidate belongs to the engine's description, and not to a later one.
 * @param {Candidate | null} candidate
 * @param {Attempt} attempt
 */
export function belongs(candidate, { fragments }) {
  const fragment = candidate?.usernameFragment;
  return typeof fragment !== 'string' || !fragments.length || fragments.includes(fragment);
}

/**
 * Why an attempt or a lost path is given up at its deadline.
 * @param {Attempt} attempt
 * @param {{ attemptSeconds: number, healSeconds: number }} setup
 */
export function overdue({ lost, left, opened, phase }, { attemptSeconds, healSeconds }) {
  if (lost) return `the path to the other side did not come back within ${healSeconds} s`;
  if (left) return 'the messages go another way';
  return `${
    opened
      ? 'the channel opened, but no HELLO came'
      : phase === 'settled'
        ? 'no path to the other side was found'
        : phase === 'offered'
          ? 'no answer'
          : 'the WebRTC engine made no description'
  } within ${attemptSeconds} s`;
}

/**
 * @param {string} name
 * @param {string} reason
 * @param {RefusalCode} code
 * @param {number} retryAfter
 * @returns {Command[]}
 */
export const refuse = (name, reason, code, retryAfter) => [{ type: 'refuse', name, reason, code, retryAfter }];

/**
 * The seconds until an event may happen again that is allowed `most` times in so many seconds. 0 means now, and adds
 * the event to `times`.
 *
 * @param {number[]} times when the event has happened
 * @param {number} now
 * @param {number} most
 * @param {number} seconds
 */
export function pauseOf(times, now, most, seconds) {
  while (times.length && now - Number(times[0]) >= seconds) times.shift();
  if (times.length >= most) return seconds - (now - Number(times[0]));
  times.push(now);
  return 0;
}
