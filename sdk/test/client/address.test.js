import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseServerAddress } from '../../src/client/address.js';
import { ConfigError, UsageError } from '../../src/errors.js';
import { vectors } from '../support/vectors.js';

test('what developers write becomes what is dialled and signed', () => {
  for (const [text, url, server] of [
    ['ws://signal.example', 'ws://signal.example/', 'signal.example'],
    ['ws://signal.example:80', 'ws://signal.example/', 'signal.example'],
    ['ws://signal.example:443', 'ws://signal.example:443/', 'signal.example:443'],
    ['wss://signal.example:443', 'wss://signal.example/', 'signal.example'],
    ['wss://signal.example:80', 'wss://signal.example:80/', 'signal.example:80'],
    ['WSS://Signal.Example:8080/Path?a=b', 'wss://signal.example:8080/Path/?a=b', 'signal.example:8080'],
    ['http://signal.example:8080', 'ws://signal.example:8080/', 'signal.example:8080'],
    ['http://signal.example:443', 'ws://signal.example:443/', 'signal.example:443'],
    ['https://signal.example/', 'wss://signal.example/', 'signal.example'],
    ['https://signal.example/ws', 'wss://signal.example/ws', 'signal.example'],
    ['https://signal.example/aldis/ws', 'wss://signal.example/aldis/ws', 'signal.example'],
    ['https://signal.example/ws/', 'wss://signal.example/ws/', 'signal.example'],
    ['https://signal.example/news', 'wss://signal.example/news/', 'signal.example'],
    ['https://signal.example/aldis', 'wss://signal.example/aldis/', 'signal.example'],
    ['https://signal.example/aldis/', 'wss://signal.example/aldis/', 'signal.example'],
    ['ws://[2001:DB8::0:1]', 'ws://[2001:db8::1]/', '[2001:db8::1]'],
    ['wss://bücher.example', 'wss://xn--bcher-kva.example/', 'xn--bcher-kva.example'],
    ['wss://signal.example/grüße?q=ü', 'wss://signal.example/gr%C3%BC%C3%9Fe/?q=%C3%BC', 'signal.example'],
  ]) {
    assert.deepEqual(parseServerAddress(text), { url, server });
    assert.deepEqual(parseServerAddress(url), { url, server });
  }
});

test('slips are read as the platform reads them', () => {
  for (const [text, url, server] of [
    [' ws://signal.example', 'ws://signal.example/', 'signal.example'],
    ['ws://signal.example\0', 'ws://signal.example/', 'signal.example'],
    ['ws:///signal.example', 'ws://signal.example/', 'signal.example'],
    ['ws:signal.example', 'ws://signal.example/', 'signal.example'],
    ['ws://signal.example/\r\nX:y', 'ws://signal.example/X:y/', 'signal.example'],
  ]) {
    assert.deepEqual(parseServerAddress(text), { url, server });
  }
});

test('what is no address of a server is a usage error', () => {
  for (const text of [
    '',
    'signal.example',
    'localhost:8080',
    'ws://',
    'ftp://signal.example',
    'ws://signal.example:65536',
    'ws://signal.example:port',
    'ws://alice:secret@signal.example',
    'ws://alice@signal.example',
    'ws://signal.example/#here',
    'ws://signal example',
    'ws://[::1',
    'ws://[fe80::1%25eth0]/',
    undefined,
  ]) {
    assert.throws(() => parseServerAddress(text), UsageError, String(text));
  }
});

test('what is wrong with an address is said by the rule that it breaks', () => {
  for (const text of ['localhost:8080', 'signal.example', 'ftp://signal.example', 'ws://']) {
    assert.throws(() => parseServerAddress(text), {
      setting: 'url',
      problem: `"${text}": not http://, https://, ws:// or wss:// and a host`,
    });
  }
  for (const text of ['http://signal.example/?a=1#b', 'wss://alice:secret@signal.example']) {
    assert.throws(() => parseServerAddress(text), { problem: `"${text}": no user name, password or # part here` });
  }
});

const HOSTS = vectors('hosts');

test('a host is dialled, proven and pinned under the name that the platform gives it', () => {
  for (const [text, host] of HOSTS.read) {
    assert.deepEqual(parseServerAddress(`ws://${text}`), { url: `ws://${host}/`, server: host });
  }
});

test('what is no host for a browser or a resolver is refused', () => {
  for (const text of HOSTS.refused) assert.throws(() => parseServerAddress(`ws://${text}`), ConfigError, text);
  assert.throws(() => parseServerAddress('ws://signal.example:0'), ConfigError);
});
