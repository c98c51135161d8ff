/**
 * The quality of a path: its round-trip time, and whether anything arrives. Pure: time is an argument.
 *
 * A PING's token is the sender's clock in microseconds, and its PONG returns it. Any frame is a sign of life, so a
 * heavy transfer, behind which PONGs queue up, does not look like a dead path.
 *
 * A PING costs both engines as much as a message. So a side sends one only after a silence, as late as possible while a
 * second try still fits before the path counts as lost. A PING and its PONG are a sign of life for both sides, and the
 * sides take turns: the side that has sent the last PING leaves the next one to the other. PINGs are sent at multiples of
 * `PACE`, so that those of many connections leave together: most of the cost of a small message is to wake threads.
 *
 * A side that has sent something need not wait that long: an acknowledgement or a PONG comes within a round trip or so.
 * When nothing does, it sends a PING, and a question that goes unanswered for `SUSPICION` ends the path. So does any
 * other reason for doubt (`suspect`): the network has changed, the device has slept.
 *
 * A program that is busy answers late. So before a path counts as lost, the engine is asked whether anything else has come
 * from the other side (`answered`): SCTP acknowledges a PING without the program. If so, the path works, and the program
 * has the whole `silence` from our first PING on.
 *
 * Python has one input more: an engine that reports signs of life of its own accord. Browsers report none. The jitter and the lost
 * heartbeats, which few programs ask for, are in `store/quality` here.
 */

import { limit } from './bounded.js';

// A median of few samples forgets a slow start at once, and a single late PONG does not change it. (The smoothing of
// RFC 6298 is for one sample in each round trip.)
const SAMPLES = 5;
const MICROSECONDS = 1e6;
const MAX_OUTSTANDING = 16; // PINGs without a PONG; by then the path counts as lost
const HEARTBEATS = 20; // the last PINGs, of which those without a PONG in time are counted

// The share of the time until a path counts as lost that is left for a PING, for its repetition when it gets lost, and
// for its PONG. Added to it are so many round trips.
const RESERVE = 0.25;
const ROUND_TRIPS = 3;
const YIELD = 0.4; // seconds for which the other side may send the next PING first
const REFRESH = 30; // seconds; the interval at which the round-trip time is measured, even if no PING would be due
// PINGs are due at multiples of this share of `silence`, rounded down: 1.125 s. Three of them fit into what `RESERVE`
// leaves, with a round-trip time of up to 0.125 s.
const PACE = 0.225;

/** @typedef {{ sent: number, answered?: number }} Heartbeat A PING, and when its PONG came. */
/** @typedef {{ roundTripTime: number | null, samples: number[], heartbeats: Heartbeat[] }} Pulse */
// Seconds for a PONG when there is reason for doubt: SCTP repeats a lost packet within 1 s.
const SUSPICION = 1.5;
// Seconds for a page that was late to read what has come meanwhile.
const READING = 0.5;
// Seconds without an answer to what was sent, after which a PING asks for one. Round trips count if they are longer.
const ANSWER = 1;
const ANSWER_ROUND_TRIPS = 2;
// And so many for the PONG: a slow path has more before it.
const SUSPICION_ROUND_TRIPS = 4;
// Bytes. With more on the way, a PONG waits behind them, and the silence alone counts.
const FEW = 64 * 1024;

/** Tracks the signs of life of one channel. All times in seconds. */
export class Quality {
  #silence;
  #heardAt = 0;
  /** @type {number[]} */
  #samples = [];
  /** @type {Map<bigint, Heartbeat>} the PINGs without an answer, by token */
  #outstanding = new Map();
  /** @type {Heartbeat[]} */
  #heartbeats = [];
  #heartbeat;
  #pingedAt = -Infinity;
  #yields = false; // the last PING was ours
  #unanswered = 0; // bytes that were sent since something was heard
  #sentAt = 0; // the first of them
  #lostAt = Infinity; // unless something is heard before
  #suspectedAt = Infinity; // and the PING for that
  #askedAt = Infinity; // the first PING since something was heard
  #answers = false; // the engine of the other side, since then

  /**
   * @param {number} silence without any frame, after which the path counts as lost
   * @param {number} [heartbeat] the least time between PINGs
   */
  constructor(silence, heartbeat = 1.5) {
    this.#silence = silence;
    this.#heartbeat = heartbeat;
  }

  /**
   * The token for a PING that is sent now.
   *
   * @param {number} now
   */
  ping(now) {
    this.#pingedAt = now;
    this.#yields = true;
    this.#askedAt = Math.min(this.#askedAt, now);
    if (this.#asks && now >= this.#answerDue) this.suspect(now);
    const token = BigInt(Math.trunc(now * MICROSECONDS));
    /** @type {Heartbeat} */
    const heartbeat = { sent: now };
    this.#outstanding.set(token, heartbeat);
    this.#heartbeats = [...this.#heartbeats, heartbeat].slice(-HEARTBEATS);
    limit(this.#outstanding, MAX_OUTSTANDING);
    return token;
  }

  /**
   * A frame has arrived.
   *
   * @param {number} now
   */
  heard(now) {
    this.#heardAt = now;
    this.#lostAt = this.#askedAt = Infinity;
    this.#unanswered = 0;
    this.#answers = false;
  }

  /**
   * Something that is no frame came from the other side at that time, which may be long ago.
   *
   * @param {number} at
   */
  answered(at) {
    this.#answers ||= at > this.#askedAt;
    if (at > this.#suspectedAt) this.#lostAt = Infinity;
  }

  /**
   * A frame of so many bytes was sent that gets an answer. Returns whether it is the first since something was heard, so
   * that a PING may be due earlier.
   *
   * @param {number} size
   * @param {number} now
   */
  sent(size, now) {
    const isFirst = !this.#unanswered;
    if (isFirst) this.#sentAt = now;
    this.#unanswered += size;
    return isFirst;
  }

  get #asks() {
    return this.#unanswered > 0 && this.#unanswered <= FEW;
  }

  get #answerDue() {
    return this.#sentAt + Math.max(ANSWER, ANSWER_ROUND_TRIPS * (this.roundTripTime ?? 0));
  }

  /**
   * There is reason for doubt, and a PING is sent now: the path counts as lost unless a frame comes soon.
   *
   * @param {number} now
   */
  suspect(now) {
    const patience = Math.max(SUSPICION, SUSPICION_ROUND_TRIPS * (this.roundTripTime ?? 0));
    if (this.#lostAt < Infinity) return;
    this.#lostAt = now + patience;
    this.#suspectedAt = now;
  }

  /**
   * This page has not looked for a while: forgive the silence so far, but not much more of it.
   *
   * @param {number} now
   */
  doubt(now) {
    const lostAt = this.#lostAt;
    this.heard(now);
    this.#lostAt = Math.max(lostAt, now + READING);
    this.suspect(now);
  }

  /**
   * A PING has arrived: the next one is ours. When two cross, the one with the larger token does not count, or they
   * would cross for ever.
   *
   * @param {bigint} token
   */
  pinged(token) {
    const ours = [...this.#outstanding.keys()].pop();
    this.#yields = ours !== undefined && ours > token;
  }

  /**
   * Seconds until a PING is due if nothing arrives.
   *
   * @param {number} now
   */
  pingIn(now) {
    let quiet = this.#heartbeat;
    const usual = this.roundTripTime;
    if (usual !== null) {
      // When PONGs come late, send PINGs early.
      quiet = Math.max(quiet, this.#silence * (1 - RESERVE) - ROUND_TRIPS * usual);
    }
    let due = this.#heardAt + quiet;
    if (usual !== null) {
      const pace = PACE * this.#silence;
      due = Math.max(Math.floor(due / pace) * pace, this.#heardAt);
      if (this.#yields) due += Math.min(YIELD, this.#heartbeat);
    }
    due = Math.min(due, this.#pingedAt + REFRESH, this.#asks ? this.#answerDue : Infinity);
    due = Math.max(due, this.#pingedAt + this.#heartbeat);
    return Math.max(due - now, 0);
  }

  /**
   * A PONG has arrived; ignored when its token is not ours, or comes a second time.
   *
   * @param {bigint} token
   * @param {number} now
   */
  ponged(token, now) {
    const heartbeat = this.#outstanding.get(token);
    if (!heartbeat) return;
    this.#outstanding.delete(token);
    heartbeat.answered = now;
    this.#samples = [...this.#samples, Math.max(now - heartbeat.sent, 0)].slice(-SAMPLES);
  }

  /** The median of the last measurements; null before the first. */
  get roundTripTime() {
    const sorted = [...this.#samples].sort((one, other) => one - other);
    const last = sorted.length - 1;
    return last < 0 ? null : (Number(sorted[last >> 1]) + Number(sorted[(last + 1) >> 1])) / 2;
  }

  /** What `measuredOf` makes values of for people. */
  get pulse() {
    return { roundTripTime: this.roundTripTime, samples: this.#samples, heartbeats: this.#heartbeats };
  }

  /**
   * Seconds until the path counts as lost if nothing arrives; 0 when it does.
   *
   * @param {number} now
   */
  silentIn(now) {
    const since = this.#answers ? this.#askedAt : this.#heardAt;
    return Math.max(Math.min(since + this.#silence, this.#lostAt) - now, 0);
  }
}
