/** Grades and rates against tests/vectors/grades.json, which was made by the Python ones. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { gradeOf, Throughput } from '../../src/store/quality.js';

const { grades, rates } = JSON.parse(
  await readFile(new URL('../../../tests/vectors/grades.json', import.meta.url), 'utf8'),
);

for (const { grade, reason, ...measured } of grades) {
  test(`${grade} is ${JSON.stringify(measured)}`, () => {
    assert.deepEqual(gradeOf(measured), { grade, reason });
  });
}

for (const { name, steps } of rates) {
  test(`as in Python: ${name}`, () => {
    const throughput = new Throughput();
    for (const { now, sent, received, rates: expected } of steps) {
      assert.deepEqual(throughput.measure(now, sent, received), expected);
    }
  });
}
