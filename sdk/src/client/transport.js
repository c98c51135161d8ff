/**
 * One WebSocket connection to a server, from the first attempt to its end.
 *
 * It tells exactly once how it ended, or that it never began; after that nothing of it is heard, whatever the platform
 * still does with the socket. It knows nothing of what the messages say.
 *
 * Faults of the server are reported as 1006 with the reason in words, since a code that is reported is what the *server*
 * said, and some of those forbid to come back (`protocol/codes.js`).
 *
 * @import { Timers } from './timers.js'
 */
import { ABNORMAL, GOING_AWAY, NORMAL } from '../protocol/codes.js';

// A platform fails a connection to a server that does not choose it (WHATWG WebSockets, "establish").
const SUBPROTOCOL = 'aldis.v1';
// Seconds. How long the other side has to answer a CLOSE frame before we go on without it.
const CLOSE_TIMEOUT = 2;
// Characters, of up to three bytes each: 123 bytes fit into a CLOSE frame (RFC 6455 section 5.5).
const MAX_REASON = 40;
const NO_ANSWER = 'nothing answers there, or not as an Aldis server does, or its certificate is not trusted';

/**
 * @typedef {object} TransportListener Who is told what comes.
 * @property {() => void} opened
 * @property {(data: unknown) => void} received A whole message, which should be a text.
 * @property {(code: number, reason: string) => void} lost It is over: with the server's close code, or 1006. Only after
 *   `opened`.
 *
 * @typedef {object} TransportOptions
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {Timers} timers
 * @property {number} connectTimeout Seconds, for all of it: name, TCP, TLS and WebSocket.
 */

/** A connection; it dials as soon as it is made, and tells nothing before the constructor has returned. */
export class Transport {
  /** @type {Promise<string | null>} Resolves when the connection is open (null), or will not be: why. */
  opened;
  /** @type {Promise<void>} Resolves when the connection is gone and its listener was told. */
  gone;
  /** @type {(reason: string | null) => void} */
  #tellOpened = () => {};
  /** @type {WebSocket | null} */
  #ws = null;
  #listener;
  #timers;
  #cancelTimer;
  #open = false;
  /** @type {(() => void) | null} null after the end */
  #end = null;

  /**
   * @param {string} url
   * @param {TransportListener} listener
   * @param {TransportOptions} options
   */
  constructor(url, listener, { WebSocket, timers, connectTimeout }) {
    this.#listener = listener;
    this.#timers = timers;
    this.opened = new Promise((resolve) => (this.#tellOpened = resolve));
    this.gone = new Promise((resolve) => (this.#end = resolve));
    this.#cancelTimer = timers.callLater(connectTimeout, () => this.#abort(`no answer within ${connectTimeout} s`));
    try {
      const ws = (this.#ws = new WebSocket(url, SUBPROTOCOL));
      ws.onopen = () => this.#opened();
      ws.onmessage = ({ data }) => this.#end && listener.received(data);
      ws.onclose = ({ code, reason }) => this.#finish(code, reason);
      // Node's WebSocket leaves it at that when it cannot connect.
      ws.onerror = () => this.#open || this.#finish(ABNORMAL, '');
    } catch (error) {
      // A page that came by https: may not dial ws:.
      queueMicrotask(() => this.#finish(ABNORMAL, /** @type {Error} */ (error).message));
    }
  }

  /** How many bytes are on their way out that the network has not taken. */
  get backlog() {
    return this.#ws?.bufferedAmount ?? 0;
  }

  /** Send a message; once it is closing this does nothing. @param {string} text */
  send(text) {
    this.#ws?.send(text);
  }

  /**
   * Begin to close; the listener hears of it when the server has answered, or when it has not in time. Before the
   * connection is open this ends the attempt at once. Calling it again does no harm.
   *
   * @param {number} code
   * @param {string} reason
   */
  close(code, reason) {
    if (!this.#end) return;
    if (!this.#open) {
      this.#abort('the client was closed');
      return;
    }
    this.#cancelTimer();
    this.#cancelTimer = this.#timers.callLater(CLOSE_TIMEOUT, () => this.#finish(ABNORMAL, ''));
    // A page may say 1000, or 3000 and above (WHATWG WebSockets, "close(code, reason)").
    this.#ws?.close(code === NORMAL ? code : Math.max(code, GOING_AWAY), reason.slice(0, MAX_REASON));
  }

  #opened() {
    if (!this.#end) return;
    this.#cancelTimer();
    this.#open = true;
    this.#listener.opened();
    this.#tellOpened(null);
  }

  /** End it at once; what the server makes of that does not matter any more. @param {string} reason */
  #abort(reason) {
    this.#finish(ABNORMAL, reason);
    this.#ws?.close(GOING_AWAY);
  }

  /** @param {number} code @param {string} reason */
  #finish(code, reason) {
    const end = this.#end;
    if (!end) return;
    this.#end = null;
    this.#cancelTimer();
    if (this.#open) this.#listener.lost(code, reason || (code === ABNORMAL ? 'the connection broke' : ''));
    // A browser keeps to itself what it knows of an attempt that failed.
    else this.#tellOpened(reason || (globalThis.navigator?.onLine === false ? 'this device is offline' : NO_ANSWER));
    end();
  }
}
