/**
 * By which ways others are reached from here: asked for by a button, since it takes some seconds and asks other servers.
 */

/** @import { Session } from '../session.js' */
import { h } from '../dom.js';
import { explain, waysInWords } from '../words.js';

/** @param {Session} session */
export function waysOf(session) {
  const list = h('ul', { class: 'fine', 'aria-live': 'polite' });
  const button = h('button', { type: 'button', onclick: () => void look() }, 'What works from here?');
  async function look() {
    button.disabled = true;
    list.replaceChildren(h('li', {}, 'Looking…'));
    try {
      const lines = waysInWords(await session.ways());
      list.replaceChildren(...lines.map((line) => h('li', {}, line)));
    } catch (error) {
      list.replaceChildren(h('li', {}, explain(/** @type {Error} */ (error)).title));
    }
    button.disabled = false;
  }
  return h('div', { class: 'ways' }, button, list);
}
