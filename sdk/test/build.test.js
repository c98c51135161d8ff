/** The built files: they are what the source makes, small, and load what belongs to them. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import * as source from '../src/index.js';
import { built, current, gzipped, stale } from '../tools/build.js';

/** Bytes on the wire: what a page needs to send and receive messages, and all of the SDK. */
const MAX_CORE = 34_750;
const MAX_SDK = 40_700;

const files = await built();
const sdk = files.filter(({ name }) => /^(?:aldis|sdk\/.*)\.js$/.test(name));
const sum = (some) => some.reduce((bytes, { text }) => bytes + gzipped(text), 0);

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

test('building again makes the same files', async () => {
  assert.deepEqual(stale(await built(), files), []);
});

test(`what sends and receives messages has at most ${MAX_CORE} bytes, all of the SDK ${MAX_SDK}, gzipped`, (t) => {
  const core = sdk.filter(({ name }) => name === 'aldis.js' || name.startsWith('sdk/core-'));
  assert.equal(core.length, 2);
  t.diagnostic(`${sum(core)} bytes, and ${sum(sdk)}`);
  assert.ok(sum(core) <= MAX_CORE, `${sum(core)} bytes`);
  assert.ok(sum(sdk) <= MAX_SDK, `${sum(sdk)} bytes`);
});

for (const folder of ['assets', 'sdk']) {
  test(`in ${folder} a part that is loaded later imports the one file that is there, and nothing else`, () => {
    const scripts = files.filter(({ name }) => name.startsWith(`${folder}/`) && name.endsWith('.js'));
    const parts = scripts.filter(({ name }) => /\/(?:calls|explain|files)-/.test(name));
    const [main, ...more] = scripts
      .filter((script) => !parts.includes(script))
      .map(({ name }) => path.posix.basename(name));
    assert.deepEqual([parts.length, more], [3, []]);
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
  const { fingerprint, ...classes } = source;
  assert.equal(typeof bundle.fingerprint, typeof fingerprint);
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
