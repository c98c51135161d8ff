/**
 * Builds what the server serves and what npm gets, from `src/`:
 *
 *     node tools/build.js            write the files, tell their sizes
 *     node tools/build.js --check    write nothing; exit with 1 when a file is not what this source makes
 *
 * The page of `aldis serve` is not built: it is served as it is written, in `src/aldis/web/`. Beside it go the SDK in one
 * minified file, `aldis.js`, and `qr.js`, the part of lean-qr that the page uses; both are committed, so that the wheel
 * is made without Node.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { minify } from 'terser';
import { keptNames } from './names.js';

/**
 * What the whole SDK may weigh on the wire, gzipped, in bytes. 25,000 is the aim, and what is there is more: settings that
 * are looked at, and what closing, refusing and failing cost where others mean harm. This keeps it from growing.
 */
export const MAX_SDK = 35_000;

const here = new URL('../', import.meta.url);
const web = new URL('../src/aldis/web/', here);

// gzip finds what is alike when it is near: the modules go into the bundle in the order in which it is smallest, as far
// as their imports allow. `tools/order.js` finds the order. A module that it does not know comes before the first that
// imports it; so that order is never wrong, at worst it is not the best.
const order = /** @type {string[]} */ (await json('tools/order.json'));

/** @type {import('esbuild').BuildOptions} */
export const SDK = {
  stdin: {
    contents: [...order.map((path) => `import './${path}';`), "export * from './src/index.js';"].join('\n'),
    resolveDir: fileURLToPath(here),
  },
};

/**
 * The built files, in memory.
 *
 * @returns {Promise<{ url: URL, name: string, text: string, gzipped: number }[]>}
 */
export async function built() {
  const { version } = await json('package.json');
  const qr = await json('node_modules/lean-qr/package.json');
  const license = await readFile(new URL('node_modules/lean-qr/LICENSE', here), 'utf8');
  return [
    await bundle('aldis.js', SDK, `/*! @aldis/client ${version}, Apache-2.0; made by "make web" */`, shortened()),
    await bundle(
      'qr.js',
      {
        stdin: {
          contents: "export { generate } from 'lean-qr'; export { toSvg } from 'lean-qr/extras/svg';",
          resolveDir: fileURLToPath(here),
        },
      },
      `/*! lean-qr ${qr.version}, QR codes; the part that the page uses, made by "make web".\n\n${license.trim()}\n*/`,
    ),
  ];
}

/**
 * What terser is to do with the SDK.
 *
 * @returns {import('terser').MinifyOptions}
 */
export function shortened() {
  const kept = new Set(Object.values(keptNames()).flatMap((names) => [...names]));
  return {
    // No getter of ours does anything but tell; and gzip likes functions that are called better than copies of them.
    compress: { passes: 3, pure_getters: true, inline: 1 },
    mangle: { properties: { reserved: [...kept], keep_quoted: 'strict', builtins: true } },
  };
}

/**
 * A module with its export at its beginning, where it may stand as well. At the end its names would be too far from the
 * same ones of the errors for gzip to see them.
 *
 * @param {string} code
 */
export const exportFirst = (code) => code.replace(/(.*)(export\{[^}]*\});$/s, '$2;$1');

/**
 * @param {string} name
 * @param {import('esbuild').BuildOptions} entry
 * @param {string} banner
 * @param {import('terser').MinifyOptions} [options]
 */
async function bundle(name, entry, banner, options) {
  const code = await minified(entry, options);
  const text = `${banner}\n${options ? exportFirst(code) : code}\n`;
  return { url: new URL(name, web), name, text, gzipped: gzipSync(text, { level: 9 }).length };
}

/**
 * One minified file of modules.
 *
 * @param {import('esbuild').BuildOptions} entry
 * @param {import('terser').MinifyOptions} [options]
 */
export async function minified(entry, options) {
  const result = await build({
    legalComments: 'none',
    ...entry,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    write: false,
    logLevel: 'error',
  });
  const [output] = /** @type {[import('esbuild').OutputFile]} */ (result.outputFiles);
  // After esbuild's own minifier another one, which finds 3 % more.
  const { code = '' } = await minify(output.text, { module: true, ecma: 2020, compress: { passes: 3 }, ...options });
  return code;
}

/** @param {string} path */
async function json(path) {
  return JSON.parse(await readFile(new URL(path, here), 'utf8'));
}

/** @param {URL} url */
export async function current(url) {
  try {
    return await readFile(url, 'utf8');
  } catch {
    return null;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const check = process.argv.includes('--check');
  for (const file of await built()) {
    const stale = (await current(file.url)) !== file.text;
    if (!check && stale) {
      await writeFile(file.url, file.text);
    }
    const state = !stale ? 'up to date' : check ? 'STALE: run "make web"' : 'written';
    console.log(`${file.name.padEnd(10)}${file.text.length} bytes, ${file.gzipped} gzipped  ${state}`);
    if ((check && stale) || (file.name === 'aldis.js' && file.gzipped > MAX_SDK)) {
      process.exitCode = 1;
    }
  }
}
