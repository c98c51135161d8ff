/**
 * What is loaded when a store is made (`store/services`): the direct connection, and the session of a channel, which
 * sealed messages through the server have as well. Nothing of the core imports these.
 */
export { PeerConnection } from './connection.js';
export { PeerSession } from './session.js';
