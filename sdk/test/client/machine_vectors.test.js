/**
 * The machine of `src/client/machine.js` against client.json, which Python's machine must follow as well.
 *
 * Signing takes its time in a browser; here each `sign` is answered at once, so the phase `signing` is never seen.
 */
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { Backoff } from '../../src/client/backoff.js';
import { ClientMachine } from '../../src/client/machine.js';
import { AldisError } from '../../src/errors.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { fromHex } from '../support/vectors.js';

const TEXT = readFileSync(new URL('../../../tests/vectors/client.json', import.meta.url), 'utf8');
const FILE = JSON.parse(TEXT.replace(/<(\d+) x>/g, (_, times) => 'x'.repeat(Number(times))));
// RFC 8410 section 7: what stands before the 32 bytes of an Ed25519 private key in PKCS #8, and of a public one in SPKI.
const PRIVATE = '302e020100300506032b657004220420';
const key = createPrivateKey({ key: fromHex(PRIVATE + FILE.seed), format: 'der', type: 'pkcs8' });
const publicKey = Uint8Array.from(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32));
const IDENTITY = { publicKey };
// What an error says beside its kind and its text.
const FIELDS = ['code', 'temporary', 'retryAfter', 'request', 'seconds', 'limit'];

/** A value as JSON has it: bytes in base64, errors by their kind and what they say. */
function plain(value) {
  if (value instanceof AldisError) {
    const fields = FIELDS.filter((name) => name in value).map((name) => [name, value[name]]);
    return { error: value.name, ...Object.fromEntries(fields) };
  }
  if (value instanceof Uint8Array) return toBase64(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return plain(Object.fromEntries(value));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

/** One machine, and the calls of a script. */
class Player {
  #attached = false;

  constructor({ settings = {}, random = 1, joined = false }) {
    const { device = 'main', backoff = {}, requestTimeout = 10, tokens, sealKeys } = settings;
    const token = tokens ? () => tokens.shift() : (settings.token ?? null);
    this.machine = new ClientMachine(
      {
        host: FILE.host,
        userId: 'alice',
        device,
        token,
        sealKey: () => sealKeys?.shift(),
        backoff: new Backoff(backoff),
        requestTimeout,
      },
      () => random,
    );
    if (joined) FILE.joined.forEach((step) => this.play(step));
  }

  #call(now, name, [first, second]) {
    const { machine } = this;
    switch (name) {
      case 'connected':
        this.#attached = true;
        return machine.connected(now);
      case 'received':
        return machine.received(now, typeof first === 'string' ? first : JSON.stringify(first));
      case 'lost':
        this.#attached = false;
        return machine.lost(now, first, second);
      case 'tick':
      case 'suspect':
      case 'hurry':
        return machine[name](now);
      case 'networkChanged':
        return machine.networkChanged(now, first);
      case 'register':
        return this.#ask(now, { type: 'register' }, IDENTITY);
      case 'ask':
        return this.#ask(now, first);
      case 'end':
        return machine.end(now, null);
    }
    assert.fail(name);
  }

  #ask(now, message, identity) {
    const asker = {};
    asker.number = this.machine.ask(now, message, asker, identity);
  }

  /** An effect as the vectors have it; `ours`: the reason of a `disconnected` is in our own words. */
  #written(effect, now, ours) {
    switch (effect.type) {
      case 'send':
        return { send: JSON.parse(effect.text) };
      case 'sign':
        this.machine.signed(now, effect.message, Uint8Array.from(sign(null, effect.message, key)));
        return null;
      case 'closeTransport':
        // The end of the client closes what there is, if anything.
        return this.#attached ? { [effect.atOnce ? 'cut' : 'close']: effect.code } : null;
      case 'dial':
        return { dial: true };
      case 'sealKeyDue':
        return { sealKeyDue: true };
      case 'completed': {
        const { asker, error, result } = effect;
        return error ? { failed: asker.number, ...plain(error) } : { completed: asker.number, result: plain(result) };
      }
      case 'happened': {
        const { type, ...fields } = plain(effect.event);
        if (type === 'disconnected' && ours) delete fields.reason;
        return { event: type, ...fields };
      }
    }
    return assert.fail(effect.type);
  }

  /** Make the call of a step; what comes of it. */
  play({ at, call, arguments: given }) {
    const { machine } = this;
    // A reason that the other side has given is passed on as it is.
    const ours = !(call === 'lost' && given[1]) || machine.phase === 'closing';
    const told = {};
    try {
      this.#call(at, call, given);
    } catch (error) {
      assert.ok(error instanceof AldisError, error);
      told.raises = plain(error);
    }
    told.effects = [];
    for (let effect; (effect = machine.effects.shift());) {
      const written = this.#written(effect, at, ours);
      if (written) told.effects.push(written);
    }
    const deadline = machine.nextDeadline;
    return { ...told, phase: machine.phase, deadline: deadline === Infinity ? null : deadline };
  }
}

for (const vector of [{ name: 'joined', steps: FILE.joined }, ...FILE.vectors]) {
  test(`every call leads to these effects and this phase: ${vector.name}`, () => {
    const player = new Player(vector);
    vector.steps.forEach(({ repeat = 1, ...step }, number) => {
      const { at, arguments: given, ...expected } = step;
      for (let time = 0; time < repeat; time++) {
        assert.deepEqual({ call: step.call, ...player.play(step) }, expected, `step ${number}: ${step.call}`);
      }
    });
  });
}
