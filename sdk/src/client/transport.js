/**
 * One WebSocket connection to a server, from the first attempt to its end.
 *
 * It tells exactly once that it has ended, or never began; after that nothing of it is heard, whatever the platform still
 * does with the socket. It knows nothing of what the messages say.
 *
 * Faults of the server are reported as 1006 with the reason in words, since a code that is reported is what the *server*
 * said, and some of those forbid to come back (`protocol/codes.js`).
 */
import { ABNORMAL, GOING_AWAY } from '../protocol/codes.js';
import { closeReason } from '../protocol/frames.js';
import { PROTOCOL } from '../protocol/names.js';
import { catchUp, timers } from './timers.js';

// Seconds. How long the other side has to answer a CLOSE frame before we go on without it.
const CLOSE_TIMEOUT = 2;
// Bytes on their way out that the network has not taken. The connection is given up then.
const MOST_BACKLOG = 4 * 1024 * 1024;
// Servers that are there without a network, too.
const LOOPBACK = /\/\/(localhost|127\.|\[::1])/;
/** What is known of a server that has not opened a WebSocket. */
export const NO_ANSWER = 'no Aldis server answers there, or its certificate is not trusted';

/**
 * @typedef {object} TransportListener Receives what a transport brings.
 * @property {() => void} opened
 * @property {(data: unknown) => void} received A whole message, which should be a text.
 * @property {(code: number, reason: string) => void} ended It is over, or has never begun: with the server's close code,
 *   or 1006.
 *
 * @typedef {object} TransportOptions
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {number} connectTimeout Seconds, for all of it: name, TCP, TLS and WebSocket.
 *
 * @typedef {object} Transport
 * @property {(text: string) => void} send Only once it has opened; when it is closing this does nothing.
 * @property {(code: number, reason: string) => void} close Begin to close, with 1000 or from 3000 up (pages may say no
 *   other); its end comes when the server has answered, or has not in time. Before the connection is open this ends the
 *   attempt at once.
 * @property {Promise<void>} gone Resolves when its listener has been told of the end.
 */

/**
 * Dial; nothing is told before this has returned.
 *
 * @param {string} url
 * @param {TransportOptions} options
 * @param {TransportListener} listener
 * @returns {Transport}
 */
export function openTransport(url, { WebSocket, connectTimeout }, { opened, received, ended }) {
  /** @type {WebSocket | null} */
  let ws = null;
  let open = false;
  let over = false;
  let leave = () => {};
  /** @type {Promise<void>} */
  const gone = new Promise((resolve) => (leave = resolve));
  let cancelTimer = timers.callLater(connectTimeout, () => abort(`no answer within ${connectTimeout} s`));

  /** @param {number} code @param {string} reason */
  function finish(code, reason) {
    if (over) return;
    over = true;
    cancelTimer();
    // A browser keeps to itself what it knows of an attempt that failed.
    const offline = globalThis.navigator?.onLine === false && !LOOPBACK.test(url);
    const silence = offline ? 'this device is offline' : NO_ANSWER;
    ended(code, reason || (open ? '' : silence));
    leave();
  }

  /** End it at once; what the server makes of that does not matter any more. @param {string} reason */
  function abort(reason) {
    finish(ABNORMAL, reason);
    ws?.close(GOING_AWAY);
  }

  try {
    // A platform fails a connection to a server that does not choose it (WHATWG WebSockets, "establish").
    ws = new WebSocket(url, PROTOCOL);
    ws.onopen = () => {
      if (over) return;
      cancelTimer();
      open = true;
      opened();
    };
    ws.onmessage = ({ data }) => {
      if (!over) received(data);
      catchUp();
    };
    ws.onclose = ({ code, reason }) => finish(code, reason);
    // Node's WebSocket leaves it at that when it cannot connect.
    ws.onerror = () => open || finish(ABNORMAL, '');
  } catch (error) {
    // A page that came by https: may not dial ws:.
    queueMicrotask(() => finish(ABNORMAL, /** @type {Error} */ (error).message));
  }

  return {
    gone,
    send(text) {
      // On one that is closing it would do nothing, too, and browsers write an error to the console.
      if (ws?.readyState === WebSocket.OPEN) ws.send(text);
      if ((ws?.bufferedAmount ?? 0) > MOST_BACKLOG) abort('the network takes nothing');
    },
    close(code, reason) {
      if (!open) {
        abort('the client was closed');
      } else if (!over) {
        cancelTimer();
        cancelTimer = timers.callLater(CLOSE_TIMEOUT, () => finish(ABNORMAL, ''));
        ws?.close(code, closeReason(reason));
      }
    },
  };
}
