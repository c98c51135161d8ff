/** The arithmetic of files against tests/vectors/window.json, which Python's must follow as well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { MAX_PIECE } from '../../../src/store/messages/control.js';
import {
  AT_ONCE,
  CONFIRM,
  ReceiveWindow,
  MAX_OPEN,
  SendWindow,
  share,
  WINDOW,
} from '../../../src/store/files/window.js';
import { vectors } from '../../support/vectors.js';

const all = vectors('window');

test('the numbers that both sides count on', () => {
  assert.deepEqual(
    [WINDOW, CONFIRM, AT_ONCE, MAX_OPEN, MAX_PIECE],
    [all.window, all.confirm, all.at_once, all.max_open, all.piece],
  );
});

test('files that run share the window', () => {
  for (const [position, running, bytes] of all.share) assert.equal(share(position, running), bytes);
});

/** What `act` returns, or `violates`, as the step says. */
function follows({ violates, ...step }, act, expected) {
  if (violates) assert.throws(act, ProtocolViolation, JSON.stringify(step));
  else assert.equal(act(), expected, JSON.stringify(step));
}

for (const { name, size, start, steps } of all.outgoing) {
  test(`a file that is sent: ${name}`, () => {
    const file = new SendWindow(size, start);
    for (const step of steps) {
      if ('room' in step) follows(step, () => file.room(step.room), step.is);
      else if ('sent' in step) file.sent += step.sent;
      else follows(step, () => file.received(step.received), step.whole);
    }
  });
}

for (const { name, size, start, steps } of all.incoming) {
  test(`a file that is received: ${name}`, () => {
    const file = new ReceiveWindow(size, start);
    for (const step of steps) {
      if ('arrive' in step) {
        follows(step, () => file.arrive(...step.arrive), !step.skipped);
        assert.equal(file.restarted, step.restarted ?? false);
        file.restarted = false;
      } else if ('ends' in step) file.ends(step.ends);
      else follows(step, () => file.wrote(step.wrote), step.confirm);
    }
  });
}
