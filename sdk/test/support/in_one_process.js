// All tests but that of the package, in one process: `npm run test:fast`. `npm test` takes a process for each file, so that
// no file depends on what another has left behind; starting those costs a third of the time.
import { readdirSync } from 'node:fs';

const root = new URL('..', import.meta.url);
const names = readdirSync(root, { recursive: true, encoding: 'utf-8' });
for (const name of names.filter((each) => each.endsWith('.test.js') && each !== 'package.test.js')) {
  await import(String(new URL(name, root)));
}
