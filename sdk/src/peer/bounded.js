/** What is kept of the other side stays within bounds. Pure: no I/O, no clock. */

/**
 * Remove the oldest entry of a set or map that is too large.
 * @template Key
 * @param {Set<Key> | Map<Key, unknown>} all
 * @param {number} size
 */
export function limit(all, size) {
  const [oldest] = all.keys();
  if (all.size > size) all.delete(/** @type {Key} */ (oldest));
}
