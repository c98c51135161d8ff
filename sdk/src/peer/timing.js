/** The times of connections between peers, which a program may change. */

/**
 * How long things may take, all in seconds.
 * @typedef {object} PeerTiming
 * @property {number} attempt Seconds from the offer to the exchange of HELLOs. 30
 * @property {number} heal Seconds from the loss of an established path to its return, by itself or by an ICE restart. 15
 * @property {number} heartbeat The least number of seconds between PINGs; see `quality.js`. 1.5
 * @property {number} silence Seconds without any frame, after which the path counts as lost: three lost PINGs are no
 *   accident. 5
 * @property {number} probe Seconds in which something has to arrive after a `bye` through the server, which may be
 *   false. 1.5
 * @property {number} linger Seconds that closing waits until the other side has the GOODBYE, and the server the other
 *   messages. 1
 */

/** @type {PeerTiming} */
export const TIMING = { attempt: 30, heal: 15, heartbeat: 1.5, silence: 5, probe: 1.5, linger: 1 };
