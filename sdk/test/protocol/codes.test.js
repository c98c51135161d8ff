import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as codes from '../../src/protocol/codes.js';

test('a client comes back after a close code that invites it, and not after one that waits for a person', () => {
  const codesThatInvite = [
    codes.NORMAL,
    codes.LEAVING,
    codes.NO_STATUS,
    codes.ABNORMAL,
    codes.INTERNAL_ERROR,
    codes.GOING_AWAY,
    codes.SLOW_CONSUMER,
    codes.NO_PONG,
    codes.REGISTRATION_TIMEOUT,
    codes.SESSION_LOST,
    codes.OUT_OF_MEMORY,
    codes.OVER_LIMITS,
    4499,
  ];
  const codesThatDoNot = [
    codes.PROTOCOL_ERROR,
    codes.UNSUPPORTED_DATA,
    codes.INVALID_UTF8,
    codes.TOO_BIG,
    codes.REPLACED,
    codes.BAD_PROTOCOL,
    codes.UNAUTHORIZED,
    codes.ORIGIN_NOT_ALLOWED,
    codes.BANNED,
    4999,
  ];
  assert.deepEqual(
    codesThatInvite.map(codes.mayReconnect),
    codesThatInvite.map(() => true),
  );
  assert.deepEqual(
    codesThatDoNot.map(codes.mayReconnect),
    codesThatDoNot.map(() => false),
  );
});

test('only the documented codes are temporary', () => {
  assert.deepEqual(['rate-limited', 'timeout', 'key-mismatch', 'of-tomorrow'].map(codes.isTemporary), [
    true,
    true,
    false,
    false,
  ]);
});
