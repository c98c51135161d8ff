/**
 * Programs that are killed at any point, on both sides: what was accepted arrives once and in order. As
 * tests/store/journal/test_crash_model.py; `ALDIS_CRASH_WORLDS=5000` plays more.
 */
import { test } from 'node:test';
import { World } from '../../support/crash_world.js';

const WORLDS = Number(process.env.ALDIS_CRASH_WORLDS ?? 160);
const STEPS = 60;

for (let part = 0; part < 4; part++) {
  test(`programs that are killed, ended, put back and cut off (${part})`, async () => {
    for (let seed = part; seed < WORLDS; seed += 4) {
      const world = new World(seed);
      try {
        await world.play(STEPS);
      } catch (error) {
        error.message += ` (seed ${seed}: ${world.log.join(' ')})`;
        throw error;
      }
    }
  });
}
