/**
 * What a store is made with.
 *
 * @import { BackoffOptions } from '../client/backoff.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Pins } from '../identity/pins.js'
 * @import { PeerTiming } from '../peer/timing.js'
 * @import { Journal } from './journal/journal.js'
 * @import { Accept } from './peers/admission.js'
 * @import { PathMode } from './peers/paths.js'
 * @import { StoreLimits } from './state.js'
 */

/**
 * @typedef {object} StoreOptions
 * @property {Identity | Promise<Identity>} [identity] Our key, or the promise of one: `connectToSignaling` waits for
 *   it. A fresh one when left out, so nobody will know us again.
 * @property {Pins} [pins] The keys of others; kept in memory when left out.
 * @property {readonly RTCIceServer[] | null} [iceServers] STUN and TURN servers; the signaling server is asked when
 *   null.
 * @property {Journal | null} [journal] What `openJournal` returns: keeps what waits to be sent, what has arrived and was not
 *   handed over, and files under way, in this browser. The store closes it at the end. Without one all of that ends with the page.
 * @property {Accept | null} [accept] Whether a user who calls is let in: only `true` lets in. Everybody is when null.
 * @property {Partial<StoreLimits>} [limits] How much is kept at most.
 * @property {BackoffOptions} [backoff] The pauses between calls to a peer.
 * @property {Partial<PeerTiming>} [timing] Of peer connections.
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection] For where it is not global.
 * @property {PathMode} [path] The paths that may be used: `auto`, `direct`, `turn` or `relay`; see `setPath`. 'auto'
 */

/** The names that there are. @type {Record<keyof StoreOptions, null | undefined>} */
export const OPTIONS = {
  identity: undefined,
  pins: undefined,
  iceServers: null,
  journal: null,
  accept: null,
  limits: undefined,
  backoff: undefined,
  timing: undefined,
  RTCPeerConnection: undefined,
  path: undefined,
};
