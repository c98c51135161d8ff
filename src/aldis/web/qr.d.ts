// For the type checker alone, which cannot read the minified file; it is in no package.
export { generate } from 'lean-qr';
export { toSvg } from 'lean-qr/extras/svg';
