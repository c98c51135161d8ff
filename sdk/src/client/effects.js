/**
 * The effects of the machine: commands for its owner, to carry out in their order. Types only.
 *
 * @import { AldisError } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Privacy } from '../protocol/privacy.js'
 * @import { Discovery, IceServers, Registration, SignalingEvent } from './events.js'
 */

/** @typedef {Registration | Discovery | IceServers | Readonly<Privacy> | null} Result */

/** @typedef {{ resolve: (result: any) => void, reject: (error: AldisError) => void }} Asker The caller of a request. */

/**
 * Send one text message.
 * @typedef {{ type: 'send', text: string }} Send
 *
 * Sign the message. Then call `ClientMachine.signed` or `end`.
 * @typedef {{ type: 'sign', identity: Identity, message: Bytes }} Sign
 *
 * Close the connection; at the end of the client also one that is being made. When the transport is gone, call
 * `ClientMachine.lost`, once. `atOnce`: do not wait for the server, which does not answer.
 * @typedef {{ type: 'closeTransport', code: number, reason: string, atOnce?: boolean }} CloseTransport
 *
 * Make a new connection. Then call `ClientMachine.connected` or `lost`, once.
 * @typedef {{ type: 'dial' }} Dial
 *
 * Make a new sealing key, and publish it with a `seal-key`.
 * @typedef {{ type: 'sealKeyDue' }} SealKeyDue
 *
 * The request of this asker has its result, or has failed with `error`.
 * @typedef {{ type: 'completed', asker: Asker, error: AldisError | null, result: Result }} Completed
 *
 * Give the application an event.
 * @typedef {{ type: 'happened', event: SignalingEvent }} Happened
 */

/** @typedef {Send | Sign | CloseTransport | Dial | SealKeyDue | Completed | Happened} Effect */

export {};
