/**
 * The left side: who I am, whom to talk to, and the list of people.
 */

/** @import { Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { bdi, copyButton, fill, h, icon, listIn, nameTag, setAttribute, setText } from '../dom.js';
import { fingerprintText, letter, picture } from '../picture.js';
import { nameForm } from './name_form.js';

/**
 * @param {Session} session
 * @param {{ open: (name: string) => void, invite: () => void, changeName: () => void, privacy: () => void }} actions
 * @returns {View & { focus: (person: Person | null) => void }}
 */
export function peopleSide(session, { open, invite, changeName, privacy }) {
  const me = h('section', { class: 'me', tabindex: -1, 'aria-label': 'You' });
  const list = h('ul', { class: 'people' });
  const nobody = h('p', { class: 'nobody' }, 'Nobody yet. Invite somebody, or type the name of somebody who is here.');
  const renderList = listIn(list, (/** @type {Person} */ person) => personItem(session, person, open));
  const element = h(
    'div',
    { class: 'side' },
    me,
    nameForm(session, 'Talk to', 'Talk', open),
    h('nav', { 'aria-label': 'People' }, list, nobody),
  );
  return {
    element,
    focus(person) {
      const button = person && element.querySelector(`[data-person=${CSS.escape(person.name)}]`);
      /** @type {HTMLElement} */ (button ?? me).focus();
    },
    render() {
      fill(me, `${session.name} ${session.fingerprint}`, () => [
        h(
          'div',
          { class: 'key' },
          picture(session.fingerprint),
          h('div', {}, h('h2', {}, nameTag(session.name)), fingerprintText(session.fingerprint)),
          copyButton('Copy fingerprint', () => session.fingerprint, true),
        ),
        h(
          'div',
          { class: 'buttons' },
          h('button', { type: 'button', class: 'primary', onclick: invite }, icon('invite'), 'Invite'),
          h('button', { type: 'button', onclick: changeName }, 'Change name'),
          h('button', { type: 'button', onclick: privacy }, 'Privacy'),
        ),
      ]);
      renderList(session.people.list);
      nobody.hidden = session.people.list.length > 0;
    },
  };
}

/** @param {Session} session @param {Person} person @param {(name: string) => void} open @returns {View} */
function personItem(session, person, open) {
  const face = h('span', { class: 'face' });
  const presence = h('span', { class: 'presence' });
  const unread = h('span', { class: 'badge' });
  const button = h(
    'button',
    { type: 'button', 'data-person': person.name, onclick: () => open(person.name) },
    face,
    h('span', { class: 'who' }, bdi(person.name), presence),
    unread,
  );
  return {
    element: h('li', {}, button),
    render() {
      setFace(face, person);
      setPresence(presence, session, person);
      if (session.calling.person === person && session.calling.busy) setText(presence, 'in a call');
      setAttribute(button, 'aria-current', String(session.people.current === person));
      unread.hidden = person.unread === 0;
      fill(unread, person.unread, () => [String(person.unread), h('span', { class: 'unseen' }, ' unread')]);
    },
  };
}

/** Show the picture of somebody's key, or their letter. @param {HTMLElement} face @param {Person} person */
export function setFace(face, person) {
  fill(face, person.fingerprint, () => [person.fingerprint ? picture(person.fingerprint) : letter(person.name)]);
}

/** Say whether somebody is there; without a server nobody knows it. @param {HTMLElement} element @param {Session} session @param {Person} person */
export function setPresence(element, session, person) {
  const unknown = session.isServerAway && ['online', 'offline'].includes(person.presence);
  setAttribute(element, 'data-presence', unknown ? 'unknown' : person.presence);
  setText(element, unknown ? 'unknown' : person.isRelayed ? 'through the server' : PRESENCE[person.presence]);
}

/** @type {Record<Person['presence'], string>} */
const PRESENCE = {
  connected: 'connected',
  connecting: 'connecting…',
  interrupted: 'interrupted…',
  online: 'online',
  offline: 'offline',
  unknown: 'not seen yet',
  blocked: 'blocked',
};
