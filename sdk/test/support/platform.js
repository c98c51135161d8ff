/**
 * The platform as it may be missing: a part of the global scope is another one for the time of a function.
 */

/**
 * @template T
 * @param {string} name
 * @param {unknown} value
 * @param {() => Promise<T>} run
 */
export async function withGlobal(name, value, run) {
  const real = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  try {
    return await run();
  } finally {
    if (real) {
      Object.defineProperty(globalThis, name, real);
    } else {
      delete (/** @type {Record<string, unknown>} */ (globalThis)[name]);
    }
  }
}
