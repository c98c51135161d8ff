/**
 * The page: which of its parts is shown, and when.
 *
 * One session, drawn by views. A change is drawn once, however many changes come together; a view touches only what
 * is different. To see how the SDK is used, read session.js, which is the only file that imports it.
 */

import { announce, setAttribute, setText } from './dom.js';
import { readInvitation } from './invitation.js';
import { lastName, tabName } from './memory.js';
import { Session } from './session.js';
import { incomingCall } from './views/call.js';
import { SERVER } from './views/connection.js';
import { welcome } from './views/welcome.js';
import { workspace } from './views/workspace.js';
import { Problem } from './words.js';

const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const server = /** @type {HTMLElement} */ (document.getElementById('server'));

const session = new Session(scheduleDrawing);
const invitation = readInvitation(location.hash);
const problem = whatIsMissing();

const state = {
  name: tabName.get() ?? lastName.get() ?? '',
  invitation: invitation === 'damaged' ? null : invitation,
  /** @type {unknown} */
  error: problem ?? (invitation === 'damaged' ? new Problem('DamagedInvitation') : null),
  busy: false,
  blocked: problem !== null,
};

const start = welcome(begin);
const work = workspace(session, {
  error: () => state.error,
  open: openPerson,
  back,
  changeName,
  takeBack,
});
const incoming = incomingCall(session, answer);

/** What a browser needs for all this, and has not. */
function whatIsMissing() {
  if (!isSecureContext) return new Problem('NotSecure');
  if (!('RTCPeerConnection' in window)) return new Problem('EngineMissing');
  return null;
}

/** @param {string} name */
async function begin(name) {
  Object.assign(state, { name, busy: true, error: null });
  draw();
  try {
    await session.start(name);
    tabName.set(name);
    lastName.set(name);
    followInvitation();
  } catch (error) {
    tabName.forget(); // or a reload would only fail again
    state.error = error;
  }
  state.busy = false;
  draw();
  if (state.error && !session.running) start.focus();
}

/** Talk to whoever has sent the link that this page was opened with. */
function followInvitation() {
  const invited = state.invitation;
  state.invitation = null;
  // The link has done its work; a reload comes back to the conversation by `history.state`.
  if (location.hash) history.replaceState(history.state, '', location.pathname + location.search);
  if (invited?.name === session.name) state.error = new Problem('OwnInvitation');
  else if (invited) openPerson(invited.name, invited.fingerprint);
  else if (history.state?.person) session.open(history.state.person);
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

/** Take a call, and go where it is. @param {boolean} video */
function answer(video) {
  if (session.calling.person) openPerson(session.calling.person.name);
  session.calling.answer(video);
}

async function changeName() {
  tabName.forget();
  history.replaceState(null, '');
  session.people.show(null);
  await session.stop();
  start.focus();
}

/** Leave a conversation for the list. */
function back() {
  if (history.state?.person) history.back();
  else session.people.show(null);
}

async function takeBack() {
  state.error = null;
  try {
    await session.takeBack();
  } catch (error) {
    state.error = error;
  }
  draw();
}

// --- drawing -------------------------------------------------------------------------------------------------------

let scheduled = false;
let announced = 0;

function scheduleDrawing() {
  if (scheduled) return;
  scheduled = true;
  // No requestAnimationFrame: that stops in a hidden tab, whose title shall still count.
  setTimeout(draw);
}

function draw() {
  scheduled = false;
  const shown = session.running ? work.element : start.element;
  if (main.firstElementChild !== shown) main.replaceChildren(shown);
  if (session.running) work.render();
  else start.render(state);
  incoming.render();

  server.hidden = !session.running;
  setAttribute(server, 'data-state', session.server);
  setText(server, `Server ${SERVER[session.server]}`);
  document.title = title();
  const { unread } = session.people;
  if (unread > announced) announce(unread === 1 ? '1 unread message' : `${unread} unread messages`);
  announced = unread;
}

function title() {
  if (session.calling.incoming) return `☎ ${session.calling.person?.name} is calling`;
  const { unread } = session.people;
  const who = session.running ? `${session.name} · Aldis` : 'Aldis';
  return unread ? `(${unread}) ${who}` : who;
}

// --- the browser ---------------------------------------------------------------------------------------------------

addEventListener('popstate', () => {
  if (!session.running) return;
  if (history.state?.person) session.open(history.state.person);
  else session.people.show(null);
  work.focus();
});
addEventListener('hashchange', () => {
  const found = readInvitation(location.hash);
  if (found === 'damaged') state.error = new Problem('DamagedInvitation');
  else state.invitation = found;
  if (session.running) followInvitation();
  draw();
});
document.addEventListener('visibilitychange', () => session.people.look());
addEventListener('beforeunload', (event) => session.unfinished && event.preventDefault());
// A file that is dropped beside a conversation would replace the page.
for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());

document.body.append(incoming.element);
draw();
if (!state.blocked && tabName.get() && !state.invitation) begin(state.name);
else start.focus();
