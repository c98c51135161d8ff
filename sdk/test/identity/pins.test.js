import assert from 'node:assert/strict';

import { IndexedDBPins, MemoryPins } from '../../src/identity/pins.js';
import { withGlobal } from '../support/platform.js';
import { test } from '../support/with_database.js';

const KEY = new Uint8Array(32).fill(1);
const OTHER = new Uint8Array(32).fill(2);

for (const Pins of [MemoryPins, IndexedDBPins]) {
  test(`${Pins.name}: a peer that was never seen has no pin`, async () => {
    assert.equal(await new Pins().find('host', 'bob'), null);
  });

  test(`${Pins.name}: the first key is pinned, and another one changes nothing`, async () => {
    const pins = new Pins();
    assert.deepEqual(await pins.pin('host', 'bob', KEY), KEY);
    assert.deepEqual(await pins.pin('host', 'bob', OTHER), KEY);
    assert.deepEqual(await pins.find('host', 'bob'), KEY);
  });

  test(`${Pins.name}: an accepted key replaces the pin, or makes the first`, async () => {
    const pins = new Pins();
    await pins.pin('host', 'bob', KEY);
    await pins.accept('host', 'bob', OTHER);
    await pins.accept('host', 'carol', KEY);
    assert.deepEqual(await pins.find('host', 'bob'), OTHER);
    assert.deepEqual(await pins.pin('host', 'carol', OTHER), KEY);
  });

  test(`${Pins.name}: a name means another person on another server, and looks do not count`, async () => {
    const pins = new Pins();
    await pins.pin('host', 'bob', KEY);
    await pins.pin('host', '\u00c5sa', KEY);
    assert.equal(await pins.find('host:81', 'bob'), null);
    assert.equal(await pins.find('host', 'Bob'), null);
    assert.equal(await pins.find('host', 'A\u030asa'), null);
  });

  test(`${Pins.name}: of two who pin at once one wins, and both know it`, async () => {
    const pins = new Pins();
    const pinned = await Promise.all([pins.pin('host', 'bob', KEY), pins.pin('host', 'bob', OTHER)]);
    assert.deepEqual(pinned, [KEY, KEY]);
  });

  test(`${Pins.name}: a pin does not change with the array that it came from`, async () => {
    const pins = new Pins();
    const key = KEY.slice();
    await pins.pin('host', 'bob', key);
    key.fill(9);
    assert.deepEqual(await pins.find('host', 'bob'), KEY);
  });
}

test('pins in the browser are shared by all tabs', async () => {
  await new IndexedDBPins().pin('host', 'bob', KEY);
  assert.deepEqual(await new IndexedDBPins().find('host', 'bob'), KEY);
});

test('pins in memory are bounded, and none is dropped for another', async () => {
  const pins = new MemoryPins({ limit: 2 });
  await pins.pin('host', 'a', KEY);
  await pins.pin('host', 'b', KEY);
  await assert.rejects(pins.pin('host', 'c', KEY), { name: 'IdentityError', message: /no more than 2 keys/ });
  assert.deepEqual(await pins.pin('host', 'a', OTHER), KEY);
  await pins.accept('host', 'a', OTHER);
  assert.deepEqual(await pins.find('host', 'a'), OTHER);
  assert.deepEqual(await pins.find('host', 'b'), KEY);
  await pins.accept('host', 'c', KEY); // a person has decided
  assert.deepEqual(await pins.find('host', 'c'), KEY);
});

test('where nothing is kept, pins in the browser are refused', async () => {
  await withGlobal('indexedDB', undefined, async () => {
    const pins = new IndexedDBPins();
    const refused = { name: 'IdentityError' };
    await assert.rejects(pins.find('host', 'bob'), refused);
    await assert.rejects(pins.pin('host', 'bob', KEY), refused);
    await assert.rejects(pins.accept('host', 'bob', KEY), refused);
  });
});
