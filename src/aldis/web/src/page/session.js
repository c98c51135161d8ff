/**
 * This tab's identity, its store, and the people it talks to. The one file that talks to the SDK.
 *
 * Views read the fields and call the methods; `changed` is called after every change, often several times in a row.
 * Nothing a view does with it can fail: what goes wrong is kept beside what it concerns, for words.js to explain.
 */

/** @import { AldisError, Call, Delivery, DeliveryFailed, PeerView, Privacy, StoreState, Transfer, Visibility } from '../sdk/index.js' */
/** @import { Folder } from './folders.js' */
/** @import { Queue } from './queue.js' */
/** @import { FileEntry, NewKey, Person, TextEntry } from './person.js' */
import { fingerprint, FingerprintMismatch, Identity, IndexedDBPins, NetworkStore } from '../sdk/index.js';
import { Calling } from './calling.js';
import { sinkOnDisk } from './disk.js';
import { People } from './people.js';
import { takeQueue } from './queue.js';
import { tabToken } from './token.js';
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
  /** @type {unknown} why what waits is not kept, or cannot be written now */
  queueProblem = null;
  /** @type {Readonly<Privacy>} who may see and call us, our contacts, and who is blocked */
  privacy = { presence: 'public', offers: 'public', contacts: [], blocked: [] };
  /** @type {unknown} why the last change of that has failed */
  privacyProblem = null;
  /** How many changes the server has not answered yet. */
  privacyAsked = 0;
  /** @type {People} */
  people;
  calling;

  #changed;
  #met;
  /** @type {NetworkStore | null} */
  #store = null;
  /** @type {import('./queue.js').Queue | null} */
  #queue = null;
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
   * Connect to the server of this page under `name`, with the key that this browser has for it, and send what waits.
   * Throws what the SDK does.
   *
   * @param {string} name
   * @param {(error: unknown) => void} [waiting]  another window has what waits, and has not let go of it yet
   */
  async start(name, waiting = () => {}) {
    const identity = await Identity.loadOrCreate(name);
    const queue = await takeQueue(name, { waiting, asked: () => void this.#giveUp() });
    const { journal } = queue;
    const before = { name: this.name, people: this.people };
    // Before anybody can call: what they remember decides which keys are taken.
    if (name !== this.name) this.people = new People(name, this.#changed);
    this.name = name;
    const store = new NetworkStore({ identity, pins: this.#pins, journal });
    /** @type {Transfer[]} */
    const resumed = []; // shown when this is the store
    const resume = store.onResumedFile((transfer) => resumed.push(transfer));
    try {
      await store.connectToSignaling(SERVER, name, { token: tabToken() });
    } catch (error) {
      Object.assign(this, before);
      await store.disconnect();
      queue.forgo();
      throw error;
    }
    // What an earlier store has said of them holds no longer.
    for (const person of this.people.list) Object.assign(person, { view: null, failure: null, stats: null });
    this.fingerprint = identity.fingerprint;
    this.#store = store;
    this.#queue = queue;
    this.#showQueued(journal?.queued ?? []);
    resume();
    for (const transfer of resumed) this.#goesOn(transfer);
    const ends = [
      store.onResumedFile((transfer) => this.#goesOn(transfer)),
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
    this.#queue?.forgo();
  }

  /** Another window of this browser has the name, and what waits, from now on. */
  async #giveUp() {
    this.#queue?.forgo();
    this.calling.end();
    await this.#store?.disconnect();
    this.serverError = /** @type {AldisError} */ (
      /** @type {unknown} */ (new Problem('ConnectionClosed', { code: 4001 }))
    );
    this.#changed();
  }

  /**
   * Show what an earlier window had written, and nobody has got yet.
   *
   * @param {NonNullable<Queue['journal']>['queued']} queued
   */
  #showQueued(queued) {
    for (const person of this.people.list) person.forgetWaiting();
    for (const { userId, content, delivery, queuedAt } of queued) {
      const entry = this.people.get(userId).wrote(typeof content === 'string' ? content : 'data', new Date(queuedAt));
      void this.#follow(entry, delivery);
    }
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
    person.blocked = this.privacy.blocked.includes(name);
    this.people.show(person);
    this.#watch(name);
    if (invitation) void this.#followInvitation(person, invitation);
    else if (person.presence !== 'connected') void this.connect(person);
  }

  /**
   * An invitation says whose key it means, which counts for as long as we know none: any page may link to this one.
   *
   * @param {Person} person
   * @param {string} invitation
   */
  async #followInvitation(person, invitation) {
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
    if (person.blocked) return;
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
    const files = person.entries.filter((entry) => entry.kind === 'file');
    const released = files.map(({ transfer }) => transfer.release().catch(() => {}));
    await this.#store?.disconnectFromPeer(person.name);
    await Promise.all(released); // or a window that is loaded anew has them on the list again
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

  // --- who may see and call us -----------------------------------------------------------------------------------

  /** Have nothing to do with somebody any more. @param {Person} person */
  async block(person) {
    if (this.calling.person === person) this.calling.end();
    await this.#changePrivacy((store) => store.block(person.name));
    const problem = /** @type {AldisError | null} */ (this.privacyProblem);
    // What holds for now is that they are blocked, and the SDK tells the server later.
    if (problem) person.note(explainShort(problem.temporary ? new Problem('BlockNotKept') : problem));
    this.#changed();
  }

  /** @param {string} name */
  async unblock(name) {
    await this.#changePrivacy((store) => store.unblock(name));
    const person = this.people.find(name);
    if (person && this.privacyProblem) person.note(explainShort(this.privacyProblem));
    if (person && !person.blocked) void this.connect(person);
  }

  /** @param {Visibility} choice  for being seen, and for being called */
  setVisibility(choice) {
    return this.#changePrivacy((store) => store.setVisibility({ presence: choice, offers: choice }));
  }

  /** @param {{ add?: string, remove?: string }} change */
  changeContacts({ add, remove }) {
    return this.#changePrivacy(async (store) => {
      if (add) await store.addContacts(add);
      if (remove) await store.removeContacts(remove);
    });
  }

  /** Count somebody as a contact, or no longer. @param {Person} person @param {boolean} wanted */
  async markContact(person, wanted) {
    await this.changeContacts(wanted ? { add: person.name } : { remove: person.name });
    if (this.privacyProblem) person.note(explainShort(this.privacyProblem));
    this.#changed();
  }

  /** @param {(store: NetworkStore) => Promise<void>} change */
  async #changePrivacy(change) {
    this.privacyProblem = null;
    this.privacyAsked += 1;
    this.#changed();
    try {
      await change(this.#need());
    } catch (error) {
      this.privacyProblem = error;
    }
    this.privacyAsked -= 1;
    this.#changed();
  }

  // --- messages, files, calls ------------------------------------------------------------------------------------

  /** @param {Person} person @param {string} text */
  async say(person, text) {
    const entry = person.wrote(text);
    this.#changed();
    try {
      await this.#follow(entry, this.#need().send(person.name, text)); // is queued at once
    } catch (error) {
      Object.assign(entry, { state: 'failed', error });
    }
    this.#changed();
  }

  /** See what becomes of a message. @param {TextEntry} entry @param {Delivery} delivery */
  async #follow(entry, delivery) {
    try {
      await delivery.whenStored();
      entry.stored = true;
      this.#changed();
      await delivery;
      Object.assign(entry, { state: 'delivered', whole: '' });
    } catch (error) {
      // What stays in the journal waits on: for this window, or for another one.
      if (!(/** @type {DeliveryFailed} */ (error).kept)) Object.assign(entry, { state: 'failed', error });
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
      await this.#offer(person, file.name, () => this.#need().sendFile(person.name, file));
    }
  }

  /** @param {Person} person @param {Folder} folder */
  async sendFolder(person, { name, read }) {
    await this.#offer(person, name, async () => {
      const files = await read().catch(() => {
        throw new Problem('FolderUnreadable');
      });
      if (!files.length) throw new Problem('FolderEmpty');
      return this.#need()
        .sendFile(person.name, files, { name })
        .catch((error) => {
          throw error.name === 'UsageError' ? new Problem('FolderUnfit', { reason: error.message }) : error;
        });
    });
  }

  /** @param {Person} person @param {string} name @param {() => Promise<Transfer>} send */
  async #offer(person, name, send) {
    try {
      this.#show(person, await send());
    } catch (error) {
      person.note(`${name}: ${explainShort(error)}`);
    }
    this.#changed();
  }

  /** Take a file that is on offer. @param {FileEntry} entry */
  async take(entry) {
    if (entry.taking) return;
    const { transfer } = entry;
    entry.taking = true;
    if (transfer.canKeep && !this.queueProblem) {
      transfer.accept({ hold: true }); // until it is saved
      return;
    }
    // A folder is taken apart in memory, where a browser has blobs on its disk.
    const sink = transfer.isFolder ? undefined : await sinkOnDisk((file) => (entry.onDisk = file));
    if (transfer.state === 'offered') transfer.accept({ sink });
    else await sink?.abort(); // it was taken back meanwhile
  }

  /** Nobody wants to save what has arrived. @param {Person} person @param {FileEntry} entry */
  async discard(person, entry) {
    // It stays in sight until the browser has forgotten it: a window that is loaded anew before shows it again.
    await entry.transfer.release().catch(() => {}); // what is wrong with the journal is told beside the list
    person.drop(entry);
    this.#changed();
  }

  /** @param {Person} person @param {{ video: boolean }} wanted */
  call(person, { video }) {
    return this.calling.start(person, video, (stream) => this.#need().call(person.name, stream));
  }

  /** Whether something is lost when the page goes now. */
  get unfinished() {
    const isKept = Boolean(this.#queue?.journal) && !this.queueProblem;
    return (
      this.running && (this.calling.call !== null || this.people.list.some((person) => person.isUnfinished(isKept)))
    );
  }

  // --- what the store tells --------------------------------------------------------------------------------------

  /** @param {StoreState} state */
  #took(state) {
    if (state.signaling === 'connecting' && this.server !== 'connecting') this.#serverLost = performance.now();
    this.server = state.signaling;
    this.serverError = state.signalingError;
    this.queueProblem = this.#stopped(state.journalError) ?? this.#queue?.problem ?? null;
    this.privacy = state.privacy;
    for (const person of this.people.list) person.blocked = state.privacy.blocked.includes(person.name);
    for (const view of Object.values(state.peers)) this.#saw(view);
    this.#changed();
  }

  /** Why the journal cannot be written; the same again while it fails in the same way. @param {Error | null} error */
  #stopped(error) {
    const before = /** @type {any} */ (this.queueProblem);
    if (!error || before?.cause?.name === error.name) return error && before;
    return new Problem('JournalStopped', { cause: error });
  }

  /** @param {PeerView} view */
  #saw(view) {
    // Whoever connects to us comes on the list; whom we only ask about, or have removed, does not.
    const known = this.people.find(view.userId);
    if (!known && view.state !== 'connected') return;
    const person = known ?? this.people.get(view.userId);
    const before = person.view;
    person.view = view;
    if (person.blocked) {
      person.failure = null;
      return;
    }
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

  /** @param {Person} person @param {Transfer} transfer  returns whether it is not on the screen yet */
  #show(person, transfer) {
    const isNew = person.file(transfer);
    transfer.subscribe(this.#changed);
    return isNew;
  }

  /** One that was begun before goes on, or is to be saved. @param {Transfer} transfer */
  #goesOn(transfer) {
    const person = this.people.get(transfer.userId);
    if (this.#show(person, transfer) && transfer.state === 'done') this.people.notice(person);
  }

  /** @param {string[]} names */
  #watch(...names) {
    // Without an answer their presence stays unknown, and what is wrong with the server is told anyway.
    if (names.length) this.#store?.watch(...names).catch(() => {});
  }

  /** By which ways others are reached from here, and whether somebody is reached through the server. Rejects with what went wrong. */
  async ways() {
    const ways = await this.#need().ways();
    return { ...ways, isRelayed: this.people.list.some(({ isRelayed }) => isRelayed) };
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
    if (person) {
      const there = person.presence === 'connected' || person.presence === 'interrupted';
      person.quality = there ? await store.quality(person.name) : null;
      person.stats = person.presence === 'connected' ? await store.stats(person.name) : null;
    }
    this.#changed();
  }
}
