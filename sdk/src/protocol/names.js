/** Names on the wire that several modules use. */

/** The sub-protocol of the WebSocket, and the label of the data channel: one version for both. */
export const PROTOCOL = 'aldis.v1';

// The features of a program in its HELLO (docs/protocol.md, "Data channel").
export const FILES = 'files';
/** Transfers that are checked and resumed, folders, and streams. */
export const FILES_2 = 'files-2';
/** It skips a piece of a file that has come before. */
export const FILES_3 = 'files-3';
export const CALLS = 'calls';
export const BUNDLES = 'bundles'; // it reads BUNDLE frames
