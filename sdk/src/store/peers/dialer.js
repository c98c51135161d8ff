/**
 * When to call one peer, and what came of it.
 *
 * A peer is *wanted* while the application has asked for it (`connectToPeer`) or messages wait for it. A wanted peer is
 * called when it is online, again after growing pauses when that fails, and at once when it comes online. One that is
 * not wanted is never called, but its own calls are answered.
 *
 * Rules of this module:
 *
 * - At most one attempt at a time. All callers of `connected` share it. Never a call and a pause at once (`TABLE`, which
 *   docs/architecture.md draws).
 * - Where the peer is known to be offline, nothing is tried: the server tells when that changes.
 * - A peer that has said goodbye while nothing waits for it is left alone until it comes back online; so is one of
 *   which the server says for good that it may not be asked.
 * - A peer whose key has changed is not called before a person has accepted the new one.
 * - A peer that refuses is not called again before the time that it names; one that refuses for good is left alone, as
 *   after a goodbye. Callers that wait are told at once, and what is queued stays queued.
 * - A promise cannot be cancelled: after an `await`, look first whether the attempt is still the current one.
 *
 * It does not know how a connection is made, nor what is sent on it.
 */
import {
  AldisError,
  PeerConnectionFailed,
  PeerKeyChanged,
  PeerOffline,
  PeerRefused,
  PeerUnknown,
  RequestFailed,
  SignalingError,
  StateError,
} from '../../errors.js';
import { limitedCalls } from '../../peer/limited.js';
import { LONGEST_PAUSE } from '../../protocol/codes.js';

/** A connection that has stood for so many seconds was no failure: the pauses begin small again. */
export const SETTLED = 10;
/** The highest ceiling of a pause in seconds, while a message or a caller waits. */
export const URGENT = 5;
/**
 * While the relay carries the messages, nobody waits for a direct connection: after so many failures the pauses are so
 * many times as long, and at most so many seconds.
 */
const RELAYED_FAILURES = 2;
// So many attempts have to fail in a row, in one network, before there is no reason to expect a direct path soon.
const VAIN = 3;
const RELAYED_FACTOR = 10;
const RELAYED_MOST = 300;
/** An attempt that fails within so many seconds has not failed for want of a path: it was ended by somebody. */
export const CROSSED = 3;

/**
 * What a dialer is about: `idle` (connected, or left alone), `calling` (asks the server for the peer, then connects), or
 * `pausing` (calls again after a pause); and what moves it on.
 *
 * @typedef {'idle' | 'calling' | 'pausing'} DialPhase
 * @typedef {'called' | 'ended' | 'givenUp' | 'paused' | 'due' | 'cutShort'} DialEvent
 */

/** @type {Record<DialPhase, Partial<Record<DialEvent, DialPhase>>>} */
export const TABLE = {
  idle: { called: 'calling', paused: 'pausing' },
  calling: { ended: 'idle', givenUp: 'idle' },
  pausing: { due: 'idle', cutShort: 'idle' },
};

// Why a peer is left alone: it has said goodbye, or the server refuses for good; it refuses direct connections for good,
// and the relay asks for itself.
const LEFT = 1;
const REFUSED = 2;

/**
 * What a dialer works with: the peer's end of it, made by `peer.Peer`.
 *
 * @typedef {object} DialTarget
 * @property {string} userId
 * @property {boolean} wanted Whether there should be a connection.
 * @property {number} queued How many messages wait for the peer.
 * @property {boolean} hasWaiting Whether something waits for it: messages, or files that go on.
 * @property {boolean} [relayed] Whether messages get through meanwhile, by the relay.
 * @property {boolean} [resting] Whether nothing was said through the relay for a while.
 * @property {boolean} watched Whether the server will tell when the peer comes online.
 * @property {boolean} registered Whether the server can be asked.
 * @property {import('../../peer/negotiation.js').PeerState} state How the connection stands now.
 * @property {number | null} clockFrom When the turn of the attempt came; null while it waits for it.
 * @property {() => void} needServer The peer waits for the server: it should be dialled soon.
 * @property {() => Promise<void>} find Ask the server for the peer. Throws `SignalingError`, `PeerError`.
 * @property {() => void} dial Start to connect, unless that is under way; the new state is told when it comes.
 * @property {(reason: string) => void} hangUp End an attempt or a connection, for good.
 * @property {unknown} unaccepted Why it must not be called at all, if anything.
 * @property {(error: AldisError, forGood: boolean) => void} failed An attempt has failed; `forGood`: since the key has
 *   changed.
 */

export class Dialer {
  #target;
  #backoff;
  #timers;
  #random;
  /** @type {DialPhase} */
  #phase = 'idle';
  #calls = 0; // also those given up: so a call knows whether it is still the current one
  #cancel = () => {}; // the timer of the pause
  /** @type {Set<(error: AldisError | null) => void>} */
  #waiters = new Set();
  /** @type {((error: AldisError | null) => void) | null} of the attempt that has been dialled */
  #outcome = null;
  /** @type {AldisError | null} what was wrong with an answer to it */
  #refusal = null;
  #failures = 0;
  #fruitless = 0; // attempts that have failed in a row
  /** @type {number | null} */
  #connectedAt = null;
  #hush = 0; // why the peer is left alone: LEFT, REFUSED, or 0
  #offline = false;
  #isAskedFor = false; // the pause, by the peer or the server

  /**
   * @param {DialTarget} target
   * @param {import('../../client/backoff.js').Backoff} backoff
   * @param {import('../../client/timers.js').Timers} timers
   * @param {() => number} random Numbers evenly from 0 to 1.
   */
  constructor(target, backoff, timers, random) {
    this.#target = target;
    this.#backoff = backoff;
    this.#timers = timers;
    this.#random = random;
  }

  /** Whether the peer is left alone, by any path, until it comes back online, or something waits for it. */
  get hushed() {
    return this.#hush === LEFT;
  }

  /**
   * Whether there is no reason to expect a direct path soon: several attempts in a row have failed, or the peer is not
   * called any more.
   */
  get inVain() {
    return this.#hush > 0 || this.#fruitless >= VAIN;
  }

  /**
   * Wait until the peer is connected, calling it now. Throws `PeerError` when it fails, or takes too long. While the
   * attempt waits for its turn, `seconds` do not run: they begin anew when it has it.
   *
   * @param {number} seconds
   * @returns {Promise<void>}
   */
  connected(seconds) {
    const target = this.#target;
    if (this.#connectedAt !== null && target.state === 'connected') {
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const end = (/** @type {AldisError | null} */ error) => {
        cancel();
        this.#waiters.delete(end);
        if (error) reject(error);
        else resolve();
      };
      let began = Infinity;
      const late = () => {
        const since = target.clockFrom;
        // A peer that comes and goes has a new attempt each time. The waiter has one time-out.
        began = Math.min(began, since ?? began);
        const left = since === null ? seconds : began + seconds - this.#timers.time();
        if (left > 0) {
          cancel = this.#timers.callLater(left, late);
          return;
        }
        const why = target.registered ? 'it was not there' : 'the server cannot be reached';
        end(this.#refusal ?? this.#failure(`${why} after ${seconds} s`));
      };
      let cancel = this.#timers.callLater(seconds, late);
      this.#waiters.add(end);
      this.poke(true);
    });
  }

  /**
   * Something may have changed: call if it is time to.
   *
   * @param {boolean} [now] There is no reason to wait longer.
   */
  poke(now = false) {
    if (now) {
      this.#offline = false;
      this.#hush = 0;
      this.#cancelTimer();
    }
    const { registered, state } = this.#target;
    if (!registered && this.#isWaitedFor) {
      this.#target.needServer();
    }
    const isDue = registered && this.#isWelcome && state !== 'connecting' && state !== 'connected';
    if (isDue && this.#move('called')) {
      void this.#call(++this.#calls);
    }
  }

  /**
   * We are registered again.
   *
   * @param {boolean} resumed Nothing was missed. Otherwise a peer that was given up may be there.
   */
  signalingReturned(resumed) {
    if (!resumed) {
      this.#offline = false;
      this.#hush = 0;
    }
    this.pathFound();
  }

  /**
   * There is no reason to wait, unless we were asked to: the engine has a path again, the server is back, or the network
   * is another one.
   */
  pathFound() {
    if (!this.#isAskedFor) {
      this.#cancelTimer();
    }
    this.poke();
  }

  /** This device has another network, or has slept: what has failed before says nothing of what comes. */
  networkChanged() {
    this.#failures = this.#fruitless = 0;
    this.pathFound();
  }

  /** Whether somebody waits for the peer: a call, a message, or a connection that was there. */
  get #isWaitedFor() {
    const { wanted, state } = this.#target;
    return wanted && !this.#hush && state !== 'connected' && state !== 'connecting';
  }

  /** Whether a direct connection is of use. */
  get #isUseful() {
    return this.#target.wanted || this.#target.relayed;
  }

  /** Whether it is to be called, now or later. */
  get #isWelcome() {
    return this.#isUseful && !(this.#target.unaccepted || this.#hush || this.#offline);
  }

  /** A message waits for the peer. @param {boolean} [now] Something else, for which there is no reason to wait longer. */
  queued(now) {
    if (!this.#target.relayed || this.hushed) this.#hush = 0;
    this.poke(now);
  }

  /**
   * The server has said whether the peer is online.
   *
   * @param {boolean} online
   * @param {boolean} anew A device of it has just registered. Else this may be how things have stood all along, so it
   *   does not disturb a path that is being healed.
   */
  presenceChanged(online, anew) {
    const target = this.#target;
    const cameBack = online && (this.#offline || (anew && target.state === 'disconnected'));
    this.#offline = !online;
    if (cameBack || anew) this.#failures = this.#fruitless = 0;
    if (cameBack && this.#isUseful && this.#underWay()) {
      // That was meant for the peer as it was before: nobody will answer.
      this.#stop('it has come back');
    }
    if (anew) this.pathFound();
    this.poke(cameBack);
  }

  /**
   * The connection has come to another state.
   *
   * @param {import('../../peer/negotiation.js').PeerState} state
   * @param {AldisError | null} error
   */
  stateChanged(state, error) {
    if (state === 'connected') {
      this.#connectedAt = this.#timers.time();
      this.#fruitless = this.#hush = 0;
      this.#refusal = null;
      this.#cancelTimer();
      this.#finish(null);
    } else if (state !== 'connecting') {
      this.#lost(state, error);
    }
  }

  /**
   * @param {string} state
   * @param {AldisError | null} error
   */
  #lost(state, error) {
    const since = this.#connectedAt;
    this.#connectedAt = null;
    if (since !== null && this.#timers.time() - since >= SETTLED) {
      this.#failures = 0;
    }
    if (this.#outcome) {
      // With an error, the attempt has failed beside a connection that may still come back.
      if (state !== 'disconnected' || error) {
        this.#settle(error ?? this.#failure('it has hung up'));
      }
      return;
    }
    if (state === 'closed' && since !== null && !this.#target.hasWaiting) {
      this.#hush = LEFT;
    }
    this.retry(this.#heed(error));
  }

  /**
   * Do what a refusal of the peer asks for: call no more, or not within so many seconds.
   *
   * @param {unknown} error
   */
  #heed(error) {
    if (!(error instanceof PeerRefused)) {
      return 0;
    }
    if (!error.temporary) this.#hush ||= REFUSED;
    return error.retryAfter ?? 0;
  }

  /**
   * The peer has taken leave, through the relay: an attempt is in vain, and the peer is left alone unless something
   * waits for it.
   */
  dismissed() {
    this.#stop('it has hung up');
    this.#hush = this.#target.hasWaiting ? 0 : LEFT;
    this.retry();
  }

  /**
   * An offer or answer in the peer's name was not genuine; if this attempt fails, that will be why.
   *
   * @param {AldisError} error
   */
  refused(error) {
    this.#refusal = error;
  }

  /**
   * A person has accepted the peer's key.
   *
   * @param {boolean} [changed] Another one was pinned: an attempt with that one is in vain.
   */
  accepted(changed = false) {
    this.#refusal = null;
    if (changed) {
      this.#stop('another key was accepted');
    }
    this.poke(true);
  }

  /** The peer may be unwanted now: end an attempt of ours in that case, and leave all else as it is. */
  reconsider() {
    if (!this.#isUseful) {
      if (this.#phase === 'calling') {
        this.#stop('not wanted any more');
      }
      this.#cancelTimer();
    }
  }

  /**
   * End what is under way. Callers that wait get `error`.
   *
   * @param {AldisError} error
   */
  stop(error) {
    this.#stop(error.message);
    this.#finish(error);
  }

  // --- one attempt ---------------------------------------------------------------------------------------------------

  /** @param {number} call */
  async #call(call) {
    /** @type {unknown} */
    let error = null;
    let found = false;
    try {
      await this.#target.find();
      found = true;
      if (this.#calls === call) {
        await this.#connect(call);
      }
    } catch (thrown) {
      error = thrown;
    }
    if (this.#calls !== call) {
      return; // it was stopped meanwhile
    }
    this.#move('ended');
    if (!error) {
      if (this.#target.state !== 'connected') {
        this.retry(); // it opened, and was lost in the same moment
      }
    } else if (error instanceof RequestFailed) {
      this.#hush = error.temporary ? 0 : LEFT;
      const { code, message, retryAfter } = error;
      const refusal =
        code === 'rate-limited'
          ? limitedCalls(this.#target.userId, error, retryAfter)
          : this.#failure(`the server refuses: ${message}`);
      this.#ended(refusal, found, retryAfter ?? 0);
    } else if (error instanceof SignalingError || error instanceof StateError) {
      this.retry(); // callers go on waiting, as the server may come back in time
    } else if (error instanceof AldisError) {
      this.#ended(error, found, this.#heed(error));
    } else {
      console.error(error);
      this.#ended(this.#failure('internal error, see the log'), found);
    }
  }

  /**
   * Dial, and wait for what comes of it. Throws `PeerError`.
   *
   * @param {number} call
   */
  async #connect(call) {
    this.#refusal = null;
    const began = this.#timers.time();
    let error = await this.#attempt();
    // One of the two has been restarted, perhaps, and the other has noticed by this very call; or the offer went to a
    // connection that the server had to give up. Callers should not have to know of that: try once more, at once.
    const crossed = !this.#refusal && this.#timers.time() - began < CROSSED;
    if (error && !(error instanceof PeerRefused) && crossed && this.#waiters.size && this.#calls === call) {
      error = await this.#attempt();
    }
    if (error) {
      throw this.#refusal ?? error; // what was wrong with the answer says more than that none came in time
    }
  }

  /** @returns {Promise<AldisError | null> | null} */
  #attempt() {
    this.#target.dial();
    return this.#target.state === 'connected' ? null : new Promise((resolve) => (this.#outcome = resolve));
  }

  /**
   * Tell what came of the attempt, if anybody waits for that.
   *
   * @param {AldisError | null} error
   */
  #settle(error) {
    this.#outcome?.(error);
    this.#outcome = null;
  }

  /** @param {string} reason */
  #failure(reason) {
    return new PeerConnectionFailed(this.#target.userId, reason);
  }

  /**
   * @param {AldisError} error
   * @param {boolean} found Whether the server had nothing against the call.
   * @param {number} [notBefore]
   */
  #ended(error, found, notBefore) {
    if (this.#target.state === 'connected') {
      return; // it has called us meanwhile, with the pinned key: whatever the server says, there it is
    }
    this.#offline = !found && this.#target.watched && (error instanceof PeerOffline || error instanceof PeerUnknown);
    if (error instanceof PeerConnectionFailed) this.#fruitless++;
    this.#target.failed(error, !found && error instanceof PeerKeyChanged);
    this.#finish(error);
    this.retry(notBefore);
  }

  /** @param {AldisError | null} error */
  #finish(error) {
    if (!error) {
      this.#settle(null);
    }
    for (const end of [...this.#waiters]) {
      end(error);
    }
  }

  /**
   * Call again after a pause, which begins in `notBefore` seconds, if that makes sense. Not in exactly so many seconds:
   * others were told the same at the same time. And whatever the server says, in at most `LONGEST_PAUSE` and the pause.
   *
   * @param {number} [notBefore]
   */
  retry(notBefore = 0) {
    const { wanted, resting } = this.#target;
    if (!this.#isWelcome || (resting && !wanted) || !this.#move('paused')) {
      return;
    }
    this.#isAskedFor = notBefore > 0;
    const isRelayed = this.#target.relayed && !this.#waiters.size;
    const isUrgent = !isRelayed && (this.#waiters.size || this.#target.queued);
    let pause = this.#backoff.delay(++this.#failures, this.#random(), isUrgent ? URGENT : Infinity);
    if (isRelayed && this.#failures > RELAYED_FAILURES) pause = Math.min(pause * RELAYED_FACTOR, RELAYED_MOST);
    this.#cancel = this.#timers.callLater(Math.min(notBefore, LONGEST_PAUSE) + pause, () => {
      this.#move('due');
      this.poke();
    });
  }

  /** @param {string} reason */
  #stop(reason) {
    this.#cancelTimer();
    this.#outcome = null;
    if (this.#move('givenUp')) {
      this.#calls++;
    }
    if (this.#underWay()) {
      this.#target.hangUp(reason);
    }
  }

  #underWay() {
    return ['connecting', 'disconnected'].includes(this.#target.state);
  }

  #cancelTimer() {
    if (this.#move('cutShort')) {
      this.#cancel();
    }
  }

  /**
   * Go to the next phase, if the table has one.
   *
   * @param {DialEvent} event
   */
  #move(event) {
    const next = TABLE[this.#phase][event];
    if (next) this.#phase = next;
    return next;
  }
}
