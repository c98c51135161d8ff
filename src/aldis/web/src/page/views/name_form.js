/**
 * A field for somebody's name, with a button beside it. What is wrong with a name is said below the field.
 */

/** @import { Session } from '../session.js' */
import { h, uniqueId } from '../dom.js';
import { nameProblem } from '../words.js';
import { complain } from './hint.js';

/**
 * @param {Session} session
 * @param {string} label
 * @param {string} button
 * @param {(name: string) => void} take  gets a name that is somebody else's
 */
export function nameForm(session, label, button, take) {
  const id = uniqueId('name');
  const problem = h('p', { id: `${id}-problem`, class: 'field-hint wrong', role: 'alert' });
  const input = h('input', {
    id,
    placeholder: 'Their name',
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: 'false',
    maxlength: 200,
    'aria-describedby': problem.id,
    oninput: () => complain(problem, input, null),
  });
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    const name = input.value.trim();
    const complaint = name === session.name ? 'That is your own name.' : nameProblem(name);
    complain(problem, input, complaint);
    if (complaint) return input.focus();
    input.value = '';
    take(name);
  };
  return h(
    'form',
    { class: 'talk', novalidate: true, onsubmit: submit },
    h('label', { for: id }, label),
    h('div', { class: 'row' }, input, h('button', { type: 'submit' }, button)),
    problem,
  );
}
