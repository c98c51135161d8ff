/** The built files: they are what the source makes, small, and load what belongs to them. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import * as source from '../src/index.js';
import { PARTS } from '../src/store/parts.js';
import { built, current, gzipped, stale } from '../tools/build.js';
import { ICONS } from '../../src/aldis/web/src/page/icons.js';
import { INTERNAL_NAMES } from '../tools/internal_names.js';

/**
 * Bytes on the wire: what a page loads before it can connect, and all of the SDK. Each file is compressed by itself, so a part
 * of its own makes the core smaller, and all of the SDK a little larger.
 */
const MAX_CORE = 30_400;
const MAX_SDK = 75_700;

const files = await built();
const sdk = files.filter(({ name }) => /^(?:aldis|sdk\/.*)\.js$/.test(name));
const sum = (some) => some.reduce((bytes, { text }) => bytes + gzipped(text), 0);

// So building again makes the same files: these are of an earlier build, and package.test.js has them checked by a third.
test('the files in src/aldis/web are what the source makes (else: make web)', async () => {
  assert.deepEqual(stale(files, await current()), []);
});

test('a stale file, a missing one and one that is left over are found', () => {
  const [one, other] = files;
  const there = [{ ...one, text: `${one.text} ` }, ...files.slice(2), { name: 'assets/old.js', text: '' }];
  assert.deepEqual(stale(files, there), [
    `${one.name} is not up to date`,
    `${other.name} is not up to date`,
    'assets/old.js is left over',
  ]);
});

test(`the core has at most ${MAX_CORE} bytes, all of the SDK ${MAX_SDK}, gzipped`, (t) => {
  const core = sdk.filter(({ name }) => name === 'aldis.js' || name.startsWith('sdk/core-'));
  assert.equal(core.length, 2);
  t.diagnostic(`${sum(core)} bytes, and ${sum(sdk)}`);
  assert.ok(sum(core) <= MAX_CORE, `${sum(core)} bytes`);
  assert.ok(sum(sdk) <= MAX_SDK, `${sum(sdk)} bytes`);
});

for (const folder of ['assets', 'sdk']) {
  test(`in ${folder} a part that is loaded later imports the one file that is there, and nothing else`, () => {
    const scripts = files.filter(({ name }) => name.startsWith(`${folder}/`) && name.endsWith('.js'));
    const parts = scripts.filter(({ name }) =>
      /\/(?:calls|direct|explain|files|journal|pem|readings|relay_login)-/.test(name),
    );
    const [main, ...more] = scripts
      .filter((script) => !parts.includes(script))
      .map(({ name }) => path.posix.basename(name));
    assert.deepEqual([parts.length, more], [8, []]);
    const { text = '' } = scripts.find(({ name }) => name.endsWith(`/${main}`)) ?? {};
    const loaded = Array.from(text.matchAll(/import\("\.\/([^"]*)"\.concat\(/g), ([, name]) => `${folder}/${name}`);
    assert.deepEqual(loaded.sort(), parts.map(({ name }) => name).sort());
    for (const { text } of parts) {
      assert.deepEqual(
        Array.from(text.matchAll(/(?:from|import)"([^"]*)"/g), ([, name]) => name),
        [`./${main}`],
      );
    }
  });
}

test('a name that the build makes short is nowhere used as a string, nor in what the browser keeps', async () => {
  const folder = new URL('../src/', import.meta.url);
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.js'));
  const sources = await Promise.all(names.map((name) => readFile(new URL(name, folder), 'utf8')));
  const code = sources.join('').replace(/\/\*[\s\S]*?\*\/|(?<![:'])\/\/.*$/gm, '');
  // `calls` is also what a program can do, by its HELLO; nothing looks for a property of that name by it.
  const used = INTERNAL_NAMES.filter((name) => name !== 'calls' && new RegExp(`['"\`]${name}['"\`]`).test(code));
  assert.deepEqual(used, []);
  const kept = 'content data queuedAt movable userId device last sender stream sequence name verified'.split(' ');
  assert.deepEqual(
    INTERNAL_NAMES.filter((name) => kept.includes(name)),
    [],
  );
});

test('no part that is loaded later exports a name that the build makes short: exports keep theirs', async () => {
  const modules = await Promise.all(Object.values(PARTS).map((part) => part.load()));
  assert.deepEqual(
    modules.flatMap((module) => Object.keys(module)).filter((name) => INTERNAL_NAMES.includes(name)),
    [],
  );
});

test('no icon of the page has a name that the build makes short: they are looked up by it', () => {
  assert.deepEqual(
    Object.keys(ICONS).filter((name) => INTERNAL_NAMES.includes(name)),
    [],
  );
});

test('a name that the build makes short is no property of the platform', async () => {
  // The package with TypeScript's declarations is one for each platform.
  const packages = new URL('../node_modules/@typescript/', import.meta.url);
  const [native] = await readdir(packages);
  const folder = new URL(`${native}/lib/`, packages);
  const names = (await readdir(folder)).filter((name) => /^lib\..*\.d\.ts$/.test(name));
  const declared = (await Promise.all(names.map((name) => readFile(new URL(name, folder), 'utf8')))).join('\n');
  assert.match(declared, /^\s+readonly hidden: boolean;/m);
  const isDeclared = (name) => new RegExp(`^\\s+(?:readonly |static |get |set )*${name}\\??[(:<]`, 'm').test(declared);
  assert.deepEqual(INTERNAL_NAMES.filter(isDeclared), []);
});

/** The members of a class, its own and those of its instances; private ones have no names. */
const members = (type) => [Object.getOwnPropertyNames(type), Object.getOwnPropertyNames(type.prototype)].flat().sort();

/** The built SDK, or some of its files, in a folder of its own. */
async function install(t, some = sdk) {
  const folder = await mkdtemp(path.join(tmpdir(), 'aldis-'));
  t.after(() => rm(folder, { recursive: true }));
  await mkdir(path.join(folder, 'sdk'));
  await writeFile(path.join(folder, 'package.json'), '{ "type": "module" }');
  for (const { name, text } of some) await writeFile(path.join(folder, name), text);
  return { folder, bundle: await import(pathToFileURL(path.join(folder, 'aldis.js')).href) };
}

test('the built SDK exports what the source does, and loads its parts from beside it', async (t) => {
  const { folder, bundle } = await install(t);
  assert.deepEqual(Object.keys(bundle).sort(), Object.keys(source).sort());
  const { fingerprint, openJournal, ...classes } = source;
  assert.deepEqual(
    [bundle.fingerprint, bundle.openJournal].map((each) => typeof each),
    ['function', 'function'],
  );
  assert.deepEqual(
    [fingerprint, openJournal].map((each) => typeof each),
    ['function', 'function'],
  );
  for (const [name, type] of Object.entries(classes)) assert.deepEqual(members(bundle[name]), members(type), name);
  for (const { name } of sdk) await import(pathToFileURL(path.join(folder, name)).href);
});

test('a server that is away is told without the part that looks for reasons, when that is away as well', async (t) => {
  const { bundle } = await install(
    t,
    sdk.filter(({ name }) => !name.startsWith('sdk/explain-')),
  );
  const store = new bundle.NetworkStore();
  const url = 'ws://127.0.0.1:1';
  await assert.rejects(store.connectToSignaling(url, 'alice'), (error) => error instanceof bundle.ServerUnreachable);
});
