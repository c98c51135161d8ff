/**
 * One WebSocket connection to a server, from the first attempt to its end.
 *
 * It reports exactly once that the connection has ended or has failed. After that its listener hears nothing, whatever
 * the platform still does with the socket. It does not know what the messages mean.
 *
 * A fault of the server is reported as 1006 with the reason in words. A reported code would count as sent by the
 * *server*, and some codes forbid reconnecting (`protocol/codes.js`).
 */
import { ABNORMAL, GOING_AWAY } from '../protocol/codes.js';
import { closeReason } from '../protocol/frames.js';
import { PROTOCOL } from '../protocol/names.js';
import { catchUp, timers } from './timers.js';

// Seconds in which the other side has to answer a CLOSE frame, before we go on without it.
const CLOSE_TIMEOUT = 2;
// Bytes that the network has not taken. With more, the connection is given up.
const MOST_BACKLOG = 4 * 1024 * 1024;
// Hosts that can be reached without a network.
const LOOPBACK = /\/\/(localhost|127\.|\[::1])/;
/** The reason for a server that has not opened a WebSocket. */
export const NO_ANSWER = 'no Aldis server answers there, or its certificate is not trusted';

/**
 * @typedef {object} TransportListener Receives the input of a transport.
 * @property {() => void} opened
 * @property {(data: unknown) => void} received A whole message, which should be a text.
 * @property {(code: number, reason: string) => void} ended The connection is gone or has failed: the server's close
 *   code, or 1006.
 *
 * @typedef {object} TransportOptions
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {number} connectTimeout Seconds for all steps together: name, TCP, TLS and WebSocket.
 *
 * @typedef {object} Transport
 * @property {(text: string) => void} send Only when it is open; does nothing when it is closing.
 * @property {(code: number, reason: string, atOnce?: boolean) => void} close Start closing, with 1000 or from 3000 up (pages may send no
 *   other). It ends when the server has answered, or has not answered in time; `atOnce` does not wait for that. Before the connection is open, this ends
 *   the attempt at once.
 * @property {Promise<void>} gone Resolves after the listener has been told of the end.
 */

/**
 * Connect to a server; the listener is not called before this returns.
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
    // A browser does not tell a page why an attempt failed.
    const offline = globalThis.navigator?.onLine === false && !LOOPBACK.test(url);
    const silence = offline ? 'this device is offline' : NO_ANSWER;
    ended(code, reason || (open ? '' : silence));
    leave();
  }

  /** End the connection at once; the server's reaction does not matter any more. @param {string} reason */
  function abort(reason) {
    finish(ABNORMAL, reason);
    ws?.close(GOING_AWAY);
  }

  try {
    // A platform fails the connection if the server does not choose it (WHATWG WebSockets, "establish").
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
    // Node's WebSocket reports nothing else when it cannot connect.
    ws.onerror = () => open || finish(ABNORMAL, '');
  } catch (error) {
    // A page from https: may not dial ws:.
    queueMicrotask(() => finish(ABNORMAL, /** @type {Error} */ (error).message));
  }

  return {
    gone,
    send(text) {
      // On a closing WebSocket this would do nothing either, and browsers write an error to the console.
      if (ws?.readyState === WebSocket.OPEN) ws.send(text);
      if ((ws?.bufferedAmount ?? 0) > MOST_BACKLOG) abort('the network takes nothing');
    },
    close(code, reason, atOnce = false) {
      if (!open) {
        abort(reason || 'the client was closed');
      } else if (atOnce) {
        ws?.close(code, closeReason(reason));
        finish(ABNORMAL, '');
      } else if (!over) {
        cancelTimer();
        cancelTimer = timers.callLater(CLOSE_TIMEOUT, () => finish(ABNORMAL, ''));
        ws?.close(code, closeReason(reason));
      }
    },
  };
}
