/** Signaling clients for tests: what they tell is kept, and they are closed when the test ends. */
import { SignalingClient } from '../../src/client/client.js';
import { Identity } from '../../src/identity/keys.js';

export const AT_ONCE = { first: 0.01, most: 0.05 };

/** The events of a client, taken out in order. */
export class Events {
  /** All that has happened and was not taken out. */
  list = [];
  #wake = () => {};

  constructor(client) {
    client.subscribe((event) => {
      this.list.push(event);
      this.#wake();
    });
  }

  /** Take events out up to the first of this type that fits, and return that. */
  async until(type, fits = () => true) {
    for (;;) {
      for (let event; (event = this.list.shift());) if (event.type === type && fits(event)) return event;
      await new Promise((resolve) => (this.#wake = resolve));
    }
  }
}

/** A client that is not connected, and its events. */
export function makeClient(t, url, userId, options = {}) {
  const client = new SignalingClient(url, userId, { backoff: AT_ONCE, ...options });
  t.after(() => client.close());
  return { client, events: new Events(client) };
}

/** A registered client, its events and its key. */
export async function online(t, url, userId, { identity, ...options } = {}) {
  const made = makeClient(t, url, userId, options);
  await made.client.connect();
  identity ??= await Identity.generate();
  await made.client.register(identity);
  await made.events.until('registered');
  return { ...made, identity };
}
