"""The journal in real browsers: what is queued, and what has come, outlives the page; one tab has it at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aldis.identity.keys import Identity
from aldis.identity.pins import FilePins
from aldis.store.store import NetworkStore
from browser.conftest import IN_BOTH, Arrive
from support.server_process import ServerProcess
from support.stores import read, stores
from support.tabs import Tab

CONTRACT = Path(__file__).parents[2] / "sdk/test/support/journal_contract.js"
PROMISES = (
    "a new one is empty",
    "rows are kept, in the order of their keys",
    "a row takes the place of the one before, and undefined takes it away",
    "what cannot be kept leaves all as it was",
    "blocks of a file are kept beside the rows, in the order of their numbers",
    "erasing leaves nothing",
)
# A store with a journal; `got` is what its callback was given. It keeps that besides, as an application would.
START = """
window.journal = await sdk.openJournal(name, { wait });
const identity = await sdk.Identity.loadOrCreate(name);
window.store = new sdk.NetworkStore({ identity, pins: new sdk.IndexedDBPins(), journal, path });
window.got = [];
window.changed = () => dispatchEvent(new Event('changed'));
const log = () => JSON.parse(localStorage.getItem('log') ?? '[]');
store.onMessage(({ content, id, redelivered }) => {
  localStorage.setItem('log', JSON.stringify([...log(), [content, redelivered]]));
  changed(got.push({ content, id, redelivered }));
});
store.subscribe(changed);
await store.connectToSignaling(location.origin, name, { backoff: { first: 0.1, most: 1 } });
"""
# Numbers, each sent when the one before it is stored. An application that writes down what it is about to send, and
# what was stored, may be unsure of one of them when it was reloaded.
STREAM = """
const kept = (key) => JSON.parse(localStorage.getItem(key) ?? '[]');
const keep = (key, value) => localStorage.setItem(key, JSON.stringify([...kept(key), value]));
window.running = (async () => {
  for (let next = kept('tried').length; next < most; next++) {
    keep('tried', next);
    const delivery = store.send(to, next);
    delivery.catch(() => {});
    await delivery.whenStored();
    keep('stored', next);
  }
})();
"""
LOGGED = "JSON.parse(localStorage.getItem('log') ?? '[]')"


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def started(tab: Tab, name: str, *, wait: bool = False, path: str = "auto") -> Tab:
    tab.name = name
    await tab.run(START, name=name, wait=wait, path=path)
    return tab


@IN_BOTH
async def test_indexed_db_keeps_what_every_backend_promises(arrive: Arrive) -> None:
    tab = await Tab(await arrive()).open()
    contract = CONTRACT.read_text().replace("export const", "const")
    names = await tab.run(
        f"""{contract}
        const {{ IndexedDBBackend }} = await import('/src/sdk/store/journal/indexed_db.js');
        const equal = (found, expected) => {{
          const [one, other] = [found, expected].map((each) => JSON.stringify(each));
          if (one !== other) throw new Error(`${{one}} is not ${{other}}`);
        }};
        for (const [name, run] of Object.entries(CONTRACT)) {{
          await run({{ open: () => IndexedDBBackend.open(name), equal }});
        }}
        return Object.keys(CONTRACT);
        """
    )
    assert names == list(PROMISES)


@IN_BOTH
async def test_what_was_queued_before_a_reload_is_sent_after_it(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    await alice.run("for (const n of [1, 2, 3]) await store.send('bob', n).whenStored();")
    await started(await alice.open(), "alice")
    assert await alice.get("journal.queued.map(({ content }) => content)") == [1, 2, 3]
    assert await alice.get("store.state.peers.bob.queued") == 3
    await alice.run("store.send('bob', 4).catch(() => {});")
    bob = await started(await Tab(await arrive()).open(), "bob")
    assert await bob.contents(4) == [1, 2, 3, 4]
    await alice.run("await store.drain();")
    await started(await bob.open(), "bob")
    await alice.run("await store.send('bob', 5);")
    assert [message["content"] for message in await bob.read(1)] == [5]


@IN_BOTH
async def test_what_is_queued_as_the_page_ends_is_sent_by_the_next(arrive: Arrive) -> None:
    """A page that ends hears no more of its requests, so it has to be enough to have made them."""
    alice = await Tab(await arrive()).open()
    await alice.run("addEventListener('pagehide', () => store.send('bob', 'last').catch(() => {}));")
    await started(alice, "alice")  # it hears of that later, and is closed then
    await alice.run("await store.send('bob', 'first').whenStored();")
    await started(await alice.open(), "alice")
    assert await alice.get("journal.queued.map(({ content }) => content)") == ["first", "last"]


@pytest.mark.parametrize("end", ["sender", "receiver"])
@IN_BOTH
async def test_a_numbered_stream_goes_on_over_reloads(arrive: Arrive, end: str) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    bob = await started(await Tab(await arrive()).open(), "bob")
    most = 200
    await alice.run(STREAM, to="bob", most=most)
    for count in (20, 60, 100):
        await bob.until(f"{LOGGED}.length >= {count}")
        if end == "sender":
            await started(await alice.open(), "alice")
            await alice.run(STREAM, to="bob", most=most)
        else:
            await started(await bob.open(), "bob")
    await alice.run("await running; await store.drain();")
    stored = set(await alice.get("JSON.parse(localStorage.getItem('stored'))"))
    log = await bob.get(LOGGED)
    numbers = [number for number, redelivered in log if not redelivered]
    assert numbers == sorted(set(numbers))
    assert stored <= {number for number, _ in log}
    assert len(stored) >= most - 3


@IN_BOTH
async def test_a_page_that_is_killed_loses_nothing_that_was_stored(arrive: Arrive, server: ServerProcess) -> None:
    async with stores(url(server), "bob") as (bob,):
        alice = await started(await Tab(await arrive()).open(), "alice")
        await alice.run(STREAM, to="bob", most=2_000)
        numbers: list[Any] = [message.content for message in await read(bob, 50)]
        # Without the events that a page gets when it is left.
        await alice.page.close(run_before_unload=False)
        other = Tab(alice.person)
        other.page = await alice.person.context.new_page()
        await started(await other.open(), "alice", wait=True)
        stored = set(await other.get("JSON.parse(localStorage.getItem('stored'))"))
        # Delivered it is when bob has read on: he takes in no more than his limit of unread messages.
        await other.run("await store.send('bob', 'the last').whenStored();")
        while numbers[-1] != "the last":
            numbers += [message.content for message in await read(bob, 1)]
        assert numbers[:-1] == sorted(set(numbers[:-1]))
        assert stored <= set(numbers)
        bob.send("alice", "and back")
        assert await other.contents(1) == ["and back"]


async def test_two_browsers_and_a_program_keep_one_conversation_when_each_is_started_anew(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    """Each sends numbers to both others. One of them shows nobody its address, so its messages take the relay."""
    names, count = ("alice", "bob", "carol"), 10
    alice = await started(await Tab(await arrive("chromium")).open(), "alice")
    bob = await started(await Tab(await arrive("firefox")).open(), "bob", path="relay")
    kept = {"identity": Identity.generate(), "pins": FilePins(tmp_path / "pins")}
    got: list[tuple[str, Any]] = []

    async def browsers_send(part: int) -> None:
        for tab in (alice, bob):
            await tab.run(
                """
                for (const to of names.filter((one) => one !== name)) {
                  for (let n = first; n < first + count; n++) await store.send(to, `${name} ${n}`).whenStored();
                }
                """,
                names=names, name=tab.name, first=part * count, count=count,
            )  # fmt: skip

    async def all_send(carol: NetworkStore, part: int) -> None:
        for number in range(part * count, (part + 1) * count):
            for to in ("alice", "bob"):
                await carol.send(to, f"carol {number}").when_stored()
        await browsers_send(part)

    async with stores(url(server), "carol", journal=tmp_path / "journal", **kept) as (carol,):
        await all_send(carol, 0)
        await started(await alice.open(), "alice")
        await all_send(carol, 1)
        got += [(message.id, message.content) for message in await read(carol, count)]
    await browsers_send(2)
    await started(await bob.open(), "bob", path="relay")
    async with stores(url(server), "carol", journal=tmp_path / "journal", **kept) as (carol,):
        await all_send(carol, 3)
        while len(dict(got)) < 8 * count:
            got += [(message.id, message.content) for message in await read(carol, 1)]
        assert await bob.get("store.state.peers.carol.path") == "relay"

        for tab in (alice, bob):
            other = "bob" if tab is alice else "alice"
            expected = {other: list(range(4 * count)), "carol": [n for n in range(4 * count) if n // count != 2]}
            await logged(tab, expected, bob if tab is alice else alice, carol)
        contents = [content.split() for content in dict(got).values()]
        for sender in ("alice", "bob"):
            assert [int(number) for name, number in contents if name == sender] == list(range(4 * count))


async def logged(tab: Tab, expected: dict[str, list[int]], *others: Tab | NetworkStore) -> None:
    """Wait until all of it is in the log of a tab, in order; twice only what an earlier page may have had."""
    size = sum(map(len, expected.values()))
    try:
        await tab.until(f"new Set({LOGGED}.map(([content]) => content)).size >= {size}")
    except AssertionError as error:
        states = [await other.state() if isinstance(other, Tab) else other.state for other in others]
        raise AssertionError(f"{error}\nThe log: {await tab.get(LOGGED)}\nThe others: {states}") from None
    log = [(*content.split(), again) for content, again in await tab.get(LOGGED)]
    for sender, numbers in expected.items():
        assert list(dict.fromkeys(int(number) for name, number, _ in log if name == sender)) == numbers
        first = [int(number) for name, number, again in log if name == sender and not again]
        assert first == sorted(set(first))


@IN_BOTH
async def test_one_tab_has_the_journal_and_the_next_takes_over_when_it_is_closed(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    await alice.run("await store.send('bob', 'queued').whenStored();")
    second = await alice.another()
    error = await second.fails("sdk.openJournal('alice')")
    assert (error["name"], error["journal"], error["temporary"]) == ("JournalInUse", "alice", True)
    assert "another window of this browser" in error["message"]
    starting = asyncio.ensure_future(started(second, "alice", wait=True))
    await alice.page.close()
    await starting
    assert await second.get("journal.queued.map(({ content }) => content)") == ["queued"]


@IN_BOTH
async def test_who_waits_for_a_journal_can_give_up(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    second = await alice.another()
    error = await second.fails("sdk.openJournal('alice', { wait: true, signal: AbortSignal.abort() })")
    assert error["name"] == "AbortError"
    await alice.run("await store.disconnect();")
    await second.run("const journal = await sdk.openJournal('alice'); await journal.erase();")


@IN_BOTH
async def test_the_journal_goes_with_its_identity(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive()).open(), "alice")
    await alice.run("await store.send('bob', 'queued').whenStored();")
    second = await alice.another()
    await second.run("await sdk.Identity.remove('alice');")
    # The browser tells the first tab in its own time.
    await alice.until("store.state.journalError?.name === 'JournalInUse'")
    failed = await alice.fails("store.send('bob', 'more').whenStored()")
    assert failed["name"] == "DeliveryFailed"
    await alice.page.close()
    await second.run("window.journal = await sdk.openJournal('alice', { wait: true });")
    assert await second.get("journal.queued") == []


@IN_BOTH
async def test_a_journal_of_a_newer_release_or_a_damaged_one_is_told(arrive: Arrive) -> None:
    tab = await Tab(await arrive()).open()
    make = """
      const made = await new Promise((resolve) => {
        const opening = indexedDB.open('aldis.journal.' + name, version);
        opening.onupgradeneeded = () => store && opening.result.createObjectStore(store).put('nonsense', 'g');
        opening.onsuccess = () => resolve(opening.result);
      });
      made.close();
    """
    await tab.run(make, name="newer", version=1000, store="rows")
    assert (await tab.fails("sdk.openJournal('newer')"))["name"] == "JournalTooNew"
    await tab.run(make, name="damaged", version=1, store="rows")
    await tab.run(make, name="other", version=1, store="")
    for name in ("damaged", "other"):
        assert (await tab.fails(f"sdk.openJournal('{name}')"))["name"] == "JournalCorrupt"
    await tab.run("delete globalThis.indexedDB; Object.defineProperty(globalThis, 'indexedDB', { value: undefined });")
    assert (await tab.fails("sdk.openJournal('none')"))["name"] == "JournalReadOnly"
