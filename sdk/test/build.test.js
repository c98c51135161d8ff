import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_SDK, built, current } from '../tools/build.js';

const files = await built();

for (const file of files) {
  test(`${file.name} in src/aldis/web is what the source makes (else: make web)`, async () => {
    assert.ok((await current(file.url)) === file.text, `${file.name} is stale: run "make web" and commit it`);
  });
}

test(`the SDK has at most ${MAX_SDK} bytes, gzipped`, (t) => {
  const { gzipped } = files[0];
  t.diagnostic(`${gzipped} bytes`);
  assert.ok(gzipped <= MAX_SDK, `${gzipped} bytes`);
});
