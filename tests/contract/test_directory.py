"""What every directory promises (aldis.backends.base), checked on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aldis.backends.base import (
    Binding,
    ChangePrivacy,
    Claim,
    ClaimBinding,
    Directory,
    DirectoryUnavailable,
    FindBinding,
    LoadBinding,
    PrivacyRefusal,
    RotateBinding,
    answer,
)
from aldis.backends.directory_url import DirectoryOptions
from aldis.backends.memory import MemoryDirectory
from aldis.backends.opening import open_directory
from aldis.backends.postgres import PostgresDirectory
from aldis.backends.sqlite import SqliteDirectory
from aldis.protocol.privacy import DEFAULT_PRIVACY, MAX_PRIVACY_NAMES, Privacy, PrivacyChange
from support.postgres_server import PostgresServer, postgres_server
from support.redis_server import RedisServer

KEY_A = b"a" * 32
KEY_B = b"b" * 32
KEY_C = b"\x00" * 32


# Each directory in the one Redis has its own keys.
_NUMBERS = count()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server({"fsync": "off"}) as server:  # no test here ends the machine
        yield server


async def make_directory(kind: str, folder: Path, request: pytest.FixtureRequest) -> Directory:
    """An empty one."""
    if kind == "memory":
        return MemoryDirectory()
    if kind == "sqlite":
        return await SqliteDirectory.open(folder / "names.sqlite3")
    if kind == "redis":
        redis: RedisServer = request.getfixturevalue("redis")
        return await open_directory(redis.url(), DirectoryOptions(redis_prefix=f"{next(_NUMBERS)}:"))
    server: PostgresServer = request.getfixturevalue("postgres")
    server.execute("DROP SCHEMA IF EXISTS aldis CASCADE")
    return await PostgresDirectory.open(server.url())


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
async def directory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Directory]:
    directory = await make_directory(request.param, tmp_path, request)
    yield directory
    await directory.close()


async def test_a_claim_binds_a_free_name(directory: Directory) -> None:
    assert (await directory.claim("alice", KEY_A)).public_key == KEY_A
    assert await directory.find("alice") == KEY_A


async def test_a_claim_repeated_gives_the_same_answer(directory: Directory) -> None:
    assert await directory.claim("alice", KEY_A) == Claim(KEY_A, new=True)
    assert await directory.claim("alice", KEY_A) == Claim(KEY_A, new=False)


async def test_a_claim_of_a_bound_name_gives_the_key_that_is_bound(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    assert (await directory.claim("alice", KEY_B)).public_key == KEY_A
    assert await directory.find("alice") == KEY_A


async def test_to_find_binds_nothing(directory: Directory) -> None:
    assert await directory.find("alice") is None
    assert (await directory.claim("alice", KEY_B)).public_key == KEY_B


async def test_names_are_compared_by_code_points(directory: Directory) -> None:
    for number, name in enumerate(["straße", "STRASSE", "Straße", "ñ", "n\u0303", "a'b\";--", "%", "_", "Ⅷ", "😀"]):
        key = bytes([number]) * 32
        assert (await directory.claim(name, key)).public_key == key
        assert await directory.find(name) == key


async def test_rotation_needs_the_old_key(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    assert not await directory.rotate("alice", KEY_B, KEY_C)
    assert await directory.find("alice") == KEY_A
    assert await directory.rotate("alice", KEY_A, KEY_C)
    assert await directory.find("alice") == KEY_C


async def test_a_rotation_repeated_gives_the_same_answer(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    assert await directory.rotate("alice", KEY_A, KEY_B)
    assert await directory.rotate("alice", KEY_A, KEY_B)
    assert await directory.find("alice") == KEY_B


async def test_a_rotation_to_the_same_key_changes_nothing(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    assert await directory.rotate("alice", KEY_A, KEY_A)
    assert await directory.find("alice") == KEY_A


async def test_a_free_name_cannot_be_rotated(directory: Directory) -> None:
    assert not await directory.rotate("alice", KEY_A, KEY_B)
    assert await directory.find("alice") is None


async def test_a_released_name_is_free(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    assert await directory.release("alice")
    assert not await directory.release("alice")
    assert await directory.find("alice") is None
    assert (await directory.claim("alice", KEY_B)).public_key == KEY_B


def names(*some: str) -> frozenset[str]:
    return frozenset(some)


async def test_a_name_has_the_default_privacy_until_it_is_changed(directory: Directory) -> None:
    assert await directory.load("alice") is None
    assert (await directory.claim("alice", KEY_A)).privacy == DEFAULT_PRIVACY
    change = PrivacyChange("contacts", "hidden", add_contacts=names("bob", "straße"), block=names("mallory", "😀"))
    changed = await directory.change_privacy("alice", KEY_A, change)
    assert isinstance(changed, Privacy)
    assert changed == Privacy("contacts", "hidden", names("bob", "straße"), names("mallory", "😀"))
    assert await directory.claim("alice", KEY_A) == Claim(KEY_A, False, changed)
    assert await directory.load("alice") == Claim(KEY_A, False, changed)
    assert (await directory.claim("bob", KEY_B)).privacy == DEFAULT_PRIVACY


async def test_a_change_of_privacy_leaves_the_rest_as_it_is(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    await directory.change_privacy("alice", KEY_A, PrivacyChange(presence="hidden", block=names("eve", "mallory")))
    await directory.change_privacy("alice", KEY_A, PrivacyChange(offers="contacts", add_contacts=names("bob")))
    changed = await directory.change_privacy(
        "alice", KEY_A, PrivacyChange(remove_contacts=names("bob", "carol"), unblock=names("eve"))
    )
    assert changed == Privacy("hidden", "contacts", names(), names("mallory"))
    assert await directory.change_privacy("alice", KEY_A, PrivacyChange()) == changed


async def test_a_privacy_changed_back_is_the_default_again(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    await directory.change_privacy("alice", KEY_A, PrivacyChange(presence="hidden", block=names("eve")))
    undone = await directory.change_privacy("alice", KEY_A, PrivacyChange(presence="public", unblock=names("eve")))
    assert undone == DEFAULT_PRIVACY
    assert await directory.load("alice") == Claim(KEY_A, new=False)


async def test_only_the_owner_of_a_name_changes_its_privacy(directory: Directory) -> None:
    hide = PrivacyChange(presence="hidden")
    assert await directory.change_privacy("alice", KEY_A, hide) is PrivacyRefusal.NOT_BOUND
    await directory.claim("alice", KEY_A)
    assert await directory.change_privacy("alice", KEY_B, hide) is PrivacyRefusal.NOT_BOUND
    assert await directory.load("alice") == Claim(KEY_A, new=False)


async def test_a_privacy_survives_a_rotation_and_ends_with_a_release(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    changed = await directory.change_privacy("alice", KEY_A, PrivacyChange(block=names("eve")))
    await directory.rotate("alice", KEY_A, KEY_B)
    assert isinstance(changed, Privacy)
    assert await directory.load("alice") == Claim(KEY_B, False, changed)
    await directory.release("alice")
    assert await directory.claim("alice", KEY_C) == Claim(KEY_C, new=True)


async def test_a_privacy_has_so_many_names_and_no_more(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    many = frozenset(f"user{number}" for number in range(MAX_PRIVACY_NAMES))
    full = await directory.change_privacy("alice", KEY_A, PrivacyChange(block=many, add_contacts=many))
    assert full == Privacy(contacts=many, blocked=many)
    for change in (PrivacyChange(block=names("one")), PrivacyChange(add_contacts=names("one"))):
        assert await directory.change_privacy("alice", KEY_A, change) is PrivacyRefusal.TOO_LARGE
    fewer = PrivacyChange(block=names("one"), unblock=names("user0", "user1"), most_names=998)
    assert await directory.change_privacy("alice", KEY_A, fewer) is PrivacyRefusal.TOO_LARGE
    more = PrivacyChange(block=names("one"), most_names=1001)
    changed = await directory.change_privacy("alice", KEY_A, more)
    assert changed == Privacy(contacts=many, blocked=many | names("one"))
    await directory.change_privacy("alice", KEY_A, PrivacyChange(unblock=names("one")))
    swapped = PrivacyChange(block=names("one"), unblock=names("user0"))
    assert isinstance(await directory.change_privacy("alice", KEY_A, swapped), Privacy)
    long = frozenset(f"{number:03}" + "😀" * 125 for number in range(98))
    await directory.claim("bob", KEY_B)
    assert await directory.change_privacy("bob", KEY_B, PrivacyChange(block=long)) is PrivacyRefusal.TOO_LARGE
    assert await directory.load("bob") == Claim(KEY_B, new=False)


async def test_changes_of_a_privacy_at_once_all_count(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    everybody = [f"user{number}" for number in range(200)]
    changes = (directory.change_privacy("alice", KEY_A, PrivacyChange(block=names(name))) for name in everybody)
    await asyncio.gather(*changes)
    assert await directory.load("alice") == Claim(KEY_A, False, Privacy(blocked=frozenset(everybody)))


async def test_of_many_claims_at_once_one_wins_and_all_are_told(directory: Directory) -> None:
    keys = [bytes([number]) * 32 for number in range(100)]
    claims = await asyncio.gather(*(directory.claim("alice", key) for key in keys))
    assert sum(claim.new for claim in claims) == 1
    answers = [claim.public_key for claim in claims]
    assert len(set(answers)) == 1
    assert answers[0] in keys
    assert await directory.find("alice") == answers[0]


async def test_of_two_rotations_at_once_one_wins(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    outcomes = await asyncio.gather(directory.rotate("alice", KEY_A, KEY_B), directory.rotate("alice", KEY_A, KEY_C))
    assert sorted(outcomes) == [False, True]
    assert await directory.find("alice") == (KEY_B if outcomes[0] else KEY_C)


async def test_calls_at_once_keep_each_name_apart(directory: Directory) -> None:
    # Some databases take a transaction for each, and a call that has waited for 5 s is given up. So few take less, on a
    # slow disk, too.
    names = [f"user{number}" for number in range(300)]
    keys = [number.to_bytes(32, "big") for number in range(300)]
    assert [claim.public_key for claim in await asyncio.gather(*map(directory.claim, names, keys))] == keys
    assert await asyncio.gather(*map(directory.find, names)) == keys


async def test_a_call_cancelled_by_its_caller_harms_no_other(directory: Directory) -> None:
    first = asyncio.ensure_future(directory.claim("alice", KEY_A))
    second = asyncio.ensure_future(directory.claim("bob", KEY_B))
    await asyncio.sleep(0)  # both have begun
    first.cancel()
    assert (await second).public_key == KEY_B
    assert await directory.find("bob") == KEY_B


async def test_an_open_directory_is_ready(directory: Directory) -> None:
    await directory.check()


async def test_a_closed_directory_refuses_calls_and_can_be_closed_again(directory: Directory) -> None:
    await directory.close()
    await directory.close()
    for call in (
        directory.claim("alice", KEY_A),
        directory.find("alice"),
        directory.rotate("alice", KEY_A, KEY_B),
        directory.release("alice"),
        directory.load("alice"),
        directory.change_privacy("alice", KEY_A, PrivacyChange()),
        directory.is_listed("alice"),
        directory.list_name("alice"),
        directory.unlist_name("alice"),
        directory.listed_names("", 1),
        directory.bindings("", 1),
        directory.put(Binding("alice", KEY_A)),
        directory.check(),
    ):
        with pytest.raises(DirectoryUnavailable):
            await call


async def test_the_list_of_names_has_nothing_to_do_with_bindings(directory: Directory) -> None:
    assert not await directory.is_listed("alice")
    assert await directory.list_name("alice")
    assert not await directory.list_name("alice")
    assert await directory.is_listed("alice")
    assert await directory.find("alice") is None
    await directory.claim("alice", KEY_A)
    await directory.release("alice")
    assert await directory.is_listed("alice")
    await directory.claim("alice", KEY_B)
    assert await directory.unlist_name("alice")
    assert not await directory.unlist_name("alice")
    assert await directory.find("alice") == KEY_B


async def test_listed_names_come_in_order_a_page_at_a_time(directory: Directory) -> None:
    for name in ("zoë", "bob", "Ümit", "alice", "🦉", "carol"):
        await directory.list_name(name)
    assert await directory.listed_names("", 3) == ["alice", "bob", "carol"]
    assert await directory.listed_names("carol", 10) == ["zoë", "Ümit", "🦉"]


async def test_bindings_come_in_the_order_of_code_points_a_page_at_a_time(directory: Directory) -> None:
    for number, name in enumerate(("zoë", "bob", "Ümit", "alice", "🦉", "\uffee", "Straße", "a'b", "carol")):
        await directory.claim(name, bytes([number]) * 32)
    assert await directory.bindings("", 3) == [
        Binding("Straße", b"\x06" * 32),
        Binding("a'b", b"\x07" * 32),
        Binding("alice", b"\x03" * 32),
    ]
    behind = await directory.bindings("alice", 100)
    assert [binding.user_id for binding in behind] == ["bob", "carol", "zoë", "Ümit", "\uffee", "🦉"]
    assert [binding.user_id for binding in await directory.bindings("a", 1)] == ["a'b"], "from between two names"
    assert await directory.bindings("🦉", 100) == []


async def test_a_binding_has_the_key_and_the_privacy_of_its_name(directory: Directory) -> None:
    await directory.claim("alice", KEY_A)
    await directory.claim("bob", KEY_B)
    await directory.change_privacy("bob", KEY_B, PrivacyChange(presence="hidden", block=names("eve", "😀")))
    await directory.rotate("alice", KEY_A, KEY_C)
    await directory.list_name("carol")
    hidden = Privacy("hidden", blocked=names("eve", "😀"))
    assert await directory.bindings("", 10) == [Binding("alice", KEY_C), Binding("bob", KEY_B, hidden)]
    await directory.release("bob")
    assert await directory.bindings("", 10) == [Binding("alice", KEY_C)]


async def test_pages_of_bindings_have_every_name_once_while_others_come_and_go(directory: Directory) -> None:
    stay = [f"stay{number:03}" for number in range(100)]
    await asyncio.gather(*(directory.claim(name, KEY_A) for name in (*stay, "stay000go", "stay050go")))
    seen: list[str] = []
    while page := await directory.bindings(seen[-1] if seen else "", 7):
        seen += [binding.user_id for binding in page]
        if seen[-1] in stay:
            await directory.claim(f"{seen[-1]}new", KEY_B)  # the next in order
        await directory.claim(f"a{len(seen)}", KEY_B)  # behind us
        await directory.release("stay050go")
    assert [name for name in seen if name in set(stay)] == stay
    assert len(set(seen)) == len(seen)
    assert "stay050go" not in seen


async def test_to_put_a_binding_replaces_whatever_is_there(directory: Directory) -> None:
    hidden = Privacy("hidden", "contacts", names("bob", "straße"), names("mallory", "😀"))
    await directory.put(Binding("alice", KEY_A, hidden))
    assert await directory.load("alice") == Claim(KEY_A, False, hidden)
    await directory.put(Binding("alice", KEY_A, hidden))
    assert await directory.bindings("", 10) == [Binding("alice", KEY_A, hidden)]
    fewer = Privacy(contacts=names("carol"))
    await directory.put(Binding("alice", KEY_B, fewer))
    assert await directory.claim("alice", KEY_A) == Claim(KEY_B, False, fewer)
    await directory.put(Binding("alice", KEY_C))
    assert await directory.load("alice") == Claim(KEY_C, new=False)
    assert await directory.rotate("alice", KEY_C, KEY_A)
    await directory.put(Binding("straße\u0303", KEY_C, Privacy(offers="hidden")))
    assert await directory.release("straße\u0303")
    assert not await directory.is_listed("alice")


async def test_many_bindings_put_at_once_are_all_there(directory: Directory) -> None:
    some = [
        Binding(f"user{number:04}", number.to_bytes(32, "big"), Privacy(blocked=names(f"user{number - 1:04}")))
        for number in range(1, 1501)
    ]
    await asyncio.gather(*map(directory.put, some))
    assert await directory.bindings("", 2000) == some


async def test_what_was_asked_before_closing_is_answered(directory: Directory) -> None:
    claims = [asyncio.ensure_future(directory.claim(f"user{number}", KEY_A)) for number in range(50)]
    await asyncio.sleep(0)  # all have begun
    await directory.close()
    assert await asyncio.gather(*claims) == [Claim(KEY_A, new=True)] * 50


async def test_a_question_of_the_hub_is_the_call_of_the_same_name(directory: Directory) -> None:
    assert await answer(directory, FindBinding(1, "alice")) is None
    assert await answer(directory, ClaimBinding(2, "alice", KEY_A)) == Claim(KEY_A, new=True)
    assert await answer(directory, FindBinding(3, "alice")) == KEY_A
    assert await answer(directory, RotateBinding(4, "alice", KEY_B, KEY_C)) is False
    assert await answer(directory, RotateBinding(5, "alice", KEY_A, KEY_C)) is True
    hidden = Privacy(presence="hidden")
    assert await answer(directory, ChangePrivacy(6, "alice", KEY_C, PrivacyChange(presence="hidden"))) == hidden
    assert await answer(directory, LoadBinding(7, "alice")) == Claim(KEY_C, False, hidden)


KEYS = st.sampled_from([KEY_A, KEY_B, KEY_C])
NAMES = st.sampled_from(["alice", "bob"])
PRIVACIES = st.sampled_from([DEFAULT_PRIVACY, Privacy("hidden", "contacts", frozenset({"carol"}), frozenset({"eve"}))])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), NAMES, KEYS),
        st.tuples(st.just("find"), NAMES),
        st.tuples(st.just("rotate"), NAMES, KEYS, KEYS),
        st.tuples(st.just("release"), NAMES),
        st.tuples(st.just("list_name"), NAMES),
        st.tuples(st.just("unlist_name"), NAMES),
        st.tuples(st.just("is_listed"), NAMES),
        st.tuples(st.just("listed_names"), NAMES, st.just(5)),
        st.tuples(st.just("bindings"), st.sampled_from(["", "alice"]), st.just(5)),
        st.tuples(st.just("put"), st.builds(Binding, NAMES, KEYS, PRIVACIES)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
@given(steps=STEPS)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_backends_give_the_same_answers_to_any_sequence_of_calls(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    async def replay(kind: str) -> list[object]:
        directory = await make_directory(kind, tmp_path_factory.mktemp("data"), request)
        try:
            return [await getattr(directory, name)(*arguments) for name, *arguments in steps]
        finally:
            await directory.close()

    assert asyncio.run(replay("memory")) == asyncio.run(replay(kind))
