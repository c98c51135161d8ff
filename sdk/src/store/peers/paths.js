/**
 * The two paths to one device of a peer, and which of them carries the messages.
 *
 * Rules of this module:
 *
 * - The direct connection carries them while it is open and data arrives; else the relay, where there is one. Each change
 *   begins with HELLO, so nothing is lost, comes twice, or in another order.
 * - The messages come to a direct connection when the other side's HELLO has come on it. Until then they go on as before.
 *   They leave it when it is lost, or when the other side has left it: it begins a session of the relay then.
 * - A connection that was left is not used again. The dialer makes another one beside it.
 *
 * It does not know what is sent, nor when there should be a path. What the relay is made of is loaded later
 * (`relay_login`): until then there is none.
 */
import { ConfigError } from '../../errors.js';
import { DirectPath } from './path.js';

/**
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { PathContext, PathOwner } from './path.js'
 * @import { RelayPath } from './relay.js'
 */

/** `BUNDLED` of a channel, in bytes. Its code is loaded later. */
export const COMBINED = 2 * 1024;

/**
 * The paths that may be used with a peer. `auto`: all, the relay at once, and a direct connection as soon as there is one.
 * `direct`: never the relay. `turn`: never an address of ours to the peer, so TURN servers, and the relay. `relay`: the
 * relay only.
 *
 * @typedef {'auto' | 'direct' | 'turn' | 'relay'} PathMode
 */
/** @type {readonly PathMode[]} */
const MODES = ['auto', 'direct', 'turn', 'relay'];

/** Check an option of a program. Throws `ConfigError`. @param {PathMode} path */
export function checkPath(path) {
  if (!MODES.includes(path)) throw new ConfigError('path', `none of ${MODES.join(', ')}`);
  return path;
}

export class DevicePaths {
  /** What carries the messages. @type {'none' | 'direct' | 'relay'} */
  carrier = 'none';
  /** The relay has carried messages, and no attempt has failed since. When it is lost, that is under repair. */
  hadRelay = false;
  /** Made when it is first needed. @type {RelayPath | null} */
  #relay = null;
  #owner;
  #makeRelay;

  /**
   * @param {PathOwner} owner
   * @param {PathContext} context
   * @param {() => RelayPath | null} makeRelay null while there is none.
   */
  constructor(owner, context, makeRelay) {
    this.#owner = owner;
    this.#makeRelay = makeRelay;
    this.direct = new DirectPath(
      owner,
      context,
      // What the relay carries goes on there until their HELLO comes.
      () => (this.carrier === 'relay' ? owner.messages.greeting() : owner.messages.hello()),
      () => this.directClosed(),
    );
  }

  get relay() {
    return (this.#relay ??= this.#makeRelay());
  }

  /** Whether messages get through now. */
  get connected() {
    return !!this.#relay?.open || this.direct.state === 'connected';
  }

  /** How things stand, for the application. */
  get told() {
    const { told } = this.direct;
    if (this.carrier === 'relay' && told !== 'connected') {
      if (this.#relay?.open) return 'connected';
      if (told !== 'disconnected') return 'connecting';
    }
    return told === 'failed' && this.hadRelay ? 'disconnected' : told;
  }

  /** The session of the relay, if it carries the messages. */
  get relayed() {
    return this.carrier === 'relay' && this.#relay?.open ? this.#relay : null;
  }

  /** Take one frame; false when nothing carries it, or there is no room. @param {Bytes} frame */
  sendFrame(frame) {
    if (this.carrier === 'direct') return this.direct.sendFrame(frame);
    return this.carrier === 'relay' && !!this.#relay?.sendFrame(frame);
  }

  /** Whether a frame goes together with small ones before it. @param {Bytes} frame */
  combines({ length }) {
    return length <= COMBINED || this.carrier === 'relay';
  }

  // --- the direct connection ---------------------------------------------------------------------------------------

  /** Their HELLO has come on a direct channel: it carries the messages from now on. */
  directOpened() {
    if (this.carrier === 'relay') this.#owner.messages.closed();
    this.#relay?.leave();
    this.carrier = 'direct';
    this.hadRelay = false;
  }

  /** The direct channel is gone. */
  directClosed() {
    if (this.carrier === 'relay') return;
    this.carrier = 'none';
    this.#owner.messages.closed();
  }

  // --- the relay ---------------------------------------------------------------------------------------------------

  /** A session of the relay begins, and carries the messages from now on. Our HELLO for it. @param {boolean} early */
  relayHello(early) {
    this.direct.connection?.leave();
    this.carrier = 'relay';
    return this.#owner.messages.hello(early);
  }

  /** The session of the relay is gone. Returns whether it carried the messages. */
  relayClosed() {
    if (this.carrier !== 'relay') return false;
    this.carrier = 'none';
    this.#owner.messages.closed();
    if (this.direct.told === 'new') this.direct.told = 'failed'; // there was a path, and it is lost
    return true;
  }
}
