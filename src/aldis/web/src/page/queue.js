/**
 * Which window of this browser keeps what waits to be sent under a name: one at a time, and the one that was started last.
 *
 * A window that is started asks the one that has the journal for it, and gets it as soon as that one has let go of it, or
 * is closed. What a window cannot keep, because the browser does not let it, is kept as long as the window is open.
 */

/** @import { Journal } from '../sdk/index.js' */
import { openJournal } from '../sdk/index.js';

/** @typedef {{ journal: Journal | null, problem: unknown, forgo: () => void }} Queue `problem`: why there is no journal. */

/**
 * @param {string} name
 * @param {{ waiting: (error: unknown) => void, asked: () => void }} told `waiting`: another window has it, and has not let
 *   go of it yet. `asked`: another window wants it.
 * @returns {Promise<Queue>}
 */
export async function takeQueue(name, { waiting, asked }) {
  const channel = new BroadcastChannel(`aldis.journal.${name}`);
  const forgo = () => channel.close();
  try {
    const journal = await openJournal(name).catch((error) => {
      if (error.name !== 'JournalInUse') throw error;
      channel.postMessage('wanted');
      waiting(error);
      return openJournal(name, { wait: true });
    });
    channel.onmessage = asked;
    return { journal, problem: null, forgo };
  } catch (problem) {
    return { journal: null, problem, forgo };
  }
}
