/**
 * What is told outside of all else: the server's state at the top, the title of the tab, and unread messages aloud.
 */

/** @import { Session } from '../session.js' */
import { announce, setAttribute, setText } from '../dom.js';
import { named, SERVER } from '../words.js';

/** @param {Session} session @returns {{ render: (working: boolean) => void }} */
export function top(session) {
  const server = /** @type {HTMLElement} */ (document.getElementById('server'));
  let announced = 0;
  return {
    render(working) {
      server.hidden = !working;
      setAttribute(server, 'data-state', session.server);
      setText(server, `Server ${SERVER[session.server]}`);
      document.title = title(session);
      const { unread } = session.people;
      if (unread > announced) announce(unread === 1 ? '1 unread message' : `${unread} unread messages`);
      announced = unread;
    },
  };
}

/** @param {Session} session */
function title({ calling, people, running, name }) {
  if (calling.incoming && calling.person) return `☎ ${named(calling.person.name)} is calling`;
  const who = running ? `${named(name)} · Aldis` : 'Aldis';
  return people.unread ? `(${people.unread}) ${who}` : who;
}
