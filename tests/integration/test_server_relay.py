"""What two clients can do with a server: real sockets, one server in this process."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from support.raw_websocket import CLOSE, PING, PONG, TEXT, RawClient

OFFER = {"type": "offer", "sdp": "v=0 with 'quotes', \"more\" and ünïcödé 😀"}


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(ServerConfig(port=0, admin_port=None, data=":memory:")) as server:
        yield server


async def test_an_offer_reaches_its_recipient_with_the_true_sender(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
        await alice.register("alice")
        await bob.register("bob")
        alice.send({"type": "offer", "to": "bob", "from": "mallory", "offer": OFFER, "id": "1", "connection": "c"})
        assert await bob.receive() == {"type": "offer", "to": "bob", "from": "alice", "offer": OFFER, "connection": "c"}
        assert await alice.receive() == {"type": "ack", "re": "1"}


async def test_every_kind_of_relayed_message_passes_both_ways(server: SignalingServer) -> None:
    candidate = {"candidate": "candidate:1 1 udp 1 10.0.0.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
        await alice.register("alice")
        await bob.register("bob", device="phone")
        for message in (
            {"type": "answer", "answer": {"type": "answer", "sdp": "v=0"}, "proof": {"publicKey": "k"}},
            {"type": "ice-candidate", "candidate": candidate},
            {"type": "ice-candidate", "candidate": None},
            {"type": "bye", "reason": "done"},
            {"type": "relay", "sealed": "AAAA"},
        ):
            alice.send({**message, "to": "bob"})
            assert await bob.receive() == {**message, "to": "bob", "from": "alice"}
            bob.send({**message, "to": "alice"})
            assert await alice.receive() == {**message, "to": "alice", "from": "bob/phone"}


async def test_registration_tells_session_and_limits(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice:
        reply = await alice.register("alice", device="laptop")
        assert reply["success"] is True
        assert (reply["userId"], reply["device"], reply["resumed"]) == ("alice", "laptop", False)
        assert reply["limits"] == {
            "maxMessageBytes": 65536,
            "maxWatches": 10000,
            "resumeWindow": 30.0,
            "relay": True,
            "maxRelayFileBytes": 1048576,
        }
        assert reply["session"] != reply["secret"]


async def test_discovery_finds_who_is_online_and_remembers_the_key_of_who_is_not(server: SignalingServer) -> None:
    identity = Identity.generate()
    key = base64.b64encode(identity.public_key).decode()
    async with await RawClient.connect(server.port) as bob:
        await bob.register("bob")
        question = {"type": "discover", "userId": "alice", "id": 7}
        answer = {"type": "discover-response", "userId": "alice", "re": 7}
        assert await bob.request(question) == {**answer, "online": False, "devices": []}
        async with await RawClient.connect(server.port) as alice:
            await alice.register("alice", identity, device="phone")
            found = await bob.request(question)
            assert found == {**answer, "online": True, "publicKey": key, "devices": [{"device": "phone"}]}
            await alice.leave()
        assert await bob.request(question) == {**answer, "online": False, "publicKey": key, "devices": []}


async def test_watchers_are_told_when_somebody_comes_and_goes(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as bob:
        await bob.register("bob")
        reply = await bob.request({"type": "watch", "userIds": ["alice"]})
        assert (reply["type"], reply["userId"], reply["online"]) == ("presence", "alice", False)
        async with await RawClient.connect(server.port) as alice:
            await alice.register("alice")
            assert (await bob.receive())["online"] is True
            await alice.leave(1001)
        assert (await bob.receive())["online"] is False
        assert not server.hub.online("alice")


async def test_a_browser_that_closes_without_a_code_has_left_on_purpose(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as bob:
        await bob.register("bob")
        await bob.request({"type": "watch", "userIds": ["alice"]})
        async with await RawClient.connect(server.port) as alice:
            await alice.register("alice")
            assert (await bob.receive())["online"] is True
            alice.send_frame(CLOSE)
            await alice.wait_over()
        assert (await bob.receive())["online"] is False


async def test_a_client_that_is_cut_off_stays_online_and_resumes_without_a_loss(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with await RawClient.connect(server.port) as bob:
        await bob.register("bob")
        alice = await RawClient.connect(server.port)
        ticket = await alice.register("alice", identity)
        bob.send({"type": "offer", "to": "alice", "offer": OFFER, "id": 1})
        assert (await alice.receive())["type"] == "offer"
        assert (await bob.receive()) == {"type": "ack", "re": 1}
        alice.vanish()
        assert (await bob.request({"type": "discover", "userId": "alice"}))["online"] is True
        bob.send({"type": "bye", "to": "alice", "id": 2})
        async with await RawClient.connect(server.port) as again:
            resume = {"session": ticket["session"], "secret": ticket["secret"], "received": 1}
            reply = await again.register("alice", identity, resume=resume)
            assert (reply["resumed"], reply["session"]) == (True, ticket["session"])
            assert (await again.receive()) == {"type": "bye", "to": "alice", "from": "bob"}
        assert (await bob.receive()) == {"type": "ack", "re": 2}


async def test_the_newest_connection_of_a_key_wins_and_the_stale_one_takes_nothing_with_it(
    server: SignalingServer,
) -> None:
    identity = Identity.generate()
    async with (
        await RawClient.connect(server.port) as old,
        await RawClient.connect(server.port) as new,
        await RawClient.connect(server.port) as bob,
    ):
        await old.register("alice", identity)
        await bob.register("bob")
        assert (await new.register("alice", identity))["success"] is True
        assert await old.wait_closed() == (4001, "replaced by a newer connection of the same address")
        bob.send({"type": "bye", "to": "alice", "id": 1})
        assert (await new.receive())["from"] == "bob"
        assert (await bob.receive()) == {"type": "ack", "re": 1}
        assert server.hub.online("alice")


async def test_two_devices_of_a_user_are_both_reached(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with (
        await RawClient.connect(server.port) as laptop,
        await RawClient.connect(server.port) as phone,
        await RawClient.connect(server.port) as bob,
    ):
        await bob.register("bob")
        await laptop.register("alice", identity)
        await phone.register("alice", identity, device="phone")
        bob.send({"type": "bye", "to": "alice/main"})
        assert (await laptop.receive())["from"] == "bob"
        bob.send({"type": "bye", "to": "alice/phone"})
        assert (await phone.receive())["from"] == "bob"
        bob.send({"type": "bye", "to": "alice"})  # the newest
        assert (await phone.receive())["from"] == "bob"


async def test_a_key_is_rotated_with_the_old_one(server: SignalingServer) -> None:
    old, new = Identity.generate(), Identity.generate()
    async with await RawClient.connect(server.port) as alice:
        await alice.register("alice", old)
        signature = base64.b64encode(old.sign(proofs.rotation("alice", new.public_key))).decode()
        key = base64.b64encode(new.public_key).decode()
        reply = await alice.request({"type": "rotate", "newPublicKey": key, "signature": signature, "id": "r"})
        assert reply == {"type": "rotated", "publicKey": key, "re": "r"}
        await alice.leave()
    async with await RawClient.connect(server.port) as late:
        assert (await late.register("alice", old))["code"] == "key-mismatch"
    async with await RawClient.connect(server.port) as alice:
        assert (await alice.register("alice", new))["success"] is True


async def test_a_user_that_unregisters_is_offline_and_keeps_the_connection(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice:
        await alice.register("alice")
        assert await alice.request({"type": "unregister", "id": 1}) == {"type": "unregistered", "re": 1}
        assert not server.hub.online("alice")
        assert (await alice.register("alice2"))["success"] is True


async def test_ice_servers_come_with_credentials_of_their_own() -> None:
    config = ServerConfig(
        port=0,
        admin_port=None,
        data=":memory:",
        stun=("stun:s.example",),
        turn=("turn:t.example",),
        turn_secret="secret",
    )
    async with SignalingServer(config) as server, await RawClient.connect(server.port) as alice:
        await alice.register("alice")
        reply = await alice.request({"type": "ice-servers", "id": 1})
        assert (reply["type"], reply["ttl"], reply["re"]) == ("ice-servers", 14400, 1)
        stun, turn = reply["iceServers"]
        assert stun == {"urls": ["stun:s.example"]}
        assert turn["urls"] == ["turn:t.example"]
        assert turn["username"].endswith(":alice")


async def test_a_ping_is_answered_in_both_of_its_kinds(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        assert await client.request({"type": "ping", "id": 3}) == {"type": "pong", "re": 3}
        client.send_frame(PING, b"payload")
        frame = await client.receive_frame()
        assert (frame.opcode, frame.payload) == (PONG, b"payload")
        client.send_frame(PONG, b"nobody asked")
        assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_a_message_in_fragments_is_one_message_with_pings_between_them(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        text = '{"type":"ping","id":"grüße"}'.encode()
        for cut in (5, 22, 23):  # 22 and 23 are around the two bytes of the ü
            client.send_frame(TEXT, text[:cut], fin=False)
            client.send_frame(PING, b"x")
            client.send_frame(0, text[cut:-1], fin=False)
            client.send_frame(0, b"", fin=False)
            client.send_frame(0, text[-1:])
            assert (await client.receive_frame()).opcode == PONG
            assert await client.receive() == {"type": "pong", "re": "grüße"}


async def test_a_hundred_requests_sent_at_once_are_answered_in_order(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
        await alice.register("alice")
        await bob.register("bob")
        for number in range(100):
            alice.send({"type": "discover", "userId": f"nobody{number}", "id": number})
            alice.send({"type": "bye", "to": "bob", "id": 1000 + number})
        for number in range(100):
            assert (await alice.receive())["re"] == number
            assert await alice.receive() == {"type": "ack", "re": 1000 + number}
            assert (await bob.receive())["from"] == "alice"
