/**
 * Plain words: what went wrong and what to do about it, numbers and times as people write them.
 *
 * Errors are told apart by their `name` and their data, never by their text. Every sentence that explains something
 * says what a person can do next. What is not listed keeps the text it came with.
 */

const MAX_BRIEF = 40; // characters of a name in a sentence: two lines on a small phone

/** @typedef {{ title: string, text: string }} Words */
/** @typedef {{ name: string, message: string } & Record<string, any>} Fault  an AldisError, a DOMException or a Problem */

/** Something that the page itself finds out. */
export class Problem extends Error {
  /** @param {string} name  one of EXPLANATIONS @param {Record<string, unknown>} [facts]  what that needs */
  constructor(name, facts) {
    super(name);
    Object.assign(this, facts);
    this.name = name;
  }
}

/** @type {() => [title: string, text: string]} */
const NOT_KEPT = () => [
  'This browser does not keep your messages',
  'What you write to somebody who is away waits only as long as this window is open.',
];

/** @type {Record<string, (error: Fault) => [title: string, text: string]>} */
const EXPLANATIONS = {
  NotConnected: () => ['You are not connected', 'Start again with your name.'],

  // What this browser lacks
  NotSecure: () => [
    'This page needs a secure address',
    'It was opened over plain http from another machine, and browsers give no keys to such pages. Use an https address, or open it on the machine of the server itself, as http://localhost.',
  ],
  EngineMissing: () => [
    'This browser cannot connect directly',
    'WebRTC is missing or turned off, perhaps by a setting or an extension. Turn it on, or use another browser.',
  ],
  DamagedInvitation: () => [
    'This invitation is incomplete',
    'A part of the link is missing. Ask for it once more, or type the name of whom you want to talk to.',
  ],
  OtherInvitation: ({ userId }) => [
    `This link means another ${named(userId)} than the one you know`,
    'It was made with another key, by mistake or to deceive you. Nothing has changed: you talk to the same person as before.',
  ],
  OwnInvitation: () => [
    'This is your own invitation',
    'Send it to somebody else, or open it in another window and choose another name there.',
  ],
  // WebCrypto says so when it does not know Ed25519.
  IdentityError: ({ cause }) => {
    if (cause?.name === 'NotSupportedError') return TOO_OLD;
    return [
      NO_KEY,
      cause?.name === 'QuotaExceededError' ? `${NO_ROOM}. Free some space on the disk, then try again.` : KEEPS_NOTHING,
    ];
  },

  // What waits to be sent
  JournalInUse: () => [
    'Your name is open in another window of this browser',
    'It keeps what you have written to others. If this one does not go on by itself, close the other.',
  ],
  JournalDiskFull: () => [
    NO_ROOM,
    'What you write to somebody who is away waits only as long as this window is open. Free some space on the disk.',
  ],
  // It was there, and cannot be written now.
  JournalStopped: ({ cause }) => {
    if (cause.name === 'JournalInUse') return [explain(cause).title, explain(cause).text];
    if (cause.name === 'JournalDiskFull')
      return [NO_ROOM, `${STOPPED} Free some space on the disk; then it goes on by itself.`];
    return ['This browser does not keep your messages any more', `${STOPPED} Reload this page.`];
  },
  JournalTooNew: () => ['This page is older than what it has kept', 'Reload it.'],
  JournalError: NOT_KEPT,
  JournalReadOnly: NOT_KEPT,
  JournalForeign: NOT_KEPT,
  JournalCorrupt: NOT_KEPT,

  // The server
  ServerAway: () => [
    'The server is away',
    'Whoever you are connected with hears you as before. What you write to others waits until it is back.',
  ],
  ServerUnreachable: () => ['The server is out of reach', 'Check that it runs and that you are online.'],
  ConnectionLost: () => ['The connection to the server was lost', 'Try again in a moment.'],
  RequestTimeout: () => ['The server does not answer', 'Try again in a moment.'],
  OverLimits: ({ retryAfter }) => [
    'This page has asked too much of the server',
    `The server has ended the connection. The page connects again by itself ${within(retryAfter)}. Whoever you are connected with hears you as before.`,
  ],
  RequestFailed: (error) => listed(REFUSALS, error.code)?.(error) ?? ['The server has refused that', error.message],
  ConnectionClosed: (error) => listed(CLOSINGS, error.code) ?? ['The server has ended the connection', error.message],

  // One peer
  PeerOffline: ({ userId }) => [
    `${named(userId)} is not online`,
    'What you write is sent as soon as they are back, while this page stays open.',
  ],
  PeerUnknown: ({ userId }) => [
    `Nobody is called ${named(userId)} here yet`,
    'Check the spelling, or send an invitation. What you write waits for whoever takes this name first.',
  ],
  PeerBlocked: ({ userId }) => [
    `You have blocked ${named(userId)}`,
    'For them you are offline. Nothing goes to them, and nothing comes from them.',
  ],
  BlockNotKept: () => [
    'The server does not know of this block yet',
    'Until it does, the block holds in this window only. The page tells it again when it is back.',
  ],
  PeerKeyChanged: ({ userId }) => [
    `${named(userId)} has another key than before`,
    'Perhaps they use another browser now, or have cleared theirs. Perhaps it is somebody else. Nothing is sent until you decide.',
  ],
  FingerprintMismatch: ({ userId }) => [
    `This is not the ${named(userId)} of the invitation`,
    'Whoever uses this name here has another key than the invitation says. Do not go on; ask the person who invited you for a new link.',
  ],
  ProofInvalid: ({ userId }) => [
    `A forged message in the name of ${named(userId)} was refused`,
    'Somebody between you two alters what is sent. Nothing of it was accepted.',
  ],
  PeerConnectionFailed: ({ userId, reason, turn }) => [
    `No connection to ${named(userId)}`,
    // The reason is there for people; where no path was found, it calls for advice.
    turn ? `There is no way from this network to theirs. ${listed(TURN, turn) ?? ''}`.trim() : sentence(reason),
  ],
  PeerRefused: ({ userId, code, retryAfter }) =>
    listed(REFUSED_BY_PEER, code)?.(named(userId)) ?? [
      code === 'rate-limited'
        ? `Too many calls to ${named(userId)}`
        : `${named(userId)} cannot take another connection now`,
      `Trying again ${within(retryAfter)}.`,
    ],
  DeliveryFailed: (error) => ['It did not arrive', whyNot(error)],
  LoadFailed: () => [
    'A part of this page did not come from the server',
    'Try again. If that does not help, reload the page: its server may have been updated.',
  ],
  FeatureMissing: ({ userId, feature }) => [
    `${named(userId)} cannot take ${feature}`,
    feature === 'calls'
      ? 'Their program has no calls; write to them instead.'
      : 'Their program has no files; write to them instead.',
  ],
  TransferFailed: (error) => ['The file did not arrive', whyNot(error)],
  FolderEmpty: () => ['There is no file in this folder', 'So there is nothing to send.'],
  FolderUnreadable: () => ['The browser cannot read this folder', 'Choose it again, or pack it into one file.'],
  FolderUnfit: ({ reason }) => ['This folder cannot be sent', `${sentence(reason)} Pack it into one file.`],
  MessageTooLarge: ({ limit }) => ['This message is too long', `The most is ${bytes(limit)}. Send it as a file.`],
  QueueFull: ({ userId }) => [`Too much is waiting for ${named(userId)}`, 'Wait until they are back.'],
  TooManyPeers: ({ limit }) => ['Too many people at once', `The most is ${limit}. Remove somebody from the list.`],
  InvalidAddress: ({ value }) => [`“${value}” cannot be a name`, nameProblem(String(value)) ?? ''],

  // Camera and microphone: W3C Media Capture and Streams, section 10.2 (getUserMedia)
  NotAllowedError: () => [
    'The browser may not use the microphone or camera',
    'Allow it with the symbol beside the address of this page, then try again.',
  ],
  NotFoundError: () => ['No microphone or camera was found', 'Plug one in, then try again.'],
  NotReadableError: () => [
    'The microphone or camera is in use',
    'Close the other program that uses it, then try again.',
  ],
};

/** @type {[title: string, text: string]} */
const TOO_OLD = [
  'This browser is too old for Aldis',
  'It cannot make the keys (Ed25519) that prove who you are. Chrome and Edge 137, Firefox 129, Safari 17 and later can.',
];

const NO_KEY = 'Your key cannot be kept here';
// Chromium does not say which.
const KEEPS_NOTHING =
  'This browser does not let the page keep anything: its settings forbid it, or the disk is full. Some private windows keep nothing either. Allow it, free some space on the disk, or use an ordinary window.';
const NO_ROOM = 'There is no room in this browser';
const STOPPED = 'What you write now is not sent, and what others write to you waits with them.';

/**
 * Refusals of a peer that do not pass by themselves, by code (docs/protocol.md, "Refusals").
 *
 * @type {Record<string, (name: string) => [title: string, text: string]>}
 */
const REFUSED_BY_PEER = {
  'not-accepted': (name) => [`${name} does not accept this connection`, 'Nothing is tried again until you do.'],
  'key-refused': (name) => [
    `${name} knows you by another key`,
    'Perhaps you have used another browser before, or have cleared this one. Ask them to accept your key.',
  ],
  'bad-proof': (name) => [
    `${name} could not check that it is you`,
    'Somebody between you two alters what is sent, or one of the programs is too old.',
  ],
};

/** @type {Record<string, string>} by `turn` of PeerConnectionFailed */
const TURN = {
  none: 'A TURN server would help; the operator of this server can set one up.',
  unreachable: 'The TURN server, which helps in such networks, does not answer. Perhaps this network blocks it.',
  refused: 'The TURN server, which helps in such networks, refuses you. Tell the operator of this server.',
  tried: 'The TURN server did not help either. Perhaps the other network lets nothing through.',
};

/** @type {Record<string, (error: Fault) => [title: string, text: string]>} by the error codes of docs/protocol.md */
const REFUSALS = {
  'key-mismatch': () => [
    'This name is taken',
    'Choose another one. If it is yours: it belongs to the browser in which you chose it, so go on there.',
  ],
  'bad-signature': () => [
    'The server did not take your proof',
    'Most often a proxy in front of it changes the host name; its operator can name the host in the settings.',
  ],
  unauthorized: () => ['This server does not let in programs like this page', 'Ask its operator.'],
  'token-required': () => [
    'This server is for people with an account',
    'Open this page by the link that its operator gives you, or from the site where you log in: it has a token in it.',
  ],
  'token-invalid': () => [
    'Your token is not for this name or this server',
    'Take the name of your account. If it is that, get another link from the operator.',
  ],
  'token-expired': () => ['Your token has expired', 'Log in again, or get another link from the operator.'],
  'registration-refused': ({ message }) => [
    'The operator of this server does not let you in',
    sentence(message.replace(/ \(registration-refused\)$/, '')),
  ],
  forbidden: () => ['This server does not allow that', 'Ask its operator.'],
  'rate-limited': ({ request, retryAfter }) => [
    listed(LIMITED, request) ?? 'Too many requests from this page',
    `Try again ${within(retryAfter)}.`,
  ],
  'over-capacity': () => ['Your name is online on too many devices', 'Close it on one of them, then try again.'],
  timeout: () => ['The server is slow', 'Try again in a moment.'],
  'too-large': () => ['That is more than the server keeps', 'Take somebody off first.'],
  'unknown-type': () => [
    'This server does not know of that yet',
    'Its operator has to update it. Whom you block is blocked in this window only, until it is closed.',
  ],
};

/** What was too much, by the type of the request. @type {Record<string, string>} */
const LIMITED = {
  register: 'Too many new names from your network',
  discover: 'Too many searches for people',
  watch: 'Too many people added at once',
};

/** What the state of the store's connection to the server is called. @type {Record<string, string>} */
export const SERVER = {
  connected: 'connected',
  connecting: 'reconnecting…',
  disconnected: 'not connected',
};

/** @type {Record<number, [title: string, text: string]>} by the WebSocket close codes of docs/protocol.md */
const CLOSINGS = {
  4001: ['Your name is in use in another window', 'You are not connected in this one any more.'],
  4501: ['Your name belongs to another key now', 'Choose another name, or use the browser that has the new key.'],
  4502: ['The server does not allow pages from this address', 'Open the page of the server itself.'],
  4503: ['The operator has banned this name', 'Ask the operator of the server.'],
  4505: ['The server does not know itself by this address', 'Tell its operator, who can add it with --names.'],
};

/**
 * Say in plain words what went wrong and what to do.
 *
 * @param {unknown} error
 * @returns {Words}
 */
export function explain(error) {
  const fault = /** @type {Fault} */ (error);
  const [title, text] = listed(EXPLANATIONS, fault.name)?.(fault) ?? ['Something went wrong', sentence(fault.message)];
  return { title, text };
}

/**
 * What a table says of `key`. That may be any word of a server's, `constructor` for one, which every object has.
 *
 * @template T
 * @param {Record<string | number, T>} table
 * @param {string | number} key
 * @returns {T | undefined}
 */
function listed(table, key) {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

/** In plain words, where the cause is one of those above. @param {Fault} error */
function whyNot({ reason, cause }) {
  return cause && listed(EXPLANATIONS, cause.name) ? `${explain(cause).title}.` : sentence(reason);
}

/** Both parts in one line. @param {unknown} error */
export function explainShort(error) {
  const { title, text } = explain(error);
  return `${title}. ${text}`.trim();
}

/** Why a message did not arrive. Of a changed key, the notice above the conversation tells the rest. @param {unknown} error */
export function explainUndelivered(error) {
  const { title, text } = explain(error);
  return /** @type {Fault} */ (error).name === 'PeerKeyChanged' ? `It did not arrive. ${title}.` : `${title}. ${text}`;
}

/**
 * A name within a sentence. One that may run from right to left must not turn around the words beside it, so it is
 * isolated from them (Unicode Standard Annex 9, FSI and PDI).
 *
 * @param {string} name
 */
export function named(name) {
  const text = brief(name);
  return /^[ -~…]*$/.test(text) ? text : `\u2068${text}\u2069`;
}

/** A name beside other words: a long one lacks its middle. @param {string} name */
export function brief(name) {
  const characters = [...contained(name)];
  if (characters.length <= MAX_BRIEF) return characters.join('');
  return `${characters.slice(0, MAX_BRIEF - 10).join('')}…${characters.slice(-9).join('')}`;
}

/** What others wrote, without the characters that would end its isolation. @param {string} text */
export function contained(text) {
  return text.replace(/[\u202a-\u202e\u2066-\u2069]/g, '');
}

/**
 * Why a name cannot be used, or null when it can. The rules are those of docs/protocol.md, "Addresses".
 *
 * @param {string} name
 */
export function nameProblem(name) {
  if (!name) return 'Type a name.';
  if ([...name].length > 128) return 'That is too long: a name has 128 characters at most.';
  if (name.includes('/')) return 'A name has no “/” in it.';
  if (/\p{White_Space}/u.test(name)) return 'A name has no spaces.';
  if (/[\p{Cc}\p{Cs}]/u.test(name)) return 'There is an invisible control character in it. Type it anew.';
  return null;
}

/** What to call somebody instead whose name has spaces; null when that is no name either. @param {string} name */
export function betterName(name) {
  const better = name.trim().replace(/\p{White_Space}+/gu, '-');
  return better !== name && nameProblem(better) === null ? better : null;
}

/** @param {string | undefined} text */
function sentence(text) {
  if (!text) return '';
  return text[0]?.toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}

/** @param {number} seconds */
export function milliseconds(seconds) {
  const value = seconds * 1000;
  return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} ms`;
}

/** Such as `1.4 MB`; decimal units, as operating systems show the sizes of files. @param {number} count */
export function bytes(count) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  const unit = count < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(count) / 3));
  const value = count / 1000 ** unit;
  if (unit === 0) return `${count} ${count === 1 ? 'byte' : 'bytes'}`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Such as `1,500`. @param {number} number */
export function count(number) {
  return number.toLocaleString('en');
}

/** Such as `4:07`. @param {number} seconds */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/** In how many seconds something is, such as `in 3 s`; null: nobody has said. @param {number | null | undefined} seconds */
function within(seconds) {
  if (seconds == null) return 'in a while';
  if (seconds < 45) return `in ${Math.max(1, Math.ceil(seconds))} s`;
  if (seconds < 90) return 'in about a minute'; // what is said stays on the screen, and does not count down
  if (seconds < 90 * 60) return `in ${Math.ceil(seconds / 60)} minutes`;
  return `in ${Math.ceil(seconds / 3600)} hours`;
}

/** @param {Date} date */
export function clock(date) {
  return date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/**
 * How a call has ended, as a line of the conversation.
 *
 * @param {{ direction: 'in' | 'out', reason: string | null, error: unknown, userId: string }} call
 * @param {number | null} seconds  how long they talked, null when they never did
 */
export function callEnded({ direction, reason, error, userId }, seconds) {
  if (seconds !== null) return `Call ended after ${duration(seconds)}`;
  if (error) return explainShort(error);
  if (reason === 'busy') return `${named(userId)} is in another call`;
  if (reason === 'declined')
    return direction === 'out' ? `${named(userId)} declined the call` : 'You declined the call';
  if (direction === 'in') return `Missed call from ${named(userId)}`;
  return reason === 'no answer' ? `${named(userId)} did not answer` : 'Call ended without an answer';
}

/** @type {Record<string, string>} by the grade of a connection */
const GRADES = { good: 'good', fair: 'fair', poor: 'poor', lost: 'nothing gets through' };
/** @type {Record<string, string>} by what keeps a grade from being better */
const FLAWS = {
  'round-trip-time': 'what you say takes long',
  jitter: 'it is unsteady',
  heartbeats: 'answers are late',
};

/** @param {{ grade: string, reason: string }} quality */
export function qualityInWords({ grade, reason }) {
  const flaw = listed(FLAWS, reason);
  return `${listed(GRADES, grade) ?? grade}${flaw ? `: ${flaw}` : ''}`;
}

/** @type {Record<string, string>} */
const DIRECT = {
  easy: 'to most networks.',
  unsure: 'to most networks, unless this one is very strict.',
  symmetric: 'to few networks. This one gives you another address for each person.',
  blocked: 'inside this network only. Nothing outside answers, as if it were blocked.',
  unknown: 'inside this network. The server has nothing that tells how others see you.',
};
/** @type {Record<string, string>} */
const TURN_WAYS = {
  works: 'works.',
  none: 'this server has none.',
  unreachable: 'does not answer, or refuses you.',
};

/**
 * By which ways others are reached, one line for each.
 *
 * @param {{ direct: string, turn: string, relay: boolean, isRelayed: boolean }} ways `relay` is what the server allows,
 *   `isRelayed` what is seen to work.
 */
export function waysInWords({ direct, turn, relay, isRelayed }) {
  const sealed = isRelayed ? 'works' : 'allowed, not in use now';
  return [
    `Direct connections: ${listed(DIRECT, direct) ?? ''}`,
    `TURN server: ${listed(TURN_WAYS, turn) ?? ''}`,
    `Sealed, through this server: ${relay ? `${sealed}, for messages and small files.` : 'not offered.'}`,
  ];
}
