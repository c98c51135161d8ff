/**
 * Why a server does not open a WebSocket, where the platform keeps the status of its answer to itself.
 *
 * Node's WebSocket tells nothing of an answer other than 101; a plain request to the same address does. Browsers show a
 * page neither of the two, so the server opens the WebSocket for them and closes it with 4505. Python's transport sees the
 * status, and has no such module.
 */

// Seconds. How long an explanation may take, on top of the attempt that has failed.
const PATIENCE = 2;
const MISDIRECTED = 421; // RFC 9110 section 15.5.20

/**
 * The reason of a failed attempt, with what a plain request tells in addition.
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
    // It is not there for a plain request either.
  }
  return reason;
}
