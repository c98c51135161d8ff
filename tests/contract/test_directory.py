"""What every directory promises (aldis.backends.base), checked on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aldis.backends.base import Claim, ClaimBinding, Directory, DirectoryUnavailable, FindBinding, RotateBinding, answer
from aldis.backends.memory import MemoryDirectory
from aldis.backends.sqlite import SqliteDirectory

KEY_A = b"a" * 32
KEY_B = b"b" * 32
KEY_C = b"\x00" * 32


async def make_directory(kind: str, folder: Path) -> Directory:
    return MemoryDirectory() if kind == "memory" else await SqliteDirectory.open(folder / "names.sqlite3")


@pytest.fixture(params=["memory", "sqlite"])
async def directory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Directory]:
    directory = await make_directory(request.param, tmp_path)
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
    names = [f"user{number}" for number in range(3000)]
    keys = [number.to_bytes(32, "big") for number in range(3000)]
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
        directory.check(),
    ):
        with pytest.raises(DirectoryUnavailable):
            await call


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


KEYS = st.sampled_from([KEY_A, KEY_B, KEY_C])
NAMES = st.sampled_from(["alice", "bob"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), NAMES, KEYS),
        st.tuples(st.just("find"), NAMES),
        st.tuples(st.just("rotate"), NAMES, KEYS, KEYS),
        st.tuples(st.just("release"), NAMES),
    ),
    max_size=30,
)


@given(steps=STEPS)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_backends_give_the_same_answers_to_any_sequence_of_calls(
    steps: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def replay(kind: str) -> list[object]:
        directory = await make_directory(kind, tmp_path_factory.mktemp("data"))
        try:
            return [await getattr(directory, name)(*arguments) for name, *arguments in steps]
        finally:
            await directory.close()

    assert asyncio.run(replay("memory")) == asyncio.run(replay("sqlite"))
