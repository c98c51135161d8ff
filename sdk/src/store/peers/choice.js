/**
 * Which device of a user gets what is sent to the user.
 *
 * Rules: the device heard from last, as long as it is there; else the one that registered last. A device is gone when it
 * is not connected with us and the server does not list it any more: it has unregistered, or lost its resume window.
 *
 * Pure: no I/O, no clock. It does not know what is sent, nor how a device is reached.
 */

/**
 * Whether a device is gone.
 *
 * @param {string} device
 * @param {readonly string[] | null} listed The devices that the server says are online, the one that registered last
 *   first; null while that is not known.
 * @param {readonly string[]} connected The devices that we are connected with now.
 */
export const gone = (device, listed, connected) => !(listed?.includes(device) ?? true) && !connected.includes(device);

/**
 * The device for what is sent to the user; null when none is known.
 *
 * @param {readonly string[]} heard The devices that we have heard from, the last one first.
 * @param {readonly string[] | null} listed
 * @param {readonly string[]} connected
 * @param {string | null} current The one that was chosen before, which stays while no other is there.
 */
export const choose = (heard, listed, connected, current) =>
  heard.find((device) => !gone(device, listed, connected)) ?? listed?.[0] ?? current;
