/**
 * Where a server is: the URL that a developer writes, made into what is dialled and what is signed.
 */
import { ConfigError } from '../errors.js';

/**
 * @typedef {object} Endpoint
 * @property {string} url What is dialled.
 * @property {string} server What the browser puts into the `Host` header: host and port in lower case, without the port
 *   when it is the scheme's own. A registration proof is made for it, and pins are kept by it.
 */

/**
 * Read `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former. A path and a query are kept.
 *
 * @param {string} text
 * @returns {Endpoint} Throws `ConfigError` (a `UsageError`) when it is no address of a server.
 */
export function parseEndpoint(text) {
  /** @param {string} problem */
  const wrong = (problem) => new ConfigError('url', `${JSON.stringify(text)} ${problem}`);
  // The platform would take white space out, and a third slash too.
  const parts = /^(?:ws|http)(s?):\/\/([^/\\\s\p{Cc}][^\s\p{Cc}]*)$/iu.exec(text);
  if (!parts) throw wrong('is no ws:// or wss:// URL');
  let url;
  try {
    url = new URL(`ws${parts[1]}://${parts[2]}`);
  } catch {
    throw wrong('is not a URL');
  }
  if (url.username || url.password) throw wrong('has a user name; pass a token instead');
  if (url.hash || url.port === '0') throw wrong('has a fragment, or no usable port');
  return { url: url.href, server: url.host };
}
