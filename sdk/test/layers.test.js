/** The layers of docs/architecture.md, held by a test: imports point down only, and the pure parts are pure. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { build } from 'esbuild';

const LAYERS = { errors: 0, proxies: 0, protocol: 1, identity: 2, client: 3, peer: 4, store: 5, index: 6 };
const MAX_LINES = 600;
const PURE = [
  'src/errors.js',
  'src/protocol/',
  'src/client/machine.js',
  'src/client/backoff.js',
  'src/peer/attempts.js',
  'src/peer/negotiation.js',
  'src/store/messages/outbox.js',
  'src/store/messages/inbox.js',
];
const OUTSIDE =
  /\b(WebSocket|RTC\w+|indexedDB|setTimeout|setInterval|performance|Math\.random|crypto|Date|console|window|document|async|await)\b/;

const root = fileURLToPath(new URL('../', import.meta.url));
const { metafile } = await build({
  entryPoints: ['src/index.js'],
  absWorkingDir: root,
  bundle: true,
  write: false,
  metafile: true,
  format: 'esm',
  logLevel: 'error',
});

/** @param {string} path such as src/peer/transport.js */
const layer = (path) => path.split('/')[1].replace('.js', '');

/** Imports that point upwards or between neighbours, as sentences. */
function faults(inputs) {
  const found = [];
  for (const [path, { imports }] of Object.entries(inputs)) {
    for (const { path: other } of imports) {
      const [here, there] = [layer(path), layer(other)];
      if (!(here in LAYERS) || !(there in LAYERS) || (here !== there && LAYERS[here] <= LAYERS[there])) {
        found.push(`${path} imports ${other}`);
      }
    }
  }
  return found;
}

/** What a pure module says that it must not know; comments and texts aside. */
function impurity(source) {
  const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '').replace(/'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g, "''");
  return OUTSIDE.exec(code)?.[0] ?? null;
}

test('the source keeps to its layers, and depends on nothing but itself', () => {
  assert.deepEqual(faults(metafile.inputs), []);
});

test('no file is longer than a reader bears', async () => {
  for (const path of Object.keys(metafile.inputs)) {
    const lines = (await readFile(new URL(path, `file://${root}`), 'utf8')).split('\n').length;
    assert.ok(lines <= MAX_LINES, `${path} has ${lines} lines`);
  }
});

test('the pure parts know no socket, no clock, no randomness and no promise', async () => {
  for (const path of Object.keys(metafile.inputs).filter((each) => PURE.some((start) => each.startsWith(start)))) {
    const source = await readFile(new URL(path, `file://${root}`), 'utf8');
    assert.equal(impurity(source), null, `${path} is not pure`);
  }
});

test('the checker can say no', () => {
  const imports = (other) => ({ 'src/peer/transport.js': { imports: [{ path: other }] } });
  assert.equal(faults(imports('src/store/store.js')).length, 1);
  assert.equal(faults(imports('node_modules/left-pad/index.js')).length, 1);
  assert.equal(faults(imports('src/client/client.js')).length, 0);
  assert.equal(impurity("const t = Date.now(); // 'why'"), 'Date');
  assert.equal(impurity("/* crypto */ throw new Error('WebSocket'); // Date"), null);
});
