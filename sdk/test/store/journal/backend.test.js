/** The journal's backend in memory keeps the contract. That of browsers does in tests/browser/test_sdk_journal.py. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryBackend } from '../../../src/store/journal/memory.js';
import { openJournal } from '../../../src/store/parts.js';
import { CONTRACT } from '../../support/journal_contract.js';

for (const [name, run] of Object.entries(CONTRACT)) {
  test(name, async () => {
    const backend = new MemoryBackend();
    await run({ open: async () => backend, equal: assert.deepEqual });
  });
}

test('one store has it at a time', async () => {
  const backend = new MemoryBackend('mine');
  await backend.load();
  await assert.rejects(backend.load(), { name: 'JournalInUse', journal: 'mine', temporary: true });
});

test('where there is no IndexedDB, that is said', async () => {
  await assert.rejects(openJournal('alice'), { name: 'JournalReadOnly', journal: 'alice' });
  await assert.rejects(openJournal(''), { name: 'ConfigError' });
});
