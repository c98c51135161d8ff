"""The journal in real browsers on a disk that is full, where nothing is kept, and with a profile from a backup."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect

from aldis.identity.keys import Identity
from aldis.store.state import Message
from aldis.store.store import NetworkStore
from browser.conftest import Arrive
from browser.test_sdk_journal import started, url
from support.browser import BROWSERS, Browsers
from support.page_windows import Window
from support.profiles import Manner, profile
from support.server_process import ServerProcess
from support.small_disk import SmallDisk
from support.stores import contents, read, stores
from support.tabs import Tab

# Firefox takes 20 MiB for an empty profile.
DISK = 96
# Does not fit into what a browser has set aside.
LARGE = "x" * 500_000
GOT = "got.map(({ content }) => content)"
NO_ROOM = "no room: the disk, or what this page may keep, is full"


def base(server: ServerProcess) -> str:
    return f"http://localhost:{server.port}"


async def refused(tab: Tab, disk: SmallDisk | None = None, size: int = 10_000) -> list[str]:
    """Send to bob until a message is refused for want of room: what was before may still take some. What was taken."""
    taken: list[str] = []
    while True:
        if disk:
            disk.fill()
        text = f"late {len(taken)} {'x' * size}"
        outcome = await tab.run(
            """
            return store.send('bob', text).whenStored().then(
              () => null,
              ({ name, kept, message, cause }) => [name, kept, message, cause.name],
            );
            """,
            text=text,
        )
        if outcome is None:
            taken.append(text)
            continue
        name, kept, message, cause = outcome
        assert (name, kept, cause) == ("DeliveryFailed", False, "JournalDiskFull"), message
        assert NO_ROOM in message
        return taken


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_disk_that_is_full_fails_what_is_new_and_nothing_else(
    browsers: Browsers, browser: str, server: ServerProcess, tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path, DISK)
    async with (
        profile(browsers, browser, disk.path / "profile", base(server), disk) as person,
        stores(url(server), "carol") as (carol,),
    ):
        alice = await started(await Tab(person).open(), "alice")
        await carol.send("alice", "before")
        accepted = ["accepted"]
        await alice.run("await store.send('bob', 'accepted').whenStored();")
        # More than once: a fault of the disk changes what a browser says to the next attempt.
        for _ in range(3):
            accepted += await refused(alice, disk)
        assert await alice.get("store.state.journalError.name") == "JournalDiskFull"
        disk.fill()
        delivery = carol.send("alice", LARGE)
        await delivery.when_sent()
        accepted += await refused(alice, disk)
        assert not delivery.done
        assert await alice.get(GOT) == ["before"]
        opening = await alice.fails("sdk.openJournal('another')")
        assert (opening["name"], opening["temporary"]) == ("JournalDiskFull", True)
        assert NO_ROOM in opening["message"]
        disk.free()
        await delivery  # by itself
        assert await alice.get(GOT) == ["before", LARGE]
        assert await alice.get("store.state.journalError") is None
        await alice.run("await store.send('bob', 'later').whenStored();")
        async with stores(url(server), "bob") as (bob,):
            assert await contents(bob, len(accepted) + 1) == [*accepted, "later"]
            await alice.run("await store.send('bob', 'the end');")
            assert await contents(bob, 1) == ["the end"]
        # What was refused is not there after a reload, either.
        await started(await alice.open(), "alice", wait=True)
        assert await alice.get("journal.queued") == []


async def test_a_page_that_may_keep_no_more_fails_what_is_new_and_nothing_else(
    arrive: Arrive, server: ServerProcess
) -> None:
    alice = await Tab(await arrive("chromium")).open()
    session = await alice.person.context.new_cdp_session(alice.page)
    origin = {"origin": alice.person.base}
    # Before it is opened: what is allowed then counts for some seconds.
    await session.send("Storage.overrideQuotaForOrigin", {**origin, "quotaSize": 500_000})
    await started(alice, "alice")
    await alice.run("await store.send('bob', 'accepted').whenStored();")
    accepted = ["accepted", *await refused(alice, size=1_000_000), *await refused(alice, size=1_000_000)]
    assert await alice.get("store.state.journalError.name") == "JournalDiskFull"
    await session.send("Storage.overrideQuotaForOrigin", origin)
    await alice.run("await store.send('bob', 'later').whenStored();")
    assert await alice.get("store.state.journalError") is None
    async with stores(url(server), "bob") as (bob,):
        assert await contents(bob, len(accepted) + 1) == [*accepted, "later"]


async def test_a_journal_that_a_person_deletes_with_all_that_the_page_keeps_is_lost_for_good(arrive: Arrive) -> None:
    alice = await started(await Tab(await arrive("chromium")).open(), "alice")
    await alice.run("await store.send('bob', 'accepted').whenStored();")
    session = await alice.person.context.new_cdp_session(alice.page)
    await session.send("Storage.clearDataForOrigin", {"origin": alice.person.base, "storageTypes": "all"})
    await alice.until("store.state.journalError?.name === 'JournalReadOnly'")
    failed = await alice.fails("store.send('bob', 'more').whenStored()")
    assert failed["name"] == "DeliveryFailed"
    for _ in range(2):
        assert "was deleted by the browser" in failed["message"]
        failed = await alice.fails("store.send('bob', 'more').whenStored()")
    # Another tab may begin a new one.
    second = await alice.another()
    await second.run("window.journal = await sdk.openJournal('alice');")
    assert await second.get("journal.queued") == []


PRIVATE = {
    "chromium": Manner("chromium", flags=["--incognito"]),
    "firefox": Manner("firefox", preferences={"browser.privatebrowsing.autostart": True}),
}


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_private_window_has_a_journal_until_it_is_closed(
    browsers: Browsers, browser: str, server: ServerProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "profile"
    async with profile(browsers, PRIVATE[browser], folder, base(server)) as person:
        alice = await started(await Tab(person).open(), "alice")
        await alice.run("await store.send('bob', 'queued').whenStored();")
        await started(await alice.open(), "alice", wait=True)
        assert await alice.get("journal.queued.map(({ content }) => content)") == ["queued"]
    assert [path for path in folder.rglob("*") if "localhost" in path.name] == []


NOTHING_KEPT = [
    Manner("chromium", nothing_kept=True),
    Manner("firefox", nothing_kept=True),
    # As Firefox before 115 has them.
    Manner(
        "firefox",
        preferences={"browser.privatebrowsing.autostart": True, "dom.indexedDB.privateBrowsing.enabled": False},
    ),
]


@pytest.mark.parametrize("manner", NOTHING_KEPT, ids=["chromium", "firefox", "firefox-private"])
async def test_where_a_page_may_keep_nothing_that_is_said_and_a_store_works_without(
    browsers: Browsers, manner: Manner, server: ServerProcess, tmp_path: Path
) -> None:
    async with profile(browsers, manner, tmp_path / "profile", base(server)) as person:
        tab = await Tab(person).open()
        for options in ({}, {"wait": True}):
            error = await tab.fails("sdk.openJournal('alice', options)", options=options)
            assert error["name"] == "JournalReadOnly", error
            assert "this browser keeps nothing for this page" in error["message"]
        for call in ("loadOrCreate('alice')", "load('alice')", "remove('alice')"):
            error = await tab.fails(f"sdk.Identity.{call}")
            assert error["name"] == "IdentityError", error
            assert "this browser does not let the page keep its keys" in error["message"]
        await tab.start("alice")
        async with stores(url(server), "bob") as (bob,):
            await tab.sends("bob", "without")
            assert await contents(bob, 1) == ["without"]
        # The page would lose its name with the window, so it takes none.
        page = Window(person)
        await page.page.goto("/")
        await page.choose("carol")
        await expect(page.alert).to_contain_text("Your key cannot be kept here")
        await expect(page.alert).to_contain_text("This browser does not let the page keep anything")


async def unread(store: NetworkStore, count: int) -> list[Message]:
    """The next messages, but for those that the program before may have had."""
    messages: list[Message] = []
    while len(messages) < count:
        messages += [message for message in await read(store, 1) if not message.redelivered]
    return messages


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_profile_that_is_put_back_from_a_backup_loses_and_doubles_nothing_that_is_sent_afterwards(
    browsers: Browsers, browser: str, server: ServerProcess, tmp_path: Path
) -> None:
    """bob gets more in the meantime than the numbers that the journal had set aside; carol gets less."""
    folder, backup = tmp_path / "profile", tmp_path / "backup"
    kept = {name: {"identity": Identity.generate(), "journal": tmp_path / name} for name in ("bob", "carol")}
    many = [f"bob {number}" for number in range(100)]
    async with profile(browsers, browser, folder, base(server)) as person:
        alice = await started(await Tab(person).open(), "alice")
        async with stores(url(server), "bob", **kept["bob"]) as (bob,):
            await alice.run("await store.send('bob', 'before');")
            (before,) = await unread(bob, 1)
            await bob.send("alice", "from bob, before")
        # These wait in the copy.
        await alice.run(
            "for (const to of ['bob', 'carol', 'dave']) await store.send(to, `waits for ${to}`).whenStored();"
        )
        # Of a browser that runs, as backups are. Locks are links that lead nowhere.
        shutil.copytree(
            folder, backup, symlinks=True, ignore=shutil.ignore_patterns("Singleton*", "lock", ".parentlock")
        )
        async with (
            stores(url(server), "bob", **kept["bob"]) as (bob,),
            stores(url(server), "carol", **kept["carol"]) as (carol,),
        ):
            await alice.run(
                "for (const each of many) store.send('bob', each); store.send('carol', 'carol 0');", many=many
            )
            assert [message.content for message in await unread(bob, 1 + len(many))] == ["waits for bob", *many]
            assert [message.content for message in await unread(carol, 2)] == ["waits for carol", "carol 0"]
            await bob.send("alice", "from bob, meanwhile")
            await alice.run("await Promise.all([store.drain('bob'), store.drain('carol')]);")
    shutil.rmtree(folder)
    backup.rename(folder)
    async with profile(browsers, browser, folder, base(server)) as person:
        alice = await started(await Tab(person).open(), "alice")
        waiting = await alice.get("journal.queued.map(({ content }) => content)")
        assert sorted(waiting) == ["waits for bob", "waits for carol", "waits for dave"]
        # Before the two others can say what they have.
        await alice.run("for (const to of ['bob', 'carol']) await store.send(to, `after ${to}`).whenStored();")
        async with (
            stores(url(server), "bob", **kept["bob"]) as (bob,),
            stores(url(server), "carol", **kept["carol"]) as (carol,),
            stores(url(server), "dave") as (dave,),
        ):
            await alice.run("await store.drain();")
            await alice.run("for (const to of ['bob', 'carol', 'dave']) await store.send(to, 'the end');")
            after, end = await unread(bob, 2)
            assert [after.content, end.content] == ["after bob", "the end"]
            # The numbers begin anew: those of the copy were given to other messages.
            assert after.sequence < before.sequence + len(many)
            assert after.id.partition(":")[0] != before.id.partition(":")[0]
            assert [message.content for message in await unread(carol, 2)] == ["after carol", "the end"]
            assert [message.content for message in await unread(dave, 2)] == ["waits for dave", "the end"]
            await bob.send("alice", "from bob, after")
            assert await alice.get(GOT) == ["from bob, after"]
            assert await alice.get("journal.queued") == []
