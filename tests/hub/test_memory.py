"""What a client can make the hub keep, in bytes of this process's memory, and not in what the hub counts.

Each attack is run for some sessions, and the memory that Python has handed out meanwhile is held against the limits in
`HubSettings`. What an object needs beside its bytes is allowed for by `OVERHEAD`.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable

import pytest

from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from aldis.protocol.messages import MAX_CLASSIC_KEY, MAX_SEAL_KEY
from support.hub_world import Client, World, identity_of

SESSIONS = 4
# One character beyond U+FFFF makes a str keep four bytes for each of its characters.
WIDE = "\U0001f526"
PADDING = "x" * 60_000
# For each session: its own objects, and those of up to 256 messages.
OVERHEAD = 96 * 1024


def growth(attack: Callable[[Client], None], world: World, clients: list[Client]) -> float:
    """Bytes for each client that are in use after the attack and were not before."""
    gc.collect()
    tracemalloc.start()
    try:
        for client in clients:
            attack(client)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return size / len(clients)


def deaf(world: World, name: str) -> Client:
    client = world.client(name)
    client.send_frame = lambda frame: None  # type: ignore[method-assign]
    return client


@pytest.mark.parametrize("detached", [False, True], ids=["connected", "detached"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"type": "ice-candidate", "candidate": None, "colour": PADDING + WIDE}, id="an unknown field"),
        pytest.param({"type": "offer", "offer": {"sdp": ""}, "proof": {}, "z": PADDING}, id="raw fields"),
        pytest.param({"type": "bye", "reason": PADDING + WIDE}, id="a wide text"),
        pytest.param({"type": "relay", "sealed": PADDING + WIDE}, id="a sealed text"),
    ],
)
def test_what_is_kept_for_resume_costs_what_is_counted(fields: dict[str, object], detached: bool) -> None:
    world = World()
    mallory = deaf(world, "mallory")
    targets = [deaf(world, f"target{number}") for number in range(SESSIONS)]
    if detached:
        for target in targets:
            target.lose()

    def attack(target: Client) -> None:
        text = json.dumps({**fields, "to": target.session.user_id, "id": 1}, ensure_ascii=False)
        for _ in range(world.hub.settings.resume_messages):
            world.hub.received(mallory.session, text[:-1] + " }", world.now)
            if target.session.replay is None or not target.session.replay.count - target.session.replay.confirmed:
                break  # let go of, for it was too much

    assert growth(attack, world, targets) < world.hub.settings.resume_bytes + OVERHEAD


def test_frames_that_wait_for_the_directory_cost_what_is_counted() -> None:
    world = World()
    world.directory_waits = True
    clients = [world.connect() for _ in range(SESSIONS)]
    world.directory_waits = False
    for number, client in enumerate(clients):
        client.register(f"client{number}")
        client.send_frame = lambda frame: None  # type: ignore[method-assign]
    world.directory_waits = True
    for client in clients:
        client.send(type="discover", userId="nobody")
    text = json.dumps({"type": "bye", "to": "nobody", "reason": PADDING + WIDE}, ensure_ascii=False)

    def attack(client: Client) -> None:
        # A new text each time, as from the network; the hub must not keep it as it came.
        for number in range(8):
            world.hub.received(client.session, f"{text[:-1]}{' ' * number}}}", world.now)

    assert growth(attack, world, clients) < world.hub.settings.backlog_bytes + OVERHEAD
    assert all(client.closed is None for client in clients), "they were within the limit"


def test_a_wide_text_that_waited_is_handled_as_it_came() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    alice.send(type="discover", userId="nobody")
    alice.send_text(json.dumps({"type": "bye", "to": "bob", "reason": "é" + WIDE}, ensure_ascii=False))
    assert bob.take() == []
    world.answer()
    assert bob.take_one()["reason"] == "é" + WIDE


def test_a_client_is_not_read_when_more_bytes_wait_than_may() -> None:
    world = World(backlog_bytes=1000)
    alice = world.client("alice")
    world.directory_waits = True
    alice.send(type="discover", userId="nobody")
    alice.send_text(json.dumps({"type": "bye", "to": "bob", "reason": "é" * 400}, ensure_ascii=False))
    assert alice.reading
    alice.send_text(json.dumps({"type": "bye", "to": "bob", "reason": "é" * 80}, ensure_ascii=False))
    assert not alice.reading, "1,000 characters hold more than 1,000 bytes"
    world.answer()
    assert [message["code"] for message in alice.take() if message["type"] == "error"] == ["not-online"] * 2


def test_what_waits_costs_the_bytes_that_came_however_small_the_frames() -> None:
    """One read of the socket may bring thousands of frames after the one that stops the reading."""
    world = World()
    clients = [world.client(f"client{number}") for number in range(SESSIONS)]
    world.directory_waits = True
    frames = 20_000
    size = len('{"type":"ping"}')

    def attack(client: Client) -> None:
        client.send(type="discover", userId="nobody")
        for _ in range(frames):
            world.hub.received(client.session, '{"type":"ping"}', world.now)

    assert growth(attack, world, clients) < 1.5 * frames * size


def test_what_has_waited_is_let_go_of_while_more_comes() -> None:
    world = World()
    alice = world.client("alice")
    world.directory_waits = True
    text = json.dumps({"type": "discover", "userId": "nobody", "colour": "x" * 1000})
    alice.send_text(text)
    alice.send_text(text)

    def attack(client: Client) -> None:
        for _ in range(1000):
            client.send_text(text)
            world.hub.answered(world.questions.pop(), None, world.now)
            client.take()

    assert growth(attack, world, [alice]) < OVERHEAD
    assert alice.reading


@pytest.mark.parametrize("more", [{"token": PADDING + WIDE}, {"colour": PADDING}], ids=lambda more: next(iter(more)))
def test_a_challenge_that_nobody_signs_holds_nothing_of_what_came_with_it(more: dict[str, str]) -> None:
    world = World()
    clients = [world.connect() for _ in range(SESSIONS)]
    text = json.dumps(
        {"type": "register", "userId": "mallory", "publicKey": to_base64(clients[0].identity.public_key), **more}
    )

    def attack(client: Client) -> None:
        world.hub.received(client.session, text[:-1] + " }", world.now)

    assert growth(attack, world, clients) < 8 * 1024


def test_a_ticket_that_is_too_long_for_one_of_ours_is_refused() -> None:
    world = World()
    client = world.connect()
    ticket = {"session": "s" * 129, "secret": "x", "received": 0}
    client.send(type="register", userId="alice", publicKey=to_base64(client.identity.public_key), resume=ticket)
    assert client.take_one()["code"] == "invalid-field"


def gone_while_challenged(client: Client, name: str) -> None:
    key = bytes(MAX_SEAL_KEY)
    signature = client.identity.sign(proofs.seal(name, "main", key))
    client.ask_challenge(name, sealKey={"publicKey": to_base64(key), "signature": to_base64(signature)})
    client.lose()


def gone_while_registered(client: Client, name: str) -> None:
    key = bytes(MAX_SEAL_KEY)
    signature = identity_of(name).sign(proofs.seal(name, "main", key))
    client.register(name, sealKey={"publicKey": to_base64(key), "signature": to_base64(signature)})
    client.lose(clean=True)


def gone_while_classic(client: Client, name: str) -> None:
    client.send(type="register", userId=name, publicKey="k" * (MAX_CLASSIC_KEY - 8) + WIDE)
    client.lose()


def gone_while_looked_up(client: Client, name: str) -> None:
    client.register(name)
    client.world.directory_waits = True
    client.send(type="discover", userId="nobody")
    client.send(type="bye", to="nobody", reason=PADDING)
    client.lose(clean=True)
    client.world.directory_waits = False
    client.world.answer()


def gone_without_reading(client: Client, name: str) -> None:
    client.register(name)
    client.full = True
    client.send(type="watch", userIds=[f"{name}-{number}" for number in range(100)])
    client.send(type="bye", to=name, reason=PADDING)
    client.lose(clean=True)


@pytest.mark.parametrize(
    "attack",
    [
        gone_while_challenged,
        gone_while_registered,
        gone_while_classic,
        gone_while_looked_up,
        gone_without_reading,
    ],
)
def test_a_session_that_is_over_keeps_nothing_of_what_its_client_sent(attack: Callable[[Client, str], None]) -> None:
    """It stands in the timer queue until its next time-out: whoever comes and goes would fill the memory with them."""
    world = World(auth="open")
    clients = [world.connect(classic=attack is gone_while_classic) for _ in range(64)]

    def one(client: Client) -> None:
        attack(client, f"mallory{clients.index(client)}")
        client.inbox.clear()

    assert growth(one, world, clients) < 4 * 1024 + 128


@pytest.mark.parametrize("full", [False, True], ids=["that reads", "that does not read"])
def test_a_watch_of_one_name_copies_nothing_of_a_watcher_of_thousands(full: bool) -> None:
    """A copy for each message of 40 bytes would let one client take the whole processor."""
    world = World()
    watcher = deaf(world, "watcher")
    watcher.full = full
    for number in range(8):
        watcher.send(type="watch", userIds=[f"user{number}-{one}" for one in range(1000)])
    assert len(watcher.session.untold or ()) == (8000 if full else 0)
    tracemalloc.start()
    try:
        watcher.send(type="watch", userIds=["user0-0"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
