/**
 * The relay as the second path to one device of a peer: one sealed session at a time, and its frames.
 *
 * Rules of this module:
 *
 * - A session is begun when something waits and there is no direct connection, and is left when there is one. Its end
 *   loses nothing: the next one begins with HELLO, and says what has arrived.
 * - None is begun while HELLOs are exchanged on a direct connection. The other side would hear our HELLO for it last, and
 *   take it, while we hear theirs on the connection last, and take that.
 * - Sealing and opening are promises. What is sealed leaves in the order in which it was said; what comes from one device
 *   is opened one after the other (`relay_login`), and counts only if its session is still the current one by then.
 * - The keys of a session are forgotten after an hour. If it rests, it is asleep then: it goes on without keys, and the
 *   next frame of either side begins another one in its place.
 *
 * It does not know when something waits, nor what frames mean.
 */
import { RequestFailed } from '../../errors.js';
import { RelaySessions } from '../../peer/relay.js';
import { FRAME_OVERHEAD, SESSION_BYTES, Unopened } from '../../peer/sealing.js';
import { randomBytes } from '../../identity/keys.js';
import { fromBase64url, toBase64url } from '../../protocol/codec.js';
import { LONGEST_PAUSE } from '../../protocol/codes.js';
import { unrelayed } from './relay_listener.js';

/**
 * @import { ByeReceived } from '../../client/events.js'
 * @import { AldisError, PeerConnectionFailed } from '../../errors.js'
 * @import { Outgoing, Verdict } from '../../peer/relay.js'
 * @import { Opened, Sealed, SessionKeys } from '../../peer/sealing.js'
 * @import { PeerSession, SessionEvent } from '../../peer/session.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { RelayLogin } from './relay_login.js'
 * @import { RelayContext, RelayListener, TheirKeys } from './relay_listener.js'
 */

/** Seconds without a message after which the heartbeat stops: presence tells who is there, and costs nothing. */
export const QUIET_SECONDS = 60;
// Seconds for which a call waits for a direct connection before it begins a session, while nothing waits to be sent: on a
// good path the connection is there by then, and the session would have been in vain.
const CALL_SECONDS = 0.3;

/**
 * How many times as long as on a direct path nothing may arrive. The server delays what exceeds its limits, and says itself
 * when the other side is gone; a new session is no remedy for either. So a session is not given up while the server has not
 * taken what we have said (which has a time of its own), nor while nothing of ours waits for an answer.
 */
const PATIENCE = 3;

/** See the module. It is the `Path` of its session. */
export class RelayPath {
  /** Nothing can be sent any more: see `Path`. */
  get closed() {
    return !this.#session;
  }

  /** Why the last session has ended; null since one is open. @type {string | null} */
  failure = null;
  mayBundle = false; // frames go together in any case
  #owner;
  #context;
  #Session;
  #sessions;
  /** @type {PeerSession | null} */
  #session = null;
  /** @type {Promise<SessionKeys> | null} */
  #keys = null;
  #asleep = false; // the session has no keys any more
  /** @type {TheirKeys | null} of a session of ours */
  #theirs = null;
  /** Of the session; it sends the last words while the store closes, too. @type {RelayLogin | null} */
  #login = null;
  #refused = false; // the other side uses no relay
  refuses = false; // it has refused the last session, perhaps for now only
  /** @type {Bytes | null} a seal key that the other side does not know any more */
  #stale = null;
  #asking = false;
  #saidAt = 0;
  #flushing = false;
  #cancelTick = () => {};
  #deadline = Infinity;
  /** @type {(() => void) | null} cancels the next try */
  #retry = null;
  /** @type {Promise<void>} what is sealed leaves in order */
  #sealing = Promise.resolve();
  /** @type {Set<Promise<void>>} */
  #sending = new Set();
  /** Each with the time until which it waits. @type {Map<(opened: boolean) => void, number>} */
  #waiters = new Map();

  /**
   * @param {RelayListener} owner
   * @param {boolean} polite Our user id sorts before the other one.
   * @param {RelayContext} context
   * @param {typeof PeerSession} Session
   */
  constructor(owner, polite, context, Session) {
    this.#owner = owner;
    this.#context = context;
    this.#Session = Session;
    this.#sessions = new RelaySessions(polite);
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** Whether there is a session, be it without an answer yet. */
  get active() {
    return !!this.#session;
  }

  /** Whether both sides have said HELLO. */
  get open() {
    return !!this.#session?.greeted;
  }

  /** How it stands as the only path; null without a session. */
  get state() {
    if (!this.#session) return null;
    return this.open ? 'connected' : 'connecting';
  }

  /** Seconds; null before the first PONG. */
  get roundTripTime() {
    return this.#session?.roundTripTime ?? null;
  }

  /** The largest file that may go this way, in bytes. */
  get maxFileBytes() {
    return this.#login?.maxFileBytes ?? 0;
  }

  /** How the heartbeat goes. */
  get pulse() {
    return this.#session?.pulse;
  }

  /** Whether nothing was said for a while, so that nothing tells whether the other side is still there. */
  get resting() {
    return this.#session?.deadline === Infinity;
  }

  /** The server has said which seal key the device has now, be it the one of before. Look at it, which takes a moment. */
  prepare() {
    this.#stale = null;
    return this.#owner.prepare();
  }

  #theirKeys() {
    const found = this.#owner.theirKeys;
    return found?.sealKey === this.#stale ? null : found;
  }

  get #now() {
    return this.#context.timers.time();
  }

  // --- the path of the session -------------------------------------------------------------------------------------

  get room() {
    return this.#sessions.room;
  }

  /** @param {Bytes} frame */
  send(frame) {
    this.#sessions.queue(frame);
    // Once for all that is said in one turn: several frames go in one message.
    if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush());
    }
    return true;
  }

  // --- from this side ----------------------------------------------------------------------------------------------

  /** `want` beside a call: at once for what waits to be sent, else when the direct connection takes its time. */
  call() {
    if (this.#owner.queued || this.#owner.relayOnly) this.want();
    else this.#retryIn(CALL_SECONDS);
  }

  /** `want` where there is still a reason to, and the other side has not taken leave. */
  wantAgain() {
    if (this.#owner.wanted) this.want();
  }

  /**
   * Something waits for the device: see that there is a session, unless there is a direct connection. False when none can
   * be begun now: it may not be used, the server relays nothing, or nobody has told the device's key yet.
   */
  want() {
    if (!this.#owner.mayBegin) return false;
    const now = this.#now;
    if (this.#session && !this.#asleep && !this.#sessions.renewalDue(now)) return true;
    if (this.#refused || !this.#context.relay) return this.active;
    if (this.#owner.directOpens) {
      this.#retryIn(CALL_SECONDS); // it may fail yet
      return this.active;
    }
    if (!this.#sessions.mayBegin(now)) {
      this.#retryIn(this.#sessions.notBefore - now);
      return this.active;
    }
    if (!this.#theirKeys()) {
      if (this.#stale || this.#asleep) void this.#askAnew();
      return this.active;
    }
    this.#begin(now);
    return true;
  }

  /** The device does not know the seal key any more: ask the server for its newest one. `want` follows. */
  async #askAnew() {
    if (this.#asking) return;
    this.#asking = true;
    await this.#owner.find().catch(() => {});
    this.#asking = false;
    if (this.#asleep) this.want(); // for a frame that nothing else waits for
  }

  /** @param {number} now */
  #begin(now) {
    const theirs = this.#theirKeys();
    if (!theirs) return;
    this.#endSession();
    this.#theirs = theirs;
    this.#login = this.#context.relay;
    this.#sessions.begin(toBase64url(randomBytes(SESSION_BYTES)), now);
    this.#openSession(now, true);
  }

  /** @param {number} now @param {boolean} early */
  #openSession(now, early) {
    const { timing } = this.#context.setup;
    const patient = { ...timing, silence: timing.silence * PATIENCE, early };
    const session = (this.#session = new this.#Session(this, now, patient));
    this.#saidAt = now;
    this.#tell(session, session.open(this.#owner.hello(early), now));
    if (early && this.#session === session) {
      this.#owner.pump();
      this.#flush();
    }
  }

  /** Take one frame of the stream; false when there is no session, or no room. @param {Bytes} frame */
  sendFrame(frame) {
    const session = this.#session;
    if (!session?.send(frame)) return false;
    this.#spoke(session);
    return true;
  }

  /** @param {PeerSession} session */
  #spoke(session) {
    this.#saidAt = this.#now;
    this.#tell(session, session.wake(this.#saidAt));
  }

  /** There is a direct connection: end the session without a word. */
  leave() {
    this.#sessions.leave(this.#now);
    this.#endSession();
    this.#cancelRetry();
    this.#tellWaiters(false);
  }

  /** End the session without a word: the device has gone, or the server has. */
  drop() {
    if (this.#session) {
      this.#sessions.lose(this.#now);
      this.#endSession();
    }
    this.#owner.dropped();
    this.#cancelRetry();
    this.#tellWaiters(false);
  }

  /** Say GOODBYE, and end the session. @param {string} reason */
  goodbye(reason) {
    if (this.#asleep) this.#begin(this.#now);
    if (this.#session?.goodbye(reason)) {
      this.#flush();
      this.#sessions.leave(this.#now); // what still comes was sent before they heard it: it is no unknown session
    }
    this.drop();
  }

  /** The last messages have left. */
  async finish() {
    await Promise.allSettled([this.#sealing, ...this.#sending]);
  }

  /** There is a reason to try again at once. */
  returned() {
    this.#refused = this.refuses = false;
    this.failure = this.#stale = null;
    this.#sessions.returned();
  }

  /**
   * Begin a session, and wait until it is open; false when it will not be, or not within so many seconds.
   *
   * @param {number} seconds
   */
  async opened(seconds) {
    this.want();
    if (this.open || !this.#session) return this.open;
    return new Promise((resolve) => {
      const end = (/** @type {boolean} */ opened) => {
        cancel();
        this.#waiters.delete(end);
        resolve(opened);
      };
      const cancel = this.#context.timers.callLater(seconds, () => end(false));
      this.#waiters.set(end, this.#now + seconds);
    });
  }

  /**
   * The error of a direct connection that found no path, with why the relay did not help either.
   *
   * @param {PeerConnectionFailed} error
   * @param {boolean} allowed whether our program uses the relay with this peer
   */
  explain(error, allowed) {
    if (!error.turn) return error;
    const tried = this.refuses ? 'refused' : this.#theirKeys() ? 'tried' : 'no-key';
    return unrelayed(error, allowed && this.#context.relay ? tried : 'none');
  }

  // --- sending -----------------------------------------------------------------------------------------------------

  /** Seal and send what is queued. */
  #flush() {
    this.#flushing = false;
    if (this.#asleep) this.want();
    const login = this.#login;
    if (!login) return;
    for (const message of this.#sessions.flush(login.room, FRAME_OVERHEAD)) {
      const sealed = this.#seal(login, message);
      const { number } = message;
      sealed.catch(() => {}); // told when it is its turn
      const left = this.#sealing.then(() => sealed);
      this.#sealing = left.then(
        (bytes) => this.#sendSealed(login, number, bytes),
        (error) => this.#unsent(number, error),
      );
    }
  }

  /** @param {RelayLogin} login @param {Outgoing} message @returns {Promise<Bytes>} */
  async #seal(login, { session, counter, frames }) {
    if (counter !== null) {
      const keys = await /** @type {Promise<SessionKeys>} */ (this.#keys);
      return keys.seal(counter, frames);
    }
    const { sealKey } = /** @type {TheirKeys} */ (this.#theirs);
    const made = login.start(this.#owner, fromBase64url(session), frames, sealKey);
    this.#keys = made.then(([, keys]) => keys);
    this.#keys.catch(() => {}); // told by the sealed message
    const [sealed] = await made;
    return sealed;
  }

  /** @param {RelayLogin} login @param {number} number @param {Bytes} sealed */
  #sendSealed(login, number, sealed) {
    const sending = login.send(this.#owner.address, sealed).then(
      () => this.#sent(number),
      (error) => this.#unsent(number, error),
    );
    this.#sending.add(sending);
    void sending.finally(() => this.#sending.delete(sending));
  }

  /** @param {number} number */
  #sent(number) {
    this.#sessions.delivered(number);
    this.#flush();
    if (this.#session?.drained()) this.#owner.pump();
  }

  /** @param {number} number @param {AldisError} error */
  #unsent(number, error) {
    const pause = error instanceof RequestFailed ? Math.min(error.retryAfter ?? 0, LONGEST_PAUSE) : 0;
    if (this.#sessions.undelivered(number, this.#now, pause)) {
      // Its goodbye may be on its way still, or there was none.
      if (this.open && error instanceof RequestFailed && error.code === 'not-online') this.#owner.gone();
      this.#over(`the server did not take a message: ${error.message}`);
    }
  }

  // --- from the other side -----------------------------------------------------------------------------------------

  /**
   * A message of a session has come.
   *
   * @param {Sealed} sealed
   * @returns {Promise<Verdict>}
   */
  async received(sealed) {
    const name = toBase64url(sealed.session);
    const keys = this.#keys;
    if (!keys || !this.#sessions.knows(name)) return this.#sessions.stray(name, this.#now);
    /** @type {Bytes[]} */
    let frames;
    try {
      frames = await (await keys).open(sealed);
    } catch (error) {
      if (!(error instanceof Unopened)) throw error;
      return 'dropped';
    }
    // Much may have happened since.
    if (this.#keys !== keys) return this.#sessions.stray(name, this.#now);
    const first = !this.#sessions.answered;
    const size = frames.reduce((sum, { length }) => sum + length, 0);
    const verdict = this.#sessions.framesReceived(sealed.counter, size, this.#now);
    if (verdict === 'lost') {
      this.#over('a message is missing');
    } else if (verdict === 'taken' && (!first || ((await this.#proved()) && this.#keys === keys))) {
      this.#take(frames);
    }
    return verdict;
  }

  /** The other side has answered for the first time in a session of ours, so it has the key. */
  async #proved() {
    const login = this.#login;
    if (!this.#theirs || !login) return true;
    const session = this.#session;
    const error = await login.proved(this.#owner.userId, this.#theirs.identityKey);
    if (error && this.#session === session) {
      this.#lose(error.message);
      this.#owner.untrusted(error);
    }
    return !error;
  }

  /** The device has begun a session. @param {Bytes} session @param {Opened} opened */
  began(session, { frames, keys }) {
    if (this.#owner.isLate(frames)) return;
    const now = this.#now;
    const verdict = this.#sessions.handshakeReceived(toBase64url(session), now);
    if (verdict === 'crossed' && !this.#owner.directOpens) this.#begin(now);
    if (verdict !== 'taken') return;
    this.#refused = false;
    this.#endSession();
    this.#keys = Promise.resolve(keys);
    this.#login = this.#context.relay;
    this.#openSession(now, false);
    this.#take(frames);
  }

  /** @param {Bytes[]} frames */
  #take(frames) {
    const session = this.#session;
    for (const { buffer } of frames) {
      if (session && this.#session === session) {
        this.#tell(session, session.received(/** @type {ArrayBuffer} */ (buffer), this.#now));
      }
    }
  }

  /**
   * The other side ends a session, or refuses one; false when it is none of this device's.
   *
   * @param {ByeReceived} bye
   */
  bye({ connection, code, reason, retryAfter }) {
    const name = this.#sessions.session;
    if (name === null || connection !== name) return false;
    if (code === 'seal-unknown' && !this.#sessions.answered) {
      this.#stale = this.#theirs?.sealKey ?? null; // it has another by now, which the server has to be asked for
    }
    this.#refused = code === 'no-relay' || code === 'not-accepted';
    this.#sessions.refused(name, this.#now, Math.min(retryAfter ?? 0, LONGEST_PAUSE));
    this.refuses = !!code && code !== 'seal-unknown';
    this.#over(reason ?? code ?? 'the other side has ended the session');
    if (this.refuses) this.#tellWaiters(false); // as for a direct connection, at once
    return true;
  }

  // --- events ------------------------------------------------------------------------------------------------------

  /** @param {PeerSession} session @param {SessionEvent[]} events */
  #tell(session, events) {
    for (const event of events) {
      if (this.#session !== session) return;
      switch (event.type) {
        case 'hello':
          this.failure = null;
          this.refuses = false;
          this.#owner.opened(event);
          this.#tellWaiters(true);
          break;
        case 'chunk':
        case 'ack':
          this.#spoke(session);
          this.#owner.frameReceived(event);
          break;
        case 'pathLost':
          if (this.#sessions.unconfirmed || (session.greeted && !this.#owner.queued)) {
            this.#tell(session, session.excuse(this.#now));
          } else {
            this.#lose('nothing arrives through the relay');
          }
          break;
        case 'ended':
          this.#sessions.leave(this.#now);
          this.#endSession();
          this.#owner.closed(event.reason, true);
          this.#tellWaiters(false);
          break;
        case 'violated':
          session.goodbye(event.reason);
          this.#flush();
          this.#lose(event.reason);
          this.#owner.violated(event.reason);
      }
    }
    this.#setTimer();
  }

  /** The session is over, and what was on its way is sent again in the next one. @param {string} reason */
  #lose(reason) {
    this.#sessions.lose(this.#now);
    this.#over(reason);
  }

  /** The same, where `#sessions` knows. @param {string} reason */
  #over(reason) {
    if (!this.#session) return;
    this.#endSession();
    this.failure = reason;
    this.#owner.closed(reason, false);
    if (this.active) return;
    this.#retryIn(this.#sessions.notBefore - this.#now);
    for (const [end, until] of this.#waiters) if (until <= this.#sessions.notBefore) end(false);
  }

  #endSession() {
    this.#session = this.#keys = this.#theirs = null;
    this.#asleep = false;
    this.#setTimer();
  }

  /** @param {boolean} opened */
  #tellWaiters(opened) {
    for (const end of this.#waiters.keys()) end(opened);
  }

  // --- time --------------------------------------------------------------------------------------------------------

  /** @param {number} seconds */
  #retryIn(seconds) {
    this.#retry ??= this.#context.timers.callLater(seconds, () => {
      this.#retry = null;
      this.wantAgain();
    });
  }

  #cancelRetry() {
    this.#retry?.();
    this.#retry = null;
  }

  #setTimer() {
    const deadline = this.#session ? Math.min(this.#session.deadline, this.#sessions.expires) : Infinity;
    if (deadline === this.#deadline) return;
    this.#deadline = deadline;
    this.#cancelTick();
    this.#cancelTick = () => {};
    if (deadline < Infinity) {
      this.#cancelTick = this.#context.timers.callLater(deadline - this.#now, () => this.#tick());
    }
  }

  #tick() {
    this.#deadline = Infinity;
    const session = this.#session;
    if (!session) return;
    const now = this.#now;
    if (now >= this.#sessions.expires) {
      // What was on its way, or still comes, is sent again in another session.
      const { resting } = this;
      this.#sessions.lose(now);
      this.#keys = this.#theirs = null;
      this.#asleep = true;
      this.#setTimer();
      if (!resting) this.want();
      return;
    }
    if (now - this.#saidAt >= QUIET_SECONDS && session.greeted && !this.#owner.queued) session.rest();
    this.#tell(session, session.tick(now));
  }
}
