/**
 * A store of the SDK in a process of its own, for tests of Python (`tests/support/sdk_store.py`).
 *
 *     node store_process.js '{"silence": 1}' key.pem
 *
 * Each line of the input is a call, `{"id": 1, "call": "connectToPeer", "args": ["bob", {"timeout": 2}]}`. The lines of
 * the output are `{"id": 1}` or `{"id": 1, "error": {"name", "message"}}` when it is done, and `{"message": {...}}` for
 * each message that arrives.
 */
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

import { Identity } from '../../src/identity/keys.js';
import { NetworkStore } from '../../src/store/store.js';

/** @param {object} line */
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [timing, key] = process.argv.slice(2);
const identity = await Identity.import(await readFile(key, 'utf8'));
// Node has no WebRTC, and nobody uses it here.
const RTCPeerConnection = /** @type {any} */ (class {});
const store = new NetworkStore({ identity, path: 'relay', timing: JSON.parse(timing), RTCPeerConnection });
store.onMessage(({ sender, device, content, sequence }) => say({ message: { sender, device, content, sequence } }));

/** Calls whose arguments are no JSON, and one that is none of the store. */
const calls = {
  acceptKey: (/** @type {string} */ userId, /** @type {string} */ key) =>
    store.acceptKey(userId, new Uint8Array(Buffer.from(key, 'base64'))),
  end: () => store.disconnect().then(() => input.close()),
};

const input = createInterface({ input: process.stdin });
input.on('line', async (line) => {
  const { id, call, args } = JSON.parse(line);
  try {
    await (calls[call] ?? store[call].bind(store))(...args);
    say({ id });
  } catch (error) {
    say({ id, error: { name: error.name, message: error.message } });
  }
});
