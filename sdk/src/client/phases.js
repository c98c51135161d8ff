/**
 * The phases of a client and all transitions between them, in one table.
 *
 * docs/architecture.md draws the table. A registered client that loses its connection goes from waiting back to
 * registered by itself. Signing is a phase of its own, because WebCrypto is asynchronous.
 */

/**
 * @typedef {'idle' | 'dialing' | 'open' | 'registering' | 'signing' | 'proving' | 'registered' | 'closing' | 'waiting' | 'ended'} Phase
 * @typedef {'connected' | 'asked' | 'challenged' | 'signed' | 'admitted' | 'refused' | 'hungUp' | 'lost' | 'due' | 'ended'} Step
 */

const down = /** @type {const} */ ({ ended: 'ended' });
const live = /** @type {const} */ ({ ...down, hungUp: 'closing', lost: 'waiting' });

/** @type {Record<Phase, Partial<Record<Step, Phase>>>} */
export const TABLE = {
  idle: { ...down, connected: 'open' },
  dialing: { ...down, connected: 'open', lost: 'waiting' },
  open: { ...live, asked: 'registering' },
  registering: { ...live, challenged: 'signing', refused: 'open' },
  signing: { ...live, signed: 'proving', refused: 'open' },
  proving: { ...live, admitted: 'registered', refused: 'open' },
  registered: live,
  closing: { ...down, lost: 'waiting' },
  waiting: { ...down, due: 'dialing' },
  ended: {},
};

/** A transport is open, and its input is handled. @param {Phase} phase */
export const isLive = (phase) => 'hungUp' in TABLE[phase];
