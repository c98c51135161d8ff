/**
 * The direct path to one device of a peer: the connection that there is, or is in the making, and how it stands.
 *
 * Rules: a path outlives its connections. The device hears of one at a time, and nothing more of one that was let go of. It
 * does not know when there should be a connection, nor what is sent on it.
 */

/**
 * @import { PeerConnection, PeerListener } from '../../peer/connection.js'
 * @import { PeerState } from '../../peer/negotiation.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { MessageStream } from '../messages/stream.js'
 */

/**
 * @typedef {object} PathContext What a path needs of the store.
 * @property {(device: Listening, hello: () => OurHello) => PeerConnection} connect Make a connection.
 * @property {(farewell: Promise<void> | undefined) => Promise<void>} leaving A goodbye is on its way.
 */

/** @typedef {{ userId: string, name: string | null, listener: PeerListener | null }} Listening What the connection tells, it tells the listener. */
/** @typedef {Listening & { messages: MessageStream }} PathOwner The device. */

export class DirectPath {
  /**
   * What connects us, or is about to.
   *
   * @type {PeerConnection | null}
   */
  connection = null;
  /**
   * How it stood when the device was told last.
   *
   * @type {PeerState}
   */
  told = 'new';
  #owner;
  #context;
  #greeting;
  #closed;

  /**
   * @param {PathOwner} owner
   * @param {PathContext} context
   * @param {() => OurHello} greeting Makes our HELLO for each new channel.
   * @param {() => void} closed Is told of the end of a connection.
   */
  constructor(owner, context, greeting, closed) {
    this.#owner = owner;
    this.#context = context;
    this.#greeting = greeting;
    this.#closed = closed;
  }

  /** How the connection stands now. */
  get state() {
    return this.connection?.state ?? this.told;
  }

  /** Whether there is a connection, be it broken at the moment: it needs no server. */
  get connected() {
    return this.state === 'connected' || this.state === 'disconnected';
  }

  /** The connection, made if need be. */
  open() {
    const { messages } = this.#owner;
    /** @type {PeerConnection} */
    const connection = (this.connection ??= this.#context.connect(this.#owner, () =>
      this.connection === connection ? this.#greeting() : messages.greeting(),
    ));
    return connection;
  }

  /**
   * Take one frame; false when there is no connection, or no room.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    return this.connection?.sendFrame(frame) ?? false;
  }

  /** Let go of the connection, which is returned. */
  detach() {
    const { connection } = this;
    this.connection = null;
    if (connection) connection.listener = null;
    this.#closed();
    return connection;
  }

  /**
   * End the connection.
   *
   * @param {string} reason
   * @param {PeerState} state
   */
  release(reason, state) {
    void this.#context.leaving(this.detach()?.close(reason));
    this.told = state;
  }
}
