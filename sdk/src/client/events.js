/**
 * The events of a `SignalingClient`, and the results of its requests. Types only.
 *
 * Rules: these objects never change, and names are past participles. Values are decoded. `sender` is an address as the
 * server wrote it (`alice`, or `alice/phone` for a device other than `main`). The sender has proved it to the server
 * but not to us: do not trust an offer or answer before its `proof` has been checked (`peer/trust.js`).
 *
 * @import { AldisError, RequestFailed } from '../errors.js'
 * @import { PublishedSealKey } from '../identity/seal_keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Privacy } from '../protocol/privacy.js'
 * @import { Candidate, Capabilities, Description, IceServer, Limits, Proof } from '../protocol/messages.js'
 */

/**
 * The state of the connection to the server: 'disconnected' (not started yet, or ended), 'connecting' (dialling,
 * waiting for the next attempt, or not registered yet), or 'connected' (registered).
 *
 * @typedef {'disconnected' | 'connecting' | 'connected'} SignalingState
 */

/**
 * The server has registered the name.
 *
 * @typedef {object} Registration
 * @property {string} session The server's name of the session, for the logs.
 * @property {boolean} resumed The session of an earlier connection goes on, and nothing was missed.
 * @property {Limits | null} limits The server's limits; null when it does not tell them.
 */

/**
 * The server's knowledge of a user.
 *
 * @typedef {object} Discovery
 * @property {string} userId
 * @property {boolean} online
 * @property {Bytes | null} publicKey The 32 bytes that the name is bound to; null when no key was ever proved.
 * @property {string[]} devices The names of the online devices, newest first.
 * @property {Map<string, PublishedSealKey>} sealKeys The sealing keys of those that have one. The server may have made
 *   them up: `checkedSealKey` of `identity/seal_keys.js` checks them.
 */

/**
 * STUN and TURN servers.
 *
 * @typedef {object} IceServers
 * @property {IceServer[]} iceServers
 * @property {number} ttl For how many seconds the credentials are valid.
 */

/**
 * The WebSocket is open; registration comes next. `attempt` counts from 1 since a connection last stood for a while.
 * @typedef {{ type: 'connected', attempt: number }} Connected
 *
 * The server has registered the name. Unless `resumed`, messages may have been missed. `limits` are the server's
 * limits, null when it does not tell them.
 * @typedef {{ type: 'registered', resumed: boolean, limits: Limits | null }} Registered
 *
 * The connection has ended, or an attempt to connect has failed. `code` is the WebSocket close code, 1006 without one.
 * The next attempt comes in `retryIn` seconds; null when there is no further attempt (`closed` follows).
 * @typedef {{ type: 'disconnected', reason: string, code: number, retryIn: number | null }} Disconnected
 *
 * The last event. `error` is why the client gave up; null when it was closed on purpose.
 * @typedef {{ type: 'closed', error: AldisError | null }} Closed
 *
 * The server is about to restart. The client comes back in `reconnectIn` seconds, as the server asks.
 * @typedef {{ type: 'goingAway', reconnectIn: number }} GoingAway
 *
 * These users are not watched any more: the server refused the watch in a new session, or ended it, for `error`. It may
 * have restarted with a smaller limit of watched names, or the users have too many watchers. Call `watch` again when
 * there is room.
 * @typedef {{ type: 'watchEnded', userIds: string[], error: AldisError }} WatchEnded
 *
 * The server has limited requests, for `error`. They are sent again, in order, in `retryIn` seconds. `request` is their
 * type in the protocol, such as `discover`. For messages to another user, `to` is the address, and messages to other
 * addresses go on. This event comes once for each pause. The calls wait. They reject with `error` when their time is
 * over before the server takes them.
 * @typedef {{ type: 'requestsDelayed', request: string, to: string | null, retryIn: number, error: RequestFailed }} RequestsDelayed
 *
 * A watched user came, went, or changed devices; also sent once at the start of a watch. `initial`: the server answers
 * a watch, a new one or one restored in a new session. It reports the current state; perhaps nothing has changed.
 * @typedef {{ type: 'presenceChanged', initial: boolean } & Discovery} PresenceChanged
 *
 * Who may see our user, and who may call, has changed, by this device or another one of the user.
 * @typedef {{ type: 'privacyChanged', privacy: Readonly<Privacy> }} PrivacyChanged
 *
 * @typedef {object} FromPeer
 * @property {string} sender
 * @property {Description} description
 * @property {string | null} connection
 * @property {Proof | null} proof
 * @property {Capabilities} capabilities
 *
 * A user wants a peer connection, or wants to renegotiate the one named `connection`.
 * @typedef {{ type: 'offerReceived' } & FromPeer} OfferReceived
 *
 * @typedef {{ type: 'answerReceived' } & FromPeer} AnswerReceived
 *
 * An ICE candidate of the other side; null means that there are no more.
 * @typedef {{ type: 'candidateReceived', sender: string, candidate: Candidate | null, connection: string | null }} CandidateReceived
 *
 * The other side has ended the peer connection, or refuses an offer. A refusal has a `code`, and maybe the number of
 * seconds after which another offer makes sense.
 * @typedef {{ type: 'byeReceived', sender: string, connection: string | null, reason: string | null,
 *   code?: string | null, retryAfter?: number | null }} ByeReceived
 *
 * A sealed message. Nothing in it is checked yet: the server says from whom it is, and anybody may send one.
 * @typedef {{ type: 'relayReceived', sender: string, sealed: Bytes }} RelayReceived
 */

/** @typedef {OfferReceived | AnswerReceived | CandidateReceived | ByeReceived} PeerEvent About peer connections. */

/** @typedef {Connected | Registered | Disconnected | Closed | GoingAway | WatchEnded | RequestsDelayed | PresenceChanged | PrivacyChanged | RelayReceived | PeerEvent} SignalingEvent */

export {};
