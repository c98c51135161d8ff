/**
 * What is wrong, in plain words, where it can be seen: above a conversation, or above everything.
 */

/** @import { NewKey, Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { Child, View } from '../dom.js' */
/** @import { Fault } from '../words.js' */
/** @import { PageState } from './workspace.js' */
import { fill, h, icon, setText } from '../dom.js';
import { explain, Problem } from '../words.js';
import { key } from './connection.js';

/** What is wrong with one person. @param {Session} session @param {Person} person @returns {View} */
export function personNotice(session, person) {
  const invitation = h('div', {});
  const now = h('div', {});
  const element = h('div', { class: 'person-notice', role: 'alert' }, invitation, now);
  const dismiss = () => h('button', { type: 'button', onclick: () => session.dismiss(person) }, 'I have read this');
  const blocked = new Problem('PeerBlocked', { userId: person.name });
  const unblock = () => h('button', { type: 'button', onclick: () => session.unblock(person.name) }, 'Unblock');
  const again = () => h('button', { type: 'button', onclick: () => session.connect(person) }, 'Try again');
  return {
    element,
    render() {
      if (person.blocked) {
        fill(invitation, null, () => []);
        fill(now, blocked, () => [notice(blocked, unblock())]);
        return;
      }
      const error = session.serverError ? null : person.problem; // which is told of above everything
      // Nobody puts away what still stands in the way.
      const read = error?.name === 'FingerprintMismatch' ? null : person.mismatch;
      fill(invitation, read, () => [read && notice(read, dismiss())]);
      const shown = person.newKey ?? error;
      fill(now, shown, () => {
        if (person.newKey) return [keyChanged(session, person, person.newKey)];
        if (!error || error.name === 'PeerKeyChanged') return [];
        // Another call would make it last longer.
        const isLimited = /** @type {Fault} */ (error).code === 'rate-limited';
        return [notice(error, /^Peer(ConnectionFailed|Refused)$/.test(error.name) && !isLimited && again())];
      });
    },
  };
}

/**
 * What is wrong with the server, with this tab, or with a link.
 *
 * @param {Session} session
 * @param {PageState} page
 * @param {{ takeBack: () => void, dismiss: () => void }} actions
 * @returns {View}
 */
export function pageNotice(session, page, { takeBack, dismiss }) {
  const element = h('div', { class: 'page-notice', role: 'alert' });
  const again = h('button', { type: 'button', class: 'primary', onclick: takeBack });
  const read = h('button', { type: 'button', onclick: dismiss }, 'I have read this');
  return {
    element,
    render() {
      const gone = session.server === 'disconnected' ? /** @type {any} */ (session.serverError) : null;
      const limited = session.serverError?.name === 'OverLimits' ? session.serverError : null;
      const error = gone ?? page.error ?? limited ?? (session.isServerAway ? AWAY : null) ?? session.queueProblem;
      const replaced = gone?.name === 'ConnectionClosed' && gone.code === REPLACED;
      setText(again, replaced ? 'Use it here' : 'Connect again');
      again.disabled = page.busy;
      fill(element, error, () => [Boolean(error) && notice(error, gone ? again : error === page.error && read)]);
    },
  };
}

const AWAY = new Problem('ServerAway');
const REPLACED = 4001; // close code: another connection has registered the name with the same key

/** @param {unknown} error @param {Child} [action] */
export function notice(error, action) {
  const fault = /** @type {Fault} */ (error);
  const { title, text } = explain(fault);
  const mild = MILD.has(fault.name) || (fault.name === 'PeerRefused' && fault.code === 'rate-limited');
  // Two keys that should be one, when that is what is wrong.
  const here = fault.name === 'OtherInvitation' ? 'As you know it' : 'Here';
  const differ = here !== 'Here' || fault.name === 'FingerprintMismatch';
  const keys = differ && twoKeys('In the invitation', fault.expected, here, fault.offered);
  return h(
    'div',
    { class: mild ? 'notice' : 'notice bad' },
    icon(mild ? 'waiting' : 'warning'),
    h('div', {}, h('strong', {}, title), h('p', {}, text), keys),
    action,
  );
}

const MILD = new Set(['PeerOffline', 'PeerUnknown', 'PeerBlocked', 'OwnInvitation', 'OverLimits', 'ServerAway']); // nothing has failed: it is as it is

/** @param {Session} session @param {Person} person @param {NewKey} change */
function keyChanged(session, person, change) {
  const { error, before, after } = change;
  const { title, text } = explain(error);
  const accept = h(
    'button',
    {
      type: 'button',
      class: 'danger',
      disabled: true,
      onclick: () => session.acceptKey(person, change),
    },
    'Accept the new key',
  );
  const sure = h('input', {
    type: 'checkbox',
    onchange: () => (accept.disabled = !sure.checked),
  });
  return h(
    'div',
    { class: 'notice bad' },
    icon('warning'),
    h(
      'div',
      {},
      h('strong', {}, title),
      h('p', {}, text),
      twoKeys('Before', before, 'Now', after),
      h('label', {}, sure, 'I have asked them, in another way than here: the new fingerprint is theirs.'),
      accept,
    ),
  );
}

/** @param {string} first @param {string} one @param {string} second @param {string} other */
function twoKeys(first, one, second, other) {
  return h('div', { class: 'keys' }, key(first, one), key(second, other));
}
