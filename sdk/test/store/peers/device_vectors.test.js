/** The choice of a device against tests/vectors/devices.json, which Python's follows as well. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { choose, gone } from '../../../src/store/peers/choice.js';

const { cases } = JSON.parse(
  await readFile(new URL('../../../../tests/vectors/devices.json', import.meta.url), 'utf8'),
);

for (const { name, heard, listed, connected, current, chosen, gone: left } of cases) {
  test(`which device gets what is sent to a user, as in Python: ${name}`, () => {
    assert.equal(choose(heard, listed, connected, current), chosen);
    const known = [...new Set([...heard, ...(current ? [current] : [])])];
    assert.deepEqual(
      known.filter((device) => gone(device, listed, connected)),
      left,
    );
  });
}
