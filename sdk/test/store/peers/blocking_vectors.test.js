/** Who is blocked, against tests/vectors/blocking.json, which Python's module follows as well. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { privacyOf } from '../../../src/protocol/privacy.js';
import { Blocking } from '../../../src/store/peers/blocking.js';

const { cases } = JSON.parse(
  await readFile(new URL('../../../../tests/vectors/blocking.json', import.meta.url), 'utf8'),
);

for (const { name, steps } of cases) {
  test(`who is blocked after each call, as in Python: ${name}`, () => {
    const blocking = new Blocking();
    for (const { call, names, fresh, blocked } of steps) {
      const given =
        call === 'told'
          ? privacyOf({ presence: 'contacts', offers: 'public', contacts: ['bob'], blocked: names })
          : names;
      assert.deepEqual((blocking[call](given) ?? []).sort(), fresh);
      assert.deepEqual(blocking.privacy.blocked, blocked);
      assert.ok(blocked.every((each) => blocking.blocks(each)));
      assert.ok(!blocking.blocks('alice'));
      if (call === 'told') {
        assert.deepEqual([blocking.privacy.presence, blocking.privacy.contacts], ['contacts', ['bob']]);
      }
    }
  });
}
