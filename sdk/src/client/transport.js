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

const SUBPROTOCOL = 'aldis.v1';
// Far above what a server relays (64 KiB by default), and a bound on what one can make us work on.
const MAX_MESSAGE = 1024 * 1024;
// Seconds. How long the other side has to answer a CLOSE frame before we go on without it.
const CLOSE_TIMEOUT = 2;
// Characters, of up to three bytes each: 123 bytes fit into a CLOSE frame (RFC 6455 section 5.5).
const MAX_REASON = 40;

/**
 * @typedef {object} TransportListener Who is told what comes.
 * @property {() => void} opened
 * @property {(reason: string) => void} unreachable Instead of `opened`; the reason is for people.
 * @property {(text: string) => void} textReceived A whole message.
 * @property {(code: number, reason: string) => void} lost It is over: with the server's close code, or 1006.
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
  #closing = false;

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
      ws.onopen = () => this.#opened(ws.protocol);
      ws.onmessage = ({ data }) => this.#message(data);
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

  /** Send a message; after the end it does nothing. @param {string} text */
  send(text) {
    if (this.#open && !this.#closing) this.#ws?.send(text);
  }

  /**
   * Begin to close; the listener hears of it when the server has answered, or when it has not in time. Before the
   * connection is open this ends the attempt at once. Calling it again does nothing.
   *
   * @param {number} code
   * @param {string} reason
   */
  close(code, reason) {
    if (this.#closing || !this.#end) return;
    if (!this.#open) {
      this.#abort('the client was closed');
      return;
    }
    this.#closing = true;
    this.#cancelTimer = this.#timers.callLater(CLOSE_TIMEOUT, () => this.#finish(ABNORMAL, ''));
    // A page may say 1000, or 3000 and above (WHATWG WebSockets, "close(code, reason)").
    this.#ws?.close(code === NORMAL ? code : Math.max(code, GOING_AWAY), reason.slice(0, MAX_REASON));
  }

  /** @param {string} protocol */
  #opened(protocol) {
    if (!this.#end) return;
    if (protocol !== SUBPROTOCOL) {
      this.#abort('it is no Aldis server');
      return;
    }
    this.#cancelTimer();
    this.#open = true;
    this.#listener.opened();
    this.#tellOpened(null);
  }

  /** @param {unknown} data */
  #message(data) {
    if (!this.#end) return;
    if (typeof data === 'string' && data.length <= MAX_MESSAGE) this.#listener.textReceived(data);
    else this.#abort('the server broke the protocol: a message that is no text, or too large');
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
    if (this.#open) {
      this.#listener.lost(code, reason || (code === ABNORMAL ? 'the connection broke' : ''));
    } else {
      reason ||= whyNot();
      this.#listener.unreachable(reason);
      this.#tellOpened(reason);
    }
    end();
  }
}

/** Why a server cannot be reached: a browser keeps to itself what it knows of that. */
function whyNot() {
  return globalThis.navigator?.onLine === false
    ? 'this device is offline'
    : 'nothing answers there, or not as an Aldis server does, or its certificate is not trusted';
}
