/**
 * STUN and TURN servers as people and vendors write them, changed into the form of Chromium; see `protocol/ice.py`.
 *
 * @import { IceServer } from './messages.js'
 */
import { ConfigError } from '../errors.js';
import { isHost } from './hosts.js';

const URL_SHAPE = /^(stuns?|turns?):(\[[^[\]]*]|[^\s:/?#@%[\]]+)(?::(\d{1,9}))?(?:\?transport=(udp|tcp))?$/i;
// libwebrtc refuses a longer user name.
const MOST_USERNAME = 509;

/**
 * The URL in the form of Chromium; throws a text that says what is wrong with it.
 *
 * @param {unknown} text
 */
function readUrl(text) {
  const [, scheme = '', host, port, transport] =
    (typeof text === 'string' && text.length <= 1024 && URL_SHAPE.exec(text.trim())) || [];
  if (!scheme) throw 'no STUN or TURN URL';
  let hostname = '';
  try {
    hostname = new URL(`ws://${host}`).hostname;
  } catch {}
  if (!isHost(hostname)) throw 'the host name is not valid';
  if (port && !(+port > 0 && +port < 65536)) throw `${port} is no port`;
  let query = transport ? `?transport=${transport.toLowerCase()}` : '';
  const kind = scheme.toLowerCase();
  if (query && kind.startsWith('stun')) {
    if (query.endsWith('udp') !== (kind === 'stun')) throw `${kind}: does not go over ${transport}`;
    query = '';
  }
  return `${kind}:${hostname}${port ? `:${+port}` : ''}${query}`;
}

/**
 * @param {any} entry
 * @returns {IceServer}
 */
function readServer(entry) {
  const { urls = entry?.url, username, credential, credentialType = 'password' } = entry ?? {};
  if (credentialType !== 'password') throw 'the only credentialType is password';
  const all = Array.isArray(urls) ? urls : [urls];
  if (!all.length) throw 'without urls';
  const read = all.map((url) => {
    try {
      return readUrl(url);
    } catch (problem) {
      throw `${JSON.stringify(url)?.slice(0, 200)}: ${problem}`;
    }
  });
  for (const value of [username, credential]) {
    if (typeof (value ?? '') !== 'string') throw 'a username or credential that is no text';
    if (!value && read.some((url) => url.startsWith('turn'))) throw 'a TURN server without username or credential';
  }
  if (new TextEncoder().encode(username ?? '').length > MOST_USERNAME) throw 'the username is too long';
  return { urls: read, ...(username != null && { username }), ...(credential != null && { credential }) };
}

/**
 * Read the servers that a program has configured. Throws `ConfigError`, which names the entry and its problem.
 *
 * @param {unknown} entries
 */
export function readServers(entries) {
  if (!Array.isArray(entries)) throw new ConfigError('iceServers', 'not a list');
  return entries.map((entry, index) => {
    try {
      return readServer(entry);
    } catch (problem) {
      throw new ConfigError(`iceServers[${index}]`, String(problem));
    }
  });
}

/**
 * The usable servers of those that the other side named; `told` is called for each unusable URL.
 *
 * @param {readonly IceServer[]} entries
 * @param {(problem: string) => void} told
 */
export const usableServers = (entries, told) =>
  entries
    .map((entry) => ({
      ...entry,
      urls: entry.urls.flatMap((url) => {
        try {
          return readServer({ ...entry, urls: url }).urls;
        } catch (problem) {
          told(String(problem));
          return [];
        }
      }),
    }))
    .filter(({ urls }) => urls.length);
