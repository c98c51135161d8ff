/** Two ends of calls without a store: messages between them cross as a test says, and tracks flow when it says so. */
import { toBase64url } from '../../src/protocol/codec.js';
import { CallService } from '../../src/store/calls/service.js';
import { decodeControl, encodeControl } from '../../src/store/messages/control.js';
import { Callbacks } from '../../src/client/callbacks.js';
import { camera, FakeStream, FakeTrack } from './fake_media.js';
import { FakeTimers } from './fake_timers.js';

globalThis.MediaStream ??= /** @type {any} */ (FakeStream); // Node has none

/**
 * One end: its calls, and what they see of the store. What is said waits until it is delivered, so that messages can cross;
 * the tracks of the other end come with `track`, as if that were the renegotiation.
 */
export class End {
  /** @type {readonly string[] | null} */
  features = ['files', 'calls'];
  /** Whether something connects the two, or is about to. */
  attached = true;
  /** @type {any} what is sent on the connection: null nothing, undefined not asked for yet */
  sending;
  /** @type {Uint8Array[]} */
  said = [];
  /** @type {string[]} */
  opened = [];
  changes = 0;
  /** @type {Error | null} why nothing can be said */
  refusal = null;
  onCall = new Callbacks();
  /** @type {import('../../src/store/calls/call.js').Call[]} */
  incoming = [];
  timers = new FakeTimers();

  /** @param {string} other @param {{ answers?: boolean }} [options] */
  constructor(other, { answers = true } = {}) {
    this.other = other;
    const end = this;
    this.peer = {
      userId: other,
      get directFeatures() {
        return end.features;
      },
      sendControl(control) {
        if (end.refusal) throw end.refusal;
        end.said.push(control);
      },
      call() {
        if (end.refusal) throw end.refusal;
        end.opened.push(other);
      },
      get connection() {
        return end.attached ? { setTracks: (stream) => (end.sending = stream) } : null;
      },
      reconsider: () => void this.changes++,
    };
    if (answers) {
      this.onCall.add((call) => this.incoming.push(call));
    }
    let next = 0;
    this.calls = new CallService(this.onCall, {
      timers: this.timers,
      random: (size) => new Uint8Array(size).fill(++next, 1).fill(other.length, 0, 1),
    });
  }

  /** What was said since the last time. */
  messages() {
    return this.said.splice(0).map((control) => decodeControl(control));
  }

  /** @param {any} message */
  hear(message) {
    this.calls.received(this.peer, decodeControl(encodeControl(message)));
  }

  /** The connection is there, or there again. */
  connect(features = ['calls']) {
    this.features = features;
    this.calls.connected(this.peer, features);
  }

  /** @param {'audio' | 'video'} kind @param {FakeStream} [stream] */
  track(kind, stream) {
    const track = /** @type {any} */ (new FakeTrack(kind));
    this.calls.trackReceived(this.peer, track, /** @type {any} */ (stream ? [stream] : []));
    return track;
  }
}

/** Two ends, connected. */
export function pair() {
  const alice = new End('bobby');
  const bob = new End('alice.');
  /** What both have said reaches the other, until there is silence. */
  const deliver = () => {
    for (;;) {
      const [ours, theirs] = [alice.messages(), bob.messages()];
      if (ours.length + theirs.length === 0) {
        return;
      }
      ours.forEach((message) => bob.hear(message));
      theirs.forEach((message) => alice.hear(message));
    }
  };
  return { alice, bob, deliver };
}

/** Two ends that are in a call, each sending sound and pictures, none of which has arrived yet. */
export function talking() {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, camera('audio', 'video'));
  deliver();
  const [answered] = bob.incoming;
  answered.accept(camera('audio', 'video'));
  deliver();
  return { alice, bob, deliver, call, answered };
}

/** A call that nobody has made. */
export const ID = toBase64url(new Uint8Array(8).fill(200));
