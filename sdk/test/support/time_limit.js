/**
 * Each test has a time limit of its own, so that one that hangs is named. (`--test-timeout` is for a whole file, and tells the
 * file alone: one whose tests start thirty servers needs minutes on a busy machine.) Loaded before the tests, with `--import`.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';

const LIMIT = 120_000; // milliseconds

const api = createRequire(import.meta.url)('node:test');

/** @param {(name: string, options: object, run: unknown) => unknown} real */
const limited =
  (real) =>
  (/** @type {unknown[]} */ ...given) => {
    const options = given.find((each) => typeof each === 'object');
    const name = given.find((each) => typeof each === 'string') ?? '';
    return real(name, { timeout: LIMIT, ...options }, given.at(-1));
  };

for (const name of ['test', 'it']) api[name] = Object.assign(limited(api[name]), api[name]);
syncBuiltinESMExports();
