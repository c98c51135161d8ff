/**
 * The phases of a client and every way from one to the next, in one table.
 *
 * docs/architecture.md draws it. A registered client that loses its connection goes from waiting to registered again by
 * itself. Signing is a phase of its own, since WebCrypto takes its time.
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

/** A transport is there, and what it brings is listened to. @param {Phase} phase */
export const isLive = (phase) => 'hungUp' in TABLE[phase];
