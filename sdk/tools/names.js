/**
 * Which names the bundle has to keep: every other property name of the source is shortened in it, which saves some
 * 600 bytes on the wire. Nobody lists them by hand; a name stays as it is when
 *
 * - an application can come across it: it belongs to something that can be reached from the exports of `src/index.js`,
 *   as TypeScript sees their types;
 * - the platform has it: it is a member of something in TypeScript's descriptions of JavaScript and the browser;
 * - it may go over the wire: it is a field of a message in `src/protocol/messages.js`, or stands anywhere in the code of a
 *   module that belongs to the protocol or has to do with JSON;
 * - a text of the source equals it, as `machine[command.type]` would find it by that.
 *
 * What is left are members of classes and objects that only this source knows. `test/names.test.js` compares the bundle
 * with the source.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
// "unstable" is what TypeScript 7 calls its whole programming interface; its version is pinned in package.json.
import { API, SignatureKind, SymbolFlags } from 'typescript/unstable/sync';

/** @import { Symbol as Member, Type } from 'typescript/unstable/sync' */

const root = fileURLToPath(new URL('../', import.meta.url));
const source = `${root}src/`;

// The name of a member or a global in a declaration file: at the beginning of a line, or within one after `{` or `;`.
const MEMBER =
  /(?:^[ \t]*|[{;]\s*)(?:(?:declare|readonly|get|set|var|let|const|function|static) )*([\w$]+)\??(?=[:(<;]| *=)/gm;

/** What looks like `https://` is no comment. @param {string} code */
const withoutComments = (code) => code.replace(/\/\*[\s\S]*?\*\/|(?<!\S)\/\/.*$/gm, '');

/**
 * @param {string} text
 * @param {RegExp} pattern
 */
const captured = (text, pattern) => Array.from(text.matchAll(pattern), (match) => match[1] ?? '');

/** The names that stay as they are, by the reason for that. */
export function keptNames() {
  const api = new API({ cwd: root });
  try {
    const snapshot = api.updateSnapshot({ openProjects: [`${root}tsconfig.types.json`] });
    const [project] = snapshot.getProjects();
    if (!project) throw new Error('tsconfig.types.json is no project');
    const { checker, program } = project;
    /** @param {string} path */
    const exportsOf = (path) => {
      const file = program.getSourceFile(source + path);
      const module = file && checker.getSymbolAtLocation(file);
      if (!module) throw new Error(`${path} is no module`);
      return checker.getExportsOfModule(module);
    };
    const files = program.getSourceFileNames();
    const code = new Map(files.map((path) => [path, withoutComments(readFileSync(path, 'utf8'))]));
    const platform = [...code].filter(([path]) => /\/lib\.[\w.]+\.d\.ts$/.test(path));
    const ours = [...code].filter(([path]) => path.startsWith(source));
    const wire = ours.filter(([path, text]) => path.includes('/protocol/') || /\bJSON\b/.test(text));
    return {
      reachable: reachable(checker, exportsOf('index.js')),
      platform: new Set(platform.flatMap(([, text]) => captured(text, MEMBER))),
      messages: reachable(checker, exportsOf('protocol/messages.js')),
      wire: new Set(wire.flatMap(([, text]) => captured(text, /([A-Za-z_$][\w$]*)/g))),
      texts: new Set(ours.flatMap(([, text]) => captured(text, /['"`]([\w$]+)['"`]/g))),
    };
  } finally {
    api.close();
  }
}

/**
 * The names of all members of all types that can be reached from these exports; those of the platform are not looked
 * into.
 *
 * @param {import('typescript/unstable/sync').Checker} checker
 * @param {readonly Member[]} exported
 */
function reachable(checker, exported) {
  /** @type {Set<string>} */
  const names = new Set();
  const seen = new Set();
  const isOurs = (/** @type {Member | undefined} */ symbol) =>
    !symbol || symbol.declarations.some(({ path }) => path.includes('/src/'));

  /** @param {Type | undefined} type */
  function visit(type) {
    if (!type || seen.has(type.id)) return;
    seen.add(type.id);
    if (type.isUnionType() || type.isIntersectionType()) type.getTypes().forEach(visit);
    type.getAliasTypeArguments().forEach(visit);
    if (!type.isObjectType()) return;
    if (type.isTypeReference()) checker.getTypeArguments(type).forEach(visit);
    if (!isOurs(type.getSymbol())) return;
    for (const member of checker.getPropertiesOfType(type)) {
      if (/^(#|__)/.test(member.name)) continue; // private, or a symbol
      names.add(member.name);
      if (isOurs(member)) visit(checker.getTypeOfSymbol(member));
    }
    for (const kind of [SignatureKind.Call, SignatureKind.Construct]) {
      for (const signature of checker.getSignaturesOfType(type, kind)) {
        signature.getParameters().forEach((parameter) => visit(checker.getTypeOfSymbol(parameter)));
        visit(checker.getReturnTypeOfSignature(signature));
      }
    }
    checker.getIndexInfosOfType(type).forEach(({ valueType }) => visit(valueType));
    if (type.isClassOrInterface()) checker.getBaseTypes(type).forEach(visit);
  }

  for (const symbol of exported) {
    names.add(symbol.name);
    const target = symbol.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    visit(checker.getTypeOfSymbol(target)); // of a value, a class with its statics
    visit(checker.getDeclaredTypeOfSymbol(target)); // of a type, an instance
  }
  return names;
}
