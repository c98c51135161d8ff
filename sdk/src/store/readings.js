/**
 * Readings of the connection with a device: `store.stats`, `store.quality` and `store.readings`. Loaded when first used.
 *
 * JavaScript only: in Python, where nothing is loaded later, these are methods of the store.
 */
import { settings } from '../client/settings.js';
import { timers } from '../client/timers.js';
import { ConfigError } from '../errors.js';
import { statsOf } from '../peer/stats.js';
import { gradeOf, measuredOf, Throughput } from './quality.js';

export { waysOf } from './ways.js';

/**
 * @import { EngineStats } from '../peer/stats.js'
 * @import { PeerDevice } from './peers/device.js'
 * @import { Grade, Reason } from './quality.js'
 */

/**
 * How the connection runs. Of the relay nothing else is known: the server has the rest.
 *
 * @typedef {(EngineStats | { path: 'relay', protocol: null, local: null, remote: null, bytesSent: null,
 *   bytesReceived: null }) & { roundTripTime: number | null }} PeerStats
 */

/**
 * One reading of the connection with a peer. Times in seconds, rates in bytes a second; null where unknown.
 *
 * @typedef {object} PeerQuality
 * @property {Grade} grade
 * @property {Reason} reason what keeps the grade from being better
 * @property {PeerStats['path'] | null} path this and the next three as in `PeerStats`
 * @property {PeerStats['protocol'] | null} protocol
 * @property {PeerStats['local'] | null} local
 * @property {PeerStats['remote'] | null} remote
 * @property {number | null} roundTripTime
 * @property {number | null} jitter by how much the last round trips differ from one to the next
 * @property {number} lostHeartbeats so many of the last `heartbeats` got no answer within 1.5 s
 * @property {number} heartbeats
 * @property {number | null} sentPerSecond since the reading before, if that was at most a minute ago
 * @property {number | null} receivedPerSecond
 */

const NO_PULSE = { roundTripTime: null, samples: [], heartbeats: [] };
/** @type {WeakMap<PeerDevice, Throughput>} */
const throughputs = new WeakMap();

/**
 * @param {PeerDevice | null} device
 * @returns {Promise<PeerStats | null>} null without a path
 */
export async function statsOfDevice(device) {
  const relay = device?.paths.relayed;
  if (relay) {
    const { roundTripTime } = relay;
    return {
      path: 'relay',
      protocol: null,
      local: null,
      remote: null,
      bytesSent: null,
      bytesReceived: null,
      roundTripTime,
    };
  }
  const connection = device?.connection;
  const stats = await connection?.stats(statsOf);
  return connection && stats ? { ...stats, roundTripTime: connection.roundTripTime } : null;
}

/** Find out whether the direct connection of a device leads through a TURN server. @param {PeerDevice} device */
export async function namePath(device) {
  const { connection, listener } = device;
  const path = (await connection?.stats(statsOf))?.path;
  if (!path || !listener || connection !== device.connection || path === listener.path) return;
  listener.path = path;
  device.changed();
}

/**
 * @param {PeerDevice | null} device
 * @param {number} now
 * @returns {Promise<PeerQuality>}
 */
export async function qualityOf(device, now) {
  const stats = await statsOfDevice(device);
  const { path = null, protocol = null, local = null, remote = null } = stats ?? {};
  const { pulse } = device?.paths.relayed ?? device?.connection ?? {};
  const measured = measuredOf(pulse ?? NO_PULSE, now);
  const connected = !!device?.paths.connected;
  const throughput = (device && throughputs.get(device)) ?? new Throughput();
  if (device) throughputs.set(device, throughput);
  const [sentPerSecond, receivedPerSecond] = throughput.measure(
    now,
    stats?.bytesSent ?? null,
    stats?.bytesReceived ?? null,
  );
  return {
    ...gradeOf({ connected, ...measured }),
    ...{ path, protocol, local, remote },
    ...measured,
    ...{ sentPerSecond, receivedPerSecond },
  };
}

/**
 * @param {() => Promise<PeerQuality> | false} read false at the end
 * @param {{ every?: number }} [options]
 */
export async function* readings(read, options) {
  const { every } = settings({ every: 2 }, options);
  if (!(every >= 0.25 && every <= 3600)) throw new ConfigError('every', 'not from 0.25 s to an hour');
  for (let reading = read(); reading; reading = read()) {
    yield await reading;
    await new Promise((resolve) => timers.callLater(every, () => resolve(null)));
  }
}
