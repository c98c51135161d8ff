/** Stores for tests: on a real server, with peer connections that need no network. */
import { PARTS } from '../../src/store/parts.js';
import { NetworkStore } from '../../src/store/store.js';
import { AT_ONCE } from './clients.js';
import { FakeStream } from './fake_media.js';
import { FakeNetwork } from './fake_rtc.js';
import { served } from './server.js';

// What is loaded when it is first used is for lazy.test.js; here it is there from the start.
await Promise.all(Object.values(PARTS).map((part) => part.load()));

// Node has none, and calls collect what they get in one.
globalThis.MediaStream ??= /** @type {any} */ (FakeStream);

/** What takes long takes a moment, but for an attempt: it waits for the server, which has to share a busy machine. */
export const QUICK = { heal: 1, heartbeat: 0.05, silence: 0.3, probe: 0.1, linger: 0.1 };

/** Some stores that can reach each other, and are closed when the test ends. */
export class World {
  network = new FakeNetwork();
  #stores = [];
  #url;

  constructor(t, url) {
    this.#url = url;
    t.after(() => Promise.all(this.#stores.map((store) => store.disconnect())));
  }

  /** A store that is not connected. It uses no relay: most tests are about the direct connection. */
  make(options = {}) {
    const { RTCPeerConnection } = this.network;
    const usual = { timing: QUICK, backoff: AT_ONCE, RTCPeerConnection, iceServers: [], path: 'direct' };
    const store = new NetworkStore({ ...usual, ...options });
    this.#stores.push(store);
    return store;
  }

  /** A store that is registered. What the server says to it is what `lie` makes of each message: a list of messages. */
  async join(userId, { url = this.#url, device, lie, ...options } = {}) {
    const store = this.make(options);
    const { WebSocket } = globalThis;
    if (lie) {
      globalThis.WebSocket = lying(lie);
    }
    const connecting = store.connectToSignaling(url, userId, { device, backoff: AT_ONCE });
    globalThis.WebSocket = WebSocket;
    await connecting;
    return store;
  }
}

/** A WebSocket that does not tell what it hears. */
const lying = (lie) =>
  class extends WebSocket {
    set onmessage(listener) {
      super.onmessage = ({ data }) => {
        for (const message of lie(JSON.parse(data))) {
          listener({ data: JSON.stringify(message) });
        }
      };
    }
  };

/** A server of the test's own, a store called alice, and others. */
export async function scene(t, options, ...names) {
  const server = await served(t);
  const world = new World(t, server.url);
  const [alice, ...others] = await Promise.all([
    world.join('alice', options),
    ...names.map((name) => world.join(name)),
  ]);
  return { server, world, alice, others };
}

/** Wait until a store's state is so. */
export function until(store, fits) {
  return new Promise((resolve) => {
    let unsubscribe = () => {};
    let done = false;
    unsubscribe = store.subscribe((state) => {
      if (!done && fits(state)) {
        done = true;
        queueMicrotask(() => unsubscribe());
        resolve(state);
      }
    });
  });
}

/** Wait until a peer's part of a store's state is so. */
export const untilPeer = (store, userId, fits) => until(store, ({ peers }) => peers[userId] && fits(peers[userId]));

/** Wait until something with a `subscribe` of its own (a call, a transfer) is so. */
export const untilIt = (it, fits) =>
  new Promise((resolve) => {
    it.subscribe((now) => fits(now) && resolve(now));
  });

/** The next messages of a store. */
export async function take(store, count) {
  const messages = [];
  for await (const message of store.messages()) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

/** The contents of the next messages. */
export const contents = async (store, count) => (await take(store, count)).map(({ content }) => content);
