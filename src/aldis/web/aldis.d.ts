// For the type checker alone, which cannot read the minified file; it is in no package.
export * from '../../../sdk/src/index.js';
