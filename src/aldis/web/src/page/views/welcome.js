/**
 * The first thing that somebody sees: what this is, a name, and a button. Also where an invitation and a refusal are shown.
 */

/** @import { Child } from '../dom.js' */
/** @import { Invitation } from '../invitation.js' */
import { fill, h, icon, nameTag, setText, uniqueId } from '../dom.js';
import { fingerprintText, picture } from '../picture.js';
import { explain, nameProblem } from '../words.js';
import { complain } from './hint.js';

// Its name has a hash in it, which index.html knows.
const ICON = /** @type {HTMLLinkElement} */ (document.querySelector('link[rel="icon"]')).href;

const USUAL = 'Others find you by this name. It stays yours as long as you use this browser.';

/** @typedef {{ name: string, invitation: Invitation | null, error: unknown, busy: boolean, blocked: boolean, returning: boolean }} WelcomeState */

/**
 * @param {(name: string) => void} start
 * @returns {{ element: HTMLElement, render: (state: WelcomeState) => void, focus: () => void }}
 */
export function welcome(start) {
  const id = uniqueId('name');
  const lead = h('div', { class: 'lead' });
  const hint = h('p', { id: `${id}-hint`, class: 'field-hint' });
  const input = h('input', {
    id,
    name: 'name',
    required: true,
    maxlength: 200,
    autocomplete: 'nickname',
    autocapitalize: 'none',
    spellcheck: 'false',
    'aria-describedby': hint.id,
    oninput: () => complain(hint, input, null, USUAL),
  });
  const button = h('button', { type: 'submit', class: 'primary large' }, 'Start');
  const problem = h('div', { role: 'alert' });
  const form = h(
    'form',
    { novalidate: true, onsubmit: submit },
    h('label', { for: id }, 'Your name'),
    input,
    hint,
    button,
  );
  const element = h('section', { class: 'welcome', 'aria-label': 'Welcome' }, lead, problem, form);

  /** @param {SubmitEvent} event */
  function submit(event) {
    event.preventDefault();
    const name = input.value.trim();
    const complaint = nameProblem(name);
    complain(hint, input, complaint, USUAL);
    if (complaint) input.focus();
    else start(name);
  }
  complain(hint, input, null, USUAL);

  return {
    element,
    focus: () => input.select(),
    render({ name, invitation, error, busy, blocked, returning }) {
      element.classList.toggle('returning', returning);
      if (!input.value) input.value = name;
      fill(lead, invitation, () => (invitation ? invited(invitation) : greeting()));
      fill(problem, error, () => [error ? problemCard(error) : null]);
      form.hidden = blocked;
      button.disabled = busy;
      setText(button, busy ? 'Connecting…' : 'Start');
    },
  };
}

/** @returns {Child[]} */
function greeting() {
  return [
    h('img', { src: ICON, alt: '', width: 72, height: 72 }),
    h('h2', {}, 'Talk directly.'),
    h(
      'p',
      {},
      'Messages, files and video calls go straight from your browser to theirs. The server only introduces you.',
    ),
  ];
}

/** @param {Invitation} invitation @returns {Child[]} */
function invited({ name, fingerprint }) {
  return [
    h('h2', {}, nameTag(name), ' invites you'),
    h('p', {}, 'to talk directly, from your browser to theirs: messages, files and video calls.'),
    h(
      'div',
      { class: 'key' },
      picture(fingerprint),
      h('div', {}, h('p', {}, 'The key of ', nameTag(name)), fingerprintText(fingerprint)),
    ),
  ];
}

/** @param {unknown} error */
function problemCard(error) {
  const { title, text } = explain(error);
  return h('div', { class: 'notice bad' }, icon('warning'), h('div', {}, h('strong', {}, title), h('p', {}, text)));
}
