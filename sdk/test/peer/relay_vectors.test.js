/** The sealed sessions of `peer/relay` against relay.json, which Python's must follow as well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RelaySessions } from '../../src/peer/relay.js';
import { vectors } from '../support/vectors.js';

/** `"s:01"` is a session, `"f:5"` a frame of five bytes. */
function read(argument) {
  if (typeof argument !== 'string') return argument;
  const [kind, value] = argument.split(':');
  return kind === 's' ? value : new Uint8Array(Number(value));
}

/** The frames of messages by their lengths. */
const shown = (result) =>
  Array.isArray(result)
    ? result.map((each) => ({ ...each, frames: each.frames.map(({ length }) => length) }))
    : (result ?? null);

for (const { name, polite, steps } of vectors('relay').vectors) {
  test(name, () => {
    const sessions = new RelaySessions(polite);
    steps.forEach(({ call, arguments: given, repeat = 1, result, session, answered, room, notBefore }, number) => {
      let came;
      for (let time = 0; time < repeat; time++) came = sessions[call](...given.map(read));
      assert.deepEqual(
        [shown(came), sessions.session, sessions.answered, sessions.room, sessions.notBefore],
        [result, session, answered, room, notBefore],
        `step ${number}: ${call}`,
      );
    });
  });
}
