"""Sessions of the sealed relay between two programs, at a time that the test moves."""

from __future__ import annotations

import random

import pytest

from aldis.errors import StateError
from aldis.peer.connection import PeerState
from aldis.peer.relay import RENEW_SECONDS
from support.relay_world import RelayWorld, Wire


async def test_one_that_begins_twice_with_a_stale_key_hears_so_of_both_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire(monkeypatch)
    wire.alice.publish_another_key()
    await wire.pass_time(61)  # the key that bob knows opens nothing any more
    wire.bob.send("from bob")
    wire.alice.send("from alice")
    await wire.calm()
    assert wire.byes == ["seal-unknown"] * 2  # of bob's first session, and of the one after the crossing
    await wire.pass_time(2.5)
    assert (wire.alice.got, wire.bob.got) == (["from bob"], ["from alice"])


async def talking(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Two with an open session, that alice has begun."""
    wire = Wire(monkeypatch)
    wire.alice.send("first")
    await wire.calm()
    wire.bob.send("answer")
    await wire.calm()
    assert (wire.alice.got, wire.bob.got) == (["answer"], ["first"])
    return wire


async def sleep(wire: Wire) -> None:
    """The session rests after a minute, and is asleep after an hour."""
    await wire.pass_time(300, 5)
    await wire.pass_time(2 * RENEW_SECONDS, 600)


def has_keys(world: RelayWorld) -> bool:
    return world.path._keys is not None


async def test_a_session_that_rests_for_an_hour_forgets_its_keys_and_stays_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = await talking(monkeypatch)
    await wire.pass_time(RENEW_SECONDS - 1, 10)
    assert has_keys(wire.alice)
    assert has_keys(wire.bob)
    states = [world.peer.view for world in (wire.alice, wire.bob)]
    await wire.pass_time(2)
    for world in (wire.alice, wire.bob):
        assert not has_keys(world)
        assert world.path.resting
    await wire.pass_time(10 * RENEW_SECONDS, 600)
    assert [world.peer.view for world in (wire.alice, wire.bob)] == states
    assert [view.state for view in states] == [PeerState.CONNECTED] * 2
    assert wire.handshakes == 1
    assert not wire.byes


@pytest.mark.parametrize("sender", ["alice", "bob"])
async def test_the_next_message_after_that_begins_another_session(monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    wire = await talking(monkeypatch)
    await sleep(wire)
    world = getattr(wire, sender)
    for number in range(5):
        world.send(str(number))
    await wire.calm()
    assert world.other.got[1:] == list("01234")
    world.other.send("back")
    await wire.calm()
    assert world.got[1:] == ["back"]
    assert wire.handshakes == 2
    assert not wire.byes


async def test_both_may_go_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await talking(monkeypatch)
    await sleep(wire)
    wire.alice.send("a")
    wire.bob.send("b")
    await wire.pass_time(1)
    assert (wire.alice.got[1:], wire.bob.got[1:]) == (["b"], ["a"])


async def test_a_control_message_begins_another_session_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await talking(monkeypatch)
    await sleep(wire)
    delivery = wire.alice.device.send_control(b'{"type":"no such"}')
    await wire.pass_time(1)
    assert delivery.done
    assert wire.handshakes == 2


async def test_one_that_knows_no_key_of_the_other_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await talking(monkeypatch)
    await sleep(wire)
    wire.alice.peer.presence.seal_keys = {}
    delivery = wire.alice.device.send_control(b'{"type":"no such"}')
    await wire.pass_time(1)
    assert delivery.done
    assert (wire.alice.asked, wire.handshakes) == (1, 2)


async def test_one_whose_clock_is_behind_is_told_that_the_session_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await talking(monkeypatch)
    current = wire.bob.path._sessions._current
    assert current is not None
    current.began_at += 600  # its machine has slept
    wire.bob.path._set_timer()
    await wire.pass_time(RENEW_SECONDS + 1, 10)
    assert (has_keys(wire.alice), has_keys(wire.bob)) == (False, True)
    for number in range(5):
        wire.bob.send(str(number))
    await wire.pass_time(2)
    assert wire.alice.got[1:] == list("01234")
    assert wire.byes == ["seal-unknown"]


async def test_a_session_in_use_is_renewed_in_time_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await talking(monkeypatch)
    sent: dict[str, list[str]] = {"alice": [], "bob": []}
    keys: set[int] = set()
    chance = random.Random(7)
    for number in range(400):
        world = chance.choice((wire.alice, wire.bob))
        for part in range(chance.randrange(4)):
            world.send(f"{number}.{part}")
            sent[world.user_id].append(f"{number}.{part}")
        if chance.random() < 0.5:
            await wire.arrive()
        await wire.pass_time(chance.choice((0.01, 1, 20, 55, 70, 500)), 5)
        for world in (wire.alice, wire.bob):
            expires = world.path._sessions.expires
            assert expires is None or expires > wire.timers.time()
        keys.add(id(wire.alice.path._keys))
    await wire.pass_time(60)
    assert (wire.alice.got[1:], wire.bob.got[1:]) == (sent["bob"], sent["alice"])
    assert wire.handshakes > 10


@pytest.mark.parametrize("asleep", [False, True])
async def test_the_goodbye_arrives_also_after_an_hour(monkeypatch: pytest.MonkeyPatch, asleep: bool) -> None:
    wire = await talking(monkeypatch)
    if asleep:
        await sleep(wire)
    await wire.alice.device.close("bye", "it is over", StateError("it is over"))
    await wire.calm()
    assert wire.bob.device.paths.told is PeerState.CLOSED
    assert not wire.bob.path.active
