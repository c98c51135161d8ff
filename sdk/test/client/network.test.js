/** Another network and a sleep, as a browser tells of them. */
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { watchNetwork } from '../../src/client/network.js';

/** The globals of a page, for one test; returns its three sources of events. */
function page(t) {
  const [window, document, connection] = [new EventTarget(), new EventTarget(), new EventTarget()];
  const globals = {
    addEventListener: window.addEventListener.bind(window),
    removeEventListener: window.removeEventListener.bind(window),
    document,
    navigator: { connection },
  };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  return { window, document, connection };
}

function watched() {
  const told = [];
  return { told, watch: watchNetwork({ changed: () => told.push('changed'), woke: () => told.push('woke') }) };
}

test('a browser tells of another network in two ways, until that is ended', (t) => {
  const { window, connection } = page(t);
  const { told, watch } = watched();
  window.dispatchEvent(new Event('online'));
  connection.dispatchEvent(new Event('change'));
  assert.deepEqual(told, ['changed', 'changed']);
  watch.end();
  window.dispatchEvent(new Event('online'));
  connection.dispatchEvent(new Event('change'));
  assert.equal(told.length, 2);
});

test('a sleep is seen by the clock on the wall, at the next look or when the page is resumed', (t) => {
  const { document } = page(t);
  mock.timers.enable({ apis: ['Date'], now: 1e12 });
  t.after(() => mock.timers.reset());
  const { told, watch } = watched();
  mock.timers.setTime(1e12 + 4000); // busy
  watch.look();
  assert.deepEqual(told, []);
  mock.timers.setTime(1e12 + 60_000);
  watch.look();
  watch.look();
  assert.deepEqual(told, ['woke']);
  mock.timers.setTime(1e12 + 120_000);
  document.dispatchEvent(new Event('resume'));
  assert.deepEqual(told, ['woke', 'woke']);
  watch.end();
});

test('where there is no browser nothing is told, and nothing fails', () => {
  const { told, watch } = watched();
  watch.look();
  watch.end();
  assert.deepEqual(told, []);
});
