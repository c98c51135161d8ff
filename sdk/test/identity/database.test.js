import assert from 'node:assert/strict';
import { IDBFactory } from 'fake-indexeddb';

import * as database from '../../src/identity/database.js';
import { test } from '../support/with_database.js';

const REFUSED = { name: 'IdentityError', message: /does not let the page keep/ };

/**
 * The database as somebody else has left it.
 *
 * @param {number} version
 * @param {string[]} stores
 */
const made = (version, stores) =>
  new Promise((resolve) => {
    const opening = indexedDB.open('aldis', version);
    opening.onupgradeneeded = () => stores.forEach((name) => opening.result.createObjectStore(name));
    opening.onsuccess = () => resolve(opening.result.close());
  });

test('a value is found, kept once, replaced and removed', async () => {
  assert.equal(await database.find('pins', ['s', 'u']), undefined);
  assert.equal(await database.keep('pins', ['s', 'u'], 1), 1);
  assert.equal(await database.keep('pins', ['s', 'u'], 2), 1);
  await database.put('pins', ['s', 'u'], 3);
  assert.equal(await database.find('pins', ['s', 'u']), 3);
  assert.equal(await database.find('identities', ['s', 'u']), undefined);
  await database.put('identities', 'u', 4);
  await database.remove('u');
  assert.equal(await database.find('identities', 'u'), undefined);
  assert.equal(await database.find('pins', ['s', 'u']), 3);
});

test('a connection is left to nobody: the database can be deleted at any time', async () => {
  await database.put('pins', 'key', 1);
  await new Promise((resolve, reject) => {
    const deleting = indexedDB.deleteDatabase('aldis');
    deleting.onsuccess = resolve;
    deleting.onblocked = reject;
  });
  assert.equal(await database.find('pins', 'key'), undefined);
});

test('a database of a newer version, or without what is looked for, is refused', async () => {
  await made(2, ['identities', 'pins']);
  await assert.rejects(database.find('pins', 'key'), REFUSED);
  globalThis.indexedDB = new IDBFactory();
  await made(1, ['identities']);
  await assert.rejects(database.find('pins', 'key'), REFUSED);
  assert.equal(await database.find('identities', 'key'), undefined);
});

test('what cannot be stored, or under such a key, is refused', async () => {
  await assert.rejects(
    database.put('pins', 'key', () => 1),
    REFUSED,
  );
  const noName = { name: 'IdentityError', message: /this is no name/ };
  await assert.rejects(database.put('pins', /** @type {any} */ (undefined), 1), noName);
  await assert.rejects(database.find('pins', /** @type {any} */ (null)), noName);
});

test('a full disk is refused when the transaction ends', async () => {
  const { IDBObjectStore } = await import('fake-indexeddb');
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = function (value, key) {
    const request = put.call(this, value, key);
    this.transaction.abort();
    return request;
  };
  try {
    await assert.rejects(database.put('pins', 'key', 1), REFUSED);
    await assert.rejects(database.keep('pins', 'key', 1), REFUSED);
  } finally {
    IDBObjectStore.prototype.put = put;
  }
  assert.equal(await database.find('pins', 'key'), undefined);
});
