/** A clock that a test moves. */

/** @implements {import('../../src/client/timers.js').Timers} */
export class FakeTimers {
  now = 1000;
  /** @type {Set<{ at: number, callback: () => void }>} */
  #timers = new Set();

  time = () => this.now;

  callLater = (/** @type {number} */ seconds, /** @type {() => void} */ callback) => {
    const timer = { at: this.now + seconds, callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  };

  /** How many timers run. */
  get waiting() {
    return this.#timers.size;
  }

  /** Let time pass, and call back what is due, in its order. */
  advance(/** @type {number} */ seconds) {
    const end = this.now + seconds;
    for (;;) {
      const [next] = [...this.#timers].filter((timer) => timer.at <= end + 1e-9).sort((a, b) => a.at - b.at);
      if (!next) {
        break;
      }
      this.#timers.delete(next);
      this.now = Math.max(this.now, next.at);
      next.callback();
    }
    this.now = end;
  }
}

/** Let everything happen that only waits for promises. */
export async function settle() {
  for (let turn = 0; turn < 50; turn++) {
    await null;
  }
}
