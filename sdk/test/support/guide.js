/**
 * Makes pages of the examples in docs/browser.md, README.md and sdk/README.md, for a real browser to run:
 *
 *     node guide.js FOLDER URL       URL is that of a server, in place of `url` and http://localhost:8080
 *
 * `guide.html` runs all plain blocks one after the other; `svelte.html`, `react.html`, `vue.html` and `solid.html` show
 * the components;
 * `chat.html` is the page of the SDK's README as it stands, which loads the SDK from the server, and `policy.html` the
 * same with its script in a file of its own; `front.html` is what the project's README shows. In `sources` the guide is
 * also a TypeScript program, `guide.ts`, with a `tsconfig.json` as strict as those of others.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformAsync } from '@babel/core';
import solidPreset from 'babel-preset-solid';
import { build } from 'esbuild';
import { compile } from 'svelte/compiler';
import { compileScript, parse } from 'vue/compiler-sfc';

const sdk = fileURLToPath(new URL('../../', import.meta.url));
const BLOCK = /^```(\w+)(?: file=(\S+))?\n(.*?)^```/gms;

/** The blocks of a document: [language, file or undefined, code]. */
async function blocks(document) {
  const text = await readFile(path.join(sdk, document), 'utf8');
  return [...text.matchAll(BLOCK)].map(([, language, file, code]) => [language, file, code]);
}

/** The first block of HTML in a document, with this server in it. */
async function html(document) {
  const [, , code] = (await blocks(document)).find(([language]) => language === 'html');
  return code.replaceAll('http://localhost:8080', url);
}

const svelte = {
  name: 'svelte',
  setup(build) {
    build.onLoad({ filter: /\.svelte$/ }, async ({ path: filename }) => {
      const { js } = compile(await readFile(filename, 'utf8'), { filename, generate: 'client' });
      return { contents: js.code, loader: 'js' };
    });
  },
};

const vue = {
  name: 'vue',
  setup(build) {
    build.onLoad({ filter: /\.vue$/ }, async ({ path: filename }) => {
      const { descriptor } = parse(await readFile(filename, 'utf8'), { filename });
      const { content } = compileScript(descriptor, { id: path.basename(filename), inlineTemplate: true });
      return { contents: content, loader: 'js' };
    });
  },
};

const solid = {
  name: 'solid',
  setup(build) {
    build.onLoad({ filter: /Solid\w+\.jsx$/ }, async ({ path: filename }) => {
      const options = { filename, presets: [solidPreset], babelrc: false, configFile: false };
      const { code } = await transformAsync(await readFile(filename, 'utf8'), options);
      return { contents: code, loader: 'js' };
    });
  },
};

const ENTRIES = {
  'vue.js': `import { createApp, h } from 'vue';
import People from './People.vue';
import Sending from './Sending.vue';
createApp({ render: () => [h(People), h(Sending)] }).mount(document.body);
`,
  'solid.js': `import { createComponent, render } from 'solid-js/web';
import People from './SolidPeople.jsx';
render(() => createComponent(People, {}), document.body);
`,
  'svelte.js': `import { mount } from 'svelte';
import People from './People.svelte';
mount(People, { target: document.body });
`,
  'react.js': `import { createRoot } from 'react-dom/client';
import { createElement } from 'react';
import People from './People.jsx';
createRoot(document.body.appendChild(document.createElement('main'))).render(createElement(People));
`,
};

const [folder, url] = process.argv.slice(2);
const sources = path.join(folder, 'sources');
await mkdir(sources, { recursive: true });

const guide = await blocks('../docs/browser.md');
const plain = guide.filter(([language, file]) => language === 'js' && file === undefined).map(([, , code]) => code);
const end = 'document.title = "the guide has run";';
const program = [`const url = ${JSON.stringify(url)};`, ...plain, end].join('\n');
const TYPES = {
  compilerOptions: {
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    noUnusedLocals: true, // as in the templates of Vite
    noEmit: true,
    allowJs: true, // the SDK's source has its types in comments
    module: 'esnext',
    moduleResolution: 'bundler',
    target: 'es2022',
    lib: ['es2022', 'dom', 'dom.iterable', 'dom.asynciterable'],
    types: [],
    paths: { '@aldis/client': [path.join(sdk, 'src/index.js')] },
  },
  files: ['guide.ts'],
};
const files = { 'guide.js': program, 'guide.ts': program, 'tsconfig.json': JSON.stringify(TYPES), ...ENTRIES };
for (const [, file, code] of guide) {
  if (file !== undefined) {
    files[file] = code.replaceAll('http://localhost:8080', url);
  }
}
for (const [name, text] of Object.entries(files)) {
  await writeFile(path.join(sources, name), text);
}

const pages = ['guide', 'svelte', 'react', 'vue', 'solid'];
await build({
  entryPoints: pages.map((page) => path.join(sources, `${page}.js`)),
  outdir: folder,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  alias: { '@aldis/client': path.join(sdk, 'src/index.js') },
  nodePaths: [path.join(sdk, 'node_modules')],
  define: {
    'process.env.NODE_ENV': '"production"',
    __VUE_OPTIONS_API__: 'true',
    __VUE_PROD_DEVTOOLS__: 'false',
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'false',
  },
  conditions: ['browser'],
  plugins: [svelte, vue, solid],
  logLevel: 'error',
});
for (const page of pages) {
  const script = `<script type="module" src="${page}.js"></script>`;
  await writeFile(path.join(folder, `${page}.html`), `<!doctype html><meta charset="utf-8"><body>${script}</body>`);
}

const chat = await html('README.md');
const [element, script] = /<script type="module">(.*?)<\/script>/s.exec(chat);
await writeFile(path.join(folder, 'chat.html'), chat);
await writeFile(path.join(folder, 'chat.js'), script);
await writeFile(
  path.join(folder, 'policy.html'),
  chat.replace(element, '<script type="module" src="chat.js"></script>'),
);
await writeFile(path.join(folder, 'front.html'), await html('../README.md'));
