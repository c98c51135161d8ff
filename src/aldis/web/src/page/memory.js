/**
 * What the page remembers in this browser, besides the keys, which the SDK keeps.
 *
 * The name of a tab is the tab's own (`sessionStorage`), so that two tabs can be two people, and a reload comes back under
 * its name. Messages are not kept. Where the browser keeps nothing, the page works without.
 */

let release = () => {};

/** The name that this tab has. It holds a lock for it, so that other tabs see that the name is in use. */
export const tabName = {
  get: () => remember(() => sessionStorage.getItem('aldis.name')),
  set(/** @type {string} */ name) {
    remember(() => sessionStorage.setItem('aldis.name', name));
    release();
    const released = new Promise((resolve) => (release = () => resolve(null)));
    navigator.locks?.request(LOCK + name, { mode: 'shared' }, () => released).catch(() => {});
  },
  forget() {
    remember(() => sessionStorage.removeItem('aldis.name'));
    release();
  },
};

const LOCK = 'aldis.name.';

/** Whether a tab of this browser has this name just now. @param {string} name */
export async function isInUse(name) {
  const locks = await navigator.locks?.query().catch(() => null);
  return locks?.held?.some((lock) => lock.name === LOCK + name) ?? false;
}

/** The name that was chosen last, in any tab: a good guess for a new one. */
export const lastName = {
  get: () => remember(() => localStorage.getItem('aldis.lastName')),
  set: (/** @type {string} */ name) => remember(() => localStorage.setItem('aldis.lastName', name)),
};

let beside = remember(() => localStorage.getItem('aldis.panel')) !== 'hidden';

/** Whether the connection is shown beside conversations, where there is room for it: one choice for all. */
export const panelBeside = {
  get: () => beside,
  set(/** @type {boolean} */ shown) {
    beside = shown;
    remember(() => localStorage.setItem('aldis.panel', shown ? 'shown' : 'hidden'));
  },
};

/**
 * Ask the browser not to clear what this page keeps when it runs out of room: the key of a name is the only proof that it
 * is ours. It may refuse, and then it is as if nobody had asked.
 */
export function keepStorage() {
  navigator.storage?.persist?.().catch(() => {});
}

/**
 * Do something with the browser's memory.
 *
 * @template T
 * @param {() => T} action
 * @returns {T | null} null also when the browser does not let us, or another program has written nonsense
 */
export function remember(action) {
  try {
    return action();
  } catch {
    return null;
  }
}
