/**
 * The operator's page: what the admin API tells, looked at every two seconds.
 *
 * Rules: the token stays in this tab (`sessionStorage`). Text of others is put in as text, never as HTML. An action says
 * what it did, and a failure stays to be read until the next action.
 */

/**
 * @typedef {object} Statistics
 * @property {string} version
 * @property {number} uptime
 * @property {number} users
 * @property {number} connections
 * @property {number} detached
 * @property {number} relayed
 * @property {number} sealedBytes
 * @property {number} messages
 * @property {number} throttled
 * @property {number} waiting
 * @property {number | null} memory
 * @property {number} processorSeconds
 * @property {Record<string, Record<string, number>>} messagesByType
 * @property {Certificate | null} certificate
 * @property {Turn | null} turn
 * @property {{ server: string, problem: string }[]} turnChecks
 * @property {{ limit: string, effect: string, count: number }[]} limits
 * @property {{ namePolicy: string }} accounts
 * @property {string[]} problems
 */

/**
 * @typedef {object} Certificate
 * @property {'files' | 'acme'} source
 * @property {string | null} issuer
 * @property {string[]} names
 * @property {number | null} expires
 * @property {string} problem
 * @property {number | null} nextAttempt
 */

/**
 * @typedef {object} Turn
 * @property {boolean} up
 * @property {string[]} urls
 * @property {number} restarts
 * @property {{ problem: string, at: number | null }} allocation
 * @property {number | null} earlierSecretUntil
 */

/** @typedef {{ user: string, devices: number }} User */
/** @typedef {{ kind: string, value: string, reason: string, until: number | null }} Ban */

const TOKEN = 'aldis-admin-token';
const EVERY = 2000; // milliseconds between two looks
const UNCONFIRMED = 409; // the server asks whether it is meant
const SHOWN = 100; // users at a time; the search finds the others

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 */
const get = (id) => /** @type {T} */ (document.getElementById(id));
const statusLine = get('status');
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (get(id));

let token = sessionStorage.getItem(TOKEN) ?? '';
/** @type {{ at: number, found: Statistics } | null} the look before */
let before = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Why the API does not do what it is asked. */
class Refused extends Error {
  /**
   * @param {number} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Ask the API. Rejects with `Refused`, and with a `TypeError` when the server is not there.
 * @param {string} path
 * @param {string} [method]
 * @param {object} [body]
 */
async function ask(path, method = 'GET', body) {
  // Relative, for a proxy that has the page at a path.
  const reply = await fetch(`api/v1${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Refused(reply.status, answer.error);
  return answer;
}

/**
 * @param {string} text
 * @param {boolean} [isBad]
 */
function say(text, isBad = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle('bad', isBad);
}

/**
 * @param {string} name
 * @param {(string | Node)[]} children
 * @param {string} [className]
 */
function element(name, children, className = '') {
  const made = document.createElement(name);
  made.append(...children);
  made.className = className;
  return made;
}

/**
 * @param {string} text
 * @param {string} label
 * @param {() => Promise<string>} act resolves to what was done
 */
function button(text, label, act) {
  const made = element('button', [text]);
  made.setAttribute('aria-label', label);
  made.addEventListener('click', () => void perform(act));
  return made;
}

/** @param {() => Promise<string>} act */
async function perform(act) {
  try {
    say(await act());
  } catch (error) {
    say(error instanceof Refused ? error.message : 'The server cannot be reached.', true);
  }
  await look();
}

const number = (/** @type {number} */ value) => value.toLocaleString('en');
const counted = (/** @type {number} */ count, /** @type {string} */ what) =>
  `${number(count)} ${what}${count === 1 ? '' : 's'}`;

/** @param {number} seconds */
function duration(seconds) {
  const units = /** @type {const} */ ([
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
  ]);
  const [name, size] = units.find(([, length]) => seconds >= length) ?? ['s', 1];
  return `${Math.floor(seconds / size)} ${name}`;
}

/** @param {Statistics} found */
function showStatistics(found) {
  const now = performance.now() / 1000;
  const passed = before ? now - before.at : 0;
  const rate = (/** @type {'relayed' | 'sealedBytes' | 'processorSeconds'} */ what) =>
    before && passed > 0 ? (found[what] - before.found[what]) / passed : null;
  const busy = rate('processorSeconds');
  const relayed = rate('relayed');
  const sealed = rate('sealedBytes');
  const figures = [
    ['Users online', number(found.users)],
    ['Connections', number(found.connections)],
    ['Lost, may resume', number(found.detached)],
    ['Relayed a second', relayed === null ? '–' : relayed.toFixed(1)],
    ['Sealed a second', sealed === null ? '–' : `${(sealed / 1024).toFixed(1)} KiB`],
    ['Processor', busy === null ? '–' : `${Math.round(busy * 100)} %`],
    ['Memory', found.memory === null ? 'unknown' : `${Math.round(found.memory / 2 ** 20)} MiB`],
    ['Throttled', number(found.throttled)],
    ['Waiting for a turn', number(found.waiting)],
    ['Up for', duration(found.uptime)],
    ['Version', found.version],
  ];
  get('figures').replaceChildren(
    ...figures.map(([name = '', value = '']) => element('div', [element('dt', [name]), element('dd', [value])])),
  );
  const rows = Object.entries(found.messagesByType).map(([kind, { ok = 0, ...refused }]) =>
    element('tr', [
      element('td', [kind]),
      element('td', [number(ok)], 'number'),
      element('td', [number(Object.values(refused).reduce((sum, count) => sum + count, 0))], 'number'),
      element('td', [
        Object.entries(refused)
          .map(([code, count]) => `${code} ${number(count)}`)
          .join(', '),
      ]),
    ]),
  );
  get('messages').replaceChildren(...rows);
  showHealth(found);
  showLimits(found, before?.found ?? null);
  before = { at: now, found };
}

/**
 * @param {HTMLElement} list
 * @param {[string, string][]} rows
 */
function describe(list, rows) {
  list.replaceChildren(...rows.map(([name, value]) => element('div', [element('dt', [name]), element('dd', [value])])));
}

const when = (/** @type {number | null} */ seconds) =>
  seconds === null ? '–' : new Date(seconds * 1000).toLocaleString();

/** @param {Statistics} found */
function showHealth({ certificate, turn, turnChecks, problems }) {
  const list = get('problems');
  list.replaceChildren(...(problems.length ? problems : ['All is well.']).map((text) => element('li', [text])));
  list.classList.toggle('bad', problems.length > 0);
  describe(
    get('certificate'),
    certificate
      ? [
          ['Names', certificate.names.join(', ') || '–'],
          ['Valid until', certificate.expires === null ? 'none yet' : when(certificate.expires)],
          ['Issuer', certificate.issuer ?? '–'],
          ['Source', certificate.source === 'acme' ? 'ordered by the server' : 'files'],
          ...(certificate.source === 'acme'
            ? [/** @type {[string, string]} */ (['Next order', when(certificate.nextAttempt)])]
            : []),
          ['Last problem', certificate.problem || 'none'],
        ]
      : [['TLS', 'not here']],
  );
  get('renew').hidden = certificate?.source !== 'acme';
  describe(
    get('turn'),
    turn
      ? [
          ['State', turn.up ? 'up' : 'down'],
          ['Relays', turn.allocation.problem || 'yes'],
          ['Asked at', when(turn.allocation.at)],
          ['Started again', counted(turn.restarts, 'time')],
          ['Earlier secret', turn.earlierSecretUntil === null ? 'none' : `until ${when(turn.earlierSecretUntil)}`],
        ]
      : turnChecks.length
        ? turnChecks.map(({ server, problem }) => [server, problem ? 'does not relay' : 'relays'])
        : [['State', 'not run by this server']],
  );
  get('rotate').hidden = turn === null;
}

/**
 * @param {Statistics} found
 * @param {Statistics | null} earlier of the look before
 */
function showLimits({ limits }, earlier) {
  const rows = limits.map(({ limit, effect, count }) => {
    const lately = earlier ? count - (earlier.limits.find((one) => one.limit === limit)?.count ?? 0) : 0;
    return element('tr', [
      element('td', [limit]),
      element('td', [number(count)], 'number'),
      element('td', [lately > 0 ? `+${number(lately)}` : ''], 'number'),
      element('td', [effect]),
    ]);
  });
  get('reached-limits').replaceChildren(...rows);
  get('unreached').textContent = rows.length ? '' : 'None since the start.';
}

/**
 * A name as `aldis admin` shows it: what is not seen, or changes the direction of writing, is an escape.
 *
 * @param {string} name
 */
const shown = (name) =>
  name
    .replaceAll('\\', '\\\\')
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu, (character) => {
      const code = (character.codePointAt(0) ?? 0).toString(16);
      return code.length > 4
        ? `\\U${code.padStart(8, '0')}`
        : code.length > 2
          ? `\\u${code.padStart(4, '0')}`
          : `\\x${code.padStart(2, '0')}`;
    });

/** @param {{ users: User[], next: string | null }} page */
function showUsers({ users, next }) {
  const rows = users.map(({ user, devices }) =>
    element('tr', [
      element('td', [shown(user)]),
      element('td', [number(devices)], 'number'),
      element(
        'td',
        [
          button('Disconnect', `Disconnect ${shown(user)}`, async () => {
            const { sessions } = await ask(`/users/${encodeURIComponent(user)}/disconnect`, 'POST');
            return `${shown(user)}: ${counted(sessions, 'session')} ended.`;
          }),
          button('Ban…', `Ban ${shown(user)}`, async () => {
            input('kind').value = 'user';
            input('value').value = user;
            input('reason').focus();
            return `Say for how long, and why, then ban ${shown(user)}.`;
          }),
        ],
        'actions',
      ),
    ]),
  );
  keepFocus(get('users'), rows);
  get('more').textContent = next === null ? '' : `These are the first ${SHOWN}; search for others.`;
}

/**
 * The list of a server on which only listed names may register; null for others.
 *
 * @param {{ names: string[], next: string | null } | null} page
 */
function showNames(page) {
  get('names').hidden = page === null;
  const rows = (page?.names ?? []).map((name) =>
    element('tr', [
      element('td', [shown(name)]),
      element(
        'td',
        [
          button('Remove', `Remove ${shown(name)} from the list`, async () => {
            const { sessions } = await ask(`/names/${encodeURIComponent(name)}`, 'DELETE');
            return `${shown(name)} may not register any more; ${counted(sessions, 'session')} ended.`;
          }),
        ],
        'actions',
      ),
    ]),
  );
  keepFocus(get('listed-names'), rows);
  get('more-names').textContent = page?.next ? `These are the first ${SHOWN}; \`aldis admin names list\` has all.` : '';
}

/** @param {Ban[]} bans */
function showBans(bans) {
  const rows = bans.map(({ kind, value, reason, until }) =>
    element('tr', [
      element('td', [kind]),
      element('td', [shown(value)]),
      element('td', [reason]),
      element('td', [until === null ? 'for ever' : new Date(until * 1000).toLocaleString()]),
      element(
        'td',
        [
          button('End', `End the ban of ${kind} ${shown(value)}`, async () => {
            await ask(`/bans?${new URLSearchParams({ kind, value })}`, 'DELETE');
            return `The ban of ${shown(value)} has ended.`;
          }),
        ],
        'actions',
      ),
    ]),
  );
  keepFocus(get('bans'), rows);
}

/**
 * Replace the rows of a table. The button that has the focus keeps it, by its label.
 * @param {HTMLElement} body
 * @param {HTMLElement[]} rows
 */
function keepFocus(body, rows) {
  const focused = body.contains(document.activeElement) ? document.activeElement?.getAttribute('aria-label') : null;
  body.replaceChildren(...rows);
  if (focused) {
    /** @type {HTMLElement | null} */ (body.querySelector(`[aria-label="${CSS.escape(focused)}"]`))?.focus();
  }
}

/** Look at everything, and again after a while. */
async function look() {
  clearTimeout(timer);
  try {
    const query = new URLSearchParams({ prefix: input('prefix').value, limit: String(SHOWN) });
    const [found, users, bans] = await Promise.all([ask('/statistics'), ask(`/users?${query}`), ask('/bans')]);
    sessionStorage.setItem(TOKEN, token);
    get('sign-in').hidden = true;
    if (get('view').hidden) say('Connected');
    get('view').hidden = false;
    showStatistics(found);
    showUsers(users);
    showBans(bans.bans);
    showNames(found.accounts.namePolicy === 'closed' ? await ask(`/names?limit=${SHOWN}`) : null);
  } catch (error) {
    if (error instanceof Refused && error.code !== 503) {
      sessionStorage.removeItem(TOKEN);
      get('sign-in').hidden = false;
      get('view').hidden = true;
      say(error.message, true);
      return;
    }
    say('The server cannot be reached; these are the last figures.', true);
  }
  timer = setTimeout(() => void look(), EVERY);
}

get('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  token = input('token').value.trim();
  input('token').value = '';
  void look();
});
get('renew').addEventListener(
  'click',
  () =>
    void perform(async () => {
      const { ordered } = await ask('/certificate/renew', 'POST');
      return `A certificate for ${ordered.join(', ')} is being ordered.`;
    }),
);
get('rotate').addEventListener(
  'click',
  () =>
    void perform(async () => {
      const { earlierSecretUntil } = await ask('/turn/rotate', 'POST');
      return `The TURN server has a new secret; the earlier one is taken until ${when(earlierSecretUntil)}.`;
    }),
);
get('search').addEventListener('submit', (event) => event.preventDefault());
get('prefix').addEventListener('input', () => void look());

/**
 * Ban, and ask first where the server wants to know whether it is meant. Rejects with `Refused` when it is not.
 * @param {object} body
 */
async function ban(body) {
  try {
    return await ask('/bans', 'POST', body);
  } catch (error) {
    if (!(error instanceof Refused && error.code === UNCONFIRMED)) throw error;
    if (!confirm(`${error.message}.\n\nBan all the same?`)) throw error;
    return ask('/bans', 'POST', { ...body, confirmed: true });
  }
}

/** @param {{ reason: string, until: number | null }} ban */
function earlierBan({ reason, until }) {
  const end = until === null ? 'for ever' : `until ${when(until)}`;
  return `The ban before it was ${end}${reason && ` (${reason})`}.`;
}

get('ban').addEventListener('submit', (event) => {
  event.preventDefault();
  void perform(async () => {
    const seconds = input('seconds').value;
    const body = {
      kind: input('kind').value,
      value: input('value').value.trim(),
      reason: input('reason').value.trim(),
    };
    const done = await ban(seconds ? { ...body, seconds: Number(seconds) } : body);
    input('value').value = input('reason').value = '';
    const ended = `${done.value} is banned; ${counted(done.sessions, 'session')} ended.`;
    return done.replaced ? `${ended} ${earlierBan(done.replaced)}` : ended;
  });
});
get('list').addEventListener('submit', (event) => {
  event.preventDefault();
  void perform(async () => {
    const name = input('listed-name').value.trim();
    const { added } = await ask(`/names/${encodeURIComponent(name)}`, 'PUT');
    input('listed-name').value = '';
    return added ? `${name} may register now.` : `${name} was on the list already.`;
  });
});
if (token) void look();

export {}; // a module: its names are its own
