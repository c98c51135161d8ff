/**
 * This tab's identity, its store, and the people it talks to. The one file that talks to the SDK.
 *
 * Views read the fields and call the methods; `changed` is called after every change, often several times in a row.
 * Nothing a view does with it can fail: what goes wrong is kept beside what it concerns, for words.js to explain.
 */

/** @import { AldisError, Call, PeerView, StoreState, Transfer } from '../sdk/index.js' */
/** @import { FileEntry, NewKey, Person, TextEntry } from './person.js' */
import { fingerprint, FingerprintMismatch, Identity, IndexedDBPins, NetworkStore } from '../sdk/index.js';
import { Calling } from './calling.js';
import { sinkOnDisk } from './disk.js';
import { People } from './people.js';
import { explainShort, Problem } from './words.js';

// Where this page is, which need not be the root of its host.
const SERVER = new URL('.', location.href).href;
const TICK = 1000; // milliseconds between two round-trip times of the chart
const BLINK = 3000; // milliseconds that the server may be away before it is worth a word

/** The keys of others, as this browser has them; and the first one of somebody is none but that which is remembered. */
class RememberedPins extends IndexedDBPins {
  #expected;

  /** @param {(userId: string) => string | null} expected  the fingerprint of an invitation, or one that was compared */
  constructor(expected) {
    super();
    this.#expected = expected;
  }

  /**
   * @override
   * @param {string} server
   * @param {string} userId
   * @param {Parameters<IndexedDBPins['pin']>[2]} publicKey
   */
  async pin(server, userId, publicKey) {
    const offered = await fingerprint(publicKey);
    const expected = this.#expected(userId);
    const first = expected !== null && (await this.find(server, userId)) === null;
    if (first && expected !== offered) throw new FingerprintMismatch(userId, expected, offered);
    return super.pin(server, userId, publicKey);
  }
}

export class Session {
  name = '';
  fingerprint = '';
  /** @type {StoreState['signaling']} */
  server = 'disconnected';
  /** @type {AldisError | null} why the server has gone for good */
  serverError = null;
  /** @type {People} */
  people;
  calling;

  #changed;
  #met;
  /** @type {NetworkStore | null} */
  #store = null;
  #pins = new RememberedPins((name) => this.people.find(name)?.verified?.fingerprint ?? null);
  #timer = 0;
  #serverLost = 0; // milliseconds
  /** Ends what the store tells: of an earlier one nobody hears any more. */
  #unsubscribe = () => {};

  /**
   * @param {() => void} changed
   * @param {(person: Person) => void} met  called when somebody who is not on the list has connected to us
   */
  constructor(changed, met) {
    this.#changed = changed;
    this.#met = met;
    this.people = new People('', changed);
    this.calling = new Calling(changed);
  }

  get running() {
    return this.#store !== null;
  }

  /** Whether what we know of who is online has become old. */
  get isServerAway() {
    if (this.server === 'connecting') return performance.now() - this.#serverLost > BLINK;
    return this.running && this.server === 'disconnected';
  }

  // --- this tab --------------------------------------------------------------------------------------------------

  /**
   * Connect to the server of this page under `name`, with the key that this browser has for it. Throws what the SDK does.
   *
   * @param {string} name
   */
  async start(name) {
    const identity = await Identity.loadOrCreate(name);
    const before = { name: this.name, people: this.people };
    // Before anybody can call: what they remember decides which keys are taken.
    if (name !== this.name) this.people = new People(name, this.#changed);
    this.name = name;
    const store = new NetworkStore({ identity, pins: this.#pins });
    try {
      await store.connectToSignaling(SERVER, name);
    } catch (error) {
      Object.assign(this, before);
      await store.disconnect();
      throw error;
    }
    // What an earlier store has said of them holds no longer.
    for (const person of this.people.list) Object.assign(person, { view: null, failure: null, stats: null });
    this.fingerprint = identity.fingerprint;
    this.#store = store;
    const ends = [
      store.onMessage(({ sender, content }) => {
        const person = this.people.get(sender);
        person.heard(content);
        this.people.notice(person);
      }),
      store.onFile((transfer) => {
        const person = this.people.get(transfer.userId);
        this.#show(person, transfer);
        this.people.notice(person);
      }),
      store.onCall((call) => this.#rings(call)),
      store.subscribe((state) => this.#took(state)),
    ];
    this.#unsubscribe = () => ends.forEach((end) => end());
    this.#watch(...this.people.names);
    this.#timer = window.setInterval(() => this.#tick(store), TICK);
    this.#changed();
  }

  /** Leave the server and all peers. The conversations stay on the screen until another name is chosen. */
  async stop() {
    const store = this.#store;
    this.#store = null;
    clearInterval(this.#timer);
    this.calling.end();
    this.#unsubscribe();
    this.#changed();
    await store?.disconnect();
  }

  /** Take the name back from another tab: a store has one life, so this is a new one. */
  async takeBack() {
    await this.stop();
    await this.start(this.name);
  }

  // --- people ----------------------------------------------------------------------------------------------------

  /**
   * Open the conversation with somebody, and connect. With the fingerprint of an `invitation` nobody else will do.
   *
   * @param {string} name
   * @param {string | null} [invitation]
   */
  open(name, invitation = null) {
    const person = this.people.get(name);
    this.people.show(person);
    this.#watch(name);
    if (invitation) void this.#follow(person, invitation);
    else if (person.presence !== 'connected') void this.connect(person);
  }

  /**
   * An invitation says whose key it means, which counts for as long as we know none: any page may link to this one.
   *
   * @param {Person} person
   * @param {string} invitation
   */
  async #follow(person, invitation) {
    const compared = person.verified?.how === 'compared' ? person.verified.fingerprint : null;
    try {
      const pinned = await this.#pins.find(this.#store?.state.server ?? '', person.name);
      const known = pinned ? await fingerprint(pinned) : compared;
      if (known && known !== invitation) {
        const facts = { userId: person.name, expected: invitation, offered: known };
        person.mismatch = new Problem('OtherInvitation', facts);
        this.#changed();
        return;
      }
    } catch (error) {
      this.#failed(person, error);
      return;
    }
    person.mismatch = null;
    // Now, not when they are connected: it shall hold after a reload, too.
    if (!compared) this.people.verify(person, { fingerprint: invitation, how: 'invitation' });
    await this.connect(person, invitation);
  }

  /** Somebody has read that an invitation meant another key. @param {Person} person */
  dismiss(person) {
    person.mismatch = null;
    this.#changed();
  }

  /** @param {Person} person @param {string | null} [invitation] */
  async connect(person, invitation = null) {
    // As long as no key of theirs is known, only that of the invitation will do; once it is, the SDK keeps to it.
    const expected = invitation ?? (person.fingerprint ? null : (person.verified?.fingerprint ?? null));
    person.failure = null;
    this.#changed();
    try {
      await this.#store?.connectToPeer(person.name, { fingerprint: expected });
    } catch (error) {
      this.#failed(person, error);
    }
    this.#changed();
  }

  /** @param {Person} person @param {unknown} error */
  #failed(person, error) {
    if (error instanceof FingerprintMismatch) person.mismatch = error;
    else person.failure = /** @type {AldisError} */ (error);
    void this.#compareKeys(person);
    this.#changed();
  }

  /** Take somebody off the list. @param {Person} person */
  async remove(person) {
    if (this.calling.person === person) this.calling.end();
    await this.#store?.disconnectFromPeer(person.name);
    this.#store?.unwatch(person.name).catch(() => {}); // the server forgets it with the connection
    this.people.remove(person);
  }

  /**
   * Trust the new key of somebody. To be called only after a person has decided so, about the key that they saw.
   *
   * @param {Person} person
   * @param {NewKey} seen
   */
  async acceptKey(person, seen) {
    if (person.newKey !== seen) return; // yet another one has come meanwhile, and is shown next
    try {
      await this.#store?.acceptKey(person.name, seen.error.offered);
    } catch (error) {
      this.#failed(person, error);
      return;
    }
    person.newKey = null;
    this.people.verify(person, null); // what was made sure of was the other one
    await this.connect(person);
  }

  // --- messages, files, calls ------------------------------------------------------------------------------------

  /** @param {Person} person @param {string} text */
  async say(person, text) {
    const entry = person.wrote(text);
    this.#changed();
    try {
      await this.#need().send(person.name, text); // is queued at once; what we wait for is that they have it
      Object.assign(entry, { state: 'delivered', whole: '' });
    } catch (error) {
      Object.assign(entry, { state: 'failed', error });
    }
    this.#changed();
  }

  /** Say once more what has failed. @param {Person} person @param {TextEntry} entry */
  sayAgain(person, entry) {
    const at = person.entries.indexOf(entry);
    if (at < 0) return; // pressed twice
    person.entries.splice(at, 1);
    void this.say(person, entry.whole);
  }

  /** @param {Person} person @param {Iterable<File>} files */
  async sendFiles(person, files) {
    // A copy: the list of a file input changes with the input.
    for (const file of [...files]) {
      try {
        this.#show(person, await this.#need().sendFile(person.name, file));
      } catch (error) {
        person.note(`${file.name}: ${explainShort(error)}`);
      }
      this.#changed();
    }
  }

  /** Take a file that is on offer. @param {FileEntry} entry */
  async take(entry) {
    if (entry.taking) return;
    entry.taking = true;
    const sink = await sinkOnDisk((file) => (entry.onDisk = file));
    if (entry.transfer.state === 'offered') entry.transfer.accept({ sink });
    else await sink?.abort(); // it was taken back meanwhile
  }

  /** @param {Person} person @param {{ video: boolean }} wanted */
  call(person, { video }) {
    return this.calling.start(person, video, (stream) => this.#need().call(person.name, stream));
  }

  /** Whether something is lost when the page goes now. */
  get unfinished() {
    return this.running && (this.calling.call !== null || this.people.list.some((person) => person.unfinished));
  }

  // --- what the store tells --------------------------------------------------------------------------------------

  /** @param {StoreState} state */
  #took(state) {
    if (state.signaling === 'connecting' && this.server !== 'connecting') this.#serverLost = performance.now();
    this.server = state.signaling;
    this.serverError = state.signalingError;
    for (const view of Object.values(state.peers)) this.#saw(view);
    this.#changed();
  }

  /** @param {PeerView} view */
  #saw(view) {
    // Whoever connects to us comes on the list; whom we only ask about, or have removed, does not.
    const known = this.people.find(view.userId);
    if (!known && view.state !== 'connected') return;
    const person = known ?? this.people.get(view.userId);
    const before = person.view;
    person.view = view;
    if (!known) this.#met(person);
    if (view.state === 'connected') person.failure = null;
    if (view.fingerprint && view.fingerprint === person.mismatch?.expected)
      person.mismatch = null; // it is them after all
    else if (view.online && !before?.online) void this.connect(person); // they are back
    void this.#compareKeys(person);
  }

  /** Have the fingerprints of a changed key ready. @param {Person} person */
  async #compareKeys(person) {
    const error = /** @type {any} */ (person.problem);
    if (error?.name !== 'PeerKeyChanged') person.newKey = null;
    if (error?.name !== 'PeerKeyChanged' || person.newKey?.error === error) return;
    const [before, after] = await Promise.all([fingerprint(error.pinned), fingerprint(error.offered)]);
    if (person.problem === error) person.newKey = { error, before, after };
    this.#changed();
  }

  /** @param {Call} call */
  #rings(call) {
    const person = this.people.get(call.userId);
    if (!this.calling.ring(person, call, person === this.people.current)) this.people.notice(person);
  }

  /** @param {Person} person @param {Transfer} transfer */
  #show(person, transfer) {
    person.file(transfer);
    transfer.subscribe(this.#changed);
  }

  /** @param {string[]} names */
  #watch(...names) {
    // Without an answer their presence stays unknown, and what is wrong with the server is told anyway.
    if (names.length) this.#store?.watch(...names).catch(() => {});
  }

  #need() {
    if (!this.#store) throw new Problem('NotConnected');
    return this.#store;
  }

  /** @param {NetworkStore} store */
  async #tick(store) {
    const now = performance.now() / 1000;
    for (const person of this.people.list) person.sample(now);
    const person = this.people.current;
    if (person) person.stats = person.presence === 'connected' ? await store.stats(person.name) : null;
    this.#changed();
  }
}
