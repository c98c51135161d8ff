import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const sdk = fileURLToPath(new URL('../', import.meta.url));
const index = readFileSync(new URL('../src/index.js', import.meta.url), 'utf8');
const types = Array.from(index.matchAll(/@typedef .*\} (\w+)$/gm), ([, name]) => name);

const PROGRAM = `
import { Identity, NetworkStore, PeerOffline, type DeviceView, type PeerView, type Sendable } from '@aldis/client';
import * as aldis from '@aldis/client';
const store = new NetworkStore({ identity: await Identity.generate() });
void new NetworkStore({ identity: Identity.generate() });
type Types = [TYPES];
const types: Types | null = null;
void types;
const unchangeable: Sendable = { all: ['the', 1] as const } as const;
store.send('bob', unchangeable);
store.onMessage(({ content }) => Array.isArray(content) && content.push(1));
const stop: () => void = store.subscribe(({ peers }) => {
  const view: PeerView | undefined = peers['bob'];
  const seconds: number | null | undefined = view?.roundTripTime;
  void seconds;
  const device: DeviceView | undefined = view?.devices['phone'];
  void device?.online;
});
await store.send('bob', { hello: ['world', 1] });
store.onCall((call) => {
  call.accept();
  // @ts-expect-error how it is done is not shown
  call.begin();
  // @ts-expect-error it ends by end()
  call.state = 'ended';
  // @ts-expect-error it is the other user
  call.userId = 'carol';
});
const transfer = await store.sendFile('bob', new Blob(['text']));
await transfer.finished;
// @ts-expect-error how it is done is not shown
transfer.move();
// @ts-expect-error it ends by cancel()
transfer.state = 'cancelled';
// @ts-expect-error the name is the sender's
transfer.name = 'x';
// @ts-expect-error a sink has a name
transfer.accept(new WritableStream());
await store.send('bob', 'x').catch((error) => error.sequence).finally(() => {});
const { done, delivered } = store.send('bob', 'x');
// @ts-expect-error how it is done is not shown
store.send('bob', 'x').fail();
// @ts-expect-error it is the store that says so
store.send('bob', 'x').done = done || delivered;
// @ts-expect-error the state is there to be read
store.state.signaling = 'connected';
// @ts-expect-error that an offer was handed over has no result
const result: string = await new aldis.SignalingClient('ws://x', 'a').sendOffer('bob', '');
void result;
// @ts-expect-error there is no such option
void new NetworkStore({ acept: () => true });
// @ts-expect-error a message is no function
store.send('bob', () => {});
export { PeerOffline, stop };
`;

test('the package that npm gets has its types, and a strict TypeScript program is checked against them', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'aldis-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const packed = execFileSync('npm', ['pack', '--json', '--silent', '--pack-destination', folder], {
    cwd: sdk,
    encoding: 'utf8',
  });
  const [, name] = /"filename": "([^"]+)"/.exec(packed);
  const home = path.join(folder, 'node_modules/@aldis/client');
  mkdirSync(home, { recursive: true });
  execFileSync('tar', ['-xzf', path.join(folder, name), '--strip-components=1', '-C', home]);
  const all = types.map((name) => `aldis.${name}`).join(', ');
  writeFileSync(path.join(folder, 'program.ts'), PROGRAM.replace('TYPES', all));
  writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }');
  const tsc = path.join(sdk, 'node_modules/.bin/tsc');
  const options = [
    '--noEmit',
    '--strict',
    '--module',
    'nodenext',
    '--target',
    'es2022',
    '--lib',
    'es2022,dom',
    'program.ts',
  ];
  const { status, stdout } = run(tsc, options, folder);
  assert.equal(status, 0, stdout);
});

test('the guide names the types that a program can import', () => {
  const guide = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8');
  assert.ok(types.length > 15);
  assert.deepEqual(
    types.filter((name) => !guide.includes(`\`${name}\``)),
    [],
  );
});

/** Run a command; its faults are a result, and not an exception without a text. */
function run(command, options, cwd) {
  try {
    return { status: 0, stdout: execFileSync(command, options, { cwd, encoding: 'utf8' }) };
  } catch (error) {
    return { status: error.status, stdout: error.stdout };
  }
}
