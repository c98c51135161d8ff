"""The classic dialect, byte for byte: clients that exist compare the server's replies for equality."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from support.raw_websocket import RawClient


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(ServerConfig(port=0, admin_port=None, data=":memory:", auth="open")) as server:
        yield server


async def connect(server: SignalingServer) -> RawClient:
    return await RawClient.connect(server.port, subprotocol=None)


async def say(client: RawClient, text: str) -> str:
    client.send(text)
    return await client.receive_text()


async def test_a_classic_client_gets_no_subprotocol(server: SignalingServer) -> None:
    async with await connect(server) as client:
        assert "sec-websocket-protocol" not in client.response_headers


async def test_an_unknown_subprotocol_alone_is_the_classic_dialect(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port, subprotocol="chat, superchat") as client:
        assert "sec-websocket-protocol" not in client.response_headers
        assert await say(client, "x") == '{"type":"error","message":"Invalid message format"}'


async def test_the_whole_conversation_of_two_classic_clients(server: SignalingServer) -> None:
    async with await connect(server) as alice, await connect(server) as bob:
        assert (
            await say(alice, '{"type":"discover","userId":"bob"}')
            == '{"type":"discover-response","userId":"bob","online":false}'
        )
        assert (
            await say(alice, '{"type":"register","userId":"alice","publicKey":"key of alice","id":1}')
            == '{"type":"registered","success":true,"userId":"alice"}'
        )
        assert (
            await say(bob, '{"type":"register","userId":"bob","publicKey":"bobs"}')
            == '{"type":"registered","success":true,"userId":"bob"}'
        )
        assert (
            await say(alice, '{"type":"discover","userId":"bob","id":2}')
            == '{"type":"discover-response","userId":"bob","online":true,"publicKey":"bobs"}'
        )
        alice.send('{"type":"offer","to":"bob","offer":{"type":"offer","sdp":"v=0"},"id":3}')
        assert json.loads(await bob.receive_text()) == {
            "type": "offer",
            "to": "bob",
            "offer": {"type": "offer", "sdp": "v=0"},
            "from": "alice",
        }
        bob.send('{"type":"answer","to":"alice","answer":{"type":"answer","sdp":"v=0"}}')
        assert json.loads(await alice.receive_text()) == {
            "type": "answer",
            "to": "alice",
            "answer": {"type": "answer", "sdp": "v=0"},
            "from": "bob",
        }
        candidate = {"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0}
        alice.send(json.dumps({"type": "ice-candidate", "to": "bob", "candidate": candidate}))
        assert json.loads(await bob.receive_text()) == {
            "type": "ice-candidate",
            "to": "bob",
            "candidate": candidate,
            "from": "alice",
        }
        await bob.leave()
        assert (
            await say(alice, '{"type":"offer","to":"bob","offer":{"type":"offer","sdp":"v=0"},"id":5}')
            == '{"type":"error","message":"User bob is not online"}'
        )


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        ("", "Invalid message format"),
        ("nonsense", "Invalid message format"),
        ("[]", "Invalid message format"),
        ("{}", "Invalid message format"),
        ('{"type":1}', "Invalid message format"),
        ('{"type":"nonsense"}', "Unknown message type"),
        ('{"type":"prove","signature":"x"}', "Unknown message type"),
        ('{"type":"register"}', "Missing required fields"),
        ('{"type":"register","userId":"","publicKey":"x"}', "Missing required fields"),
        ('{"type":"register","userId":"x","publicKey":""}', "Missing required fields"),
        ('{"type":"register","userId":5,"publicKey":"x"}', "Missing required fields"),
        ('{"type":"discover"}', "Missing required fields"),
        ('{"type":"offer","to":"y"}', "Missing required fields"),
        ('{"type":"offer","to":"y","offer":""}', "Missing required fields"),
        ('{"type":"offer","to":"y","offer":{"type":"offer","sdp":""}}', "User y is not online"),
    ],
)
async def test_errors_are_these_texts_and_nothing_else(server: SignalingServer, sent: str, reply: str) -> None:
    async with await connect(server) as client:
        await say(client, '{"type":"register","userId":"me","publicKey":"k"}')
        expected = json.dumps({"type": "error", "message": reply}, separators=(",", ":"))
        assert await say(client, sent) == expected


async def test_a_name_held_with_another_key_is_refused(server: SignalingServer) -> None:
    async with await connect(server) as alice, await connect(server) as mallory:
        await say(alice, '{"type":"register","userId":"alice","publicKey":"one"}')
        reply = await say(mallory, '{"type":"register","userId":"alice","publicKey":"two"}')
        assert reply == '{"type":"registered","success":false,"userId":"alice"}'


async def test_a_client_may_register_again_with_another_key(server: SignalingServer) -> None:
    async with await connect(server) as alice:
        for key in ("one", "two"):
            reply = await say(alice, json.dumps({"type": "register", "userId": "alice", "publicKey": key}))
            assert reply == '{"type":"registered","success":true,"userId":"alice"}'
        found = await say(alice, '{"type":"discover","userId":"alice"}')
        assert found == '{"type":"discover-response","userId":"alice","online":true,"publicKey":"two"}'


async def test_a_classic_client_is_offline_as_soon_as_its_connection_is_gone(server: SignalingServer) -> None:
    async with await connect(server) as bob, await connect(server) as alice:
        await say(alice, '{"type":"register","userId":"alice","publicKey":"k"}')
        await say(bob, '{"type":"register","userId":"bob","publicKey":"k"}')
        watched = await say(bob, '{"type":"watch","userIds":["alice"]}')
        assert json.loads(watched)["online"] is True
        alice.vanish()
        assert json.loads(await bob.receive_text()) == {"type": "presence", "userId": "alice", "online": False}


async def test_a_bound_name_cannot_be_taken_without_proof(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as owner:
        await owner.register("alice")
        await owner.leave()
    async with await connect(server) as classic:
        reply = await say(classic, '{"type":"register","userId":"alice","publicKey":"k"}')
        assert reply == '{"type":"registered","success":false,"userId":"alice"}'


async def test_classic_clients_are_sent_away_where_every_name_is_proven() -> None:
    async with (
        SignalingServer(ServerConfig(port=0, admin_port=None, data=":memory:")) as server,
        await connect(server) as client,
    ):
        client.send('{"type":"register","userId":"alice","publicKey":"k"}')
        assert json.loads(await client.receive_text())["type"] == "error"
        assert (await client.wait_closed())[0] == 4501
