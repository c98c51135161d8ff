/** The layers of docs/architecture.md, held by a test: imports point down only, and the pure parts are pure. */
import assert from 'node:assert/strict';
import { access, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { build } from 'esbuild';

const LAYERS = { errors: 0, proxies: 0, protocol: 1, identity: 2, client: 3, peer: 4, store: 5, index: 6 };
const MAX_LINES = 600;
const root = fileURLToPath(new URL('../', import.meta.url));
// One list for both languages; tests/test_layers.py reads it too.
const PURITY = JSON.parse(await readFile(new URL('../../tests/purity.json', import.meta.url), 'utf8'));
const PURE = [...PURITY.both, ...PURITY.javascript];
const EXCEPTIONS = Object.keys(PURITY.exceptions);
const OUTSIDE = new RegExp(`\\b(${PURITY.forbidden.javascript.join('|')})\\b`);

const { metafile } = await build({
  entryPoints: ['src/index.js', 'src/store/messages/snapshots.js', 'src/store/journal/memory.js'], // the last two are for tests
  outdir: 'nowhere',
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

/** @param {string} path such as src/peer/transport.js @param {string[]} names such as protocol/ or peer/quality */
const isAmong = (path, names) =>
  names.some((name) => (name.endsWith('/') ? path.startsWith(`src/${name}`) : path === `src/${name}.js`));

/** What pure modules import that is neither pure nor an exception, as sentences. */
function impureImports(inputs) {
  const pure = Object.entries(inputs).filter(([path]) => isAmong(path, PURE));
  return pure.flatMap(([path, { imports }]) =>
    imports
      .filter((each) => !isAmong(each.path, [...PURE, ...EXCEPTIONS]))
      .map((each) => `${path} imports ${each.path}`),
  );
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

test('the pure parts know no socket, no clock, no randomness and no promise, nor does what they import', async () => {
  for (const path of Object.keys(metafile.inputs).filter((each) => isAmong(each, PURE))) {
    const source = await readFile(new URL(path, `file://${root}`), 'utf8');
    assert.equal(impurity(source), null, `${path} is not pure`);
  }
  assert.deepEqual(impureImports(metafile.inputs), []);
});

test('every pure module is there', async () => {
  for (const name of PURE) await access(new URL(`src/${name}${name.endsWith('/') ? '' : '.js'}`, `file://${root}`));
});

test('the checker can say no', () => {
  const imports = (other) => ({ 'src/peer/transport.js': { imports: [{ path: other }] } });
  assert.equal(faults(imports('src/store/store.js')).length, 1);
  assert.equal(faults(imports('node_modules/left-pad/index.js')).length, 1);
  assert.equal(faults(imports('src/client/client.js')).length, 0);
  assert.equal(impurity("const t = Date.now(); // 'why'"), 'Date');
  const pure = (other) => ({ 'src/client/machine.js': { imports: [{ path: other }] } });
  assert.equal(impureImports(pure('src/client/timers.js')).length, 1);
  assert.equal(impureImports(pure('src/client/phases.js')).length, 0);
  assert.equal(impureImports(pure('src/identity/keys.js')).length, 0);
  assert.equal(impurity("/* crypto */ throw new Error('WebSocket'); // Date"), null);
});
