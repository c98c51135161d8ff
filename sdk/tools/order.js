/**
 * Finds the order of the modules in which the bundle of the SDK is smallest, and writes it to `order.json`:
 *
 *     node tools/order.js
 *
 * To be run now and then, when much has changed. It takes a minute, and does the same each time: it moves single modules
 * about, at random with a fixed seed, and keeps what does not make it larger.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { SDK, exportFirst, minified, shortened } from './build.js';

const ROUNDS = 2000;
const root = fileURLToPath(new URL('../', import.meta.url));

const { metafile } = await build({
  ...SDK,
  absWorkingDir: root,
  bundle: true,
  write: false,
  metafile: true,
  logLevel: 'error',
});

// Each module begins with a call that no minifier leaves out or moves: by that the bundle can be cut into pieces.
const marked = await minified(
  {
    ...SDK,
    plugins: [
      {
        name: 'mark',
        setup({ onLoad }) {
          onLoad({ filter: /\/src\/.*\.js$/ }, async ({ path }) => ({
            contents: `module("${path.slice(root.length)}");${await readFile(path, 'utf8')}`,
          }));
        },
      },
    ],
  },
  shortened(),
);
/** @type {Map<string, string>} */
const texts = new Map();
const [, ...parts] = marked.split(/module\("/);
for (const part of parts) {
  const file = part.slice(0, part.indexOf('"'));
  texts.set(file, part.slice(file.length + 2).replace(/^[;,]/, ''));
}

/** @type {Map<string, string[]>} Which modules each module needs before it. */
const before = new Map(
  Object.entries(metafile.inputs).map(([file, { imports }]) => [file, imports.map(({ path }) => path)]),
);
let order = [...texts.keys()];

/** @param {string[]} order */
const isPossible = (order) =>
  order.every((file, index) => (before.get(file) ?? []).every((each) => !order.includes(each, index)));

/** @param {string[]} order */
const size = (order) => gzipSync(exportFirst(order.map((file) => texts.get(file)).join('')), { level: 9 }).length;

let seed = 1;
/** A linear congruential generator: evenly from 0 to 1, the same each time (Numerical Recipes). */
const random = () => (seed = (seed * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;

let best = size(order);
console.log(`${best} bytes`);
for (let round = 0; round < ROUNDS;) {
  const next = [...order];
  const [file] = next.splice(Math.floor(random() * next.length), 1);
  next.splice(Math.floor(random() * (next.length + 1)), 0, /** @type {string} */ (file));
  if (!isPossible(next)) continue;
  round++;
  const bytes = size(next);
  if (bytes <= best) [best, order] = [bytes, next];
}
console.log(`${best} bytes`);
await writeFile(new URL('order.json', import.meta.url), `${JSON.stringify(order, null, 2)}\n`);
