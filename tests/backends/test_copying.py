"""Copying a directory to another one: what is there afterwards, and what happens when one of them fails or changes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aldis.backends.base import Binding, Directory, DirectoryUnavailable
from aldis.backends.copying import MAX_PASSES, MAX_PRIVACY_ROWS, PAGE, CopyFailed, Pass, compare, copy
from aldis.backends.memory import MemoryDirectory
from aldis.backends.sqlite import SqliteDirectory
from aldis.backends.sqlite_file import MIGRATIONS
from aldis.backends.sqlite_source import SqliteSource
from aldis.errors import UsageError
from aldis.protocol.privacy import MAX_PRIVACY_NAMES, Privacy, PrivacyChange

KEY_A = b"a" * 32
KEY_B = b"b" * 32
HIDDEN = Privacy("hidden", "contacts", frozenset({"bob", "straße"}), frozenset({"mallory", "😀"}))
EVERYTHING = 10_000_000  # names in one page


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Directory]:
    directory = await SqliteDirectory.open(tmp_path / "to" / "names.sqlite3")
    yield directory
    await directory.close()


async def filled(*bindings: Binding, listed: tuple[str, ...] = ()) -> MemoryDirectory:
    directory = MemoryDirectory()
    for binding in bindings:
        await directory.put(binding)
    for name in listed:
        await directory.list_name(name)
    return directory


async def content(directory: Directory | SqliteSource) -> tuple[list[Binding], list[str]]:
    return await directory.bindings("", EVERYTHING), await directory.listed_names("", EVERYTHING)


def many(count: int) -> list[Binding]:
    return [
        Binding(f"user{number:06}😀", number.to_bytes(32, "big"), HIDDEN if number % 7 == 0 else Privacy())
        for number in range(count)
    ]


async def test_a_copy_has_all_names_keys_privacies_and_the_list(target: Directory) -> None:
    bindings = many(2 * PAGE + 1)
    source = await filled(*bindings, listed=("zoë", "alice", "🦉"))
    copied = await copy(source, target)
    assert await content(target) == (bindings, ["alice", "zoë", "🦉"])
    assert copied.complete
    assert (copied.bound.missing, copied.bound.changed, copied.listed.missing) == (len(bindings), 0, 3)
    assert (copied.last.number, copied.last.bound.names, copied.last.listed.names) == (2, len(bindings), 3)


async def test_a_copy_of_a_copy_writes_nothing(target: Directory) -> None:
    source = await filled(*many(50), listed=("alice",))
    await copy(source, target)
    again = await copy(source, Unwritable(target))
    assert again.complete
    assert again.last.number == 1


async def test_a_copy_brings_what_has_changed_since_the_one_before(target: Directory) -> None:
    source = await filled(Binding("alice", KEY_A), Binding("bob", KEY_A), Binding("carol", KEY_A, HIDDEN))
    await copy(source, target)
    await source.rotate("alice", KEY_A, KEY_B)
    await source.change_privacy("bob", KEY_A, PrivacyChange(presence="hidden"))
    await source.release("carol")
    await source.claim("carol", KEY_B)
    await source.claim("dave", KEY_B)
    copied = await copy(source, target)
    assert await content(target) == await content(source)
    assert (copied.bound.missing, copied.bound.changed) == (1, 3)


async def test_what_was_released_is_released_there_only_by_an_exact_copy(target: Directory) -> None:
    source = await filled(Binding("alice", KEY_A), Binding("bob", KEY_A, HIDDEN), listed=("alice", "bob"))
    await copy(source, target)
    before = await content(target)
    await source.release("bob")
    await source.unlist_name("alice")
    kept = await copy(source, target)
    assert await content(target) == before
    assert (kept.complete, kept.last.bound.extra, kept.last.listed.extra) == (True, 1, 1)
    found = await compare(source, target)
    assert (found.to_write, found.extra) == (0, 2)
    exact = await copy(source, target, exact=True)
    assert await content(target) == await content(source)
    assert (exact.complete, exact.bound.extra, exact.listed.extra) == (True, 1, 1)


async def test_an_exact_copy_of_no_names_over_some_is_refused(target: Directory) -> None:
    await target.claim("alice", KEY_A)
    with pytest.raises(UsageError, match="in the right order"):
        await copy(MemoryDirectory(), target, exact=True)
    assert await target.find("alice") == KEY_A
    await target.release("alice")
    assert (await copy(MemoryDirectory(), target, exact=True)).complete


async def test_a_directory_is_not_copied_onto_itself_by_another_address(target: Directory, tmp_path: Path) -> None:
    await target.claim("alice", KEY_A)
    await target.list_name("bob")
    other = await SqliteDirectory.open(tmp_path / "to" / "names.sqlite3")
    before = await content(target)
    with pytest.raises(UsageError, match="the same directory"):
        await copy(other, target)
    assert await content(target) == before
    await other.close()


async def test_a_comparison_writes_nothing_and_counts_each_difference(target: Directory) -> None:
    source = await filled(Binding("alice", KEY_A), Binding("bob", KEY_A), Binding("carol", KEY_A), listed=("x", "y"))
    for binding in (Binding("bob", KEY_B), Binding("carol", KEY_A, HIDDEN), Binding("eve", KEY_B)):
        await target.put(binding)
    await target.list_name("y")
    found = await compare(source, Unwritable(target))
    assert (found.bound.names, found.bound.missing, found.bound.changed, found.bound.extra) == (3, 1, 2, 1)
    assert (found.listed.names, found.listed.missing, found.listed.changed, found.listed.extra) == (2, 1, 0, 0)


class Unwritable(MemoryDirectory):
    """A directory that shows another one, and takes no write."""

    def __init__(self, shown: Directory) -> None:
        super().__init__()
        self.bindings = shown.bindings  # type: ignore[method-assign]
        self.listed_names = shown.listed_names  # type: ignore[method-assign]

    async def put(self, binding: Binding) -> None:
        raise AssertionError(binding)

    async def list_name(self, user_id: str) -> bool:
        assert " " in user_id, "no name: a mark that is gone again"
        return await super().list_name(user_id)


class Paged(MemoryDirectory):
    """A directory that tells how many names were asked for, and does something between two pages."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0
        self.asked: set[int] = set()

    async def bindings(self, after: str, most: int) -> list[Binding]:
        self.pages += 1
        self.asked.add(most)
        page = await super().bindings(after, most)
        await self.meanwhile(page)
        return page

    async def meanwhile(self, page: list[Binding]) -> None:
        """What others do behind a page that was read."""


class Busy(Paged):
    """Its server hands a name over for each page that is read, until it stops."""

    def __init__(self, changes: int) -> None:
        super().__init__()
        self.changes = changes

    async def meanwhile(self, page: list[Binding]) -> None:
        if page and self.changes:
            self.changes -= 1
            name, key, _ = page[0]
            await self.rotate(name, key, bytes([self.changes]) * 32)
            await self.claim(f"a{self.changes:03}", KEY_B)


async def test_what_changes_behind_a_pass_is_found_by_the_next(target: Directory) -> None:
    source = Busy(changes=5)
    for binding in many(3 * PAGE):
        await source.put(binding)
    copied = await copy(source, target)
    assert copied.complete
    assert copied.last.number >= 3
    assert source.asked == {PAGE}
    assert await content(target) == await content(source)


async def test_a_copy_of_what_never_rests_ends_and_says_so(target: Directory) -> None:
    source = Busy(changes=200)
    for binding in many(5):
        await source.put(binding)
    copied = await copy(source, target)
    assert not copied.complete
    assert copied.last.number == MAX_PASSES
    source.changes = 0
    assert (await copy(source, target)).complete
    assert await content(target) == await content(source)


class Away(Paged):
    """A directory that cannot be read from the page `away` on."""

    def __init__(self, away: int) -> None:
        super().__init__()
        self.away = away

    async def meanwhile(self, page: list[Binding]) -> None:
        if self.pages == self.away:
            raise DirectoryUnavailable("10.0.0.5:6379 does not answer")


@pytest.mark.parametrize("side", ["FROM", "TO"])
async def test_a_directory_that_is_away_in_the_middle_ends_the_copy_and_the_next_goes_on(
    side: str, target: Directory
) -> None:
    source, other = Away(3), Away(3)
    for binding in many(4 * PAGE):
        await source.put(binding)
        await other.put(Binding(binding.user_id, KEY_B))
    told: list[int] = []
    with pytest.raises(CopyFailed, match="does not answer") as raised:
        await copy(*((source, target) if side == "FROM" else (target, other)), told=lambda found: told.append(1))
    assert raised.value.side == side
    if side == "FROM":
        written = len((await content(target))[0])
        assert 0 < written < 4 * PAGE
        copied = await copy(source, target)
        assert copied.bound.missing == 4 * PAGE - written
        assert await content(target) == await content(source)


def crowd(number: int) -> Binding:
    """A user whose privacy is as large as it may be."""
    lists = [frozenset(f"{kind}{number:04}of{n:08}" for n in range(1000)) for kind in "ab"]
    return Binding(f"user{number:06}", KEY_A, Privacy(contacts=lists[0], blocked=lists[1]))


async def test_many_large_privacies_make_small_pages(target: Directory) -> None:
    source = Paged()
    everybody = [crowd(number) for number in range(100)]
    for binding in everybody:
        assert binding.privacy.fits(MAX_PRIVACY_NAMES)
        await source.put(binding)
    assert (await copy(source, target)).complete
    assert source.asked == {PAGE, MAX_PRIVACY_ROWS // 2000}
    pages = [len(page) async for page in pages_of(target)]
    assert sum(pages) == 100
    assert max(pages) < 40
    assert [binding async for page in pages_of(target) for binding in page] == everybody


class Failing(MemoryDirectory):
    """A directory that takes so many names, and then none."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    async def put(self, binding: Binding) -> None:
        if not self.room:
            raise DirectoryUnavailable("the disk is full")
        self.room -= 1
        await super().put(binding)


async def test_a_write_that_fails_ends_the_copy_when_the_others_have_ended() -> None:
    source, target = await filled(*many(3 * PAGE)), Failing(PAGE + 10)
    with pytest.raises(CopyFailed, match="TO cannot be used: the disk is full"):
        await copy(source, target)
    assert len((await content(target))[0]) == PAGE + 10
    target.room = EVERYTHING
    assert (await copy(source, target)).bound.missing == 2 * PAGE - 10
    assert await content(target) == await content(source)


class Slow(MemoryDirectory):
    """A directory that is so far away that only so many calls are answered in the time of a call."""

    def __init__(self, at_once: int) -> None:
        super().__init__()
        self.at_once = at_once
        self.under_way = self.refused = 0

    async def put(self, binding: Binding) -> None:
        if self.under_way == self.at_once:
            self.refused += 1
            raise DirectoryUnavailable("no answer within 5 s")
        self.under_way += 1
        await asyncio.sleep(0)
        self.under_way -= 1
        await super().put(binding)


@pytest.mark.parametrize("at_once", [1, 100, 999])
async def test_a_slow_directory_gets_fewer_writes_at_once(at_once: int) -> None:
    source, target = await filled(*many(5 * PAGE)), Slow(at_once)
    assert (await copy(source, target)).complete
    assert await content(target) == await content(source)
    assert target.refused < 2 * PAGE, "it learns"


async def test_a_fault_that_is_none_of_the_directory_is_raised_as_it_is() -> None:
    class Faulty(MemoryDirectory):
        async def put(self, binding: Binding) -> None:
            if binding.user_id.startswith("user000007"):
                raise OverflowError("a bug")

    with pytest.raises(OverflowError):
        await copy(await filled(*many(10)), Faulty())


async def test_progress_is_told_after_each_page() -> None:
    told: list[tuple[int, int, int]] = []

    def tell(found: Pass) -> None:
        told.append((found.number, found.bound.names, found.to_write))

    await copy(await filled(*many(2 * PAGE)), MemoryDirectory(), told=tell)
    assert told == [(1, PAGE, PAGE), (1, 2 * PAGE, 2 * PAGE), (2, PAGE, 0), (2, 2 * PAGE, 0)]


NAMES = st.text(st.sampled_from("ab\u00df\uffee😀"), min_size=1, max_size=3)
CONTENT = st.dictionaries(NAMES, st.tuples(st.sampled_from([KEY_A, KEY_B]), st.sampled_from([Privacy(), HIDDEN])))
LISTED = st.sets(NAMES)


@given(
    there=CONTENT, here=CONTENT, listed_there=LISTED, listed_here=LISTED, exact=st.booleans(), page=st.integers(1, 4)
)
@settings(deadline=None, max_examples=200)
def test_whatever_the_two_have_a_copy_makes_them_agree(
    there: dict[str, tuple[bytes, Privacy]],
    here: dict[str, tuple[bytes, Privacy]],
    listed_there: set[str],
    listed_here: set[str],
    *,
    exact: bool,
    page: int,
) -> None:
    class Small(MemoryDirectory):
        async def bindings(self, after: str, most: int) -> list[Binding]:
            return await super().bindings(after, min(page, most))

        async def listed_names(self, after: str, most: int) -> list[str]:
            return await super().listed_names(after, min(page + 1, most))

    async def check() -> None:
        source, target = Small(), Small()
        for directory, names, listed in ((source, there, listed_there), (target, here, listed_here)):
            for name, (key, privacy) in names.items():
                await directory.put(Binding(name, key, privacy))
            for name in listed:
                await directory.list_name(name)
        if exact and here and not there:
            return
        assert (await copy(source, target, exact=exact)).last.number <= 2
        both = there if exact else here | there
        wanted = [Binding(name, *both[name]) for name in sorted(both)]
        found = [binding async for part in pages_of(target) for binding in part]
        assert found == wanted
        for name in listed_there | listed_here:
            assert await target.is_listed(name) == (name in listed_there or not exact)

    asyncio.run(check())


async def pages_of(directory: Directory) -> AsyncIterator[list[Binding]]:
    after = ""
    while page := await directory.bindings(after, PAGE):
        yield page
        after = page[-1].user_id


# --- a SQLite file that is only read --------------------------------------------------------------------------------


async def test_a_source_reads_a_file_while_another_writes_it(target: Directory, tmp_path: Path) -> None:
    source = await SqliteSource.open(tmp_path / "to" / "names.sqlite3")
    assert await content(source) == ([], [])
    await target.put(Binding("alice", KEY_A, HIDDEN))
    await target.list_name("bob")
    assert await content(source) == ([Binding("alice", KEY_A, HIDDEN)], ["bob"])
    await source.close()
    with pytest.raises(DirectoryUnavailable, match="closed"):
        await source.bindings("", 1)


async def test_a_source_makes_and_changes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "names.sqlite3"
    with pytest.raises(UsageError, match="No such file"):
        await SqliteSource.open(path)
    assert not path.exists()
    directory = await SqliteDirectory.open(path)
    await directory.claim("alice", KEY_A)
    await directory.close()
    before = path.read_bytes()
    source = await SqliteSource.open(path)
    assert await source.bindings("", 10) == [Binding("alice", KEY_A)]
    await source.close()
    assert path.read_bytes() == before


async def test_a_source_of_an_older_release_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "names.sqlite3"
    await (await SqliteDirectory.open(path)).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={len(MIGRATIONS) - 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="of an older release"):
        await SqliteSource.open(path)
    assert path.read_bytes() == before


async def test_a_source_that_is_damaged_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "names.sqlite3"
    directory = await SqliteDirectory.open(path)
    await copy(await filled(*many(3000)), directory)
    await directory.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size // 2))
    source = await SqliteSource.open(path)
    with pytest.raises(CopyFailed, match=r"FROM cannot be used: .* is damaged"):
        await copy(source, MemoryDirectory())
    await source.close()
