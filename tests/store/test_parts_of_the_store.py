"""The small parts: keys, state, tasks, ICE servers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from aldis.client.events import ByeReceived, IceServers, OfferReceived
from aldis.errors import (
    ConfigError,
    ConnectionLost,
    FingerprintMismatch,
    IdentityError,
    PeerConnectionFailed,
    TooManyPeers,
)
from aldis.identity.keys import Identity, fingerprint
from aldis.identity.pins import MemoryPins
from aldis.peer.transport import PeerTiming
from aldis.protocol.channel import Content
from aldis.protocol.codec import to_base64
from aldis.protocol.hosts import is_this_machine
from aldis.protocol.messages import Capabilities, Description, IceServer, Proof
from aldis.store.files.transfer import Transfer
from aldis.store.messages.control import FileOffer
from aldis.store.messages.delivery import Delivery
from aldis.store.peers import ice
from aldis.store.peers.ice import IceServerCache
from aldis.store.peers.pinning import DirectoryPins, claimed_key
from aldis.store.state import PeerView, StoreLimits, StoreState
from aldis.store.store import NetworkStore
from aldis.store.tasks import Tasks
from support.dial_target import settle
from support.patience import PATIENCE

ONE, OTHER = b"1" * 32, b"2" * 32


def test_a_proof_has_to_be_by_the_key_that_the_directory_has_named() -> None:
    pins = DirectoryPins(memory := MemoryPins())
    assert pins.expect("s", "bob", ONE) == ONE
    assert memory.find("s", "bob") is None
    assert pins.pin("s", "bob", OTHER) == ONE
    assert memory.find("s", "bob") is None
    assert (pins.find("s", "bob"), pins.pinned("s", "bob")) == (ONE, None)
    assert pins.pin("s", "bob", ONE) == ONE
    assert memory.find("s", "bob") == pins.pinned("s", "bob") == ONE


def test_a_pin_stands_above_the_directory_and_a_person_above_the_pin() -> None:
    pins = DirectoryPins(MemoryPins())
    assert pins.pin("s", "bob", ONE) == ONE
    assert pins.expect("s", "bob", OTHER) == ONE
    pins.accept("s", "bob", OTHER)
    assert pins.find("s", "bob") == OTHER
    assert pins.pin("s", "bob", ONE) == OTHER


def test_what_was_expected_can_be_forgotten() -> None:
    pins = DirectoryPins(MemoryPins())
    pins.expect("s", "bob", ONE)
    pins.forget("s", "bob")
    pins.forget("s", "bob")
    assert pins.find("s", "bob") is None
    pins.expect("s", "bob", ONE)
    pins.close()
    assert pins.find("s", "bob") is None


class FullDisk(MemoryPins):
    """Pins of an application that keeps them in some way of its own."""

    def find(self, server: str, user_id: str) -> bytes | None:
        raise OSError("no space left")

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        raise OSError("no space left")

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        raise OSError("no space left")


USES: list[Callable[[DirectoryPins], object]] = [
    lambda pins: pins.find("s", "bob"),
    lambda pins: pins.pinned("s", "bob"),
    lambda pins: pins.pin("s", "bob", ONE),
    lambda pins: pins.accept("s", "bob", ONE),
    lambda pins: pins.expect("s", "bob", ONE),
    lambda pins: pins.require("s", "bob", fingerprint(ONE)),
]


@pytest.mark.parametrize("use", USES)
def test_whatever_pins_raise_is_an_identity_error_with_its_cause(use: Callable[[DirectoryPins], object]) -> None:
    with pytest.raises(IdentityError, match="no space left") as caught:
        use(DirectoryPins(FullDisk()))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_key_that_cannot_be_pinned_leaves_what_an_invitation_requires() -> None:
    memory = MemoryPins(limit=1)
    pins = DirectoryPins(memory)
    pins.require("s", "bob", fingerprint(ONE))
    memory.pin("s", "mallory", OTHER)
    with pytest.raises(IdentityError, match="no more can be"):
        pins.pin("s", "bob", ONE)
    with pytest.raises(FingerprintMismatch):
        pins.pin("s", "bob", OTHER)


def test_the_key_that_a_proof_claims_is_read_or_not() -> None:
    assert claimed_key(None) is None
    assert claimed_key(Proof(to_base64(ONE), "", "")) == ONE
    for text in ("", "x", to_base64(b"short")):
        assert claimed_key(Proof(text, "", "")) is None


def test_state_cannot_be_changed() -> None:
    state = StoreState(peers=StoreState().peers)
    with pytest.raises(FrozenInstanceError):
        state.user_id = "x"
    with pytest.raises(TypeError):
        state.peers["bob"] = PeerView("bob")  # type: ignore[index]


def test_a_peer_has_a_fingerprint_when_its_key_is_known() -> None:
    identity = Identity.generate()
    assert PeerView("bob").fingerprint is None
    assert PeerView("bob", public_key=identity.public_key).fingerprint == identity.fingerprint


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf, "7", None])
def test_a_limit_is_an_integer_from_one_on(value: object) -> None:
    with pytest.raises(ConfigError, match=r"limits\.peers"):
        StoreLimits(peers=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "7", None])
def test_a_time_is_a_number_above_zero(value: object) -> None:
    with pytest.raises(ConfigError, match=r"timing\.heal"):
        PeerTiming(heal=value)  # type: ignore[arg-type]


async def test_a_task_that_fails_takes_nobody_along_and_all_end_with_their_owner() -> None:
    tasks = Tasks()
    started = asyncio.Event()

    async def fails() -> None:
        raise ZeroDivisionError

    async def runs() -> None:
        started.set()
        await asyncio.Event().wait()

    failing, running = tasks.spawn(fails(), "fails"), tasks.spawn(runs(), "runs")
    await started.wait()
    assert failing.done()
    assert not running.done()
    await tasks.finish(0.01)
    assert running.cancelled()
    await tasks.finish(1)
    await tasks.cancel()


async def test_what_a_task_starts_is_waited_for_too() -> None:
    tasks = Tasks()
    ended: list[str] = []

    async def second() -> None:
        await asyncio.sleep(0)
        ended.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        tasks.spawn(second(), "second")
        ended.append("first")

    tasks.spawn(first(), "first")
    await tasks.finish(5)
    assert ended == ["first", "second"]


class Asked:
    """A signaling client that is asked for ICE servers."""

    def __init__(self, *answers: IceServers | ConnectionLost) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()

    async def ice_servers(self) -> IceServers:
        if len(self.answers) == 1:
            self.asked.set()
        answer = self.answers.pop(0)
        if isinstance(answer, ConnectionLost):
            raise answer
        return answer


TURN = IceServer(["turn:turn.example"], "u", "c")
BYE = ByeReceived("bob", "c", None)
OFFER = OfferReceived("bob", Description("offer", "v=0"), "c", None, Capabilities())


async def test_ice_servers_that_were_given_are_used_and_nobody_is_asked() -> None:
    refused: list[OfferReceived] = []
    client = Asked()
    keeper = IceServerCache(client, [TURN], loopback=True)  # type: ignore[arg-type]
    assert keeper.hold_back(BYE, refused.append)
    await keeper.keep()
    assert await keeper.known() == [BYE]
    assert not keeper.hold_back(BYE, refused.append)
    assert (keeper.config.ice_servers, keeper.config.allow_loopback) == ((TURN,), True)


async def test_ice_servers_are_asked_for_again_before_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "_SHORTEST_SECONDS", 0.0)
    monkeypatch.setattr(ice, "_RETRY_SECONDS", 0.0)
    later = IceServer(["turn:later.example"], "u", "c")
    client = Asked(ConnectionLost("gone"), IceServers((TURN,), 0), IceServers((later,), 3600))
    keeper = IceServerCache(client, None, loopback=False)  # type: ignore[arg-type]
    keeping = asyncio.create_task(keeper.keep())
    assert await keeper.known() == []
    await client.asked.wait()
    assert keeper.config.ice_servers == (later,)
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_what_comes_too_early_is_held_back_in_bounds() -> None:
    refused: list[OfferReceived] = []
    keeper = IceServerCache(Asked(), [], loopback=False)  # type: ignore[arg-type]
    for _ in range(1000):
        assert keeper.hold_back(BYE, refused.append)
    assert keeper.hold_back(OFFER, refused.append)
    assert refused == [OFFER]  # somebody waits for an answer to it
    await keeper.keep()
    assert len(await keeper.known()) == 256


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("signal.example", False),
    ],
)
def test_this_machine_is_known_by_its_names(host: str, here: bool) -> None:
    assert is_this_machine(host) is here


async def test_a_time_to_live_of_any_size_ends_the_wait_for_the_first_answer() -> None:
    client = Asked(IceServers((TURN,), 10**400))
    keeper = IceServerCache(client, None, loopback=False)  # type: ignore[arg-type]
    keeping = asyncio.create_task(keeper.keep())
    async with asyncio.timeout(PATIENCE):
        await keeper.known()
    assert not keeping.done()
    keeping.cancel()


async def test_a_server_that_names_bad_ice_servers_makes_no_connection_impossible(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named = (
        IceServer(["stun:a.example?transport=udp", "stun:b.example?transport=tcp"]),
        IceServer(["turn:c.example"]),
        IceServer(["http:d.example"]),
        IceServer([]),
        IceServer(["turn:e.example?transport=TCP"], "u", "c"),
    )
    keeper = IceServerCache(Asked(IceServers(named, 3600)), None, loopback=False)  # type: ignore[arg-type]
    keeping = asyncio.create_task(keeper.keep())
    async with asyncio.timeout(PATIENCE):
        await keeper.known()
    keeping.cancel()
    assert keeper.config.ice_servers == (
        IceServer(["stun:a.example"]),
        IceServer(["turn:e.example?transport=tcp"], "u", "c"),
    )
    for name in ("b.example", "c.example", "d.example"):
        assert name in caplog.text


@pytest.mark.parametrize(
    ("servers", "setting"),
    [
        ([IceServer(["stun:a.example"]), IceServer(["turn:b.example"])], "ice_servers[1]"),
        ([{"urls": "stun:a.example:70000"}], "ice_servers[0]"),
        (IceServer(["stun:a.example"]), "ice_servers"),
    ],
)
def test_ice_servers_that_cannot_be_used_are_refused_when_the_store_is_made(servers: Any, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NetworkStore(ice_servers=servers)
    assert caught.value.setting == setting


def test_ice_servers_are_taken_as_vendors_hand_them_out() -> None:
    url = "stun:a.example:3478?transport=udp"
    turn = {"urls": ["turn:b.example"], "username": "u", "credential": "c"}
    NetworkStore(ice_servers=[{"url": url, "urls": url}, turn])


async def test_what_a_callback_sends_to_a_peer_that_is_being_forgotten_is_not_forgotten() -> None:
    async with NetworkStore(limits=StoreLimits(peers=1)) as store:
        offered: list[Transfer] = []
        store.on_file(offered.append)
        device = store._manager.peer("bob").device("phone")
        store._manager.services.files.received(device, FileOffer("0" * 11, "notes.txt", 1, "text/plain"))
        sent: list[Delivery] = []
        offered[0].subscribe(lambda changed: sent.append(store.send("bob", "why?")) if changed.error else None)
        store.send("carol", "hello")
        assert len(sent) == 1
        assert store._manager.peer("bob").view.queued == 1
    assert sent[0].done


@pytest.mark.parametrize("order", [("phone", None), (None, "phone")])
async def test_drain_waits_for_what_stays_with_a_device_and_for_what_moves_to_another(order: list[str | None]) -> None:
    async with NetworkStore() as store:
        peer = store._manager.peer("bob")
        phone, desk = peer.device("phone"), peer.device("desk")
        for device in order:
            phone.send(Content.TEXT, b"x", addressed=device is not None)
        drained = asyncio.create_task(store.drain("bob"))
        await asyncio.sleep(0)
        phone.move_to(desk)
        # First the device of the newer message.
        for each in (phone, desk) if order[1] else (desk, phone):
            assert not drained.done()
            for delivery in each.messages._deliveries.values():
                delivery.succeed()
            await settle()
        assert drained.done()


async def test_strangers_have_not_many_devices_each_but_together() -> None:
    async with NetworkStore(limits=StoreLimits(peers=4)) as store:
        manager = store._manager
        assert manager.limits.callers == 3
        first, other = manager.peer("mallory", stranger=True), manager.peer("trudy", stranger=True)
        for peer, name in ((first, "a"), (first, "b"), (other, "a"), (other, "b"), (other, "c")):
            peer.device(name).send(Content.TEXT, b"so that it is not idle", addressed=True)
        with pytest.raises(TooManyPeers):
            first.device("c")
        assert manager.peer("eve", stranger=True).device("a").name == "a"
        known = manager.peer("bob")
        for name in ("a", "b", "c", "d", "e"):
            assert known.device(name).name == name
        await other.device("b").close("", "left", PeerConnectionFailed("trudy", "left"))
        assert first.device("c").name == "c"
        assert other.find_device("b") is None
