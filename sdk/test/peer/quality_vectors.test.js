/** The quality of a path against tests/vectors/quality.json, which was made by the Python one. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Quality } from '../../src/peer/quality.js';
import { measuredOf } from '../../src/store/quality.js';

const { vectors } = JSON.parse(await readFile(new URL('../../../tests/vectors/quality.json', import.meta.url), 'utf8'));

function run(quality, { call, at, token, size }) {
  if (call === 'ping') assert.equal(Number(quality.ping(at)), token);
  else if (call === 'heard') quality.heard(at);
  else if (call === 'pinged') quality.pinged(BigInt(token));
  else if (call === 'ponged') quality.ponged(BigInt(token), at);
  else if (call === 'sent') quality.sent(size, at);
  else if (['suspect', 'doubt', 'answered'].includes(call)) quality[call](at);
  else assert.equal(call, 'look');
}

for (const { name, now, silence, heartbeat, steps } of vectors) {
  test(`as in Python: ${name}`, () => {
    const quality = new Quality(silence, heartbeat);
    quality.heard(now);
    for (const [number, step] of steps.entries()) {
      run(quality, step);
      const told = {
        pingIn: quality.pingIn(step.at),
        silentIn: quality.silentIn(step.at),
        ...measuredOf(quality.pulse, step.at),
      };
      const expected = Object.keys(told).map((name) => [name, step[name]]);
      assert.deepEqual(told, Object.fromEntries(expected), `step ${number}`);
    }
  });
}
