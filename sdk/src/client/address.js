/**
 * Where a server is: the URL that a developer writes, made into what is dialled and what is signed.
 */
import { ConfigError } from '../errors.js';
import { isHost } from '../protocol/hosts.js';

/**
 * @typedef {object} ServerAddress
 * @property {string} url What is dialled.
 * @property {string} server What the browser puts into the `Host` header: host and port in lower case, without the port
 *   when it is the scheme's own. A registration proof is made for it, and pins are kept by it.
 */

/**
 * Read `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former. A path and a query are kept; a path that does
 * not end in `/ws` ends in a slash: a proxy would only redirect a WebSocket from /aldis to /aldis/.
 *
 * @param {string} text
 * @returns {ServerAddress} Throws `ConfigError` (a `UsageError`) when it is no address of a server.
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
