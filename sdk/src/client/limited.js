/**
 * The requests that the server has refused as `rate-limited` for a while, and those that wait behind them.
 *
 * Rules:
 *
 * - Requests that share a limit form a line: messages to one address, or all requests of one other kind. A line is sent
 *   again in the order in which its requests were made, when the pause of the server is over. Other lines go on.
 * - First one request is sent. Each that the server takes lets one more be on its way. So the server refuses little, and
 *   messages keep their order, except those that were on their way when the limit came.
 * - Nothing waits for ever: each request has a time until which it may wait, and each line and all lines have a limit of
 *   requests and bytes.
 *
 * It knows the numbers of requests, and not what they say. Pure: the time is an argument.
 */
import { RequestFailed } from '../errors.js';

// A program that starts asks for a thousand users at once. Two attempts to connect send at most 128 candidates each.
const LINE_REQUESTS = 2048;
const LINE_BYTES = 1024 * 1024;
// A program that connects to a thousand peers has a few messages for each.
const ALL_REQUESTS = 8192;
const ALL_BYTES = 8 * 1024 * 1024;
// Requests of a line that may be on their way at a time, when the server takes them again.
const MOST_ON_WAY = 32;
// Seconds. A server that says "at once" must not make the client send without end.
const SHORTEST_PAUSE = 0.25;
// A pause is up to so much longer than the server says, at random: others were refused in the same moment.
const SPREAD = 0.25;

/**
 * A request that waits: its number, its size in bytes, until when it may wait, and its peer connection if any.
 *
 * @typedef {{ number: number, size: number, until: number, connection?: string }} Waiting
 *
 * @typedef {object} Line
 * @property {RequestFailed} error The last refusal.
 * @property {number} due When to send again.
 * @property {boolean} pausing Nothing was sent since the last refusal.
 * @property {number} atOnce
 * @property {number} size Of all that waits, in bytes.
 * @property {Waiting[]} waiting By number.
 * @property {Set<number>} onWay
 *
 * @typedef {{ number: number, error: RequestFailed }} Given A request to end, and with which error.
 */

/** All lines of one client. */
export class LimitedRequests {
  /** @type {Map<string, Line>} */
  #lines = new Map();
  // The line of each request that waits or is on its way again.
  /** @type {Map<number, string>} */
  #lineOf = new Map();
  #requests = 0;
  #bytes = 0;

  /** Whether requests of this line wait. @param {string} line */
  has(line) {
    return this.#lines.has(line);
  }

  /** Whether a request waits in a line. @param {number} number */
  holds(number) {
    const line = this.#lineFor(number);
    return !!line && !line.onWay.has(number);
  }

  /**
   * The server has refused a request, which waits now. Returns the seconds of a new pause, 0 in one that has begun
   * already, and null when the request may not wait so long or has no room.
   *
   * @param {string} name
   * @param {Waiting} request
   * @param {RequestFailed} error
   * @param {number} now
   * @param {number} random
   */
  refused(name, request, error, now, random) {
    const pause = Math.max(error.retryAfter ?? 0, SHORTEST_PAUSE) * (1 + SPREAD * random);
    this.ended(request.number);
    let line = this.#lines.get(name);
    const anew = !line?.pausing;
    if (line) {
      const due = anew ? now + pause : Math.max(line.due, now + pause);
      Object.assign(line, { error, due, pausing: true, atOnce: 1 });
    }
    if (now + pause > request.until || !this.#hasRoom(line, request)) return null;
    if (!line) {
      line = { error, due: now + pause, pausing: true, atOnce: 1, size: 0, waiting: [], onWay: new Set() };
      this.#lines.set(name, line);
    }
    this.#put(name, line, request);
    return anew ? pause : 0;
  }

  /**
   * Put a new request behind those of its line, which has some. Returns the error when there is no room.
   *
   * @param {string} name
   * @param {Waiting} request
   */
  add(name, request) {
    const line = /** @type {Line} */ (this.#lines.get(name));
    if (!this.#hasRoom(line, request)) return line.error;
    this.#put(name, line, request);
    return null;
  }

  /** The requests to send now, which are on their way then. @param {number} now */
  release(now) {
    const numbers = [];
    for (const line of this.#lines.values()) {
      if (line.due > now) continue;
      while (line.onWay.size < line.atOnce) {
        const first = line.waiting.shift();
        if (!first) break;
        this.#forget(line, first);
        line.onWay.add(first.number);
        line.pausing = false;
        numbers.push(first.number);
      }
    }
    return numbers;
  }

  /** The server has taken a request: another one may be on its way. @param {number} number */
  taken(number) {
    const line = this.#lineFor(number);
    if (line) line.atOnce = Math.min(line.atOnce + 1, MOST_ON_WAY);
  }

  /** A request has ended, or is refused again. @param {number} number */
  ended(number) {
    const line = this.#lineFor(number);
    if (!line) return;
    line.onWay.delete(number);
    const index = line.waiting.findIndex((each) => each.number === number);
    if (index >= 0) line.waiting.splice(index, 1).forEach((each) => this.#forget(line, each));
    if (!line.waiting.length && !line.onWay.size) this.#lines.delete(this.#lineOf.get(number) ?? '');
    this.#lineOf.delete(number);
  }

  /**
   * The requests about a peer connection that wait in a line.
   *
   * @param {string} name
   * @param {string} connection
   * @returns {Given[]}
   */
  ofConnection(name, connection) {
    const line = this.#lines.get(name);
    if (!line) return [];
    const { error, waiting } = line;
    return waiting.filter((each) => each.connection === connection).map(({ number }) => ({ number, error }));
  }

  /** The requests that may not wait any longer. @param {number} now @returns {Given[]} */
  overdue(now) {
    return [...this.#lines.values()].flatMap(({ waiting, error, due }) =>
      waiting
        .filter(({ until }) => until <= now)
        .map(({ number }) => ({ number, error: stillLimited(error, due - now) })),
    );
  }

  /** When `release` has something to send; Infinity when nothing waits for the time alone. */
  get due() {
    const times = [...this.#lines.values()]
      .filter(({ waiting, onWay, atOnce }) => waiting.length && onWay.size < atOnce)
      .map(({ due }) => due);
    return Math.min(Infinity, ...times);
  }

  /** When the first request may not wait any longer; Infinity when none waits. */
  get deadline() {
    const times = [...this.#lines.values()].flatMap(({ waiting }) => waiting.map(({ until }) => until));
    return Math.min(Infinity, ...times);
  }

  /** @param {number} number */
  #lineFor(number) {
    return this.#lines.get(this.#lineOf.get(number) ?? '');
  }

  /** @param {Line | undefined} line @param {Waiting} request */
  #hasRoom(line, { size }) {
    if (this.#requests >= ALL_REQUESTS || this.#bytes + size > ALL_BYTES) return false;
    return !line || (line.waiting.length < LINE_REQUESTS && line.size + size <= LINE_BYTES);
  }

  /** @param {string} name @param {Line} line @param {Waiting} request */
  #put(name, line, request) {
    const { waiting } = line;
    const after = waiting.findIndex(({ number }) => number > request.number);
    waiting.splice(after < 0 ? waiting.length : after, 0, request);
    this.#lineOf.set(request.number, name);
    this.#requests += 1;
    this.#bytes += request.size;
    line.size += request.size;
  }

  /** A request does not wait any more. @param {Line} line @param {Waiting} request */
  #forget(line, { size }) {
    this.#requests -= 1;
    this.#bytes -= size;
    line.size -= size;
  }
}

/** The last refusal of a line, with the time that is left of its pause. @param {RequestFailed} error @param {number} seconds */
const stillLimited = ({ code, message, request }, seconds) =>
  new RequestFailed(code, message, { temporary: true, retryAfter: Math.max(0, seconds), request });
