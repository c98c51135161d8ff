/**
 * A file in a conversation, from the offer to the end.
 *
 * What was received is never shown as a document of this page: it is saved under a type that no browser opens, and only
 * pictures without a program in them are shown small. Addresses of blobs are released after use.
 */

/** @import { Transfer, TransferFailed } from '../../sdk/index.js' */
/** @import { FileEntry, Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { bdi, fill, h, icon, setText } from '../dom.js';
import { goesOn } from '../person.js';
import { bytes, explainShort, named } from '../words.js';
import { foot } from './entries.js';

const SHOWN = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif']); // no SVG, which can hold scripts
const MAX_SHOWN = 20_000_000; // bytes
const MAX_LISTED = 100; // files of a folder
const SPEED_SECONDS = 3; // long enough to be calm, short enough to be true
const RELEASE_AFTER = 60_000; // milliseconds in which a browser has begun to save a file

/** @param {FileEntry} entry @param {Person} person @param {Session} session @returns {View} */
export function fileEntry(entry, person, session) {
  const { transfer, mine } = entry;
  const what = transfer.isFolder ? 'folder' : 'file';
  const state = h('span', { class: 'file-state', 'aria-live': 'off' });
  const progress = h('progress', {
    'aria-label': `Progress of ${transfer.name}`,
  });
  const preview = h('div', { class: 'preview' });
  const buttons = h('div', { class: 'buttons' });
  const speedOf = speedometer();
  const element = h(
    'article',
    { class: `entry file ${mine ? 'mine' : 'theirs'}`, tabindex: -1 },
    h('h3', { class: 'unseen' }, `${mine ? 'You send a' : 'A'} ${what}${mine ? '' : ' for you'}`),
    preview,
    h('div', { class: 'file-head' }, icon(what), h('div', {}, bdi(transfer.name, { class: 'file-name' }), state)),
    progress,
    buttons,
    foot(entry.at),
  );
  return {
    element,
    render() {
      const isRunning = transfer.state === 'running';
      const isOnItsWay = isRunning || (mine && transfer.state === 'offered');
      const waiting = person.presence !== 'connected' && isOnItsWay;
      const isStopped = transfer.needsDirect && isOnItsWay;
      element.dataset.state = waiting || isStopped ? 'waiting' : transfer.state;
      progress.hidden = !isRunning;
      progress.max = transfer.size || 1;
      progress.value = transfer.transferred;
      const size = transfer.size === null ? '' : `${bytes(transfer.size)} · `;
      const part = isRunning ? `${bytes(transfer.transferred)} of ${size}` : size;
      if (waiting) setText(state, `${part}waits until ${named(person.name)} is back`);
      else if (isStopped) setText(state, `${part}waits for a direct connection`);
      else if (entry.saved) setText(state, `${size}saved`);
      else setText(state, describe(transfer, speedOf(transfer)));
      const blob = transfer.state === 'done' ? (entry.onDisk ?? transfer.blob) : null;
      fill(buttons, transfer.state, () => actions(entry, person, session, blob));
      fill(preview, blob, () => [
        blob && !transfer.isFolder && SHOWN.has(transfer.mime) && blob.size <= MAX_SHOWN && small(blob, transfer),
      ]);
    },
  };
}

/** @param {FileEntry} entry @param {Person} person @param {Session} session @param {Blob | null} blob */
function actions(entry, person, session, blob) {
  const { transfer, mine } = entry;
  const button = (/** @type {string} */ label, /** @type {() => void} */ onclick, kind = '') =>
    h(
      'button',
      {
        type: 'button',
        class: kind,
        onclick,
        'aria-label': `${label} ${transfer.name}`,
      },
      label,
    );
  switch (transfer.state) {
    case 'offered':
      if (mine) return [button('Cancel', () => transfer.cancel())];
      return [button('Accept', () => void session.take(entry), 'primary'), button('Decline', () => transfer.decline())];
    case 'running':
      return [button('Cancel', () => transfer.cancel())];
    case 'done': {
      // What is kept stays in this browser until it is saved, or discarded.
      const discard =
        transfer.kept && !entry.saved ? [button('Discard', () => void session.discard(person, entry))] : [];
      if (transfer.isFolder) return mine ? [] : [contents(entry), ...discard];
      if (!blob) return [];
      const first = button(
        'Save',
        () => {
          save(entry, blob);
          // The same button, so that the focus stays where it is.
          setText(first, 'Save again');
          first.setAttribute('aria-label', `Save again ${transfer.name}`);
          first.classList.remove('primary');
          first.nextElementSibling?.remove();
        },
        'primary',
      );
      return [first, ...discard];
    }
    default:
      return [];
  }
}

/** @param {Transfer} transfer @param {number} speed */
function describe({ state, direction, size, transferred, userId, error, keptProblem }, speed) {
  const mine = direction === 'out';
  const whole = size === null ? 'size not known yet' : bytes(size);
  switch (state) {
    case 'offered':
      return mine ? `${whole} · waiting for ${named(userId)} to accept` : whole;
    case 'running':
      return `${bytes(transferred)}${size === null ? '' : ` of ${whole}`}${speed ? ` · ${bytes(speed)}/s` : ''}${
        keptProblem && ' · keep this window open'
      }`;
    case 'done':
      return `${whole} · ${mine ? 'delivered' : 'received'}`;
    case 'declined':
      return `${whole} · ${mine ? `${named(userId)} did not want it` : 'you declined it'}`;
    case 'cancelled':
      return `${whole} · ${cancelled(userId, /** @type {TransferFailed} */ (error).reason)}`;
    default:
      if (goesOn({ error }))
        return `${bytes(transferred)} of ${whole} · goes on ${mine ? 'later' : `when ${named(userId)} is back`}`;
      return error ? explainShort(error) : 'failed';
  }
}

/** Who has cancelled it, and why. @param {string} name @param {string} reason */
function cancelled(name, reason) {
  return reason.replace(/^cancelled by the other side/, `${named(name)} cancelled it`);
}

/** Bytes in a second, over the last few seconds. */
function speedometer() {
  /** @type {{ at: number, count: number }[]} */
  const marks = [];
  return (/** @type {Transfer} */ { state, transferred }) => {
    if (state !== 'running') return 0;
    const at = performance.now() / 1000;
    marks.push({ at, count: transferred });
    while (marks[1] && marks[1].at < at - SPEED_SECONDS) marks.shift();
    const oldest = marks[0] ?? { at, count: transferred };
    return at - oldest.at < 0.5 ? 0 : Math.round((transferred - oldest.count) / (at - oldest.at));
  };
}

/** The files of a folder, each with a button to save it. When all are saved, the browser need not keep them. @param {FileEntry} entry */
function contents(entry) {
  const { files, name } = entry.transfer;
  const left = new Set(files);
  const rows = files.slice(0, MAX_LISTED).map((file) => {
    const { path, blob } = file;
    const label = `Save ${path}`;
    const onclick = () => {
      download(path.replace(/.*\//, ''), blob);
      left.delete(file);
      if (left.size) return;
      entry.saved = true;
      void entry.transfer.release();
    };
    return h(
      'li',
      {},
      h('span', {}, bdi(path), ` · ${bytes(blob.size)}`),
      h('button', { type: 'button', onclick, 'aria-label': label }, 'Save'),
    );
  });
  const more = files.length - rows.length;
  if (more > 0) rows.push(h('li', {}, `and ${more} more: use aldis receive for large folders`));
  return h('ul', { class: 'folder-files', 'aria-label': `Files in ${name}` }, ...rows);
}

/** @param {FileEntry} entry @param {Blob} blob */
function save(entry, blob) {
  entry.saved = true;
  download(entry.transfer.name, blob);
  void entry.transfer.release(); // the blob stays as long as this page
}

/** @param {string} name @param {Blob} blob */
function download(name, blob) {
  const url = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), RELEASE_AFTER);
}

/** @param {Blob} blob @param {Transfer} transfer */
function small(blob, { mime, name }) {
  const url = URL.createObjectURL(new Blob([blob], { type: mime }));
  const release = () => URL.revokeObjectURL(url);
  const image = h('img', {
    src: url,
    alt: `Picture ${name}`,
    onload: release,
    onerror: () => (release(), image.remove()),
  });
  return image;
}
