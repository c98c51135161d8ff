// The reference of the browser SDK, as Markdown in build/sdk-reference: from the types that npm gets, with TypeDoc.
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const TYPES = here('../../build/sdk-types');
// What public names take and return, and index.js does not export.
const ALSO = {
  './client/client.js': ['ClientOptions', 'DescriptionOptions'],
  './client/events.js': ['Discovery', 'IceServers', 'Registration'],
  './identity/keys.js': ['KeyPair'],
  './protocol/codec.js': ['Bytes'],
  './protocol/messages.js': ['Candidate'],
};

const run = (command, ...words) => execFileSync(here(command), words, { cwd: here('.'), stdio: 'inherit' });

rmSync(TYPES, { recursive: true, force: true });
run('../../sdk/node_modules/.bin/tsc', '-p', '../../sdk/tsconfig.types.json', '--outDir', TYPES);
// TypeDoc shows an alias of an imported type as an alias, without what the type has; an export brings the type itself.
const index = readFileSync(`${TYPES}/index.d.ts`, 'utf-8');
const exported = index.replace(/export type (\w+) = import\(['"]([^'"]+)['"]\)\.\1;/g, "export type { $1 } from '$2';");
const also = Object.entries(ALSO).map(([path, names]) => `export type { ${names.join(', ')} } from '${path}';\n`);
writeFileSync(`${TYPES}/index.d.ts`, exported + also.join(''));
run('node_modules/.bin/typedoc');
