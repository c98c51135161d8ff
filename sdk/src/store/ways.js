/**
 * By which ways this page reaches peers in other networks: directly, through a TURN server, through the server's relay.
 * Part of what `readings.js` loads.
 *
 * JavaScript only: in Python `aldis doctor` says it, which may ask STUN servers itself. A page learns from the candidates that
 * its browser gathers, and from the errors that it tells.
 */
import { timers } from '../client/timers.js';

/** @import { EngineConfig } from '../peer/engine.js' */

/**
 * `direct`: `easy`, the NAT keeps one address for all others, so most peers are reached; `symmetric`, it takes another port
 * for each, so only peers without a NAT are; `unsure`, there is one STUN server alone, which cannot tell the two apart;
 * `blocked`, no STUN server answers, so only peers in the same network are; `unknown`, there is none to ask.
 *
 * `turn`: `none` is configured, `works`, or `unreachable`, which may also be a refusal.
 *
 * @typedef {object} Ways
 * @property {'easy' | 'symmetric' | 'unsure' | 'blocked' | 'unknown'} direct
 * @property {'none' | 'works' | 'unreachable'} turn
 * @property {boolean} relay whether the server relays sealed messages
 */

/** Seconds in which a browser gathers, or does not. */
const GATHER = 5;

/**
 * What `gathered` has found: the texts of candidates, with the STUN server that has shown each, where the browser tells.
 *
 * @param {string[]} urls of all STUN and TURN servers
 * @param {string[]} gathered
 * @returns {Omit<Ways, 'relay'>}
 */
export function readWays(urls, gathered) {
  const stun = urls.filter((url) => url.startsWith('stun'));
  const turn = urls.some((url) => url.startsWith('turn'));
  const fields = gathered.map((candidate) => candidate.split(' ')); // RFC 8839 section 5.1
  const relays = fields.some((each) => each[7] === 'relay');
  /** @type {Map<string, Set<string>>} the ports that are seen, by our address behind them, as far as it is told */
  const seen = new Map();
  for (const [, , , , address = '', port = '', , kind, ...more] of fields) {
    const base = `${address} ${more.slice(0, 4).join(' ')}`; // raddr and rport
    if (kind === 'srflx') seen.set(base, (seen.get(base) ?? new Set()).add(port));
  }
  /** @returns {Ways['direct']} */
  const direct = () => {
    if (!seen.size) return stun.length ? 'blocked' : 'unknown';
    if ([...seen.values()].some((ports) => ports.size > 1)) return 'symmetric';
    return stun.length > 1 ? 'easy' : 'unsure';
  };
  return { direct: direct(), turn: relays ? 'works' : turn ? 'unreachable' : 'none' };
}

/**
 * @param {{ config: EngineConfig, relay: boolean }} signaling
 * @param {(config: EngineConfig) => RTCPeerConnection} makeConnection
 * @returns {Promise<Ways>}
 */
export async function waysOf({ config, relay }, makeConnection) {
  const urls = (config.iceServers ?? []).flatMap((server) => server.urls ?? []);
  /** @type {string[]} */
  const gathered = [];
  const connection = makeConnection({ ...config, iceCandidatePoolSize: 0 });
  try {
    await new Promise((resolve, reject) => {
      timers.callLater(GATHER, () => resolve(null));
      connection.onicecandidate = ({ candidate }) =>
        candidate ? candidate.candidate && gathered.push(candidate.candidate) : resolve(null);
      connection.createDataChannel('aldis.ways');
      connection
        .createOffer()
        .then((offer) => connection.setLocalDescription(offer))
        .catch(reject);
    });
  } finally {
    connection.close();
  }
  return { ...readWays(urls, gathered), relay };
}
