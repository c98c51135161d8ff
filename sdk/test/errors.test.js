import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { build } from 'esbuild';

import * as errors from '../src/errors.js';

const { AldisError, JournalError, LimitReached, PeerError, RemoteError, UsageError } = errors;

/** One of each, made as the program makes them. */
const MADE = {
  ConfigError: new errors.ConfigError('timeout', 'it is negative'),
  InvalidAddress: new errors.InvalidAddress('a b', 'it contains white space'),
  IdentityError: new errors.IdentityError('no key'),
  StateError: new errors.StateError('closed'),
  MessageTooLarge: new errors.MessageTooLarge(5, 4),
  QueueFull: new errors.QueueFull('bob', 3, 2),
  JournalFull: new errors.JournalFull('bob', 3, 2),
  TooManyPeers: new errors.TooManyPeers(9),
  JournalInUse: new errors.JournalInUse('alice', 'is open in another window'),
  JournalForeign: new errors.JournalForeign('alice', 'belongs to carol'),
  JournalCorrupt: new errors.JournalCorrupt('alice', 'is damaged'),
  JournalTooNew: new errors.JournalTooNew('alice', 'was written by a newer release'),
  JournalDiskFull: new errors.JournalDiskFull('alice', 'has no room'),
  JournalReadOnly: new errors.JournalReadOnly('alice', 'cannot be kept'),
  EngineMissing: new errors.EngineMissing('WebRTC', 'use a newer browser'),
  ServerUnreachable: new errors.ServerUnreachable('ws://h', 'refused'),
  TokenUnavailable: new errors.TokenUnavailable('the program threw an error'),
  ConnectionLost: new errors.ConnectionLost('gone'),
  OverLimits: new errors.OverLimits('too much', 60),
  RequestTimeout: new errors.RequestTimeout('watch', 10),
  RequestFailed: new errors.RequestFailed('rate-limited', 'slow down', { temporary: true, retryAfter: 2 }),
  ConnectionClosed: new errors.ConnectionClosed(4503, ''),
  ProtocolViolation: new errors.ProtocolViolation('nonsense'),
  PeerOffline: new errors.PeerOffline('bob'),
  PeerUnknown: new errors.PeerUnknown('bob'),
  PeerBlocked: new errors.PeerBlocked('bob'),
  PeerKeyChanged: new errors.PeerKeyChanged('bob', new Uint8Array(32), new Uint8Array(32).fill(1)),
  FingerprintMismatch: new errors.FingerprintMismatch('bob', 'aaaa', 'bbbb'),
  ProofInvalid: new errors.ProofInvalid('bob', 'no signature'),
  PeerConnectionFailed: new errors.PeerConnectionFailed('bob', 'no path'),
  PeerRefused: new errors.PeerRefused('bob', 'too many peers', 'too-many-peers', 30),
  DeliveryFailed: new errors.DeliveryFailed('bob', 7, 'gone'),
  DeliveryExpired: new errors.DeliveryExpired('bob', 7, 'too old'),
  FeatureMissing: new errors.FeatureMissing('bob', 'calls'),
  LoadFailed: new errors.LoadFailed('files'),
  TransferFailed: new errors.TransferFailed('bob', 'a.txt', 'declined'),
};
const BRANCHES = [
  'AldisError',
  'UsageError',
  'LimitReached',
  'JournalError',
  'RemoteError',
  'SignalingError',
  'PeerError',
];

test('every error of the module is in the tree, in one of its four branches, and has its name', () => {
  assert.deepEqual(Object.keys(errors).sort(), [...BRANCHES, ...Object.keys(MADE)].sort());
  for (const [name, error] of Object.entries(MADE)) {
    assert.equal(error.name, name);
    assert(error instanceof Error && error instanceof AldisError);
    assert.equal(
      [UsageError, LimitReached, JournalError, RemoteError].filter((kind) => error instanceof kind).length,
      1,
      name,
    );
    assert(!(error.temporary && error instanceof UsageError), name);
    assert(error.stack?.startsWith(`${name}: `), error.stack);
    assert(error.message && !error.message.includes('undefined'), error.message);
  }
});

test('an error carries its data in properties', () => {
  assert.deepEqual({ ...MADE.QueueFull }, { temporary: true, userId: 'bob', messages: 3, size: 2 });
  assert.deepEqual({ ...MADE.RequestFailed }, { temporary: true, code: 'rate-limited', retryAfter: 2, request: null });
  assert.equal(new errors.RequestFailed('forbidden', 'no').retryAfter, null);
  assert.equal(MADE.RequestFailed.message, 'slow down (rate-limited)');
  const told = { userId: 'bob', file: 'a.txt', reason: 'declined' };
  assert.deepEqual({ ...MADE.TransferFailed }, { temporary: false, ...told, kept: false, expired: false });
  const { code, retryAfter, temporary } = MADE.PeerRefused;
  assert.deepEqual([code, retryAfter, temporary], ['too-many-peers', 30, true]);
  assert.equal(new errors.PeerRefused('bob', 'no', 'not-accepted').temporary, false);
  assert(MADE.FeatureMissing instanceof PeerError);
});

test('what may succeed later is temporary', () => {
  const temporary = Object.entries(MADE).filter(([, error]) => error.temporary);
  assert.deepEqual(
    temporary.map(([name]) => name),
    [
      'QueueFull',
      'JournalFull',
      'TooManyPeers',
      'JournalInUse',
      'JournalDiskFull',
      'ServerUnreachable',
      'TokenUnavailable',
      'ConnectionLost',
      'OverLimits',
      'RequestTimeout',
      'RequestFailed',
      'PeerOffline',
      'PeerUnknown',
      'PeerConnectionFailed',
      'PeerRefused',
      'LoadFailed',
    ],
  );
});

test('an error has its name in the minified bundle too', async () => {
  const result = await build({
    entryPoints: [fileURLToPath(new URL('../src/errors.js', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    write: false,
  });
  const code = result.outputFiles[0].text;
  assert(!code.includes('class PeerOffline'));
  const bundled = await import(`data:text/javascript;base64,${Buffer.from(code).toString('base64')}`);
  const error = new bundled.PeerOffline('bob');
  assert.equal(error.name, 'PeerOffline');
  assert.equal(String(error), 'PeerOffline: bob is not online');
});
