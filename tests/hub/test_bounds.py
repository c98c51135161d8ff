"""What one user can make others be told: devices, sealing keys, tokens, and how fast presence comes."""

from __future__ import annotations

import json

import pytest

from aldis.client.transport import MAX_MESSAGE
from aldis.errors import ConfigError
from aldis.hub.sessions import HEADROOM
from aldis.hub.settings import MAX_PRESENCE, HubSettings
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.addresses import MAX_USER_ID
from aldis.protocol.codec import decode_server_message, to_base64
from aldis.protocol.messages import MAX_CLASSIC_KEY, MAX_DEVICES, MAX_SEAL_KEY, MAX_TOKEN
from support.hub_world import Client, World, identity_of

# Python's client takes MAX_MESSAGE bytes, the SDK as many characters (sdk/src/client/machine.js, LONGEST_RECEIVED).
LARGEST_NAMES = ["\U0001f526" * MAX_USER_ID, '"' * MAX_USER_ID, "\\" * MAX_USER_ID, "ä" * MAX_USER_ID]


def seal_key(user_id: str, device: str, size: int, identity: Identity | None = None) -> dict[str, str]:
    key = bytes(size)
    signature = (identity or identity_of(user_id)).sign(proofs.seal(user_id, device, key))
    return {"publicKey": to_base64(key), "signature": to_base64(signature)}


def largest_devices(world: World, name: str) -> list[Client]:
    identity = identity_of("someone")
    devices = [f"{number:02}".rjust(64, "d") for number in range(MAX_DEVICES)]
    return [
        world.client(name, device=device, identity=identity, sealKey=seal_key(name, device, MAX_SEAL_KEY, identity))
        for device in devices
    ]


# --- devices --------------------------------------------------------------------------------------------------------


def test_one_device_more_than_there_may_be_is_refused_until_one_has_gone() -> None:
    world = World()
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    devices = [world.client("alice", device=f"d{number}") for number in range(MAX_DEVICES)]
    bob.take()
    more = world.connect()
    refused = more.register("alice", device="more")
    assert refused["code"] == "over-capacity"
    assert refused["temporary"] is True
    assert refused["retryAfter"] == world.hub.settings.resume_window
    assert more.closed is None
    assert bob.take() == []
    assert world.client("alice", device="d3").registered, "one that is there is replaced"
    assert devices[3].closed is not None
    devices[0].lose()
    assert more.register("alice", device="more")["code"] == "over-capacity", "it may still come back"
    world.pass_time(refused["retryAfter"] + 1)
    for client in world.hub._presence.sessions():
        world.hub.heard(client, world.now)
    devices[1].lose(clean=True)
    more = world.connect()
    assert more.register("alice", device="more")["type"] == "registered"


def test_a_place_is_not_taken_by_who_does_not_own_the_name() -> None:
    world = World()
    for number in range(MAX_DEVICES):
        world.client("alice", device=f"d{number}")
    assert world.connect().register("alice", device="x", identity=identity_of("eve"))["code"] == "key-mismatch"


def test_a_device_resumes_though_all_places_are_taken() -> None:
    world = World()
    devices = [world.client("alice", device=f"d{number}") for number in range(MAX_DEVICES)]
    devices[5].lose()
    back = world.connect()
    assert back.register("alice", device="d5", resume=devices[5].ticket(0))["resumed"] is True


def test_more_devices_than_a_presence_can_hold_cannot_be_configured() -> None:
    for count in (0, MAX_DEVICES + 1):
        with pytest.raises(ConfigError, match="max_devices"):
            HubSettings(max_devices=count)


def test_of_more_lost_clients_than_are_waited_for_the_first_is_given_up() -> None:
    world = World(max_detached=3)
    bob = world.client("bob")
    clients = [world.client(f"user{number}") for number in range(5)]
    bob.send(type="watch", userIds=["user0", "user2"])
    bob.take()
    clients[0].lose()
    back = world.connect()
    assert back.register("user0", resume=clients[0].ticket(0))["resumed"] is True
    for client in clients[1:4]:
        client.lose()
    assert bob.take() == []
    back.lose()
    clients[4].lose()
    assert [world.hub.online(f"user{number}") for number in range(5)] == [True, False, False, True, True]
    assert [m["userId"] for m in bob.take()] == ["user2"]
    bob.lose(clean=True)
    world.pass_time(40)
    assert not len(world.hub.detached_sessions)


# --- sealing keys, tokens -------------------------------------------------------------------------------------------


def test_a_sealing_key_has_two_kibibytes_at_most() -> None:
    world = World()
    assert world.connect().register("alice", sealKey=seal_key("alice", "main", MAX_SEAL_KEY))["type"] == "registered"
    client = world.connect()
    key = to_base64(identity_of("bob").public_key)
    client.send(type="register", userId="bob", publicKey=key, sealKey=seal_key("bob", "main", MAX_SEAL_KEY + 1), id=1)
    error = client.take_one()
    assert (error["code"], error["re"]) == ("invalid-field", 1)
    assert error["message"] == f"sealKey: more than {MAX_SEAL_KEY} bytes"


@pytest.mark.parametrize("character", ["x", "ä", "\U0001f526"])
def test_a_token_has_four_kibibytes_at_most_in_utf_8(character: str) -> None:
    world = World()
    count = MAX_TOKEN // len(character.encode())
    assert world.connect().register("alice", token=character * count)["type"] == "registered"
    client = world.connect()
    key = to_base64(identity_of("bob").public_key)
    client.send(type="register", userId="bob", publicKey=key, token=character * count + "x", id=1)
    assert client.take_one()["code"] == "invalid-field"


@pytest.mark.parametrize("character", ["x", "ä", "\U0001f526"])
def test_a_classic_key_which_may_be_any_text_has_four_kibibytes_at_most(character: str) -> None:
    world = World(auth="open")
    key = character * (MAX_CLASSIC_KEY // len(character.encode()))
    world.classic_client("alice", key)
    client = world.connect(classic=True)
    client.send(type="register", userId="bob", publicKey=key + "x")
    assert client.take_one() == {"type": "error", "message": f"publicKey: more than {MAX_CLASSIC_KEY} bytes"}
    client.send(type="register", userId="bob", publicKey=key)
    assert client.take_one()["success"] is True


# --- presence -------------------------------------------------------------------------------------------------------


class Measured(Client):
    sizes: list[int]

    def send_frame(self, frame: bytearray) -> None:
        self.sizes.append(len(frame) - HEADROOM)
        assert decode_server_message(frame[HEADROOM:].decode()) is not None
        super().send_frame(frame)


@pytest.mark.parametrize("name", LARGEST_NAMES, ids=["four bytes each", "quotes", "backslashes", "two bytes each"])
def test_the_largest_presence_that_clients_can_bring_about_fits_every_client(name: str) -> None:
    world = World()
    watcher = Measured(world, classic=False, host=world.connect().host)
    watcher.sizes = []
    watcher.register("watcher")
    watcher.send(type="watch", userIds=[name])
    largest_devices(world, name)
    watcher.send(type="discover", userId=name, id="\U0001f526" * 64)
    response, presence = watcher.inbox[-1], watcher.inbox[-2]
    assert len(response["devices"]) == len(presence["devices"]) == MAX_DEVICES
    assert len(response["devices"][0]["sealKey"]["publicKey"]) > MAX_SEAL_KEY
    assert 40_000 < max(watcher.sizes) <= MAX_PRESENCE < MAX_MESSAGE


@pytest.mark.parametrize("name", LARGEST_NAMES)
def test_a_relayed_message_grows_by_its_sender_only(name: str) -> None:
    world = World()
    sender = world.client(name, device="d" * 64, identity=identity_of("someone"))
    bob = Measured(world, classic=False, host=sender.host)
    bob.sizes = []
    bob.register("bob")
    for escape in ("\\u0001", '\\"', "\\\\", "\\n", "/", "ä", "\U0001f526", "\x7f"):
        limit = world.hub.settings.max_message_bytes
        head, tail = '{"type":"bye","to":"bob","reason":"', '"}'
        count = (limit - len(head) - len(tail)) // len(escape.encode())
        text = head + escape * count + tail
        bob.sizes.clear()
        sender.send_text(text)
        assert bob.inbox[-1]["reason"] == json.loads(text)["reason"]
        assert limit - 64 < bob.sizes[0] <= limit + 1024 < MAX_MESSAGE


def test_what_a_watcher_cannot_read_at_once_comes_later_and_then_the_acknowledgement() -> None:
    world = World()
    names = [f"user{number}" for number in range(100)]
    alice = world.client("alice")
    fill_after(alice, 10)
    alice.send(type="watch", userIds=names, id=1)
    alice.send(type="ping", id=2)
    assert [m["type"] for m in alice.take()] == ["presence"] * 10 + ["pong"]
    world.client("user50")  # before its turn has come: it is told once, as it is then
    world.client("user5").lose(clean=True)  # after it: it is told again
    alice.send(type="unwatch", userIds=["user60"])
    alice.send(type="watch", userIds=["user70", "more"], id=1)
    alice.full = False
    fill_after(alice, 80)
    world.hub.writable(alice.session)
    world.work()
    assert len(alice.inbox) == 80
    alice.full = False
    world.hub.writable(alice.session)
    told = [m.get("userId") or m["type"] for m in alice.inbox]
    rest = [name for name in names[10:] if name != "user60"]
    assert told == [*rest, "ack", "user5", "more", "ack"]
    assert [m["online"] for m in alice.take() if m.get("userId") == "user50"] == [True]
    assert alice.closed is None
    assert alice.session.untold is None


def fill_after(client: Client, count: int) -> None:
    """The client's connection is full after so many more messages."""
    left = count
    send = Client.send_frame

    def send_frame(frame: bytearray) -> None:
        nonlocal left
        left -= 1
        if not left:
            client.full = True
        send(client, frame)

    client.send_frame = send_frame  # type: ignore[method-assign]
    client.most_corked = 1  # it notices at once, and not when it has got some


def test_changes_that_a_full_watcher_misses_are_told_as_one() -> None:
    world = World()
    alice = world.client("alice")
    alice.send(type="watch", userIds=["bob"])
    alice.take()
    alice.full = True
    for _ in range(100):
        world.client("bob").lose(clean=True)
    world.client("bob")
    assert alice.take() == []
    alice.full = False
    world.hub.writable(alice.session)
    assert [m["online"] for m in alice.take()] == [True]


def test_a_full_watcher_that_is_lost_gets_the_rest_when_it_resumes() -> None:
    world = World()
    alice = world.client("alice")
    fill_after(alice, 2)
    alice.send(type="watch", userIds=["a", "b", "c", "d"], id=1)
    alice.lose()
    back = world.connect()
    back.register("alice", resume=alice.ticket(1))
    registered, *missed = back.take()
    assert registered["resumed"] is True
    assert [m["userId"] for m in missed] == ["b", "c", "d"]


def test_a_full_watcher_that_is_lost_gets_more_than_is_kept_for_resume() -> None:
    world = World(resume_messages=3)
    alice = world.client("alice")
    fill_after(alice, 1)
    names = [f"user{number}" for number in range(100)]
    alice.send(type="watch", userIds=names, id=1)
    alice.lose()
    back = world.connect()
    assert back.register("alice", resume=alice.ticket(1))["resumed"] is True
    assert [m.get("userId") for m in back.take()[1:]] == names[1:], "and no ack of a request of the old connection"


def test_who_watches_on_and_on_without_reading_is_sent_away() -> None:
    world = World(max_watches=10, backlog_messages=5)
    alice = world.client("alice")
    alice.full = True
    alice.send(type="watch", userIds=[f"user{number}" for number in range(10)], id=0)
    for number in range(4):
        alice.send(type="watch", userIds=["user1"], id=number)
    assert alice.closed is None
    alice.send(type="watch", userIds=["user1"], id=0)
    assert alice.closed is not None
    assert alice.closed[0] == 4504


def test_a_classic_watcher_is_told_at_its_own_pace_too() -> None:
    world = World(auth="open")
    alice = world.classic_client("alice")
    fill_after(alice, 2)
    alice.send(type="watch", userIds=["a", "b", "c"])
    assert len(alice.take()) == 2
    alice.full = False
    world.hub.writable(alice.session)
    assert alice.take() == [{"type": "presence", "userId": "c", "online": False}]
    alice.full = True
    other = world.classic_client("b")
    assert alice.take() == []
    alice.full = False
    world.hub.writable(alice.session)
    assert alice.take_one()["online"] is True
    other.lose()
    world.hub.writable(other.session)
