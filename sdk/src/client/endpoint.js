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
  // The platform would take white space out, and a third slash too.
  const parts = /^(?:ws|http)(s?):\/\/([^/\\\s\p{Cc}][^\s\p{Cc}]*)$/iu.exec(text);
  try {
    const { href, host, username, password, hash, port } = new URL(`ws${parts?.[1]}://${parts?.[2]}`);
    if (parts && !username && !password && !hash && port !== '0') return { url: href, server: host };
  } catch {}
  throw new ConfigError('url', `${JSON.stringify(text)} is not the ws:// or wss:// URL of a server`);
}
