/**
 * What is wrong with a name, below the field that it was typed into; and a better one to take instead.
 */

import { fill, h } from '../dom.js';
import { betterName, nameProblem } from '../words.js';

/**
 * @param {HTMLElement} hint
 * @param {HTMLInputElement} input
 * @param {string | null} complaint  null: nothing is wrong
 * @param {string} [usual]  what is said then
 */
export function complain(hint, input, complaint, usual = '') {
  const better = complaint && complaint === nameProblem(input.value.trim()) ? betterName(input.value) : null;
  const take = () => {
    input.value = better ?? '';
    complain(hint, input, null, usual);
    input.focus();
  };
  fill(hint, `${complaint} ${better}`, () => [
    complaint ?? usual,
    better && ' ',
    better && h('button', { type: 'button', class: 'link', onclick: take }, `How about “${better}”?`),
  ]);
  hint.classList.toggle('wrong', complaint !== null);
  if (complaint) input.setAttribute('aria-invalid', 'true');
  else input.removeAttribute('aria-invalid');
}
