/**
 * How the connection to one person runs: the path, the round-trip time, the bytes, and the keys to compare.
 */

/** @import { Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { Child, View } from '../dom.js' */
import { chart } from '../chart.js';
import { fill, h, iconButton, nameTag, setText, uniqueId } from '../dom.js';
import { fingerprintText, picture } from '../picture.js';
import { bytes, qualityInWords } from '../words.js';
import { waysOf } from './ways.js';

/**
 * @param {Session} session
 * @param {Person} person
 * @param {() => void} close
 * @returns {View}
 */
export function connectionPanel(session, person, close) {
  const title = uniqueId('title');
  const line = chart();
  const facts = h('dl', { class: 'facts' });
  const cells = new Map(
    ['Quality', 'Path', 'Protocol', 'Sent', 'Received', 'Reconnects', 'Devices'].map((label) => [
      label,
      fact(facts, label),
    ]),
  );
  const keys = h('div', { class: 'keys' });
  const action = h('div', { class: 'actions' });
  const keep = h('button', { type: 'button', onclick: () => ask(null) }, 'Keep');
  const cancel = h('button', { type: 'button', onclick: () => ask(null) }, 'Cancel');
  /** @type {'remove' | 'block' | null} what somebody is asked about */
  let asking = null;
  const element = h(
    'aside',
    { class: 'panel', id: uniqueId('panel'), tabindex: -1, 'aria-labelledby': title },
    h(
      'div',
      { class: 'panel-head' },
      h('h3', { id: title }, 'Connection'),
      iconButton('Close this panel', 'close', close),
    ),
    line.element,
    facts,
    keys,
    action,
    waysOf(session),
  );

  /** @param {typeof asking} now  what to ask about: removing somebody with whom something would be lost, or blocking */
  function ask(now) {
    const before = asking;
    asking = now;
    view.render();
    if (asking) (asking === 'remove' ? keep : cancel).focus();
    // Back to where the question came from: the buttons are new ones.
    else /** @type {HTMLElement | null} */ (action.querySelector(`[data-asks=${before}]`))?.focus();
  }
  function block() {
    asking = null;
    void session.block(person);
  }
  /** @returns {Child[]} */
  function actions(/** @type {boolean} */ idle) {
    const remove = () => session.remove(person);
    if (asking === 'block') {
      return [
        h(
          'p',
          {},
          'For ',
          nameTag(person.name),
          ' you are offline then, on all your devices. What waits for them is not sent. They are not told that they are blocked.',
        ),
        h('button', { type: 'button', class: 'danger', onclick: block }, 'Block'),
        cancel,
      ];
    }
    if (asking) {
      return [
        h('p', {}, 'What waits for them is not sent then, and files that were not saved are gone.'),
        h('button', { type: 'button', class: 'danger', onclick: remove }, 'Remove all the same'),
        keep,
      ];
    }
    const removal = () => (person.isUnfinished(false) ? ask('remove') : remove());
    const contact = isContact() ? 'Remove from your contacts' : 'Add to your contacts';
    const change = () => session.markContact(person, !isContact());
    return [
      idle && h('button', { type: 'button', onclick: () => session.connect(person) }, 'Connect now'),
      !person.blocked && h('button', { type: 'button', onclick: change }, contact),
      h('button', { type: 'button', 'data-asks': 'remove', onclick: removal }, 'Remove from the list'),
      person.blocked
        ? h('button', { type: 'button', onclick: () => session.unblock(person.name) }, 'Unblock')
        : h('button', { type: 'button', 'data-asks': 'block', onclick: () => ask('block') }, 'Block…'),
    ];
  }
  function isContact() {
    return session.privacy.contacts.includes(person.name);
  }

  const view = {
    element,
    render() {
      const { stats, quality, view } = person;
      const connected = person.presence === 'connected';
      const devices = Object.values(view?.devices ?? {});
      const firsts = Math.max(1, devices.filter(({ connections }) => connections).length);
      const values = {
        Quality: quality ? qualityInWords(quality) : '–',
        Path: connected ? (stats ? PATHS[stats.path] : '…') : 'not connected',
        Protocol: (connected && stats?.protocol?.toUpperCase()) || '–',
        Sent: connected && stats?.bytesSent != null ? bytes(stats.bytesSent) : '–',
        Received: connected && stats?.bytesReceived != null ? bytes(stats.bytesReceived) : '–',
        Reconnects: String(Math.max(0, (view?.connections ?? 0) - firsts)),
        Devices: devices.map(({ device }) => device).join(', ') || '–',
      };
      for (const [label, value] of Object.entries(values)) setText(/** @type {Node} */ (cells.get(label)), value ?? '');
      line.render(person.samples, performance.now() / 1000, connected);
      fill(keys, `${session.fingerprint} ${person.fingerprint} ${person.verifiedHow} ${person.isUndecided}`, () =>
        keysOf(session, person),
      );
      const idle = !connected && person.presence !== 'connecting' && !person.isShut;
      // A question stays as it is until it is answered.
      fill(action, asking ?? `${idle} ${person.blocked} ${isContact()}`, () => actions(idle));
    },
  };
  return view;
}

/** @param {HTMLElement} list @param {string} label */
function fact(list, label) {
  const value = h('dd', {});
  list.append(h('div', {}, h('dt', {}, label), value));
  return value;
}

/** @param {Session} session @param {Person} person */
function keysOf(session, person) {
  if (person.isUndecided) return []; // the notice above the conversation shows which ones to compare
  const theirs = person.fingerprint;
  if (!theirs)
    return [h('p', { class: 'fine' }, 'The key of ', nameTag(person.name), ' is known after the first contact.')];
  const compared = () => session.people.verify(person, { fingerprint: theirs, how: 'compared' });
  return [
    h('h4', {}, 'Is it really ', nameTag(person.name), '?'),
    key(person.name, theirs),
    key('You', session.fingerprint),
    person.verifiedHow
      ? h(
          'p',
          { class: 'fine' },
          person.verifiedHow === 'invitation'
            ? 'Yes: the invitation was made with this key.'
            : 'Yes: you have compared the two.',
        )
      : h('p', { class: 'fine' }, 'Ask them, on the telephone for instance, whether they see the same two here.'),
    person.verifiedHow ? null : h('button', { type: 'button', onclick: compared }, 'They are the same'),
  ];
}

/** @param {string} name @param {string} fingerprint */
export function key(name, fingerprint) {
  return h(
    'div',
    { class: 'key' },
    picture(fingerprint),
    h('div', {}, h('p', {}, nameTag(name)), fingerprintText(fingerprint)),
  );
}

/** @type {Record<string, string>} */
const PATHS = {
  direct: 'direct',
  turn: 'through a TURN server',
  relay: 'through the server, sealed',
};
