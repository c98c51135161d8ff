/**
 * `@aldis/client`: two programs, anywhere, find each other by name and talk directly and privately over WebRTC.
 *
 * These are the public names; what is not here may change.
 *
 * @typedef {import('./store/state.js').StoreState} StoreState
 * @typedef {import('./store/state.js').PeerView} PeerView
 * @typedef {import('./store/state.js').DeviceView} DeviceView
 * @typedef {import('./store/state.js').Message} Message
 * @typedef {import('./store/options.js').StoreOptions} StoreOptions
 * @typedef {import('./store/state.js').StoreLimits} StoreLimits
 * @typedef {import('./protocol/privacy.js').Privacy} Privacy
 * @typedef {import('./protocol/messages.js').Visibility} Visibility
 * @typedef {import('./store/messages/content.js').Sendable} Sendable
 * @typedef {import('./store/messages/content.js').JsonValue} JsonValue
 * @typedef {import('./store/messages/content.js').Received} Received
 * @typedef {import('./store/messages/delivery.js').Delivery} Delivery
 * @typedef {import('./store/journal/journal.js').Journal} Journal
 * @typedef {import('./store/files/transfer.js').FolderFile} FolderFile
 * @typedef {import('./store/files/transfer.js').Transfer} Transfer
 * @typedef {import('./store/files/transfer.js').TransferState} TransferState
 * @typedef {import('./store/calls/call.js').Call} Call
 * @typedef {import('./store/calls/call.js').CallState} CallState
 * @typedef {import('./identity/pins.js').Pins} Pins
 * @typedef {import('./client/backoff.js').BackoffOptions} BackoffOptions
 * @typedef {import('./client/events.js').SignalingEvent} SignalingEvent
 * @typedef {import('./client/tokens.js').TokenProvider} TokenProvider
 * @typedef {import('./client/events.js').SignalingState} SignalingState
 * @typedef {import('./store/readings.js').PeerStats} PeerStats
 * @typedef {import('./store/readings.js').PeerQuality} PeerQuality
 * @typedef {import('./store/ways.js').Ways} Ways
 * @typedef {import('./peer/negotiation.js').PeerState} PeerState
 * @typedef {import('./peer/timing.js').PeerTiming} PeerTiming
 */
// In this order the bundle is 140 bytes smaller, gzipped.
export { openJournal } from './store/parts.js';
export { IndexedDBPins, MemoryPins } from './identity/pins.js';
export { fingerprint, Identity } from './identity/keys.js';
export { NetworkStore } from './store/store.js';
export { Backoff } from './client/backoff.js';
export { SignalingClient } from './client/client.js';
export * from './errors.js';
