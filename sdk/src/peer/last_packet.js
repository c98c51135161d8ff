/**
 * When a browser has got something on a path last. In Python it is in the engines; here it is apart from `engine`, which is
 * in the core.
 */

/**
 * Seconds since anything has come from the other side, be it only an acknowledgement of SCTP; `Infinity` where the browser
 * does not say it.
 *
 * @param {RTCPeerConnection} native
 */
export async function quietSeconds(native) {
  const report = await native.getStats();
  const ages = [...report.values()].map(({ timestamp, lastPacketReceivedTimestamp: last }) =>
    last ? timestamp - last : Infinity,
  );
  return Math.min(...ages) / 1000;
}
