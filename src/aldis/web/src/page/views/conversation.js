/**
 * One conversation: who it is, what is wrong, the call, what was said, and what one writes (composer.js).
 */

/** @import { Entry, Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { h, icon, iconButton, listIn, relabel, setAttribute, setText } from '../dom.js';
import { callStage } from './call.js';
import { composer, receiveFiles } from './composer.js';
import { connectionPanel } from './connection.js';
import { fileEntry } from './file.js';
import { noteEntry, textEntry } from './entries.js';
import { setFace, setPresence } from './people.js';
import { personNotice } from './notice.js';
import { panelBeside } from '../memory.js';
import { contained, named } from '../words.js';

const NO_CALL = 'A call needs a direct connection, or a TURN server';
const NEAR_THE_END = 80; // pixels: who has scrolled up further than this is reading, and is left there

/**
 * @param {Session} session
 * @param {Person} person
 * @param {() => void} back  to the list, where there is room for one of the two only
 * @returns {View & { focus: () => void }}
 */
export function conversation(session, person, back) {
  const face = h('span', { class: 'face' });
  const status = h('span', { class: 'presence', role: 'status' });
  const verifiedHow = h('span', { class: 'only-wide' });
  const verified = h('button', { type: 'button', class: 'verified', onclick: showKeys }, icon('verified'), verifiedHow);
  const name = h('h2', { tabindex: -1, dir: 'auto', title: person.name }, contained(person.name));
  const call = iconButton('Start an audio call', 'phone', () => session.call(person, { video: false }));
  const videoCall = iconButton('Start a video call', 'camera', () => session.call(person, { video: true }));
  const panel = connectionPanel(session, person, closePanel);
  const panelButton = iconButton('Show the connection', 'chart', () => showPanel(Boolean(panel.element.hidden)));
  panelButton.setAttribute('aria-controls', panel.element.id);
  const head = h(
    'header',
    { class: 'head' },
    iconButton('Back to the list', 'back', back, 'only-narrow'),
    face,
    h('div', { class: 'who' }, name, h('p', {}, status, verified)),
    call,
    videoCall,
    panelButton,
  );

  const notice = personNotice(session, person);
  // On a phone the keyboard would cover what has been said.
  const focus = () => (matchMedia('(hover: hover)').matches && !person.isShut ? write.focus() : name.focus());
  const stage = callStage(session, person, focus);
  const list = h('div', { class: 'entries' });
  const empty = h('p', { class: 'nobody' });
  const log = h(
    'div',
    {
      class: 'log',
      role: 'log',
      tabindex: 0,
      'aria-label': `Conversation with ${person.name}`,
      'aria-relevant': 'additions',
    },
    empty,
    list,
  );
  const renderEntries = listIn(list, (/** @type {Entry} */ entry) => {
    if (entry.kind === 'text') return textEntry(entry, person, () => session.sayAgain(person, entry));
    return entry.kind === 'file' ? fileEntry(entry, person, session) : noteEntry(entry);
  });
  const follow = stayAtTheEnd(log, list, (away) => {
    person.away = away;
    session.people.look();
  });
  const news = h('button', { type: 'button', class: 'primary news', onclick: toTheNews }, 'New messages');
  const write = composer(session, person, follow);
  const talk = h('div', { class: 'talk-pane' }, notice.element, stage.element, log, news, write.element);
  const element = h(
    'section',
    { class: 'conversation', tabindex: -1, 'aria-label': `With ${person.name}` },
    head,
    talk,
    panel.element,
  );
  receiveFiles(talk, (files, folders) => {
    if (person.isShut) return;
    void session.sendFiles(person, files);
    for (const folder of folders) void session.sendFolder(person, folder);
  });
  // Where there is no room beside the conversation, the panel lies upon it, until somebody goes on.
  const wide = matchMedia('(min-width: 1150px)');
  let over = false;
  wide.addEventListener('change', () => ((over = false), drawPanel()));
  element.addEventListener('keydown', (event) => event.key === 'Escape' && over && closePanel());

  /** @param {boolean} shown */
  function showPanel(shown) {
    if (wide.matches) panelBeside.set(shown);
    else over = shown;
    drawPanel();
  }
  function closePanel() {
    showPanel(false);
    panelButton.focus();
  }
  function showKeys() {
    showPanel(true);
    panel.element.focus();
  }
  function drawPanel() {
    const shown = wide.matches ? panelBeside.get() : over;
    panel.element.hidden = !shown;
    relabel(panelButton, shown ? 'Hide the connection' : 'Show the connection', 'chart');
    setAttribute(panelButton, 'aria-expanded', String(shown));
    if (shown) panel.render();
  }
  function toTheNews() {
    follow();
    focus();
  }

  return {
    element,
    focus() {
      over = false;
      drawPanel();
      focus();
    },
    render() {
      element.hidden = session.people.current !== person;
      stage.render(); // a call goes on while another conversation is open
      if (element.hidden) return;
      setFace(face, person);
      setPresence(status, session, person);
      const how = person.verifiedHow;
      verified.hidden = how === null || person.newKey !== null;
      setText(verifiedHow, how === 'invitation' ? 'verified by the invitation' : 'verified by you');
      const connected = person.presence === 'connected';
      call.hidden = videoCall.hidden = connected && !person.can('calls');
      call.title = person.isRelayed ? NO_CALL : 'Start an audio call';
      videoCall.title = person.isRelayed ? NO_CALL : 'Start a video call';
      const dialled = session.calling.busy && [call, videoCall].some((button) => button === document.activeElement);
      call.disabled = videoCall.disabled = !connected || person.isRelayed || session.calling.busy;
      if (dialled) stage.element.focus(); // a button that is disabled loses it
      notice.render();
      renderEntries(person.entries);
      news.hidden = !person.away || person.unread === 0;
      empty.hidden = person.entries.length > 0 || person.isUndecided;
      setText(
        empty,
        `What you say here stays between you and ${named(person.name)}. It is gone when this page is closed or reloaded.`,
      );
      // A field that is disabled loses it.
      if (person.isShut && write.element.contains(document.activeElement)) name.focus();
      write.render();
      drawPanel();
    },
  };
}

/**
 * Keep the end of `log` in sight while it grows or shrinks, unless somebody has scrolled up.
 *
 * @param {HTMLElement} log
 * @param {HTMLElement} content
 * @param {(away: boolean) => void} moved  is told when somebody has left the end, or is back
 * @returns {() => void}  goes to the end
 */
function stayAtTheEnd(log, content, moved) {
  let following = true;
  const follow = (/** @type {boolean} */ now) => {
    if (now === following) return;
    following = now;
    moved(!now);
  };
  const toTheEnd = () => {
    follow(true);
    log.scrollTop = log.scrollHeight;
  };
  let before = 0;
  log.addEventListener('scroll', () => {
    // Who is away from the end has scrolled up, or else the end has moved on and is followed at once.
    const away = log.scrollTop + log.clientHeight < log.scrollHeight - NEAR_THE_END;
    if (!away || log.scrollTop < before) follow(!away);
    before = log.scrollTop;
  });
  const observer = new ResizeObserver(() => following && toTheEnd());
  observer.observe(log);
  observer.observe(content);
  return toTheEnd;
}
