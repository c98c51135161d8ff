/**
 * A picture of a fingerprint: two people see at a glance whether theirs differ.
 *
 * It is drawn from the same 160 bits as the text: 28 cells of three tones, mirrored, in two hues of 16 steps each.
 * That is about 50 bits, enough against chance and mistakes; against an attacker who searches for a key with a similar
 * picture the text counts. Its colours are the same in dark and light, so that two screens show the same.
 */
import { h, svg } from './dom.js';

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'; // base32, RFC 4648 section 6, in lower case
const SIZE = 7;

/**
 * Text and picture belong together: this one is decoration for the ear.
 *
 * @param {string} fingerprint  such as `k3ul-7q2a-...`
 */
export function picture(fingerprint) {
  const digits = [...fingerprint.replaceAll('-', '')].map((character) => ALPHABET.indexOf(character));
  const [first = 0, second = 0, ...rest] = digits;
  const hue = (first * 360) / ALPHABET.length;
  // At least a quarter of the circle away from the first, so that the two can be told apart.
  const other = (hue + 90 + (second * 180) / ALPHABET.length) % 360;
  const tones = ['none', `hsl(${hue} 70% 40%)`, `hsl(${other} 75% 62%)`];
  const image = svg('svg', {
    class: 'picture',
    viewBox: `-1 -1 ${SIZE + 2} ${SIZE + 2}`,
    'aria-hidden': 'true',
  });
  image.append(
    svg('rect', {
      x: -1,
      y: -1,
      width: SIZE + 2,
      height: SIZE + 2,
      rx: 1.5,
      fill: `hsl(${hue} 45% 93%)`,
    }),
  );
  const half = Math.ceil(SIZE / 2);
  for (let cell = 0; cell < half * SIZE; cell++) {
    const fill = tones[(rest[cell] ?? 0) % tones.length];
    const x = cell % half;
    const y = Math.floor(cell / half);
    for (const column of new Set([x, SIZE - 1 - x])) {
      if (fill !== 'none') image.append(svg('rect', { x: column, y, width: 1.02, height: 1.02, fill }));
    }
  }
  return image;
}

/**
 * A fingerprint as text, in two lines of four groups.
 *
 * @param {string} fingerprint
 */
export function fingerprintText(fingerprint) {
  const middle = Math.ceil(fingerprint.length / 2);
  return h(
    'code',
    { class: 'fingerprint' },
    h('span', {}, fingerprint.slice(0, middle)),
    h('span', {}, fingerprint.slice(middle)),
  );
}

/** The letter of somebody whose key is not known yet. @param {string} name */
export function letter(name) {
  const [first = '?'] = name;
  return h('span', { class: 'picture letter', 'aria-hidden': 'true' }, first.toUpperCase());
}
