/**
 * What was said, and what has happened, line by line.
 */

/** @import { NoteEntry, Person, TextEntry } from '../person.js' */
/** @import { View } from '../dom.js' */
import { bdi, fill, h, icon } from '../dom.js';
import { clock, count, explainUndelivered, named } from '../words.js';

const MAX_LINKS = 100; // in one message: each is an element

/** @param {TextEntry} entry @param {Person} person @param {() => void} again @returns {View} */
export function textEntry(entry, person, again) {
  const status = h('span', { class: 'delivery', 'aria-live': 'off' });
  const problem = h('p', { class: 'entry-problem' });
  const text = entry.code ? h('pre', {}, entry.text) : h('p', { dir: 'auto' }, ...linked(entry.text));
  const rest =
    entry.more > 0 && h('p', { class: 'fine' }, `… and ${count(entry.more)} characters more, not shown here.`);
  const element = h(
    'article',
    { class: `entry ${entry.mine ? 'mine' : 'theirs'}` },
    author(entry, person),
    text,
    rest,
    foot(entry.at, status),
    problem,
  );
  return {
    element,
    render() {
      if (!entry.mine) return;
      const waiting = person.presence === 'connected' || !entry.stored ? 'sending' : 'waiting';
      const word = entry.state === 'waiting' ? waiting : entry.state;
      element.dataset.state = word;
      fill(status, word, () => {
        if (word === 'failed') return [icon('warning'), 'not delivered'];
        if (word === 'delivered') return [icon('delivered'), h('span', { class: 'unseen' }, 'delivered')];
        return [
          icon('waiting'),
          word === 'waiting' ? `waiting for ${named(person.name)}` : h('span', { class: 'unseen' }, 'sending'),
        ];
      });
      problem.hidden = word !== 'failed';
      fill(problem, entry.error, () => [
        explainUndelivered(entry.error ?? {}),
        ' ',
        h('button', { type: 'button', class: 'link', onclick: again }, 'Send again'),
      ]);
    },
  };
}

/** @param {NoteEntry} entry @returns {View} */
export function noteEntry(entry) {
  return {
    element: h('p', { class: 'entry note' }, entry.text, ' · ', time(entry.at)),
    render() {},
  };
}

/** Who says it, for those who do not see on which side it is. @param {{ mine: boolean }} entry @param {Person} person */
function author(entry, person) {
  return h('h3', { class: 'unseen' }, entry.mine ? 'You' : bdi(person.name));
}

/** @param {Date} at @param {HTMLElement} [status] */
export function foot(at, status) {
  return h('p', { class: 'foot' }, time(at), status);
}

/** @param {Date} at */
function time(at) {
  return h('time', { datetime: at.toISOString() }, clock(at));
}

/**
 * Text with its links. Only what is plainly an address of the web becomes one, and it opens elsewhere, without a word of
 * where it was found.
 *
 * @param {string} text
 */
function linked(text) {
  const parts = text.split(/(https?:\/\/[^\s<>"]+[^\s<>"'.,;:!?)\]}])/u);
  const rest = parts.splice(2 * MAX_LINKS + 1).join('');
  parts.push((parts.pop() ?? '') + rest);
  return parts.map((part, index) => {
    if (index % 2 === 0 || !URL.canParse(part)) return part;
    return h('a', { href: part, target: '_blank', rel: 'noopener noreferrer' }, part);
  });
}
