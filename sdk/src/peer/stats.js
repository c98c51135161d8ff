/**
 * What the browser tells of a connection. In Python it is in the engines.
 */

/** @typedef {'host' | 'srflx' | 'prflx' | 'relay'} CandidateType RFC 8445 section 4. */

/**
 * What the browser tells of the path that ICE has chosen, and of all bytes of the connection, also over paths before:
 * those of its transport, or where it has none, as in Firefox, those of channels and tracks without the overhead.
 * @typedef {object} EngineStats
 * @property {'direct' | 'turn'} path whether it leads through a TURN server on either side
 * @property {'udp' | 'tcp'} protocol of the path, or of our way to the TURN server
 * @property {CandidateType} local
 * @property {CandidateType} remote
 * @property {number} bytesSent
 * @property {number} bytesReceived
 */

/**
 * @param {RTCPeerConnection} native
 * @returns {Promise<EngineStats | null>} null while there is no path
 */
export async function statsOf(native) {
  const report = await native.getStats();
  const all = [...report.values()];
  const transport = all.find((entry) => entry.selectedCandidatePairId);
  const pair =
    report.get(transport?.selectedCandidatePairId) ??
    all.find((entry) => entry.nominated && entry.state === 'succeeded'); // a Firefox that names no transport
  const local = report.get(pair?.localCandidateId);
  const remote = report.get(pair?.remoteCandidateId);
  if (!pair || !local || !remote) return null;
  // The counts of a pair begin at 0 when ICE takes another one. Firefox has no transport, and forgets pairs.
  const total = (/** @type {'bytesSent' | 'bytesReceived'} */ what) =>
    transport?.[what] ??
    all.reduce((sum, { type, [what]: bytes = 0 }) => sum + (/^(data|in|out)/.test(type) && bytes), 0);
  return {
    path: [local, remote].some((end) => end.candidateType === 'relay') ? 'turn' : 'direct',
    protocol: (local.relayProtocol ?? local.protocol) === 'udp' ? 'udp' : 'tcp',
    local: local.candidateType,
    remote: remote.candidateType,
    bytesSent: total('bytesSent'),
    bytesReceived: total('bytesReceived'),
  };
}
