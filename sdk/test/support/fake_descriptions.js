/** The descriptions of `fake_rtc.js`: short texts of one line per fact; and the faults of its calls. */

/** What a call throws, by its name in the specification. */
export const fault = (name, message = name) => new DOMException(message, name);

/** A direction as the other side sees it. */
export const reversed = { sendrecv: 'sendrecv', sendonly: 'recvonly', recvonly: 'sendonly', inactive: 'inactive' };
export const sends = (direction) => direction.startsWith('send');
export const receives = (direction) => direction.endsWith('recv') || direction === 'recvonly';
/** What both sides agree to. */
export const combined = (one, other) => {
  const [out, back] = [sends(one) && sends(other), receives(one) && receives(other)];
  return out ? (back ? 'sendrecv' : 'sendonly') : back ? 'recvonly' : 'inactive';
};

/** The facts in a description. */
export function parse(sdp) {
  const sections = [...sdp.matchAll(/^m=(\w+) .*\r\na=mid:(\S+)\r\n(?:a=(\w+)\r\n)?(?:a=msid:(\S+)\r\n)?/gm)].map(
    ([, kind, mid, direction, stream]) => ({ kind, mid, direction, stream }),
  );
  const fragment = /^a=ice-ufrag:(\S+)/m.exec(sdp)?.[1];
  if (!sections.length || !fragment || !/^a=fingerprint:sha-256 \S/m.test(sdp))
    throw fault('OperationError', 'bad SDP');
  return { sections, fragment };
}
