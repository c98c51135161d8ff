/**
 * The token of an account, for servers that want one: it comes in the address of the page.
 *
 *     https://host/#token=TOKEN
 *
 * The fragment is never sent to a server, and the token is removed from the address at once, so that nobody sends it on
 * with a link. It stays in its tab, also when the page is loaded anew. No invitation looks like it: names are written
 * without `=`.
 */

import { remember } from './memory.js';

const FRAGMENT = /^#token=([\w.~+/=-]{1,4096})$/;
const KEY = 'aldis.token';

/** Where the browser keeps nothing, for as long as the page is open. @type {string | null} */
let token = null;

/** Take the token out of the address of the page. Returns whether there was one. */
export function takeToken() {
  const found = FRAGMENT.exec(location.hash)?.[1];
  if (!found) return false;
  token = found;
  remember(() => sessionStorage.setItem(KEY, found));
  history.replaceState(history.state, '', location.pathname + location.search);
  return true;
}

/** The token of this tab, or null. */
export const tabToken = () => token ?? remember(() => sessionStorage.getItem(KEY));
