/**
 * Builds what the server serves and what npm gets:
 *
 *     node tools/build.js            write the files, print their sizes
 *     node tools/build.js --check    write nothing; exit with 1 when a file is not what this source makes
 *
 * From the SDK (`src/`) and the page (`src/aldis/web/src/page/`) it makes, in `src/aldis/web/`:
 *
 *     index.html        the page; it names what is in `assets/`
 *     assets/*          its script, its style sheet, its icon, and the parts that it loads later
 *     aldis.js          the SDK for other pages: a short module that exports what is in `sdk/`
 *     sdk/*             the SDK: its core, and the parts that it loads later
 *
 * Names in `assets/` and `sdk/` contain a hash of the content, so browsers keep these files for good. Each has a source map
 * that leads to the readable sources, which the server serves under `/src/`.
 *
 * The built files are committed: the server and its wheel need no Node. `test/build.test.js` fails when they are stale.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { minify } from 'terser';
import { nameCache, properties } from './internal_names.js';

const root = fileURLToPath(new URL('../', import.meta.url));
/** The folder that the server serves. */
export const WEB = path.resolve(root, '../src/aldis/web');
const SDK = path.join(WEB, 'src/sdk/index.js');
const PAGE = path.join(WEB, 'src/page/main.js');
const LOOK = path.join(WEB, 'src/page/look/look.css');
const ICON = path.join(WEB, 'src/page/icon.svg');
const INDEX = path.join(WEB, 'src/page/index.html');
/** Stands for the hash until the content is known. It is as long, so that source maps stay right. */
const HASH = 'XXXXXXXX';
/**
 * A module that is loaded when it is first used. The name of its folder, or its own, becomes that of the built file. A
 * function `(_again) => import(…)` can load it again under another URL.
 */
const LATER = /(?:\((_again)\) => |(?<=await ))import\('(\.[^']*?([\w-]+)(?:\/service)?\.js)'\)/g;

/**
 * A built file: its path below `WEB`, with `/`.
 *
 * @typedef {{ name: string, text: string }} Built
 */

/** All files, sorted by name. @returns {Promise<Built[]>} */
export async function built() {
  return [...(await sdk()), ...(await page())].sort(byName);
}

/**
 * The SDK. `aldis.js` keeps its name, so browsers ask for it at each visit. Therefore it is short, and only exports what a
 * module with a hash in its name does. The parts that are loaded later import that module, too. So a page has one copy of
 * the core, however it names `aldis.js`.
 */
async function sdk() {
  const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
  const files = hashed(await bundle('sdk', 'core', SDK));
  const { name } = files.find((file) => file.name.startsWith('sdk/core-')) ?? {};
  return [
    { name: 'aldis.js', text: `/*! @aldis/client ${version}, Apache-2.0 */\nexport*from"./${name}";\n` },
    ...files,
  ];
}

/** The page. */
async function page() {
  const loader = /** @type {const} */ ({ '.svg': 'copy' });
  const others = await compile({ entryPoints: [LOOK, ICON], entryNames: `assets/[name]-${HASH}`, loader });
  const files = hashed([...(await bundle('assets', 'page', PAGE)), ...others]);
  const index = await readFile(INDEX, 'utf8');
  const text = index.replace(/(?<= (?:href|src)=")[^":]+(?=")/g, (source) => {
    const { name, ext } = path.parse(source === 'main.js' ? 'page.js' : source);
    const found = files.find((file) => file.name.startsWith(`assets/${name}-`) && file.name.endsWith(ext));
    if (!found) throw new Error(`index.html names ${source}, which is not built`);
    return found.name;
  });
  return [{ name: 'index.html', text }, ...files];
}

/**
 * Bundle a module into one file, `FOLDER/NAME-HASH.js`, and each module that is loaded later (`LATER`) into another one.
 *
 * These are entry points, and esbuild puts what several entry points reach into chunks of their own. So that there is one
 * such chunk and no more, each of them reaches the whole main module, which has been loaded before.
 *
 * @param {string} folder
 * @param {string} name
 * @param {string} main
 * @returns {Promise<Built[]>}
 */
async function bundle(folder, name, main) {
  /** @type {Map<string, string>} */
  const later = new Map();
  const find = loading(later);
  await compile({ entryPoints: [main], entryNames: 'all', plugins: [find] });
  const files = await compile({
    entryPoints: [
      { in: main, out: `${folder}/entry` },
      ...Array.from(later, ([name, module]) => ({ in: `later:${module}`, out: `${folder}/${name}-${HASH}` })),
    ],
    splitting: true,
    chunkNames: `${folder}/${name}-${HASH}`,
    minifyWhitespace: false, // Terser does it
    plugins: [find, reaching(main)],
  });
  const scripts = files.filter((file) => file.name.endsWith('.js'));
  if (scripts.length !== later.size + 2)
    throw new Error(`not one file of shared code: ${scripts.map((file) => file.name)}`);
  const entry = `${folder}/entry.js`;
  const names = publicNames(scripts.find((file) => file.name === entry)?.text ?? '');
  const parts = scripts.filter((file) => file.name !== entry);
  const made = parts.map(({ name: part, text }) => {
    const renamed = part === `${folder}/${name}-${HASH}.js` ? exporting(text, names) : importing(text, names);
    return smaller({ name: part, text: renamed }, mapOf(part, files));
  });
  return (await Promise.all(made)).flat();
}

/** @param {string} name @param {Built[]} files */
const mapOf = (name, files) => files.find((file) => file.name === `${name}.map`)?.text ?? '';

/**
 * What stands between the braces of an import or export.
 *
 * @param {string} list
 * @returns {[from: string, to: string][]}
 */
const pairs = (list) =>
  Array.from(list.matchAll(/([\w$]+)(?: as ([\w$]+))?/g), ([, from = '', to = from]) => [from, to]);

/**
 * What the main module exports: the names, by those that esbuild has given to them.
 *
 * @param {string} entry What esbuild has made of it: an import from the shared code, and an export.
 */
function publicNames(entry) {
  const [, imports = '', exports = ''] = /^import \{(.*?)\} from .*?^export \{(.*?)\};/ms.exec(entry) ?? [];
  const given = new Map(pairs(imports).map(([short, local]) => [local, short]));
  return new Map(pairs(exports).map(([local, name]) => [given.get(local) ?? '', name]));
}

/**
 * The shared code exports by short names what the other files need. Have it export what is public by its name, so that
 * `aldis.js` need only say `export *`; and the rest in one object, as the default, which `export *` passes over. What is
 * public comes first in the file, where the names of the errors are: gzip looks back no further than 32 KiB.
 *
 * @param {string} text It keeps its lines, for the source map.
 * @param {Map<string, string>} names
 */
function exporting(text, names) {
  let first = '';
  const rest = text.replace(/^export \{([^}]*)\};/m, (whole, list) => {
    const [known, others] = parted(list, ([, short]) => names.has(short));
    first = `export { ${known.map(([local, short]) => `${local} as ${names.get(short)}`)} }; `;
    return `export default { ${others.map(([local, short]) => `${short}: ${local}`)} };${linesOf(whole)}`;
  });
  return first + rest;
}

/** The same for what imports from it. @param {string} text @param {Map<string, string>} names */
const importing = (text, names) =>
  text.replace(/^import \{([^}]*)\}(.*)/m, (whole, list, from) => {
    const [known, others] = parted(list, ([short]) => names.has(short));
    const given = known.map(([short, local]) => `${names.get(short)} as ${local}`);
    return `import core, { ${given} }${from} const { ${others.map((pair) => pair.join(': '))} } = core;${linesOf(whole)}`;
  });

/** @param {string} list @param {(pair: [string, string]) => boolean} test */
function parted(list, test) {
  const all = pairs(list);
  return /** @type {const} */ ([all.filter(test), all.filter((pair) => !test(pair))]);
}

/** As many empty lines. @param {string} text */
const linesOf = (text) => text.replace(/.*/g, '');

/**
 * Turn dynamic imports into those of the built files, and collect the modules. What `_again` holds becomes a part of the
 * URL: Firefox does not ask a second time for a module that it did not get.
 *
 * @param {Map<string, string>} later
 * @returns {import('esbuild').Plugin}
 */
const loading = (later) => ({
  name: 'loading',
  setup({ onLoad }) {
    onLoad({ filter: /\.js$/, namespace: 'file' }, async ({ path: file }) => {
      const source = await readFile(file, 'utf8');
      const contents = source.replace(LATER, (_, again, module, name) => {
        later.set(name, path.join(path.dirname(file), module));
        const url = `'./${name}-${HASH}.js'.concat(${again ?? "''"})`; // with `+`, esbuild would look for the file
        return `${again ? `(${again}) => ` : ''}import(${url})`;
      });
      return { contents };
    });
  },
});

/**
 * The entry points of modules that are loaded later.
 *
 * @param {string} main
 * @returns {import('esbuild').Plugin}
 */
const reaching = (main) => ({
  name: 'reaching',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^later:/ }, ({ path: name }) => ({
      path: path.relative(root, name.slice('later:'.length)),
      namespace: 'later',
    }));
    onLoad({ filter: /./, namespace: 'later' }, ({ path: name }) => ({
      contents: `import ${JSON.stringify(main)}; export * from ${JSON.stringify(path.join(root, name))};`,
      resolveDir: root,
    }));
  },
});

/**
 * @param {import('esbuild').BuildOptions} options
 * @returns {Promise<Built[]>}
 */
async function compile(options) {
  const { outputFiles } = await build({
    bundle: true,
    minifyIdentifiers: true,
    minifySyntax: true,
    minifyWhitespace: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    legalComments: 'inline',
    sourcemap: 'linked',
    sourcesContent: false,
    preserveSymlinks: true,
    absWorkingDir: root,
    nodePaths: [path.join(root, 'node_modules')],
    outdir: WEB,
    write: false,
    logLevel: 'error',
    ...options,
  });
  const files = outputFiles ?? [];
  return files.map((file) => ({ name: path.relative(WEB, file.path).replaceAll(path.sep, '/'), text: file.text }));
}

/**
 * A script as Terser makes it from that of esbuild, and its source map. Compressed it is 3 % smaller: Terser puts constants in
 * their places, and reuses short names more.
 *
 * @param {Built} file
 * @param {string} map
 * @returns {Promise<Built[]>}
 */
async function smaller({ name, text }, map) {
  const sourceMap = { content: map, url: path.posix.basename(`${name}.map`) };
  const compress = { passes: 3, pure_getters: true, inline: 1, sequences: false, lhs_constants: false };
  const options = { module: true, ecma: /** @type {const} */ (2020), compress, sourceMap };
  const made = await minify(text, { ...options, mangle: { properties }, nameCache: nameCache() });
  return [
    { name, text: `${made.code}\n` },
    { name: `${name}.map`, text: String(made.map) },
  ];
}

/**
 * Name the files of one folder by their content. All get the same hash: they name each other.
 *
 * @param {Built[]} files
 */
function hashed(files) {
  const digest = createHash('sha256');
  for (const { name, text } of [...files].sort(byName)) digest.update(`${name}\0${text}\0`);
  const hash = digest.digest('hex').slice(0, HASH.length);
  return files.map(({ name, text }) => ({ name: name.replace(HASH, hash), text: text.replaceAll(HASH, hash) }));
}

/** @param {Built} one @param {Built} other */
const byName = (one, other) => (one.name < other.name ? -1 : 1);

/** The files that are there, sorted by name. @returns {Promise<Built[]>} */
export async function current() {
  const names = (await readdir(WEB, { recursive: true })).map((name) => name.replaceAll(path.sep, '/'));
  const files = names.filter((name) => /^[^/]+\.|^(?:assets|sdk)\//.test(name)).sort();
  return Promise.all(files.map(async (name) => ({ name, text: await readFile(path.join(WEB, name), 'utf8') })));
}

/**
 * What differs, as sentences.
 *
 * @param {Built[]} files
 * @param {Built[]} there
 */
export function stale(files, there) {
  const before = new Map(there.map(({ name, text }) => [name, text]));
  const after = new Set(files.map(({ name }) => name));
  return [
    ...files.filter(({ name, text }) => before.get(name) !== text).map(({ name }) => `${name} is not up to date`),
    ...there.filter(({ name }) => !after.has(name)).map(({ name }) => `${name} is left over`),
  ];
}

/** Bytes on the wire. @param {string} text */
export const gzipped = (text) => gzipSync(text, { level: 9 }).length;

async function main() {
  const files = await built();
  const there = await current();
  if (process.argv.includes('--check')) {
    for (const problem of stale(files, there)) {
      console.error(`${problem}: run "make web"`);
      process.exitCode = 1;
    }
    return;
  }
  for (const { name } of there) await rm(path.join(WEB, name));
  for (const { name, text } of files) {
    await mkdir(path.dirname(path.join(WEB, name)), { recursive: true });
    await writeFile(path.join(WEB, name), text);
    if (!name.endsWith('.map')) console.log(`${name.padEnd(28)}${text.length} bytes, ${gzipped(text)} gzipped`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
