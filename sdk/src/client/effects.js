/**
 * What the machine wants done: commands to its owner, in the order in which to carry them out. Types only.
 *
 * @import { AldisError } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Discovery, IceServers, Registration, SignalingEvent } from './events.js'
 */

/** @typedef {Registration | Discovery | IceServers | null} Result */

/** @typedef {{ resolve: (result: any) => void, reject: (error: AldisError) => void }} Asker Who waits for a request's end. */

/**
 * Send one text message.
 * @typedef {{ type: 'send', text: string }} Send
 *
 * Have the message signed; `ClientMachine.signed` or `end` has to follow.
 * @typedef {{ type: 'sign', identity: Identity, message: Bytes }} Sign
 *
 * Close the connection; at the end of the client also one that is being made, if there is any. `ClientMachine.lost` has
 * to follow, once, when the transport is gone.
 * @typedef {{ type: 'closeTransport', code: number, reason: string }} CloseTransport
 *
 * Make a new connection. `ClientMachine.connected` or `lost` has to follow, once.
 * @typedef {{ type: 'dial' }} Dial
 *
 * This asker's request has its result, or will have none, for the reason `error`.
 * @typedef {{ type: 'completed', asker: Asker, error: AldisError | null, result: Result }} Completed
 *
 * Tell the application.
 * @typedef {{ type: 'happened', event: SignalingEvent }} Happened
 */

/** @typedef {Send | Sign | CloseTransport | Dial | Completed | Happened} Effect */

export {};
