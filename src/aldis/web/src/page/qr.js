/**
 * QR codes, by lean-qr: all of it that the page uses.
 */
export { generate } from 'lean-qr';
export { toSvg } from 'lean-qr/extras/svg';
