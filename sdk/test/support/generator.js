/**
 * Randomness that is the same in every run: a seeded generator, and the hostile bytes that are made with it.
 */

/**
 * Numbers from 0 to 1 (mulberry32).
 *
 * @param {number} seed
 */
export function generator(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    /** A whole number from 0 to `end`, without `end`. */
    below: (/** @type {number} */ end) => Math.floor(next() * end),
    /** @template T @param {readonly T[]} choices */
    one: (choices) => /** @type {T} */ (choices[Math.floor(next() * choices.length)]),
    /** @param {number} size */
    bytes: (size) => Uint8Array.from({ length: size }, () => Math.floor(next() * 256)),
  };
}

/**
 * Bytes that were tampered with: cut, a few bytes changed, some put in, or something behind them.
 *
 * @param {ReturnType<typeof generator>} random
 * @param {Uint8Array} bytes
 */
export function mutated(random, bytes) {
  const copy = Array.from(bytes);
  for (let changes = 1 + random.below(4); changes > 0; changes--) {
    const at = random.below(copy.length + 1);
    switch (random.below(4)) {
      case 0:
        copy.length = at;
        break;
      case 1:
        copy[Math.max(0, at - 1)] = random.below(256);
        break;
      case 2:
        copy.splice(at, 0, ...random.bytes(1 + random.below(9)));
        break;
      default:
        copy.splice(at, 1 + random.below(9));
    }
  }
  return Uint8Array.from(copy);
}
