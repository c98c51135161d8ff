/** `SignalingClient` against a scripted server: what no honest server does, and what must not be left behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SignalingClient } from '../../src/client/client.js';
import { timers } from '../../src/client/timers.js';
import {
  ConfigError,
  ConnectionClosed,
  ConnectionLost,
  IdentityError,
  InvalidAddress,
  RequestFailed,
  RequestTimeout,
  ServerUnreachable,
  StateError,
  UsageError,
} from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { makeClient } from '../support/clients.js';
import { FakeTimers } from '../support/fake_timers.js';
import { accepted, BINARY, CLOSE, frame, startScripted, TEXT } from '../support/scripted_server.js';

const ALICE = await Identity.generate();
const UNAVAILABLE = 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n';

/** Time stands still for the test, until it turns the clock. */
function turn(t) {
  const clock = new FakeTimers();
  t.mock.method(timers, 'time', clock.time);
  t.mock.method(timers, 'callLater', clock.callLater);
  return clock;
}

/** A server for one test. */
async function scripted(t) {
  const server = await startScripted();
  t.after(() => server.close());
  return server;
}

/** A registered client, its events, the server, and the server's end of the connection. */
async function joined(t, options) {
  const server = await scripted(t);
  const made = makeClient(t, server.url, 'alice', options);
  await made.client.connect();
  const line = await server.accept();
  const registering = made.client.register(ALICE);
  await line.admit();
  await registering;
  made.events.list.length = 0;
  return { ...made, server, line };
}

// --- the life of a client ---

test('the states from the first to the last', async (t) => {
  const server = await scripted(t);
  server.upgrade = () => null;
  const { client } = makeClient(t, server.url, 'alice');
  assert.equal(client.state, 'disconnected');
  const connecting = client.connect();
  const line = await server.accept();
  assert.equal(client.state, 'connecting');
  await assert.rejects(client.connect(), StateError);
  line.write(accepted(line.headers));
  await connecting;
  assert.equal(client.state, 'connecting');
  const registering = client.register(ALICE);
  await line.admit();
  await registering;
  assert.equal(client.state, 'connected');
  await assert.rejects(client.connect(), /already/);
  const closing = client.close();
  assert.deepEqual(await line.readClose(), [1000, '']);
  line.close(1000);
  await closing;
  assert.equal(client.state, 'disconnected');
});

test('what a client is can be asked before it is connected', () => {
  const client = new SignalingClient('http://Signal.Example:8080', 'alice', { device: 'phone' });
  assert.equal(client.url, 'ws://signal.example:8080/');
  assert.equal(client.server, 'signal.example:8080');
  assert.deepEqual([client.userId, client.device, client.address], ['alice', 'phone', 'alice/phone']);
});

test('a first attempt that fails rejects, and can be made again', async (t) => {
  const gone = await startScripted();
  gone.close();
  const { client, events } = makeClient(t, gone.url, 'alice');
  await assert.rejects(
    client.connect(),
    (error) =>
      error instanceof ServerUnreachable && error.url === client.url && /no Aldis server answers/.test(error.reason),
  );
  assert.equal(client.state, 'disconnected');
  assert.deepEqual(events.list, []);
  const server = await startScripted({ port: gone.port });
  t.after(() => server.close());
  await client.connect();
  const line = await server.accept();
  const closing = client.close();
  await line.readClose();
  line.hangUp();
  await closing;
});

test('a device without a network is told so, but not of servers that are on it', async (t) => {
  class Silent {
    constructor() {
      queueMicrotask(() => this.onerror());
    }
    close() {}
  }
  Object.defineProperty(globalThis, 'navigator', { value: { onLine: false }, configurable: true });
  t.after(() => delete globalThis.navigator);
  for (const [host, reason] of [
    ['signal.example', /offline/],
    ['localhost:8080', /no Aldis server answers/],
    ['127.0.0.1:8080', /no Aldis server answers/],
    ['[::1]:8080', /no Aldis server answers/],
  ]) {
    const { client } = makeClient(t, `ws://${host}`, 'alice', { WebSocket: Silent });
    await assert.rejects(client.connect(), reason, host);
  }
});

test('a page that may not dial is told why', async (t) => {
  class Forbidden {
    constructor() {
      throw new DOMException('an insecure connection from a secure page', 'SecurityError');
    }
  }
  const { client } = makeClient(t, 'ws://signal.example', 'alice', { WebSocket: Forbidden });
  await assert.rejects(
    client.connect(),
    (error) => error instanceof ServerUnreachable && /insecure/.test(error.reason),
  );
});

test('what is no Aldis server is left', async (t) => {
  const server = await scripted(t);
  const { client } = makeClient(t, server.url, 'alice');
  for (const upgrade of [
    () => UNAVAILABLE,
    (headers) => accepted(headers, null),
    (headers) => accepted(headers, 'chat'),
    () => 'SSH-2.0-OpenSSH_9.9\r\n',
  ]) {
    server.upgrade = upgrade;
    await assert.rejects(
      client.connect(),
      (error) => error instanceof ServerUnreachable && /a plain request is answered with 404/.test(error.reason),
    );
  }
});

test('a server that does not answer is not waited for without end', async (t) => {
  const server = await scripted(t);
  server.upgrade = () => null;
  const clock = turn(t);
  const { client } = makeClient(t, server.url, 'alice', { connectTimeout: 20 });
  const refused = assert.rejects(client.connect(), /no answer within 20 s/);
  const line = await server.accept();
  clock.advance(20);
  await refused;
  await line.gone;
});

test('closing while the first connection is made ends the attempt', async (t) => {
  const server = await scripted(t);
  server.upgrade = () => null;
  const { client } = makeClient(t, server.url, 'alice');
  const connecting = client.connect();
  const refused = assert.rejects(connecting, StateError);
  const line = await server.accept();
  await client.close();
  await refused;
  await line.gone;
  await assert.rejects(client.connect(), /closed/);
});

test('closing before anything, and again, does no harm', async (t) => {
  const { client, events } = makeClient(t, 'ws://signal.example', 'alice');
  await client.close();
  await Promise.all([client.close(), client.close()]);
  assert.deepEqual(events.list, [{ type: 'closed', error: null }]);
});

test('closing between two attempts ends the waiting', async (t) => {
  const { client, events, line } = await joined(t, { backoff: { first: 1000, most: 1000 } });
  line.hangUp();
  await events.until('disconnected');
  const held = assert.rejects(client.discover('bob'), ConnectionLost);
  await client.close();
  await held;
});

test('closing during a second attempt ends the attempt', async (t) => {
  const { client, line, server } = await joined(t);
  server.upgrade = () => null;
  line.hangUp();
  const next = await server.accept();
  await client.close();
  await next.gone;
});

test('a server that does not answer a CLOSE frame is not waited for without end', async (t) => {
  const { client, events } = await joined(t);
  await client.close();
  assert.equal(events.list.at(-1).type, 'closed');
});

test('what is said before closing is sent before closing', async (t) => {
  const { client, line } = await joined(t);
  const saying = client.sendBye('bob').catch((error) => error);
  const closing = client.close();
  assert.equal((await line.receive()).type, 'bye');
  assert.deepEqual(await line.readClose(), [1000, '']);
  line.close(1000);
  await closing;
  assert.ok((await saying) instanceof ConnectionLost);
});

// --- requests ---

test('a request without a reply times out', async (t) => {
  const clock = turn(t);
  const { client, line } = await joined(t, { requestTimeout: 20 });
  const failed = assert.rejects(
    client.discover('bob'),
    (error) => error instanceof RequestTimeout && error.seconds === 20 && error.request === 'discover',
  );
  const { id } = await line.receive();
  clock.advance(20);
  await failed;
  line.say({ type: 'discover-response', userId: 'bob', online: true, re: id });
  const asking = client.discover('bob');
  line.say({ type: 'discover-response', userId: 'bob', online: true, re: (await line.receive()).id });
  assert.ok((await asking).online);
});

test('a request in flight fails with the connection, and one made later waits', async (t) => {
  const { client, line, server } = await joined(t);
  const inFlight = assert.rejects(client.discover('bob'), ConnectionLost);
  await line.receive();
  line.hangUp();
  await inFlight;
  const waiting = client.discover('bob');
  const next = await server.accept();
  assert.deepEqual((await next.admit()).resume, { session: 's', secret: 't', received: 0 });
  next.say({ type: 'discover-response', userId: 'bob', online: true, re: (await next.receive()).id });
  assert.ok((await waiting).online);
});

test('a watch of many names takes several messages, and fails when one of them does', async (t) => {
  const { client, line } = await joined(t);
  const names = Array.from({ length: 1500 }, (_, index) => `user-${index}`);
  for (const refused of [false, true]) {
    const watching = client.watch(...names);
    const outcome = refused ? assert.rejects(watching, RequestFailed) : watching;
    const [first, second] = [await line.receive(), await line.receive()];
    assert.deepEqual([...first.userIds, ...second.userIds], names);
    line.say({ type: 'ack', re: first.id });
    line.say({ type: refused ? 'error' : 'ack', message: 'too many', code: 'too-large', re: second.id });
    await outcome;
  }
  await client.watch(); // nobody
});

test('what cannot be sent is a usage error', async (t) => {
  const { client } = await joined(t);
  await assert.rejects(client.sendOffer('bob', '\ud800'), UsageError);
  await assert.rejects(client.sendAnswer('bob', '\ud800'), UsageError);
});

test('a connection that takes nothing is given up before the memory is full', async (t) => {
  const { client, events, server } = await joined(t);
  const sending = Array.from({ length: 100 }, () => client.sendBye('bob', { reason: 'x'.repeat(50_000) }));
  const outcomes = Promise.allSettled(sending);
  assert.match((await events.until('disconnected')).reason, /takes nothing/);
  const next = await server.accept();
  await next.admit();
  await events.until('registered');
  // What was asked after that is sent now.
  for (let rest = 0; rest < 16; rest++) next.say({ type: 'ack', re: (await next.receive()).id });
  const failed = (await outcomes).filter(({ status }) => status === 'rejected');
  assert.equal(failed.length, 84);
  assert.ok(failed.every(({ reason }) => reason instanceof ConnectionLost));
});

test('a key that cannot sign is the end, in words', async (t) => {
  const server = await scripted(t);
  const { client, events } = makeClient(t, server.url, 'alice');
  await client.connect();
  const line = await server.accept();
  const { publicKey } = ALICE;
  const registering = client.register({ publicKey, sign: () => Promise.reject(new Error('the key is gone')) });
  const refused = assert.rejects(
    registering,
    (error) => error instanceof IdentityError && /is gone/.test(error.message),
  );
  line.say({ type: 'challenge', nonce: Buffer.alloc(32).toString('base64'), re: (await line.receive()).id });
  await refused;
  assert.ok((await events.until('closed')).error instanceof IdentityError);
});

// --- losing the server ---

test('a final close code is delivered, and every later call rejects with it', async (t) => {
  const { client, events, line } = await joined(t);
  line.close(4503, 'banned');
  const { error } = await events.until('closed');
  assert.ok(error instanceof ConnectionClosed);
  assert.deepEqual([error.code, error.reason], [4503, 'banned']);
  for (const call of [
    () => client.connect(),
    () => client.discover('bob'),
    () => client.watch('bob'),
    () => client.register(ALICE),
  ]) {
    await assert.rejects(call(), (thrown) => thrown === error);
  }
  await client.close();
});

test('a final refusal of the name after a reconnection ends the client', async (t) => {
  const { client, events, line, server } = await joined(t);
  line.hangUp();
  const next = await server.accept();
  const { id } = await next.receive();
  next.say({ type: 'error', message: 'belongs to another', code: 'key-mismatch', re: id });
  assert.equal((await events.until('closed')).error.code, 'key-mismatch');
  assert.deepEqual(await next.readClose(), [1000, '']);
  await assert.rejects(client.discover('bob'), RequestFailed);
});

test('a server that breaks the protocol is left and visited again', async (t) => {
  const { client, events, line, server } = await joined(t);
  let current = line;
  for (const [garbage, code] of [
    [frame(BINARY, [1]), 4000],
    [frame(TEXT, 'no JSON'), 4000],
    [frame(TEXT, 'x'.repeat(1024 * 1024 + 1)), 4000],
    [frame(TEXT, '['.repeat(100_000)), 4000],
  ]) {
    current.write(garbage);
    assert.equal((await current.readClose())[0], code);
    current.hangUp();
    const gone = await events.until('disconnected');
    assert.match(gone.reason, /broke the protocol/);
    current = await server.accept();
    await current.admit();
    await events.until('registered');
  }
  assert.equal(client.state, 'connected');
});

test('a reason of ours that is too long for a CLOSE frame is cut short', async (t) => {
  const { line, server } = await joined(t);
  line.hangUp();
  const next = await server.accept();
  const { id } = await next.receive();
  next.say({ type: 'error', message: 'ü'.repeat(500), code: 'over-capacity', temporary: true, re: id });
  const [code, reason] = await next.readClose();
  assert.equal(code, 4000);
  assert.match(reason, /refused for now: ü+$/);
  assert.ok(Buffer.byteLength(reason) <= 123);
});

test('going away is told and followed', async (t) => {
  // Were the backoff asked, the client would be away for minutes.
  const { events, line, server } = await joined(t, { backoff: { first: 1000, most: 1000 } });
  line.say({ type: 'going-away', reconnectIn: 0.02 });
  line.close(4000, 'restart');
  const next = await server.accept();
  await next.admit();
  await events.until('goingAway');
  const gone = await events.until('disconnected');
  assert.deepEqual([gone.reason, gone.code], ['restart', 4000]);
  await events.until('connected');
  await events.until('registered');
});

test('what the server says after it has closed is not listened to', async (t) => {
  const { events, line, server } = await joined(t);
  const close = frame(CLOSE, [4000 >> 8, 4000 & 0xff]);
  line.socket.end(Buffer.concat([close, frame(TEXT, '{"type":"going-away","reconnectIn":9}')]));
  await (await server.accept()).admit();
  assert.equal((await events.until('disconnected')).code, 4000);
  await events.until('registered');
});

test('with the network back, a waiting client dials at once, and a closed one does not', async (t) => {
  const browser = new EventTarget();
  for (const name of ['addEventListener', 'removeEventListener']) {
    globalThis[name] = browser[name].bind(browser);
    t.after(() => delete globalThis[name]);
  }
  const { client, events, line, server } = await joined(t, { backoff: { first: 1000, most: 1000 } });
  line.hangUp();
  await events.until('disconnected');
  browser.dispatchEvent(new Event('online'));
  const next = await server.accept();
  await next.admit();
  await events.until('registered');
  next.hangUp();
  await events.until('disconnected');
  await client.close();
  browser.dispatchEvent(new Event('online'));
  assert.deepEqual(events.list, [{ type: 'closed', error: null }]);
});

// --- events ---

test('a server that does not answer a doubt is left without its farewell', async (t) => {
  const clock = turn(t);
  const { client, events, line } = await joined(t);
  client.suspect();
  assert.equal((await line.receive()).type, 'ping');
  clock.advance(3);
  assert.match((await events.until('disconnected')).reason, /silence for 3 s/);
  assert.equal((await line.readClose())[0], 4003);
});

test('another network ends an attempt that began in the one before, and the next is made at once', async (t) => {
  const clock = turn(t);
  const { client, events, line, server } = await joined(t, { backoff: { first: 0.01, most: 1000 } });
  server.upgrade = () => null;
  line.hangUp();
  await events.until('disconnected');
  clock.advance(1);
  const stale = await server.accept();
  client.networkChanged(); // it is fresh
  clock.advance(1);
  client.networkChanged();
  await stale.gone;
  await events.until('disconnected');
  clock.advance(0.001);
  await server.accept();
});

test('while somebody waits, a page looks by HTTP whether the server is there, and dials anyway now and then', async (t) => {
  const before = { fetch: globalThis.fetch, document: globalThis.document };
  t.after(() => Object.assign(globalThis, before));
  const looked = [];
  let isThere = false;
  Object.assign(globalThis, {
    document: {},
    fetch: async (url, { mode }) => {
      looked.push(`${url} ${mode}`);
      if (!isThere) throw new TypeError('Failed to fetch');
    },
  });
  const { client, events, line, server } = await joined(t, { backoff: { first: 0.01, most: 0.01 } });
  const dialled = [];
  server.upgrade = () => {
    dialled.push(looked.length);
    return UNAVAILABLE;
  };
  line.hangUp();
  await events.until('disconnected');
  client.hurry();
  await events.until('disconnected', () => looked.length === 17); // the 16th attempt dialled, and the 32nd will
  assert.deepEqual(dialled.length, 1);
  assert.equal(looked[0], `${client.url.replace('ws', 'http')}healthz no-cors`);
  isThere = true;
  await events.until('disconnected', () => dialled.length > 2);
  assert.ok(dialled[2] < 24);
});

test('a callback that throws is logged and does no harm to others', async (t) => {
  const { client, events, line } = await joined(t);
  const logged = t.mock.method(console, 'error', () => {});
  client.subscribe(() => {
    throw new Error('a fault of the application');
  });
  let seen = null;
  client.subscribe((event) => (seen = event));
  line.say({ type: 'going-away', reconnectIn: 100 });
  await events.until('goingAway');
  assert.deepEqual(seen, { type: 'goingAway', reconnectIn: 100 });
  assert.equal(client.state, 'connected');
  assert.match(logged.mock.calls[0].arguments[0].message, /a fault of the application/);
});

test('a callback can end its own subscription and others, and be subscribed twice', async (t) => {
  const { client, line, events } = await joined(t);
  const seen = [];
  const endFirst = client.subscribe(() => {
    seen.push('first');
    endFirst();
    endSecond();
  });
  const endSecond = client.subscribe(() => seen.push('second'));
  const third = () => seen.push('third');
  client.subscribe(third);
  const endAgain = client.subscribe(third);
  for (const reconnectIn of [100, 200]) {
    line.say({ type: 'going-away', reconnectIn });
    await events.until('goingAway');
  }
  endAgain();
  endAgain();
  line.say({ type: 'going-away', reconnectIn: 300 });
  await events.until('goingAway');
  assert.deepEqual(seen, ['first', 'third', 'third', 'third', 'third', 'third']);
});

test('a callback may ask and close', async (t) => {
  const { client, line, events } = await joined(t);
  client.subscribe((event) => {
    if (event.type !== 'goingAway') return;
    client.sendBye('bob').catch(() => {});
    void client.close();
  });
  line.say({ type: 'going-away', reconnectIn: 100 });
  assert.equal((await line.receive()).type, 'bye');
  assert.deepEqual(await line.readClose(), [1000, '']);
  line.close(1000);
  assert.deepEqual(await events.until('closed'), { type: 'closed', error: null });
});

// --- settings ---

test('settings that make no sense are refused at once', () => {
  assert.throws(() => new SignalingClient('ws://signal.example', 'not a name'), InvalidAddress);
  assert.throws(() => new SignalingClient('gopher://signal.example', 'alice'), ConfigError);
  for (const token of ['x'.repeat(4096), 'ä'.repeat(2048)]) {
    assert.ok(new SignalingClient('ws://signal.example', 'alice', { token }));
    assert.throws(() => new SignalingClient('ws://signal.example', 'alice', { token: `${token}x` }), ConfigError);
  }
  assert.throws(() => new SignalingClient('ws://signal.example', 'alice', { backoff: { first: -1 } }), ConfigError);
});
