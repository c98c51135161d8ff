"""Files that outlive the page, in real browsers: with another page at the other end, and with a Python program."""

from __future__ import annotations

import asyncio
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from aldis.identity.keys import Identity
from aldis.store.files import disk
from aldis.store.files.transfer import Transfer
from browser.conftest import IN_BOTH, Arrive
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import SHORT, new_store
from support.tabs import Tab

MIB = 1024 * 1024
SIZE = 12 * MIB + 7
STOP = 6 * MIB  # so much is read of a file while the gate is closed
TIMING = "{ attempt: 30, heal: 15, heartbeat: 0.2, silence: 10, probe: 1, linger: 0.5 }"
# A store with a journal that takes all files. `asked` and `resumed` are what it was told of.
START = f"""
window.journal = keep ? await sdk.openJournal(name, {{ wait: true }}) : null;
const identity = await sdk.Identity.loadOrCreate(name);
const settings = {{ timing: {TIMING}, backoff: {{ first: 0.1, most: 1 }}, RTCPeerConnection: Wire }};
window.store = new sdk.NetworkStore({{ ...settings, identity, pins: new sdk.IndexedDBPins(), journal, limits }});
window.asked = [];
window.resumed = [];
window.changed = () => dispatchEvent(new Event('changed'));
store.subscribe(changed);
const seen = (list) => (transfer) => {{
  list.push(transfer);
  transfer.subscribe(changed);
}};
store.onFile((transfer) => {{
  transfer.accept({{ hold }});
  seen(asked)(transfer);
}});
store.onResumedFile(seen(resumed));
await store.connectToSignaling(location.origin, name, {{ backoff: settings.backoff }});
"""
# What is sent is read up to here, and on when `openGate` is called. A page that is loaded anew has no gate.
GATE = """
const gate = new Promise((resolve) => (window.openGate = resolve));
const { arrayBuffer } = Blob.prototype;
let left = stop;
Blob.prototype.arrayBuffer = async function () {
  left -= this.size;
  if (left < 0) await gate;
  return arrayBuffer.call(this);
};
"""
SEND = """
const bytes = new Uint8Array(size).map((_, at) => (at * 31 + (at >> 8)) % 256);
const file = new File([bytes], 'film.bin', { lastModified: 5 });
window.transfer = await store.sendFile('bob', file);
transfer.subscribe(changed);
"""
DIGEST = """
const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()));
return [blob.size, Array.from(digest)];
"""
# What SEND sends; it comes again after 64 KiB.
EXPECTED = (bytes((at * 31 + (at >> 8)) % 256 for at in range(65_536)) * (SIZE // 65_536 + 1))[:SIZE]
# Rows of files, and blocks, of the journal of this name.
KEPT = """
const database = await new Promise((resolve) => {
  const opening = indexedDB.open('aldis.journal.' + name);
  opening.onsuccess = () => resolve(opening.result);
});
const keysOf = (store) => new Promise((resolve) => {
  const request = database.transaction(store).objectStore(store).getAllKeys();
  request.onsuccess = () => resolve(request.result);
});
const [rows, blocks] = [await keysOf('rows'), await keysOf('files')];
database.close();
return [rows.filter((key) => key.startsWith('f/')).map((key) => key.split('/')[1]), blocks.length];
"""


async def started(
    tab: Tab, name: str, *, keep: bool = True, hold: bool = False, limits: dict[str, int] | None = None
) -> Tab:
    tab.name = name
    await tab.run(START, name=name, keep=keep, hold=hold, limits=limits or {})
    return tab


async def killed(tab: Tab) -> Tab:
    """The window goes without the events that a page gets when it is left; another one is opened."""
    await tab.page.close(run_before_unload=False)
    other = Tab(tab.person)
    other.page = await tab.person.context.new_page()
    return await other.open()


async def kept(tab: Tab) -> list[object]:
    found: list[object] = await tab.run(KEPT, name=tab.name)
    return found


async def is_whole(tab: Tab, transfer: str) -> bool:
    size, digest = await tab.run(f"const {{ blob }} = {transfer}; {DIGEST}")
    return (size, bytes(digest)) == (SIZE, sha256(EXPECTED).digest())


async def under_way(arrive: Arrive, *, hold: bool = False) -> tuple[Tab, Tab]:
    """Alice sends bob a file, which stops in the middle."""
    alice = await started(await Tab(await arrive()).open(), "alice")
    bob = await started(await Tab(await arrive()).open(), "bob", hold=hold)
    await alice.run(GATE, stop=STOP)
    await alice.run(SEND, size=SIZE)
    await alice.until("transfer.kept && transfer.transferred >= 4 * 1024 * 1024")
    await bob.until("asked[0]?.kept")
    return alice, bob


@pytest.mark.parametrize("end", ["reload", "kill"])
@IN_BOTH
async def test_a_file_goes_on_when_its_senders_page_has_ended(arrive: Arrive, end: str) -> None:
    alice, bob = await under_way(arrive)
    alice = await started(await (killed(alice) if end == "kill" else alice.open()), "alice")
    assert await alice.get("resumed.map(({ name, state, kept }) => [name, kept])") == [["film.bin", True]]
    await alice.until("resumed[0].state === 'done'")
    assert await alice.get("resumed[0].resumed") >= 2 * MIB
    await bob.until("resumed[0]?.state === 'done'")
    assert await bob.get("[asked.length, asked[0].state, asked[0].error.kept]") == [1, "failed", True]
    assert await bob.get("resumed[0].id === asked[0].id")
    assert await is_whole(bob, "resumed[0]")
    assert await alice.get("store.transfers.length") == 0
    await alice.run("await store.disconnect();")
    assert await kept(alice) == [[], 0]


@pytest.mark.parametrize("end", ["reload", "kill"])
@IN_BOTH
async def test_a_file_goes_on_when_its_recipients_page_has_ended_and_stays_until_it_is_taken(
    arrive: Arrive, end: str
) -> None:
    alice, bob = await under_way(arrive, hold=True)
    bob = await started(await (killed(bob) if end == "kill" else bob.open()), "bob")
    await alice.run("openGate();")
    await alice.run("await transfer.finished;")
    assert await alice.get("transfer.resumed") >= 2 * MIB
    await bob.until("resumed[0]?.state === 'done'")
    assert await bob.get("[asked.length, resumed.length, resumed[0].kept]") == [0, 1, True]
    # Nobody has taken it: so it is there after one more.
    bob = await started(await (killed(bob) if end == "kill" else bob.open()), "bob")
    assert await bob.get("resumed.map(({ state, transferred }) => [state, transferred])") == [["done", SIZE]]
    await bob.run("resumed[0].release();")
    assert await is_whole(bob, "resumed[0]")
    await bob.run("await store.disconnect();")
    assert await kept(bob) == [["in"], 0]  # that it has arrived
    bob = await started(await bob.open(), "bob")
    assert await bob.get("resumed.length") == 0


@IN_BOTH
async def test_a_file_of_a_page_goes_on_with_a_python_program(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    url, key, folder = f"ws://127.0.0.1:{server.port}", Identity.generate(), tmp_path / "taken"
    folder.mkdir()
    alice = await started(await Tab(await arrive()).open(), "alice")
    await alice.run(GATE, stop=STOP)
    asked: list[Transfer] = []
    resumed: asyncio.Queue[Transfer] = asyncio.Queue()
    async with new_store(identity=key, journal=tmp_path / "bob.journal") as bob:
        bob.on_file(asked.append)
        bob.on_file(lambda transfer: transfer.accept(folder))
        bob.on_resumed_file(resumed.put_nowait)
        await bob.connect_to_signaling(url, "bob", backoff=SHORT)
        await alice.run(SEND, size=SIZE)
        await alice.until("transfer.kept && transfer.transferred >= 4 * 1024 * 1024")
        alice = await started(await alice.open(), "alice")
        async with asyncio.timeout(PATIENCE):
            await (await resumed.get())
        await alice.until("resumed[0].state === 'done'")
        assert await alice.get("resumed[0].resumed") >= 2 * MIB
        assert len(asked) == 1
        assert (folder / "film.bin").read_bytes() == EXPECTED


class GatedSource:
    """What is sent, read up to `STOP`, and on when the gate is open."""

    def __init__(self, source: disk.Source, gate: threading.Event) -> None:
        self._source, self._gate, self._read = source, gate, 0
        self.digest = source.digest

    def read(self, size: int) -> bytes:
        if self._read >= STOP:
            self._gate.wait()
        data = self._source.read(size)
        self._read += len(data)
        return data

    def close(self) -> None:
        self._source.close()


@pytest.mark.parametrize("end", ["reload", "kill"])
@IN_BOTH
async def test_a_file_of_a_python_program_goes_on_with_a_page(
    arrive: Arrive, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    gate, opened = threading.Event(), disk.open_source
    monkeypatch.setattr(disk, "open_source", lambda found: GatedSource(opened(found), gate))
    path = tmp_path / "film.bin"
    path.write_bytes(EXPECTED)
    bob = await started(await Tab(await arrive()).open(), "bob")
    async with new_store(journal=tmp_path / "alice.journal") as alice:
        await alice.connect_to_signaling(f"ws://127.0.0.1:{server.port}", "alice", backoff=SHORT)
        transfer = await alice.send_file("bob", path)
        await bob.until("asked[0]?.transferred >= 4 * 1024 * 1024 && asked[0].kept")
        bob = await started(await (killed(bob) if end == "kill" else bob.open()), "bob")
        gate.set()
        async with asyncio.timeout(PATIENCE):
            await transfer
    assert transfer.resumed >= 2 * MIB
    await bob.until("resumed[0]?.state === 'done'")
    assert await bob.get("asked.length") == 0
    assert await is_whole(bob, "resumed[0]")


@IN_BOTH
async def test_a_file_for_somebody_who_was_never_there_waits_over_a_reload(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    await alice.run(SEND, size=SIZE)
    await alice.until("transfer.kept")
    alice = await started(await alice.open(), "alice")
    assert await alice.get("store.transfers.map(({ state, size }) => [state, size])") == [["offered", SIZE]]
    bob = await started(await Tab(await arrive()).open(), "bob")
    await bob.until("asked[0]?.state === 'done'")
    assert await is_whole(bob, "asked[0]")
    await alice.until("resumed[0].state === 'done'")


@IN_BOTH
async def test_a_browser_that_keeps_no_files_transfers_them_all_the_same(arrive: Arrive) -> None:
    """As a private window without room, or without files in IndexedDB, does."""
    alice = await started(await Tab(await arrive()).open(), "alice")
    bob = await started(await Tab(await arrive()).open(), "bob", limits={"journalFileSize": 5 * MIB})
    await alice.run("""
      const { put } = IDBObjectStore.prototype;
      IDBObjectStore.prototype.put = function (value, key) {
        if (value instanceof Blob) throw new DOMException('there is no room', 'QuotaExceededError');
        return put.call(this, value, key);
      };
    """)
    await alice.run(SEND, size=SIZE)
    await alice.run("await transfer.finished;")
    await bob.until("asked[0]?.state === 'done'")
    assert await is_whole(bob, "asked[0]")
    assert "has no room" in await alice.get("transfer.keptProblem")
    assert "larger than what the journal keeps of files" in await bob.get("asked[0].keptProblem")
    assert await alice.get("store.state.journalError") is None
    await alice.run("await store.send('bob', 'messages are stored').whenStored();")
    for tab in (alice, bob):
        await tab.run("await store.disconnect();")
        assert await kept(tab) == [[], 0]


@IN_BOTH
async def test_only_the_tab_that_has_the_journal_goes_on(arrive: Arrive) -> None:
    alice, bob = await under_way(arrive)
    second = await alice.another()
    assert (await second.fails("sdk.openJournal('alice')"))["name"] == "JournalInUse"
    await alice.run("await store.disconnect();")
    assert await alice.get("[transfer.state, transfer.error.kept]") == ["failed", True]
    await started(second, "alice")
    await second.until("resumed[0]?.state === 'done'")
    await bob.until("resumed[0]?.state === 'done'")
    assert await is_whole(bob, "resumed[0]")


@IN_BOTH
async def test_the_journal_of_an_earlier_release_takes_files(arrive: Arrive) -> None:
    bob = await started(await Tab(await arrive()).open(), "bob")
    alice = await Tab(await arrive()).open()
    await alice.run("""
      await new Promise((resolve) => {
        const opening = indexedDB.open('aldis.journal.alice', 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('rows').put(7, 'g');
        opening.onsuccess = () => resolve(opening.result.close());
      });
    """)
    await started(alice, "alice")
    await alice.run(GATE, stop=STOP)
    await alice.run(SEND, size=SIZE)
    await alice.until("transfer.kept")
    await started(await alice.open(), "alice")
    await alice.until("resumed[0]?.state === 'done'")
    await bob.until("resumed[0]?.state === 'done' || asked[0].state === 'done'")
