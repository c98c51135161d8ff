/**
 * What the page remembers in this browser, besides the keys, which the SDK keeps.
 *
 * The name of a tab is the tab's own (`sessionStorage`), so that two tabs can be two people, and a reload comes back under
 * its name. Messages are not kept. Where the browser keeps nothing, the page works without.
 */

/** The name that this tab has. */
export const tabName = {
  get: () => remember(() => sessionStorage.getItem('aldis.name')),
  set: (/** @type {string} */ name) => remember(() => sessionStorage.setItem('aldis.name', name)),
  forget: () => remember(() => sessionStorage.removeItem('aldis.name')),
};

/** The name that was chosen last, in any tab: a good guess for a new one. */
export const lastName = {
  get: () => remember(() => localStorage.getItem('aldis.lastName')),
  set: (/** @type {string} */ name) => remember(() => localStorage.setItem('aldis.lastName', name)),
};

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
