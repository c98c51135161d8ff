/**
 * Finds out why a server does not open a WebSocket, when the platform does not report the status of its reply.
 *
 * Node's WebSocket reports nothing about a reply other than 101, but a plain request to the same address does. In
 * browsers a page sees neither, so the server opens the WebSocket for them and closes it with 4505. Python's transport
 * sees the status, so it has no such module.
 */

// Seconds that an explanation may take, after the failed attempt.
const PATIENCE = 2;
const MISDIRECTED = 421; // RFC 9110 section 15.5.20

/**
 * The reason of a failed attempt, with what a plain request reports.
 *
 * @param {string} url Of the WebSocket.
 * @param {string} reason
 */
export async function explained(url, reason) {
  try {
    const signal = AbortSignal.timeout(PATIENCE * 1000);
    const { status, body } = await fetch(url.replace(/^ws/, 'http'), { redirect: 'manual', signal });
    void body?.cancel();
    if (status === MISDIRECTED) {
      const { host } = new URL(url);
      return (
        `it does not go by the name ${host} (421); if this is the right server, its operator has to start it with ` +
        `--names ${host}, and a proxy in front of it to pass Host on`
      );
    }
    if (status >= 400) return `${reason} (a plain request is answered with ${status})`;
  } catch {
    // A plain request does not reach the server either.
  }
  return reason;
}
