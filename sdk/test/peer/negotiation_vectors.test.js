/** The machine against tests/vectors/negotiation.json, which was made by the Python one: the two cannot drift apart. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Negotiation } from '../../src/peer/negotiation.js';

const { vectors } = JSON.parse(
  await readFile(new URL('../../../tests/vectors/negotiation.json', import.meta.url), 'utf8'),
);

/** The machines of a vector by name. */
function made({ machines, attemptSeconds, healSeconds }) {
  const entries = Object.entries(machines).map(([who, { local, remote, capabilities, random }]) => {
    const drawn = random.map((hex) => new Uint8Array(Buffer.from(hex, 'hex')));
    return [
      who,
      new Negotiation(local, remote, { capabilities, random: () => drawn.shift(), attemptSeconds, healSeconds }),
    ];
  });
  return Object.fromEntries(entries);
}

for (const vector of vectors) {
  test(`as in Python: ${vector.name}`, () => {
    const machines = made(vector);
    for (const [who, { polite }] of Object.entries(vector.machines)) assert.equal(machines[who].polite, polite);
    for (const { machine: who, call, arguments: given, repeat = 1, ...expected } of vector.steps) {
      for (let time = 0; time < repeat; time++) {
        const machine = machines[who];
        const result = machine[call](...given);
        const { state, outcome } = machine;
        const deadline = machine.deadline === Infinity ? null : machine.deadline; // as JSON says it
        const told = 'result' in expected ? { result } : { commands: result, state, deadline, outcome };
        assert.deepEqual(told, expected, `${who}.${call}`);
      }
    }
  });
}
