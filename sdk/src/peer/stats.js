/**
 * What the browser tells of a connection. In Python it is in the engines.
 */

/** @typedef {'host' | 'srflx' | 'prflx' | 'relay'} CandidateType RFC 8445 section 4. */

/**
 * What the browser tells of the path that ICE has chosen, and of all bytes of the connection, also over paths before:
 * those of its transport, or where it has none, as in Firefox, those of channels and tracks without the overhead.
 * @typedef {object} EngineStats
 * @property {'direct' | 'turn'} path whether it leads through a TURN server on either side
 * @property {'udp' | 'tcp' | 'tls'} protocol of the path, or of our way to our TURN server
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
  const way = relayProtocol(local);
  // The counts of a pair begin at 0 when ICE takes another one. Firefox has no transport, and forgets pairs.
  const total = (/** @type {'bytesSent' | 'bytesReceived'} */ what) =>
    transport?.[what] ??
    all.reduce((sum, { type, [what]: bytes = 0 }) => sum + (/^(data|in|out)/.test(type) && bytes), 0);
  return {
    // A peer-reflexive candidate may have been found over our TURN server.
    path: way || [local, remote].some((end) => end.candidateType === 'relay') ? 'turn' : 'direct',
    protocol: way || (local.protocol === 'udp' ? 'udp' : 'tcp'),
    local: local.candidateType,
    remote: remote.candidateType,
    bytesSent: total('bytesSent'),
    bytesReceived: total('bytesReceived'),
  };
}

/**
 * Our way to our TURN server; empty without one. By its URL where the browser does not say it (W3C WebRTC Statistics
 * section 8.14).
 * @param {{relayProtocol?: string, url?: string}} local
 * @returns {'' | 'udp' | 'tcp' | 'tls'}
 */
function relayProtocol({ relayProtocol: told, url = '' }) {
  if (told) return /** @type {'udp' | 'tcp' | 'tls'} */ (told);
  if (!/^turn/.test(url)) return '';
  if (/^turns/.test(url)) return 'tls';
  return /=tcp/.test(url) ? 'tcp' : 'udp';
}
