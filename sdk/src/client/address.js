/**
 * The address of a server: the URL that a developer writes becomes the URL to dial and the host to sign.
 */
import { ConfigError } from '../errors.js';
import { isHost } from '../protocol/hosts.js';

/**
 * @typedef {object} ServerAddress
 * @property {string} url The URL to dial.
 * @property {string} server The `Host` header that the browser sends: host and port in lower case, without the scheme's
 *   default port. Registration proofs sign it, and pins are stored under it.
 */

/**
 * Read `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former. Path and query are kept. A path that does
 * not end in `/ws` gets a slash at its end, because a proxy would only redirect a WebSocket from /aldis to /aldis/.
 *
 * @param {string} text
 * @returns {ServerAddress} Throws `ConfigError` (a `UsageError`) when it is not the address of a server.
 */
export function parseServerAddress(text) {
  let problem = 'not http://, https://, ws:// or wss:// and a host';
  try {
    const url = new URL(String(text).replace(/^http/i, 'ws'));
    const { host, hostname, port, protocol, username, password, hash } = url;
    if (/^wss?:$/.test(protocol)) {
      url.pathname = url.pathname.replace(/(?<!\/|\/ws)$/, '/');
      problem = 'no user name, password or # part here';
      if (!(username + password + hash)) {
        if (isHost(hostname) && port !== '0') return { url: url.href, server: host };
        problem = 'no valid host name or port';
      }
    }
  } catch {}
  throw new ConfigError('url', `${JSON.stringify(text)}: ${problem}`);
}
