/** Names on the wire that more than one module says. */

/** The sub-protocol of the WebSocket, and the label of the data channel: one version for both. */
export const PROTOCOL = 'aldis.v1';

// What a HELLO says that a program can do (docs/protocol.md, "Data channel").
export const FILES = 'files';
export const CALLS = 'calls';
