/**
 * The page: which of its parts is shown, and when.
 *
 * One session, drawn by views. A change is drawn once, however many changes come together; a view touches only what
 * is different. To see how the SDK is used, read session.js, which is the only file that imports it. The rest:
 *
 *     session.js     our name, our store, and what they do       views/    what is seen: welcome; workspace, which has
 *     calling.js     the one call; media.js: its microphone                people, conversation, invite; top
 *     people.js      the list; person.js: one of them            look/     how it looks, by the same themes
 *     queue.js       what waits to be sent
 *     disk.js        received files; memory.js: names            dom.js    elements, without a framework
 *     invitation.js  the link that brings two together           words.js  errors and numbers in plain words
 *     token.js       what servers for accounts want to see
 */

/** @import { Person } from './person.js' */
import { announce } from './dom.js';
import { readInvitation } from './invitation.js';
import { isInUse, keepStorage, lastName, tabName } from './memory.js';
import { Session } from './session.js';
import { takeToken } from './token.js';
import { incomingCall } from './views/call.js';
import { top } from './views/top.js';
import { welcome } from './views/welcome.js';
import { workspace } from './views/workspace.js';
import { named, Problem } from './words.js';

const main = /** @type {HTMLElement} */ (document.getElementById('main'));

const problem = whatIsMissing();
const state = {
  name: '',
  /** @type {import('./invitation.js').Invitation | null} */
  invitation: null,
  /** @type {unknown} */
  error: problem,
  busy: false,
  blocked: problem !== null,
  /** This tab has a name already: the page was reloaded, and is on its way back. */
  returning: false,
};

const session = new Session(scheduleDrawing, met);
const start = welcome(begin);
const work = workspace(session, state, { open: openPerson, back, changeName, takeBack, dismiss });
const incoming = incomingCall(session, answer);
const above = top(session);

/** What a browser needs for all this, and has not. */
function whatIsMissing() {
  if (!isSecureContext) return new Problem('NotSecure');
  if (!('RTCPeerConnection' in window)) return new Problem('EngineMissing');
  return null;
}

// --- what a person does --------------------------------------------------------------------------------------------

/** @param {string} name */
async function begin(name) {
  Object.assign(state, { name, busy: true, error: null });
  draw();
  try {
    await session.start(name, waits);
    state.error = null;
    tabName.set(name);
    lastName.set(name);
    keepStorage();
    followInvitation();
  } catch (error) {
    tabName.forget(); // or a reload would only fail again
    state.error = error;
  }
  Object.assign(state, { busy: false, returning: false });
  draw();
  if (session.running) work.focus();
  else start.focus();
}

/** Another window has what waits to be sent. It lets go of it, unless it sleeps. @param {unknown} error */
function waits(error) {
  state.error = error;
  draw();
}

/** What is wrong with the page has been read. */
function dismiss() {
  state.error = null;
  work.focus();
}

/** The address may hold an invitation. */
function readAddress() {
  const found = state.blocked ? null : readInvitation(location.hash);
  state.invitation = found === 'damaged' ? null : found;
  if (found === 'damaged') state.error = new Problem('DamagedInvitation');
}

/** A name to begin with: not that of whoever invites, nor one that another window has. They would only be driven out. */
async function guessName() {
  const name = tabName.get() ?? lastName.get() ?? '';
  if (name === state.invitation?.name || (await isInUse(name))) return;
  state.name = name;
  draw();
}

/** Talk to whoever has sent the link that this page was opened with; or go on where a reload has interrupted us. */
function followInvitation() {
  const invited = state.invitation;
  state.invitation = null;
  // The link has done its work; a reload comes back to the conversation by `history.state`.
  const { current } = session.people;
  const place = history.state ?? (current && { person: current.name });
  if (location.hash) history.replaceState(place, '', location.pathname + location.search);
  if (invited?.name === session.name) state.error = new Problem('OwnInvitation');
  else if (invited) openPerson(invited.name, invited.fingerprint);
  else showPlace();
}

/** Show what this place in the history of the window is: a conversation, if they are still on the list, or the list. */
function showPlace() {
  const person = session.people.find(history.state?.person);
  if (person) session.open(person.name);
  else session.people.show(null);
}

/** @param {string} name @param {string | null} [fingerprint] */
function openPerson(name, fingerprint = null) {
  // One step back leads from a conversation to the list, as on a phone one expects.
  const place = { person: name };
  if (history.state?.person) history.replaceState(place, '');
  else history.pushState(place, '');
  state.error = null;
  session.open(name, fingerprint);
  work.focus();
}

/** Somebody new is connected with us: perhaps whoever was shown the invitation, perhaps a stranger. @param {Person} person */
function met(person) {
  announce(`${named(person.name)} is connected with you`);
  if (work.isInviting() && !session.calling.busy) openPerson(person.name);
}

/** Take a call, and go where it is. @param {boolean} video */
function answer(video) {
  if (session.calling.person) openPerson(session.calling.person.name);
  void session.calling.answer(video);
}

/** Leave a conversation for the list. */
function back() {
  if (history.state?.person) history.back();
  else session.people.show(null);
}

async function changeName() {
  tabName.forget();
  history.replaceState(null, '');
  session.people.show(null);
  await session.stop();
  start.focus();
}

/** Use the name in this window again. */
async function takeBack() {
  if (state.busy) return; // pressed twice: the name is for one store
  Object.assign(state, { busy: true, error: null });
  draw();
  try {
    await session.takeBack();
  } catch (error) {
    state.error = error;
  }
  state.busy = false;
  draw();
  if (session.running) work.focus();
  else start.focus();
}

// --- drawing -------------------------------------------------------------------------------------------------------

let scheduled = false;

function scheduleDrawing() {
  if (scheduled) return;
  scheduled = true;
  // No requestAnimationFrame: that stops in a hidden tab, whose title shall still count.
  setTimeout(draw);
}

function draw() {
  scheduled = false;
  if (session.running) {
    work.render();
    show(work.element);
  } else if (state.busy && work.element.isConnected) {
    work.render(); // what is shown stays while the name is taken back
  } else {
    start.render(state);
    show(start.element);
  }
  incoming.render();
  above.render(work.element.isConnected);
}

/** @param {HTMLElement} part */
function show(part) {
  if (main.firstElementChild !== part) main.replaceChildren(part);
}

// --- the browser ---------------------------------------------------------------------------------------------------

addEventListener('popstate', () => {
  if (!session.running || location.hash) return; // a link is about to be followed
  showPlace();
  work.focus();
});
addEventListener('hashchange', () => {
  if (takeToken()) {
    state.error = null;
    if (session.running && session.server === 'disconnected') location.reload();
  } else {
    readAddress();
    if (session.running) followInvitation();
  }
  draw();
});
document.addEventListener('visibilitychange', () => session.people.look());
addEventListener('beforeunload', (event) => session.unfinished && event.preventDefault());
// A file that is dropped beside a conversation would replace the page.
for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());

document.body.append(incoming.element);
takeToken();
readAddress();
state.returning = !state.blocked && tabName.get() !== null && state.invitation === null;
draw();
if (state.returning) void begin(tabName.get() ?? '');
else void guessName().then(start.focus);
