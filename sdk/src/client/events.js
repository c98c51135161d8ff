/**
 * What a `SignalingClient` tells: its events, and the results of its requests. Types only.
 *
 * Rules: nobody changes these objects; names are past participles. Bytes are bytes: nothing has to be decoded any
 * more. `sender` is an address as the server wrote it (`alice`, or `alice/phone` for another device than `main`),
 * proved to the server but not to us: what an offer or answer says is only to be believed after its `proof` has been
 * checked (`peer/trust.js`).
 *
 * @import { AldisError } from '../errors.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Candidate, Capabilities, Description, IceServer, Limits, Proof } from '../protocol/messages.js'
 */

/**
 * Where a client stands with its server: 'disconnected' (not started yet, or ended), 'connecting' (dialling,
 * waiting for the next attempt, or not registered yet), or 'connected' (registered).
 *
 * @typedef {'disconnected' | 'connecting' | 'connected'} SignalingState
 */

/**
 * The server has taken us in.
 *
 * @typedef {object} Registration
 * @property {string} session The server's name of the session, for its log and ours.
 * @property {boolean} resumed The session of an earlier connection goes on, nothing was missed.
 * @property {Limits | null} limits What the server accepts; null when it does not say.
 */

/**
 * What the server knows of a user.
 *
 * @typedef {object} Discovery
 * @property {string} userId
 * @property {boolean} online
 * @property {Bytes | null} publicKey The 32 bytes that the name is bound to; null when no key was ever proved.
 * @property {string[]} devices The names of those that are online, newest first.
 */

/**
 * STUN and TURN servers to use.
 *
 * @typedef {object} IceServers
 * @property {IceServer[]} iceServers
 * @property {number} ttl For how many seconds the credentials hold.
 */

/**
 * The WebSocket is open; registration comes next. `attempt` counts from 1 since a connection last stood for a while.
 * @typedef {{ type: 'connected', attempt: number }} Connected
 *
 * The server has taken us in. Unless `resumed`, messages may have been missed while we were away.
 * @typedef {{ type: 'registered', resumed: boolean }} Registered
 *
 * The connection ended, or an attempt to make one failed. `code` is the WebSocket close code, 1006 when there was none.
 * The next attempt comes in `retryIn` seconds; null when there will be none (`closed` follows).
 * @typedef {{ type: 'disconnected', reason: string, code: number, retryIn: number | null }} Disconnected
 *
 * The last event. `error` tells why the client gave up; null when it was closed on purpose.
 * @typedef {{ type: 'closed', error: AldisError | null }} Closed
 *
 * The server is about to restart and asks to come back in `reconnectIn` seconds; the client will do so.
 * @typedef {{ type: 'goingAway', reconnectIn: number }} GoingAway
 *
 * These users are not watched any more: the server did not take the watch over into a new session, for `error`. It may have
 * been started anew with a smaller limit of watched names. Call `watch` again when there is room.
 * @typedef {{ type: 'watchEnded', userIds: string[], error: AldisError }} WatchEnded
 *
 * A watched user came, went, or changed devices; also told once at the start of a watch. `initial`: the server answers a
 * watch, ours or one that was restored with a new session. It says how things stand; nothing need have happened.
 * @typedef {{ type: 'presenceChanged', initial: boolean } & Discovery} PresenceChanged
 *
 * @typedef {object} FromPeer
 * @property {string} sender
 * @property {Description} description
 * @property {string | null} connection
 * @property {Proof | null} proof
 * @property {Capabilities} capabilities
 *
 * Somebody wants a peer connection, or wants to renegotiate the one named `connection`.
 * @typedef {{ type: 'offerReceived' } & FromPeer} OfferReceived
 *
 * @typedef {{ type: 'answerReceived' } & FromPeer} AnswerReceived
 *
 * An ICE candidate of the other side; null says that there will be no more.
 * @typedef {{ type: 'candidateReceived', sender: string, candidate: Candidate | null, connection: string | null }} CandidateReceived
 *
 * The other side has ended the peer connection, or refuses an offer: then with a `code`, and maybe with the number of
 * seconds after which another offer makes sense.
 * @typedef {{ type: 'byeReceived', sender: string, connection: string | null, reason: string | null,
 *   code?: string | null, retryAfter?: number | null }} ByeReceived
 */

/** @typedef {OfferReceived | AnswerReceived | CandidateReceived | ByeReceived} PeerEvent From other users. */

/** @typedef {Connected | Registered | Disconnected | Closed | GoingAway | WatchEnded | PresenceChanged | PeerEvent} SignalingEvent */

export {};
