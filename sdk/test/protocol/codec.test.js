import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ProtocolViolation } from '../../src/errors.js';
import {
  clean,
  decodeServerMessage,
  encodeClientMessage,
  fromBase64,
  fromBase64url,
  fromUtf8,
  readCandidate,
  readCapabilities,
  readDescription,
  readProof,
  toBase64,
  toBase64url,
  toUtf8,
} from '../../src/protocol/codec.js';
import { generator, mutated } from '../support/generator.js';
import { vectors } from '../support/vectors.js';

/** @param {unknown} value */
const decode = (value) => decodeServerMessage(JSON.stringify(value));

// --- messages -------------------------------------------------------------------------------------------------------

test('what no shape names goes no further', () => {
  assert.deepEqual(decode({ type: 'pong', mood: 'good', id: 4 }), { type: 'pong' });
  assert.deepEqual(decodeServerMessage('{"type":"presence","userId":"a","online":true,"__proto__":{"devices":1}}'), {
    type: 'presence',
    userId: 'a',
    online: true,
  });
  assert.deepEqual(decode({ type: 'presence', userId: 'a', online: true, devices: [{ device: 'm', x: 1 }] }), {
    type: 'presence',
    userId: 'a',
    online: true,
    devices: [{ device: 'm' }],
  });
});

test('of a field that stands twice the last counts', () => {
  assert.deepEqual(decodeServerMessage('{"type":"ack","re":1,"re":2}'), { type: 'ack', re: 2 });
});

test('a type that is a name of the language is an unknown type', () => {
  for (const type of ['constructor', '__proto__', 'hasOwnProperty', 'toString', '']) {
    assert.equal(decode({ type }), null);
  }
});

test('a broken message of the server is a violation', () => {
  const broken = [
    '',
    'null',
    '[]',
    '"pong"',
    '{',
    '{}',
    '{"type":1}',
    '{"type":null}',
    '{"type":"pong"}x',
    '{"type":"pong","re":null}',
    '{"type":"pong","re":1.5}',
    '{"type":"pong","re":9007199254740992}',
    `{"type":"pong","re":"${'x'.repeat(65)}"}`,
    '{"type":"ack"}',
    '{"type":"challenge"}',
    '{"type":"challenge","nonce":"\\ud800"}',
    '{"type":"presence","userId":"a","online":"yes"}',
    '{"type":"presence","userId":"a","online":true,"devices":{}}',
    '{"type":"presence","userId":"a","online":true,"devices":[{}]}',
    '{"type":"presence","userId":"a","online":true,"devices":[{"device":"m","sealKey":{"publicKey":"","signature":"x"}}]}',
    '{"type":"error","message":"m","retryAfter":"soon"}',
    '{"type":"error","message":"m","retryAfter":1e999}',
    '{"type":"registered","success":true,"userId":"a","limits":{"maxMessageBytes":1.5,"maxWatches":1,"resumeWindow":1}}',
    '{"type":"ice-servers","iceServers":[{"urls":"stun:h"}],"ttl":5}',
    '{"type":"ice-servers","iceServers":[{"urls":["stun:h"],"username":5}],"ttl":5}',
    '{"type":"offer","to":"a"}',
    '{"type":"offer","to":"","offer":{}}',
    `{"type":"offer","to":"${'x'.repeat(194)}","offer":{}}`,
    '{"type":"relay","to":"a","sealed":""}',
  ];
  for (const frame of broken) {
    assert.throws(() => decodeServerMessage(frame), ProtocolViolation, frame);
  }
});

test('limits of length count code points, as the server does', () => {
  const address = `${'😀'.repeat(128)}/${'x'.repeat(64)}`;
  const bye = { type: 'bye', to: address, from: address };
  assert.deepEqual(decode(bye), bye);
  assert.throws(() => decode({ ...bye, to: `${address}x` }), ProtocolViolation);
  assert.deepEqual(decode({ type: 'ack', re: '😀'.repeat(64) }), { type: 'ack', re: '😀'.repeat(64) });
  assert.throws(() => decode({ type: 'ack', re: '😀'.repeat(65) }), ProtocolViolation);
});

test('a violation names the field', () => {
  assert.throws(() => decode({ type: 'challenge' }), { message: "'nonce' is missing" });
  assert.throws(() => decode({ type: 'challenge', nonce: 5 }), { message: "'nonce' is not valid" });
});

test('deep nesting is no crash', () => {
  const deep = '['.repeat(50_000) + ']'.repeat(50_000);
  assert.deepEqual(decodeServerMessage(`{"type":"pong","x":${deep}}`), { type: 'pong' });
  const offer = decodeServerMessage(`{"type":"offer","to":"b","from":"a","offer":{"type":"offer","sdp":${deep}}}`);
  assert(offer?.type === 'offer');
  assert.throws(() => readDescription(offer.offer, 'offer'), ProtocolViolation);
});

test('whatever is done to a frame, it is a message, or unknown, or a violation', () => {
  const random = generator(2);
  const frames = vectors('codec').server.map(({ text }) => toUtf8(text));
  for (let round = 0; round < 4000; round++) {
    const frame = new TextDecoder().decode(mutated(random, random.one(frames)));
    try {
      const message = decodeServerMessage(frame);
      assert(message === null || typeof message.type === 'string');
    } catch (error) {
      assert(error instanceof ProtocolViolation, `${frame}: ${error}`);
    }
  }
});

test('what is not set is not on the wire', () => {
  assert.equal(
    encodeClientMessage({ type: 'register', userId: 'a', publicKey: 'k', token: undefined, id: 1 }),
    '{"type":"register","userId":"a","publicKey":"k","id":1}',
  );
});

test('a text that UTF-8 cannot carry is not sent', () => {
  assert.throws(() => encodeClientMessage({ type: 'discover', userId: 'a\ud83d' }), { name: 'UsageError' });
  assert.equal(encodeClientMessage({ type: 'discover', userId: '😀' }), '{"type":"discover","userId":"😀"}');
});

// --- what peers say to each other -----------------------------------------------------------------------------------

test('a description, a candidate and a proof come back as they were', () => {
  assert.deepEqual(readDescription({ type: 'offer', sdp: 'v=0', x: 1 }, 'offer'), { type: 'offer', sdp: 'v=0' });
  const proof = { publicKey: 'k', nonce: 'n', signature: 's' };
  assert.deepEqual(readProof(proof), proof);
  const candidate = { candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0, usernameFragment: 'u' };
  assert.deepEqual(readCandidate(candidate), candidate);
  assert.deepEqual(readCandidate({ candidate: '' }), { candidate: '', sdpMid: null, sdpMLineIndex: null });
  assert.equal(readCandidate(null), null);
});

test('what is kept of a stranger has bounds', () => {
  for (const character of ['x', '🔦']) {
    for (const [field, most] of [
      ['candidate', 1024],
      ['sdpMid', 256],
      ['usernameFragment', 256],
    ]) {
      const candidate = { candidate: '', sdpMid: null, sdpMLineIndex: 0, [field]: character.repeat(most) };
      assert.deepEqual(readCandidate(candidate), candidate);
      assert.throws(() => readCandidate({ ...candidate, [field]: character.repeat(most + 1) }), ProtocolViolation);
    }
  }
  const proof = { publicKey: 'k', nonce: 'n', signature: 's' };
  for (const field of Object.keys(proof)) {
    assert.throws(() => readProof({ ...proof, [field]: 'x'.repeat(257) }), ProtocolViolation);
  }
});

test('an unreadable opaque field is a violation', () => {
  for (const value of [5, [], {}, { type: 1 }, 'text', undefined]) {
    assert.throws(() => readDescription(value, 'offer'), ProtocolViolation);
    assert.throws(() => readCandidate(value), ProtocolViolation);
    assert.throws(() => readProof(value), ProtocolViolation);
  }
  assert.throws(() => readDescription(null, 'answer'), ProtocolViolation);
  assert.throws(() => readDescription({ type: 'rollback', sdp: '' }, 'offer'), ProtocolViolation);
  assert.throws(() => readDescription({ type: 'offer', sdp: '\ud800' }, 'offer'), ProtocolViolation);
});

test('capabilities that are absent or unreadable mean "can do all"', () => {
  const all = { trickle: true, restart: true };
  for (const value of [undefined, null, {}, 5, { trickle: 'no' }, { later: 1 }]) {
    assert.deepEqual(readCapabilities(value), all);
  }
  assert.deepEqual(readCapabilities({ trickle: false }), { trickle: false, restart: true });
  assert.deepEqual(readCapabilities({ restart: false, later: 1 }), { trickle: true, restart: false });
});

// --- bytes ----------------------------------------------------------------------------------------------------------

test('bytes survive base64', () => {
  const random = generator(3);
  for (let size = 0; size < 70; size++) {
    const bytes = random.bytes(size);
    assert.equal(toBase64(bytes), Buffer.from(bytes).toString('base64'));
    assert.equal(toBase64url(bytes), Buffer.from(bytes).toString('base64url'));
    assert.deepEqual(fromBase64(toBase64(bytes), size), bytes);
    assert.deepEqual(fromBase64url(toBase64url(bytes), size), bytes);
  }
});

test('a megabyte survives base64', () => {
  const bytes = new Uint8Array(1 << 20).fill(200);
  assert.deepEqual(fromBase64(toBase64(bytes)), bytes);
});

test('only strict and canonical base64 is read', () => {
  for (const text of 'A AA AA= AAA A-A= _w== AA==AA== AB== AAB= é ==== AAAA='.split(' ').concat('AA==\n', ' AA==')) {
    assert.throws(() => fromBase64(text), { name: 'ProtocolViolation', message: /base64/ }, text);
  }
  for (const text of ['A', 'AB', 'AA==', 'A/', 'A+', ' AA', 'é']) {
    assert.throws(() => fromBase64url(text), ProtocolViolation, text);
  }
});

test('base64 of a wrong size is refused', () => {
  assert.throws(() => fromBase64(toBase64(new Uint8Array(31)), 32), { message: 'not base64 of 32 bytes' });
  assert.throws(() => fromBase64url('AA', 0), ProtocolViolation);
});

test('UTF-8 is read strictly, and a byte order mark is a character', () => {
  assert.equal(fromUtf8(toUtf8('\ufeffé😀')), '\ufeffé😀');
  for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) {
    assert.throws(() => fromUtf8(Uint8Array.from(bytes)), ProtocolViolation);
  }
});

test('a reason is a line that shows what it says', () => {
  assert.equal(clean('no\nroom \u202eleft'), 'noroom left');
  assert.equal([...clean('🌍'.repeat(300))].length, 200);
});
