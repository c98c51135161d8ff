/**
 * Who may see and call us, our contacts, and who is blocked: a dialog, as all of it holds for all devices of ours.
 */

/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { h, iconButton, listIn, nameTag, setText, uniqueId } from '../dom.js';
import { explainShort } from '../words.js';
import { nameForm } from './name_form.js';

/** @typedef {'public' | 'contacts' | 'hidden'} Choice */

/** @type {[Choice, string, string][]} */
const CHOICES = [
  ['public', 'Everybody', 'Whoever knows your name.'],
  ['contacts', 'Only your contacts', 'To others you are offline.'],
  ['hidden', 'Nobody', 'You are offline to all. Whomever you write to or call can still answer.'],
];

/**
 * @param {Session} session
 * @returns {View & { element: HTMLDialogElement, open: () => void }}
 */
export function privacyDialog(session) {
  const title = uniqueId('title');
  const radios = CHOICES.map(([choice, label, text]) => radio(session, choice, label, text));
  const mixed = h(
    'p',
    { class: 'fine' },
    'Another program has chosen differently for being seen and for being called.',
  );
  const problem = h('p', { class: 'field-hint wrong', role: 'alert' });
  const contacts = names('Your contacts', 'You have no contacts yet.', 'Remove', 'from your contacts', (name) =>
    session.changeContacts({ remove: name }),
  );
  const blocked = names(
    'Blocked',
    'Nobody is blocked. “Block…” is beside each conversation, below the connection.',
    'Unblock',
    '',
    (name) => session.unblock(name),
  );
  const element = h(
    'dialog',
    { class: 'privacy', 'aria-labelledby': title },
    h(
      'div',
      { class: 'dialog-head' },
      h('h2', { id: title }, 'Privacy'),
      iconButton('Close', 'close', () => element.close()),
    ),
    h('p', { class: 'fine' }, 'What you choose here holds on all your devices.'),
    h(
      'fieldset',
      {},
      h('legend', {}, 'Who may see that you are online, and call you?'),
      ...radios.map((each) => each.element),
    ),
    mixed,
    problem,
    contacts.element,
    nameForm(session, 'Add a contact', 'Add', (name) => void session.changeContacts({ add: name })),
    blocked.element,
  );
  element.addEventListener('click', (event) => event.target === element && element.close());
  const view = {
    element,
    open() {
      session.privacyProblem = null;
      view.render();
      element.showModal();
    },
    render() {
      const { presence, offers } = session.privacy;
      radios.forEach((each) => each.render());
      mixed.hidden = presence === offers;
      setText(problem, session.privacyProblem ? explainShort(session.privacyProblem) : '');
      contacts.render(session.privacy.contacts);
      blocked.render(session.privacy.blocked);
    },
  };
  return view;
}

/** @param {Session} session @param {Choice} choice @param {string} label @param {string} text @returns {View} */
function radio(session, choice, label, text) {
  const id = uniqueId('visibility');
  const input = h('input', { id, type: 'radio', name: 'visibility', onchange: () => session.setVisibility(choice) });
  return {
    element: h(
      'div',
      { class: 'choice' },
      input,
      h('label', { for: id }, label, h('span', { class: 'fine' }, ` ${text}`)),
    ),
    render() {
      const { presence, offers } = session.privacy;
      // While the server is asked, what was chosen stays chosen.
      if (!session.privacyAsked) input.checked = presence === choice && offers === choice;
    },
  };
}

/**
 * A list of names with a button beside each.
 *
 * @param {string} heading
 * @param {string} none  what is said when there is none
 * @param {string} action
 * @param {string} from  what the button's label says besides
 * @param {(name: string) => void} act
 */
function names(heading, none, action, from, act) {
  const empty = h('p', { class: 'fine' }, none);
  const list = h('ul', { class: 'names', tabindex: -1, 'aria-label': heading });
  /** @type {Map<string, { name: string }>} one object for each name, as lists of views want */
  const items = new Map();
  const renderList = listIn(list, (/** @type {{ name: string }} */ { name }) => {
    const label = `${action} ${name} ${from}`.trim();
    const button = h('button', { type: 'button', 'aria-label': label, onclick: () => act(name) }, action);
    return { element: h('li', {}, nameTag(name), button), render() {} };
  });
  return {
    element: h('section', {}, h('h3', {}, heading), empty, list),
    /** @param {readonly string[]} shown */
    render(shown) {
      empty.hidden = shown.length > 0;
      for (const name of [...items.keys()]) if (!shown.includes(name)) items.delete(name);
      renderList(
        shown.map((name) => {
          const item = items.get(name) ?? { name };
          items.set(name, item);
          return item;
        }),
      );
    },
  };
}
