/**
 * The messages of the wire protocol (docs/protocol.md) as types, one for each `type`. Fields that are absent on the
 * wire are absent here.
 *
 * What peers say to each other (`offer`, `answer`, `candidate`, `proof`, `capabilities`) is `unknown` in relayed
 * messages, because no server reads it. `codec.readDescription` and similar functions check it, and blame the peer.
 */

/** @typedef {string | number} RequestId At most 64 characters, or an exact integer. */

// --- values inside messages -----------------------------------------------------------------------------------------

/** @typedef {{ session: string, secret: string, received: number }} ResumeTicket */
/** @typedef {{ type: 'offer' | 'answer', sdp: string }} Description */
/**
 * @typedef {{ candidate: string, sdpMid: string | null, sdpMLineIndex: number | null,
 *   usernameFragment?: string | null }} Candidate As the W3C's `RTCIceCandidateInit`.
 */
/** @typedef {{ publicKey: string, nonce: string, signature: string }} Proof All three in base64. */
/** @typedef {{ trickle: boolean, restart: boolean }} Capabilities What the WebRTC engine of the sender can do. */
/** @typedef {{ publicKey: string, signature: string }} SealKey Both in base64. */
/** @typedef {{ device: string, sealKey?: SealKey }} Device */
/** @typedef {{ urls: string[], username?: string | null, credential?: string | null }} IceServer */
/**
 * @typedef {{ maxMessageBytes: number, maxWatches: number, resumeWindow: number, relay?: boolean,
 *   maxRelayFileBytes?: number }} Limits The server's limits: sizes in bytes, times in seconds. Servers that relay no
 *   sealed messages have no `relay`.
 */

/** @typedef {'public' | 'contacts' | 'hidden'} Visibility */
/**
 * @typedef {{ presence: string, offers: string, contacts: string[], blocked: string[] }} PrivacySettings Who may see a
 *   user, and who may call. `presence` and `offers` are a `Visibility`, or a word of a newer server.
 */

// --- client to server -----------------------------------------------------------------------------------------------

/**
 * @typedef {{ type: 'register', userId: string, publicKey: string, device?: string, token?: string,
 *   sealKey?: SealKey, resume?: ResumeTicket, id?: RequestId }} Register
 */
/** @typedef {{ type: 'prove', signature: string, id?: RequestId }} Prove */
/** @typedef {{ type: 'rotate', newPublicKey: string, signature: string, id?: RequestId }} Rotate */
/** @typedef {{ type: 'discover', userId: string, id?: RequestId }} Discover */
/** @typedef {{ type: 'watch', userIds: string[], id?: RequestId }} Watch */
/** @typedef {{ type: 'unwatch', userIds: string[], id?: RequestId }} Unwatch */
/** @typedef {{ type: 'ice-servers', id?: RequestId }} IceServersRequest */
/**
 * @typedef {{ type: 'privacy', presence?: Visibility, offers?: Visibility, addContacts?: string[],
 *   removeContacts?: string[], block?: string[], unblock?: string[], id?: RequestId }} PrivacyRequest
 */
/** @typedef {{ type: 'seal-key', sealKey: SealKey, id?: RequestId }} SealKeyRequest */
/** @typedef {{ type: 'received', count: number, id?: RequestId }} Received */
/** @typedef {{ type: 'ping', id?: RequestId }} Ping */
/** @typedef {{ type: 'unregister', id?: RequestId }} Unregister */
/**
 * @typedef {{ type: 'offer', to: string, offer: Description, connection?: string, proof?: Proof,
 *   capabilities?: Capabilities, id?: RequestId }} Offer
 */
/**
 * @typedef {{ type: 'answer', to: string, answer: Description, connection?: string, proof?: Proof,
 *   capabilities?: Capabilities, id?: RequestId }} Answer
 */
/**
 * @typedef {{ type: 'ice-candidate', to: string, candidate: RTCIceCandidateInit | null, connection?: string,
 *   id?: RequestId }} IceCandidate `null` stands for the end of candidates (RFC 8838 section 13).
 */
/**
 * @typedef {{ type: 'bye', to: string, connection?: string, reason?: string, code?: string, retryAfter?: number,
 *   id?: RequestId }} Bye With a `code` it refuses an offer; another one makes sense after `retryAfter` seconds.
 */
/** @typedef {{ type: 'relay', to: string, sealed: string, id?: RequestId }} Relay */
/**
 * @typedef {Register | Prove | Rotate | Discover | Watch | Unwatch | IceServersRequest | PrivacyRequest
 *   | SealKeyRequest | Received | Ping | Unregister | Offer | Answer | IceCandidate | Bye | Relay} ClientMessage
 */

// --- server to client -----------------------------------------------------------------------------------------------

/** @typedef {{ type: 'challenge', nonce: string, re?: RequestId }} Challenge */
/**
 * @typedef {{ type: 'registered', success: boolean, userId: string, device?: string, session?: string, secret?: string,
 *   resumed?: boolean, serverTime?: number, limits?: Limits, re?: RequestId, privacy?: PrivacySettings }} Registered
 */
/** @typedef {{ type: 'rotated', publicKey: string, re?: RequestId }} Rotated */
/**
 * @typedef {{ type: 'discover-response', userId: string, online: boolean, publicKey?: string, devices?: Device[],
 *   re?: RequestId }} DiscoverResponse
 */
/**
 * @typedef {{ message: string, code?: string, temporary?: boolean, retryAfter?: number }} WatchFault Why the server has
 *   ended a watch; the fields are those of an `error`.
 */
/**
 * @typedef {{ type: 'presence', userId: string, online: boolean, publicKey?: string, devices?: Device[],
 *   ended?: WatchFault }} Presence
 */
/**
 * @typedef {{ type: 'error', message: string, code?: string, temporary?: boolean, retryAfter?: number,
 *   re?: RequestId }} ErrorMessage
 */
/** @typedef {{ type: 'ack', re: RequestId }} Ack */
/** @typedef {{ type: 'pong', re?: RequestId }} Pong */
/** @typedef {{ type: 'unregistered', re?: RequestId }} Unregistered */
/** @typedef {{ type: 'ice-servers', iceServers: IceServer[], ttl: number, re?: RequestId }} IceServers */
/** @typedef {{ type: 'privacy', re?: RequestId } & PrivacySettings} Privacy A reply, or news of another device. */
/** @typedef {{ type: 'going-away', reconnectIn: number }} GoingAway */
/**
 * @typedef {{ type: 'offer', to: string, from?: string, offer: unknown, connection?: string, proof?: unknown,
 *   capabilities?: unknown, id?: RequestId }} RelayedOffer
 */
/**
 * @typedef {{ type: 'answer', to: string, from?: string, answer: unknown, connection?: string, proof?: unknown,
 *   capabilities?: unknown, id?: RequestId }} RelayedAnswer
 */
/**
 * @typedef {{ type: 'ice-candidate', to: string, from?: string, candidate: unknown, connection?: string,
 *   proof?: unknown, id?: RequestId }} RelayedIceCandidate
 */
/**
 * @typedef {{ type: 'bye', to: string, from?: string, connection?: string, reason?: string, code?: string,
 *   retryAfter?: number, id?: RequestId }} RelayedBye
 */
/** @typedef {{ type: 'relay', to: string, from?: string, sealed: string, id?: RequestId }} RelayedBox */
/** @typedef {RelayedOffer | RelayedAnswer | RelayedIceCandidate | RelayedBye | RelayedBox} Relayed */
/**
 * @typedef {Challenge | Registered | Rotated | DiscoverResponse | Presence | ErrorMessage | Ack | Pong | Unregistered
 *   | IceServers | Privacy | GoingAway | Relayed} ServerMessage
 */

export {};
