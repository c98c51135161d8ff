/**
 * Elements: made here, and kept in step with what they show.
 *
 * Rules: nothing is ever made from a string of HTML, so nothing that a peer or the server says can become markup; the
 * page's Content-Security-Policy (Trusted Types) holds us to it. What has not changed is not touched, so that a screen
 * reader stays silent and a selection stays. Of Aldis this module knows but how
 * names are written.
 */

/** @import { IconName } from './icons.js' */
import { ICONS } from './icons.js';
import { brief, contained } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';

/** @typedef {{ element: HTMLElement, render: () => void }} View  a part of the page; `render` brings it up to date */
/** @typedef {Node | string | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

/**
 * An HTML element. An attribute that is a function listens (`onclick`), `true` is set empty, `false` and null are left out.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes]
 * @param {Child[]} children
 */
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/**
 * An SVG element; as `h`.
 *
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes]
 * @param {Child[]} children
 */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter(isShown));
  return element;
}

/**
 * What others wrote, such as a name: whichever way it runs, the words beside it stay where they are.
 *
 * @param {string} text
 * @param {Attributes} [attributes]
 */
export function bdi(text, attributes) {
  return h('bdi', attributes, contained(text));
}

/** A name beside other words, in full when it is pointed at. @param {string} name */
export function nameTag(name) {
  const short = brief(name);
  return bdi(short, { title: short === name ? null : contained(name) });
}

/** @param {IconName} name */
export function icon(name) {
  return svg('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true' }, svg('path', { d: ICONS[name] }));
}

/**
 * A button with an icon, whose label is read out and shown as a tip.
 *
 * @param {string} label
 * @param {IconName} name
 * @param {() => void} onclick
 * @param {string} [style]
 */
export function iconButton(label, name, onclick, style = '') {
  return h(
    'button',
    {
      type: 'button',
      class: `icon-button ${style}`,
      'aria-label': label,
      title: label,
      onclick,
    },
    icon(name),
  );
}

/** @param {HTMLElement} button @param {string} label @param {IconName} name */
export function relabel(button, label, name) {
  if (button.title === label) return;
  button.title = label;
  button.setAttribute('aria-label', label);
  button.querySelector('path')?.setAttribute('d', ICONS[name]);
}

/** @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} element @param {string} name @param {string} value */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Put `children` in the place of what is in `parent`, unless `key` is the one of the last time.
 *
 * @param {HTMLElement} parent
 * @param {unknown} key  what the children depend on
 * @param {() => Child[]} children
 */
export function fill(parent, key, children) {
  if (filled.has(parent) && Object.is(filled.get(parent), key)) return;
  filled.set(parent, key);
  keepFocus(parent, () => parent.replaceChildren(...children().filter(isShown)));
}
const filled = new WeakMap();

/**
 * When the focus is in what `change` removes or moves, it comes back to the same element, else to the new button of the
 * same name, else it goes to what is around: whoever uses the keyboard would have to begin again at the top of the page.
 * Whatever has a tabindex is what is around.
 *
 * @param {HTMLElement} parent
 * @param {() => void} change
 */
function keepFocus(parent, change) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const had = focused !== null && focused !== document.body && parent.contains(focused);
  change();
  if (!had || document.activeElement === focused) return;
  const name = nameOf(focused);
  const same = focused.isConnected
    ? focused
    : [...parent.querySelectorAll('button')].find((button) => nameOf(button) === name);
  (same ?? /** @type {HTMLElement | null} */ (parent.closest('[tabindex]')))?.focus();
}

/** @param {Element} button */
function nameOf(button) {
  return button.getAttribute('aria-label') ?? button.textContent;
}

/** @param {Child} child @returns {child is Node | string} */
function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

/**
 * Keeps one view in `parent` for each of a list of objects, in their order.
 *
 * @template {object} T
 * @param {HTMLElement} parent
 * @param {(item: T) => View} make  called once for each
 * @returns {(items: T[]) => void}  to be called with the list, whenever something has changed
 */
export function listIn(parent, make) {
  /** @type {Map<T, View>} */
  const views = new Map();
  return (items) => {
    const wanted = new Set(items);
    for (const [item, view] of views) {
      if (wanted.has(item)) continue;
      keepFocus(parent, () => view.element.remove());
      views.delete(item);
    }
    items.forEach((item, index) => {
      let view = views.get(item);
      if (!view) views.set(item, (view = make(item)));
      view.render();
      if (parent.children[index] === view.element) return;
      const { element } = view;
      keepFocus(parent, () => parent.insertBefore(element, parent.children[index] ?? null));
    });
  };
}

/**
 * A button that copies, and says that it has.
 *
 * @param {string} label
 * @param {() => string} text
 * @param {boolean} [small]  only an icon
 */
export function copyButton(label, text, small = false) {
  const caption = h('span', { class: small ? 'unseen' : '' }, label);
  const sign = h('span', { class: 'sign' }, icon('copy'));
  async function copy() {
    let word = 'Copied';
    /** @type {IconName} */
    let name = 'delivered';
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      word = 'Select it and copy by hand'; // the browser does not let us
      name = 'warning';
    }
    announce(word);
    caption.textContent = word;
    sign.replaceChildren(icon(name));
    setTimeout(() => {
      caption.textContent = label;
      sign.replaceChildren(icon('copy'));
    }, 2000);
  }
  return h(
    'button',
    {
      type: 'button',
      title: label,
      class: small ? 'icon-button' : '',
      onclick: copy,
    },
    sign,
    caption,
  );
}

/** Have a screen reader say `text`, without showing it. @param {string} text */
export function announce(text) {
  const status = /** @type {HTMLElement} */ (document.getElementById('announcer'));
  status.textContent = '';
  requestAnimationFrame(() => (status.textContent = text));
}

let ids = 0;

/** An id for one element and the label that points to it. @param {string} prefix */
export function uniqueId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}
