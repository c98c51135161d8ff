/**
 * Saves outboxes and inboxes, and restores them after a restart of the program. In Python these are methods of `Outbox` and
 * `Inbox`; here they are functions, because no page uses them yet and a bundle leaves out functions only.
 *
 * A snapshot has no channel in it: the next one begins with HELLO.
 *
 * Pure: no I/O. It does not know where a snapshot is kept.
 */
import { UsageError } from '../../errors.js';
import { Inbox, MAX_STREAMS } from './inbox.js';
import { Outbox } from './outbox.js';

/** @import { StreamPosition } from '../../protocol/channel.js' */
/** @import { Bytes } from '../../protocol/codec.js' */

/**
 * What an outbox has to know after a restart of the program. It is worth nothing any more when a message has been put
 * in or sent after it: its number would be used twice.
 *
 * @typedef {object} OutboxSnapshot
 * @property {string} stream
 * @property {number} acknowledged
 * @property {number} sent The newest message that was ever sent whole.
 * @property {[content: number, data: Bytes][]} messages Those from number `acknowledged` + 1 on.
 */

/**
 * How far each stream of the peer was handed over, in the order of their use: the last one is in use. What has arrived and
 * was not handed over is not in it: it was not acknowledged, so it comes again.
 *
 * @typedef {{ streams: StreamPosition[] }} InboxSnapshot
 */

/**
 * All that has to be kept for `restoreOutbox`.
 *
 * @param {Outbox} outbox
 * @returns {OutboxSnapshot}
 */
export function snapshotOutbox({ stream, acknowledged, newestSent: sent, unacknowledged }) {
  /** @type {OutboxSnapshot['messages']} */
  const messages = Array.from(unacknowledged.values(), ({ content, data }) => [content, data]);
  return { stream, acknowledged, sent, messages };
}

/**
 * The outbox as it was, without a channel.
 *
 * @param {OutboxSnapshot} snapshot
 * @throws {UsageError} for numbers that cannot be.
 */
export function restoreOutbox({ stream, acknowledged, sent, messages }) {
  if (!(acknowledged >= 0 && sent >= acknowledged && sent <= acknowledged + messages.length)) {
    throw new UsageError('no snapshot of an outbox');
  }
  const outbox = new Outbox(stream);
  outbox.acknowledged = acknowledged;
  for (const [content, data] of messages) outbox.put(content, data);
  outbox.newestSent = sent;
  outbox.closed();
  return outbox;
}

/**
 * All that has to be kept for `restoreInbox`.
 *
 * @param {Inbox} inbox
 * @returns {InboxSnapshot}
 */
export function snapshotInbox({ streams }) {
  return { streams: streams.map(({ name, handedOver }) => ({ stream: name, sequence: handedOver })) };
}

/**
 * The inbox as it was, without a channel.
 *
 * @param {InboxSnapshot} snapshot
 * @throws {UsageError} for streams that cannot be.
 */
export function restoreInbox({ streams }) {
  const names = new Set(streams.map(({ stream }) => stream));
  if (
    names.size < streams.length ||
    names.size > MAX_STREAMS ||
    streams.some((each) => !each.stream || !(each.sequence >= 0))
  ) {
    throw new UsageError('no snapshot of an inbox');
  }
  const inbox = new Inbox();
  for (const { stream, sequence } of streams) inbox.opened({ stream, next: sequence + 1 });
  inbox.closed();
  return inbox;
}
