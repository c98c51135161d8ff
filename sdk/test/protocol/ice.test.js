import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readServers, usableServers } from '../../src/protocol/ice.js';
import { vectors } from '../support/vectors.js';

const ICE = vectors('ice');

test('what browsers take is made into what all of them take', () => {
  for (const [entry, server] of ICE.read) {
    assert.deepEqual(readServers([entry]), [server]);
    assert.deepEqual(readServers([server]), [server]);
  }
});

test('the rest is refused, with the entry', () => {
  for (const entry of ICE.refused) {
    const all = [{ urls: 'stun:good.example' }, entry];
    assert.throws(() => readServers(all), { setting: 'iceServers[1]' }, JSON.stringify(entry));
  }
  for (const entries of [5, 'stun:a', [null], [{ urls: [5] }]]) assert.throws(() => readServers(entries));
});

test('of what a server names the good URLs are kept and the others told', () => {
  const told = [];
  const named = [{ urls: ['turn:a', 'bad'], username: 'u', credential: 'c' }, { urls: ['turn:b'] }];
  assert.deepEqual(
    usableServers(named, (problem) => told.push(problem)),
    [{ urls: ['turn:a'], username: 'u', credential: 'c' }],
  );
  assert.equal(told.length, 2);
});
