/** Tokens of the operator's accounts: a real server that wants them, and a client that gets them. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { ConfigError, RequestFailed, TokenUnavailable } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { makeClient, online } from '../support/clients.js';
import { served } from '../support/server.js';

const { publicKey, privateKey } = generateKeyPairSync('ed25519');

/** A token of the issuer for a user, for so many seconds. */
function tokenFor(sub, seconds = 600) {
  const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const signed = `${encoded({ alg: 'EdDSA', kid: 'k' })}.${encoded({ sub, exp: now + seconds })}`;
  return `${signed}.${sign(null, Buffer.from(signed), privateKey).toString('base64url')}`;
}

/** A server that wants tokens of the issuer. */
function guarded(t, options) {
  const folder = mkdtempSync(join(tmpdir(), 'aldis-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const jwks = join(folder, 'jwks.json');
  writeFileSync(jwks, JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k' }] }));
  return served(t, { auth: 'token', jwks, tokenLeeway: 0, tokenGrace: 0, pingInterval: 1, ...options });
}

const refused = (code) => (error) => error instanceof RequestFailed && error.code === code;

test('a server that wants a token says so, and takes the right one only', async (t) => {
  const { url } = await guarded(t);
  const cases = { 'token-required': null, 'token-expired': tokenFor('alice', -5), 'token-invalid': tokenFor('bob') };
  for (const [code, token] of Object.entries(cases)) {
    const { client } = makeClient(t, url, 'alice', { token });
    await client.connect();
    await assert.rejects(client.register(await Identity.generate()), refused(code));
  }
  await online(t, url, 'alice', { token: tokenFor('alice') });
});

test('a client gets another token when its own has expired, and its session goes on', async (t) => {
  const { url } = await guarded(t);
  const lives = [3, 600];
  const asked = [];
  const token = async () => {
    asked.push(lives[0]);
    return tokenFor('alice', lives.shift());
  };
  const { events } = await online(t, url, 'alice', { token });
  const lost = await events.until('disconnected');
  assert.deepEqual([lost.code, lost.reason], [4006, 'the token has expired']);
  assert.equal((await events.until('registered')).resumed, true);
  assert.deepEqual(asked, [3, 600]);
});

test('a client with a fixed token ends when that has expired', async (t) => {
  const { url } = await guarded(t);
  const { events } = await online(t, url, 'alice', { token: tokenFor('alice', 3) });
  const { error } = await events.until('closed');
  assert(refused('token-expired')(error));
});

test('a function that gives no token fails the registration, and the client may try again', async (t) => {
  const { url } = await guarded(t);
  const given = [
    () => {
      throw new Error('the secret of the program');
    },
    () => Promise.reject(new Error('later')),
    () => 5,
    () => 'x'.repeat(4097),
    () => new Promise(() => {}),
    () => tokenFor('alice'),
  ];
  const { client } = makeClient(t, url, 'alice', { token: () => given.shift()(), connectTimeout: 0.5 });
  await client.connect();
  const identity = await Identity.generate();
  for (const reason of [/threw/, /threw/, /not of type string/, /too long/, /within 0.5 s/]) {
    await assert.rejects(client.register(identity), (error) => {
      assert(error instanceof TokenUnavailable && error.temporary);
      assert.match(error.reason, reason);
      assert(!error.message.includes('secret of'));
      return true;
    });
  }
  await client.register(identity);
});

test('a client whose program has no token for a while comes back later', async (t) => {
  const { url } = await guarded(t);
  let calls = 0;
  const token = () => {
    calls += 1;
    if (calls === 2 || calls === 3) throw new Error('away');
    return tokenFor('alice', calls === 1 ? 3 : 600);
  };
  const { events } = await online(t, url, 'alice', { token });
  assert.equal((await events.until('disconnected')).code, 4006);
  for (let n = 0; n < 2; n += 1) {
    const { code, reason } = await events.until('disconnected');
    assert.deepEqual([code, reason], [1006, 'there is no token for the server: the program threw an error']);
  }
  assert.equal((await events.until('registered')).resumed, true);
});

test('what is no token is told at once', () => {
  for (const token of [5, true, {}, '\ud800', 'x'.repeat(4097)]) {
    assert.throws(() => makeClient({ after() {} }, 'ws://a.example', 'alice', { token }), ConfigError);
  }
});
