/**
 * A file in a conversation, from the offer to the end.
 *
 * What was received is never shown as a document of this page: it is saved under a type that no browser opens, and only
 * pictures without a program in them are shown small. Addresses of blobs are released after use.
 */

/** @import { Transfer, TransferFailed } from '../../sdk/index.js' */
/** @import { FileEntry, Person } from '../person.js' */
/** @import { View } from '../dom.js' */
import { bdi, fill, h, icon, setText } from '../dom.js';
import { bytes, explainShort, named } from '../words.js';
import { foot } from './entries.js';

const SHOWN = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif']); // no SVG, which can hold scripts
const MAX_SHOWN = 20_000_000; // bytes
const SPEED_SECONDS = 3; // long enough to be calm, short enough to be true
const RELEASE_AFTER = 60_000; // milliseconds in which a browser has begun to save a file

/** @param {FileEntry} entry @param {Person} person @param {() => void} take @returns {View} */
export function fileEntry(entry, person, take) {
  const { transfer, mine } = entry;
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
    h('h3', { class: 'unseen' }, mine ? 'You send a file' : 'A file for you'),
    preview,
    h('div', { class: 'file-head' }, icon('file'), h('div', {}, bdi(transfer.name, { class: 'file-name' }), state)),
    progress,
    buttons,
    foot(entry.at),
  );
  return {
    element,
    render() {
      const waiting = mine && transfer.state === 'offered' && person.presence !== 'connected';
      element.dataset.state = waiting ? 'waiting' : transfer.state;
      progress.hidden = transfer.state !== 'running';
      progress.max = transfer.size || 1;
      progress.value = transfer.transferred;
      const size = `${bytes(transfer.size)} · `;
      if (waiting) setText(state, `${size}waits until ${named(person.name)} is back`);
      else if (entry.saved) setText(state, `${size}saved`);
      else setText(state, describe(transfer, speedOf(transfer)));
      const blob = transfer.state === 'done' ? (entry.onDisk ?? transfer.blob) : null;
      fill(buttons, transfer.state, () => actions(entry, take, blob));
      fill(preview, blob, () => [blob && SHOWN.has(transfer.mime) && blob.size <= MAX_SHOWN && small(blob, transfer)]);
    },
  };
}

/** @param {FileEntry} entry @param {() => void} take @param {Blob | null} blob */
function actions(entry, take, blob) {
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
      return [button('Accept', take, 'primary'), button('Decline', () => transfer.decline())];
    case 'running':
      return [button('Cancel', () => transfer.cancel())];
    case 'done': {
      if (!blob) return [];
      const first = button(
        'Save',
        () => {
          save(entry, blob);
          // The same button, so that the focus stays where it is.
          setText(first, 'Save again');
          first.setAttribute('aria-label', `Save again ${transfer.name}`);
          first.classList.remove('primary');
        },
        'primary',
      );
      return [first];
    }
    default:
      return [];
  }
}

/** @param {Transfer} transfer @param {number} speed */
function describe({ state, direction, size, transferred, userId, error }, speed) {
  const mine = direction === 'out';
  switch (state) {
    case 'offered':
      return mine ? `${bytes(size)} · waiting for ${named(userId)} to accept` : bytes(size);
    case 'running':
      return `${bytes(transferred)} of ${bytes(size)}${speed ? ` · ${bytes(speed)}/s` : ''}`;
    case 'done':
      return `${bytes(size)} · ${mine ? 'delivered' : 'received'}`;
    case 'declined':
      return `${bytes(size)} · ${mine ? `${named(userId)} did not want it` : 'you declined it'}`;
    case 'cancelled':
      return `${bytes(size)} · ${cancelled(userId, /** @type {TransferFailed} */ (error).reason)}`;
    default:
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

/** @param {FileEntry} entry @param {Blob} blob */
function save(entry, blob) {
  entry.saved = true;
  const url = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
  h('a', { href: url, download: entry.transfer.name }).click();
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
