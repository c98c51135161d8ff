/**
 * What is there once one has a name: the people on one side, the open conversation on the other; on a phone, one of the two.
 */

/** @import { Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { h, listIn, setAttribute } from '../dom.js';
import { conversation } from './conversation.js';
import { inviteDialog, invitePanel } from './invite.js';
import { pageNotice } from './notice.js';
import { peopleSide } from './people.js';
import { privacyDialog } from './privacy.js';

/** @typedef {{ error: unknown, busy: boolean }} PageState  what is wrong with the page as a whole; whether it is connecting */

/**
 * @param {Session} session
 * @param {PageState} page
 * @param {object} actions
 * @param {(name: string) => void} actions.open
 * @param {() => void} actions.back
 * @param {() => void} actions.changeName
 * @param {() => void} actions.takeBack
 * @param {() => void} actions.dismiss
 * @returns {View & { focus: () => void, isInviting: () => boolean }}
 */
export function workspace(session, page, { open, back, changeName, takeBack, dismiss }) {
  // Somebody may come by our invitation. Without one, who connects is a stranger, and only comes on the list.
  let awaited = false;
  const given = () => {
    awaited = true;
  };
  const dialog = inviteDialog(session, given);
  const notice = pageNotice(session, page, { takeBack, dismiss });
  const invitation = invitePanel(session, given);
  const privacy = privacyDialog(session);
  const side = peopleSide(session, { open, invite, changeName, privacy: privacy.open });
  const start = h(
    'section',
    { class: 'start', 'aria-label': 'How to begin' },
    h('h2', {}, 'Invite somebody'),
    invitation.element,
  );
  const talks = h('div', { class: 'talks' });
  /** @type {WeakMap<Person, ReturnType<typeof conversation>>} those that have been open: there may be hundreds on the list */
  const conversations = new WeakMap();
  const renderTalks = listIn(talks, (/** @type {Person} */ person) => {
    const view = conversation(session, person, back);
    conversations.set(person, view);
    return view;
  });
  const element = h(
    'div',
    { class: 'workspace' },
    notice.element,
    side.element,
    start,
    talks,
    dialog.element,
    privacy.element,
  );
  /** Where the invitation is in sight already, no dialog lies upon it. */
  function invite() {
    if (!start.checkVisibility()) return dialog.open();
    given();
    invitation.focus();
  }
  /** @type {Person | null} whom the list is left for, and come back from */
  let last = null;
  return {
    element,
    /** Whether we wait for who was invited and do nothing else: we are in no field, if only about to type. */
    isInviting() {
      const typing = document.activeElement?.matches('input:read-write, textarea');
      return awaited && !typing && (dialog.element.open || start.checkVisibility());
    },
    focus() {
      dialog.element.close();
      privacy.element.close();
      this.render();
      const { current } = session.people;
      awaited &&= current === null;
      if (current) conversations.get(current)?.focus();
      else side.focus(last);
      last = current;
    },
    render() {
      const { current, list } = session.people;
      setAttribute(element, 'data-pane', current ? 'talk' : 'people');
      notice.render();
      side.render();
      privacy.render();
      start.hidden = current !== null;
      if (!start.hidden) invitation.render();
      talks.hidden = current === null;
      renderTalks(list.filter((person) => person === current || conversations.has(person)));
    },
  };
}
