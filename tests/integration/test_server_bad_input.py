"""Bad input of every documented kind gets its documented answer; others are served on, and the log holds no traceback.

One server process for the whole file; two bystanders talk through it after every test.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aldis.identity import proofs
from aldis.identity.keys import Identity
from support.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    HandshakeRefused,
    RawClient,
    encode_frame,
    http_get,
)
from support.server_process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Not random: two test processes have to collect tests of the same names.
KEY = base64.b64encode(Identity.from_seed(bytes(32)).public_key).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path_factory.mktemp("server"), auth="open", admin_port=0) as process:
        yield process
        assert await process.stop() == 0
        process.assert_clean_log()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bystanders(process: ServerProcess) -> AsyncIterator[tuple[RawClient, RawClient]]:
    async with await RawClient.connect(process.port) as alice, await RawClient.connect(process.port) as bob:
        await alice.register("bystander-a")
        await bob.register("bystander-b")
        yield alice, bob


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: ServerProcess, bystanders: tuple[RawClient, RawClient]) -> AsyncIterator[ServerProcess]:
    yield process
    alice, bob = bystanders
    alice.send({"type": "bye", "to": "bystander-b", "id": 1})
    assert (await bob.receive())["from"] == "bystander-a"
    assert await alice.receive() == {"type": "ack", "re": 1}
    process.assert_clean_log()


# --- messages that are wrong: an error reply, and the connection goes on ----------------------------------------------

INVALID_JSON = [
    "",
    "{",
    "nonsense",
    "'single'",
    '{"type":"ping",}',
    '{"type":"ping"} trailing',
    "\x00",
    "NaN",
    "[" * 60_000,
]
NO_OBJECT = ["null", "1", '"ping"', "[]", '[{"type":"ping"}]', "true", "{}", '{"id":1}', '{"type":null}', '{"type":1}']


@pytest.mark.parametrize("text", INVALID_JSON + NO_OBJECT, ids=lambda text: repr(text[:20]))
async def test_what_is_no_message_is_an_invalid_message(server: ServerProcess, text: str) -> None:
    async with await RawClient.connect(server.port) as client:
        client.send(text)
        reply = await client.receive()
        assert (reply["type"], reply["code"], reply["temporary"]) == ("error", "invalid-message", False)
        assert (await client.request({"type": "ping"})) == {"type": "pong"}


@pytest.mark.parametrize(
    "kind", ["nonsense", "", "Register", "registered", "challenge", "x" * 5000, "\u0000", "\u202e"]
)
async def test_an_unknown_type_is_an_error_and_never_a_disconnect(server: ServerProcess, kind: str) -> None:
    async with await RawClient.connect(server.port) as client:
        for _ in range(150):
            client.send({"type": kind, "id": "me"})
        for _ in range(100):  # those beyond get no reply
            reply = await client.receive()
            assert (reply["code"], reply["re"]) == ("unknown-type", "me")
        replies = [await client.request({"type": "ping", "id": "ping"})]
        while replies[-1]["type"] != "pong":  # one a second gets a reply for ever
            replies.append(await client.receive())
        assert len(replies) < 10


MISSING: list[dict[str, Any]] = [
    {"type": "register"},
    {"type": "register", "userId": "x"},
    {"type": "register", "userId": "", "publicKey": KEY},
    {"type": "register", "userId": 5, "publicKey": KEY},
    {"type": "register", "userId": "x", "publicKey": {}},
    {"type": "prove"},
    {"type": "prove", "signature": []},
    {"type": "discover"},
    {"type": "discover", "userId": ["x"]},
    {"type": "watch", "userIds": "x"},
    {"type": "watch", "userIds": [1]},
    {"type": "offer", "to": "bystander-b"},
    {"type": "offer", "offer": {"type": "offer", "sdp": ""}},
    {"type": "offer", "to": "bystander-b", "offer": "text"},
    {"type": "offer", "to": "bystander-b", "offer": {}},
    {"type": "offer", "to": "bystander-b", "offer": None},
    {"type": "answer", "to": "bystander-b", "answer": []},
    {"type": "ice-candidate", "to": "bystander-b"},
    {"type": "ice-candidate", "to": "bystander-b", "candidate": 5},
    {"type": "bye"},
    {"type": "relay", "to": "bystander-b"},
    {"type": "received", "count": 1.5},
    {"type": "rotate", "newPublicKey": KEY},
]


@pytest.mark.parametrize("message", MISSING, ids=lambda message: json.dumps(message)[:70])
async def test_a_field_that_is_absent_empty_or_of_a_wrong_type_is_missing(
    server: ServerProcess, message: dict[str, Any]
) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register(f"user-{os.urandom(4).hex()}")
        reply = await client.request({**message, "id": 9})
        assert (reply["type"], reply["code"], reply["re"]) == ("error", "missing-fields", 9)
        assert (await client.request({"type": "ping"})) == {"type": "pong"}


SHORT_KEY = base64.b64encode(b"x" * 31).decode()
INVALID_REGISTRATIONS: list[dict[str, Any]] = [
    {"userId": "a/b"},
    {"userId": "a b"},
    {"userId": "a\u0000b"},
    {"userId": "a\nb"},
    {"userId": "\u2028"},
    {"userId": "x" * 129},
    {"device": ""},
    {"device": "a/b"},
    {"device": "ä"},
    {"device": "x" * 65},
    {"publicKey": "not base64!"},
    {"publicKey": SHORT_KEY},
    {"publicKey": KEY.rstrip("=")},
    {"publicKey": KEY + "\n"},
    {"sealKey": {"publicKey": "!", "signature": "!"}},
    {"sealKey": {"publicKey": KEY, "signature": base64.b64encode(b"x" * 64).decode()}},
    {"sealKey": "text"},
    {"resume": {"session": "x"}},
    {"resume": "text"},
    {"device": 5},
    {"token": 5},
]


@pytest.mark.parametrize("fields", INVALID_REGISTRATIONS, ids=lambda fields: json.dumps(fields)[:50])
async def test_a_field_with_a_value_that_cannot_be_is_invalid(server: ServerProcess, fields: dict[str, Any]) -> None:
    async with await RawClient.connect(server.port) as client:
        message = {"type": "register", "userId": "somebody", "publicKey": KEY, "id": "r", **fields}
        reply = await client.request(message)
        assert (reply["type"], reply["code"], reply["re"]) == ("error", "invalid-field", "r")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "received", "count": -1},
        {"type": "received", "count": 1},  # nothing has been sent
        {"type": "bye", "to": "y" * 194},
        {"type": "watch", "userIds": ["a/b"]},
        {"type": "watch", "userIds": ["x"] * 1001},
        {"type": "discover", "userId": "a b"},
        {"type": "rotate", "newPublicKey": "!", "signature": "!"},
    ],
    ids=lambda message: json.dumps(message)[:70],
)
async def test_a_value_out_of_bounds_is_invalid(server: ServerProcess, message: dict[str, Any]) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register(f"user-{os.urandom(4).hex()}")
        reply = await client.request({**message, "id": 9})
        assert (reply["type"], reply["code"], reply["re"]) == ("error", "invalid-field", 9)


@pytest.mark.parametrize("request_id", ["x" * 65, 2**53, 1.5, None, [], {}, True])
async def test_an_id_that_cannot_be_is_invalid_and_is_not_sent_back(server: ServerProcess, request_id: object) -> None:
    async with await RawClient.connect(server.port) as client:
        reply = await client.request({"type": "ping", "id": request_id})
        assert reply["code"] == "invalid-field"
        assert "re" not in reply


async def test_a_lone_surrogate_in_a_name_harms_nobody(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("surrogate")
        for text in ('{"type":"discover","userId":"\\ud800"}', '{"type":"bye","to":"\\ud800"}'):
            client.send(text)
            assert (await client.receive())["type"] == "error"


async def test_nothing_but_registration_is_admitted_before_it(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        for message in (
            {"type": "discover", "userId": "bystander-a"},
            {"type": "watch", "userIds": ["bystander-a"]},
            {"type": "bye", "to": "bystander-a"},
            {"type": "ice-servers"},
            {"type": "received", "count": 0},
            {"type": "unregister"},
        ):
            reply = await client.request({**message, "id": 1})
            assert (reply["code"], reply["re"]) == ("not-registered", 1)


async def test_a_recipient_that_is_not_there_is_not_online(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("lonely")
        reply = await client.request({"type": "bye", "to": "nobody", "id": 4})
        assert reply == {
            "type": "error",
            "message": "User nobody is not online",
            "code": "not-online",
            "temporary": False,
            "re": 4,
        }


async def test_repeated_invalid_messages_end_the_connection_with_4500(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        for _ in range(1000):
            client.send("nonsense")
        code, reason = await client.wait_closed()
        assert (code, reason) == (4500, "too many invalid messages")


# --- proofs -----------------------------------------------------------------------------------------------------------


async def challenged(client: RawClient, identity: Identity, user_id: str, **fields: Any) -> dict[str, Any]:
    key = base64.b64encode(identity.public_key).decode()
    return await client.request({"type": "register", "userId": user_id, "publicKey": key, **fields})


async def prove(client: RawClient, signature: bytes | str) -> dict[str, Any]:
    text = signature if isinstance(signature, str) else base64.b64encode(signature).decode()
    return await client.request({"type": "prove", "signature": text, "id": "p"})


async def test_a_signature_that_is_no_base64_is_invalid(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        for signature in ("!!!", "AAAA", base64.b64encode(b"x" * 65).decode()):
            await challenged(client, Identity.generate(), "prover")
            assert (await prove(client, signature))["code"] == "invalid-field"


async def test_a_proof_by_another_key_is_a_bad_signature_and_the_reply_names_the_host(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        challenge = await challenged(client, Identity.generate(), "prover")
        reply = await prove(client, client.sign(Identity.generate(), challenge, "prover"))
        assert (reply["code"], reply["temporary"], reply["re"]) == ("bad-signature", False, "p")
        assert f"127.0.0.1:{server.port}" in reply["message"]


async def test_a_proof_is_worth_nothing_for_another_host_user_device_or_purpose(server: ServerProcess) -> None:
    identity = Identity.generate()
    for part in ("host", "user", "device", "purpose"):
        async with await RawClient.connect(server.port) as client:
            nonce = base64.b64decode((await challenged(client, identity, "prover"))["nonce"])
            signed = {
                "host": proofs.registration("evil.example", nonce, "prover", "main"),
                "user": proofs.registration(client.host, nonce, "prover2", "main"),
                "device": proofs.registration(client.host, nonce, "prover", "phone"),
                "purpose": proofs.rotation("prover", nonce),
            }[part]
            assert (await prove(client, identity.sign(signed)))["code"] == "bad-signature", part


async def test_a_proof_cannot_be_replayed(server: ServerProcess) -> None:
    identity = Identity.generate()
    async with await RawClient.connect(server.port) as first, await RawClient.connect(server.port) as second:
        challenge = await challenged(first, identity, "replayed")
        signature = first.sign(identity, challenge, "replayed")
        other = await challenged(second, identity, "replayed")
        assert other["nonce"] != challenge["nonce"]
        assert (await prove(second, signature))["code"] == "bad-signature"
        assert (await prove(first, signature))["type"] == "registered"
        assert (await prove(first, signature))["code"] == "bad-signature"  # there is no challenge any more


async def test_a_challenge_is_good_for_one_attempt(server: ServerProcess) -> None:
    identity = Identity.generate()
    async with await RawClient.connect(server.port) as client:
        challenge = await challenged(client, identity, "once")
        assert (await prove(client, b"x" * 64))["code"] == "bad-signature"
        assert (await prove(client, client.sign(identity, challenge, "once")))["code"] == "bad-signature"


async def test_repeated_bad_signatures_end_the_connection_with_4501(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        for _ in range(3):
            await challenged(client, Identity.generate(), "prover")
            await prove(client, b"x" * 64)
        assert (await client.wait_closed())[0] == 4501


async def test_the_name_of_another_is_refused_also_when_that_one_is_offline(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as owner, await RawClient.connect(server.port) as thief:
        await owner.register("owned")
        reply = await thief.register("owned")
        assert (reply["type"], reply["code"], reply["temporary"]) == ("error", "key-mismatch", False)
        await owner.leave()
        assert (await thief.register("owned"))["code"] == "key-mismatch"


# --- frames that are wrong: a close code ------------------------------------------------------------------------------

LIMIT = 65536
BIG = b'{"type":"ping","id":"' + b"x" * LIMIT + b'"}'
FRAMES: dict[str, tuple[int, list[bytes]]] = {
    "a binary frame": (1003, [encode_frame(BINARY, b'{"type":"ping"}')]),
    "a binary fragment": (1003, [encode_frame(BINARY, b"x", fin=False)]),
    "bad UTF-8": (1007, [encode_frame(TEXT, b'{"type":"\xff"}')]),
    "an encoded surrogate": (1007, [encode_frame(TEXT, b'"\xed\xa0\x80"')]),
    "an overlong encoding": (1007, [encode_frame(TEXT, b'"\xc0\xaf"')]),
    "bad UTF-8 in fragments": (1007, [encode_frame(TEXT, b"\xc3", fin=False), encode_frame(CONTINUATION, b"\x28")]),
    "UTF-8 that ends too early": (1007, [encode_frame(TEXT, b"\xe2\x82")]),
    "a frame over the limit": (1009, [encode_frame(TEXT, BIG)]),
    "a frame that claims 2^62 bytes": (1009, [encode_frame(TEXT, b"x", length=2**62)]),
    "fragments over the limit": (
        1009,
        [encode_frame(TEXT, b"x" * 40_000, fin=False), encode_frame(CONTINUATION, b"x" * 40_000, fin=False)],
    ),
    "endless small fragments": (
        1009,
        [encode_frame(TEXT, b"x" * 1000, fin=False), encode_frame(CONTINUATION, b"x" * 1000, fin=False) * 66],
    ),
    "reserved bit 1": (1002, [encode_frame(TEXT, b"{}", rsv=4)]),
    "reserved bit 2": (1002, [encode_frame(TEXT, b"{}", rsv=2)]),
    "reserved bit 3": (1002, [encode_frame(PING, b"", rsv=1)]),
    "a reserved bit in a fragment": (
        1002,
        [encode_frame(TEXT, b"{", fin=False), encode_frame(CONTINUATION, b"}", rsv=4)],
    ),
    "no mask": (1002, [encode_frame(TEXT, b"{}", masked=False)]),
    "reserved opcode 3": (1002, [encode_frame(3, b"")]),
    "reserved opcode 11": (1002, [encode_frame(11, b"")]),
    "a fragmented ping": (1002, [encode_frame(PING, b"x", fin=False)]),
    "a ping of 126 bytes": (1002, [encode_frame(PING, b"x" * 126)]),
    "a continuation of nothing": (1002, [encode_frame(CONTINUATION, b"{}")]),
    "a message within a message": (1002, [encode_frame(TEXT, b"{", fin=False), encode_frame(TEXT, b"{}")]),
    "a length in too many bytes": (1002, [b"\x81\xfe\x00\x02" + b"\0\0\0\0" + b"{}"]),
    "a length beyond 63 bits": (1002, [encode_frame(TEXT, b"x", length=2**63)]),
    "a close with one byte": (1002, [encode_frame(CLOSE, b"\x03")]),
    "a close with a code that is none": (1002, [encode_frame(CLOSE, (999).to_bytes(2, "big"))]),
    "a close with a code that nobody may send": (1002, [encode_frame(CLOSE, (1006).to_bytes(2, "big"))]),
    "a close with a code beyond all": (1002, [encode_frame(CLOSE, (5000).to_bytes(2, "big"))]),
    "a close with a reason that is no UTF-8": (1007, [encode_frame(CLOSE, b"\x03\xe8\xff")]),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("subprotocol", ["aldis.v1", None])
async def test_a_wrong_frame_gets_its_close_code(server: ServerProcess, name: str, subprotocol: str | None) -> None:
    expected, frames = FRAMES[name]
    async with await RawClient.connect(server.port, subprotocol=subprotocol) as client:
        for frame in frames:
            client.send_bytes(frame)
        assert (await client.wait_closed())[0] == expected


async def test_what_follows_a_wrong_frame_is_not_acted_on(
    server: ServerProcess, bystanders: tuple[RawClient, RawClient]
) -> None:
    alice, bob = bystanders
    async with await RawClient.connect(server.port) as client:
        await client.register("careless")
        client.send_frame(BINARY, b"x")
        for _ in range(10):
            client.send({"type": "bye", "to": "bystander-b"})
        assert (await client.wait_closed())[0] == 1003
    alice.send({"type": "bye", "to": "bystander-b"})
    assert (await bob.receive())["from"] == "bystander-a"


async def test_an_oversize_frame_is_not_acted_on_even_when_all_of_it_arrives(
    server: ServerProcess, bystanders: tuple[RawClient, RawClient]
) -> None:
    alice, bob = bystanders
    async with await RawClient.connect(server.port) as client:
        await client.register("oversize")
        client.send({"type": "relay", "to": "bystander-b", "sealed": "x" * LIMIT})
        assert (await client.wait_closed())[0] == 1009
    alice.send({"type": "bye", "to": "bystander-b"})
    assert (await bob.receive())["from"] == "bystander-a"


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999])
async def test_a_close_is_answered_with_its_own_code(server: ServerProcess, code: int) -> None:
    async with await RawClient.connect(server.port) as client:
        client.send_frame(CLOSE, code.to_bytes(2, "big") + b"bye")
        assert (await client.receive_frame()).close_code == code
        await client.wait_over()


# --- HTTP that is wrong -----------------------------------------------------------------------------------------------

GOOD_HEADERS = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
GOOD_KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
REQUESTS = {
    "no key": (400, f"GET / HTTP/1.1\r\nHost: h\r\n{GOOD_HEADERS}\r\n"),
    "a bad key": (400, f"GET / HTTP/1.1\r\nHost: h\r\n{GOOD_HEADERS}Sec-WebSocket-Key: short\r\n\r\n"),
    "no host": (400, f"GET / HTTP/1.1\r\n{GOOD_HEADERS}{GOOD_KEY}\r\n"),
    "two hosts": (400, f"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n{GOOD_HEADERS}{GOOD_KEY}\r\n"),
    "two hosts and no upgrade": (400, "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"),
    "two hosts for a health check": (400, "GET /healthz HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    "two hosts for the SDK": (400, "GET /aldis.js HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    "a host that is no ASCII": (400, f"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n{GOOD_HEADERS}{GOOD_KEY}\r\n"),
    "a host too long": (400, f"GET / HTTP/1.1\r\nHost: {'h' * 300}\r\n{GOOD_HEADERS}{GOOD_KEY}\r\n"),
    "an old version": (426, f"GET / HTTP/1.1\r\nHost: h\r\n{GOOD_HEADERS.replace('13', '8')}{GOOD_KEY}\r\n"),
    "no upgrade": (426, "GET /ws HTTP/1.1\r\nHost: h\r\n\r\n"),
    "another path": (404, f"GET /other HTTP/1.1\r\nHost: h\r\n{GOOD_HEADERS}{GOOD_KEY}\r\n"),
    "a path that is no ASCII": (404, "GET /\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a path with dots": (404, "GET /../pyproject.toml HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a whole URL for a path": (404, "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a HEAD": (400, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a body": (400, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"),
    "a body in chunks": (400, "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "too many headers": (400, "GET / HTTP/1.1\r\nHost: h\r\n" + "x: y\r\n" * 200 + "\r\n"),
    "a POST": (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
    "HTTP/1.0": (505, "GET / HTTP/1.0\r\n\r\n"),
    "a POST of HTTP/1.0": (400, "POST / HTTP/1.0\r\n\r\n"),
    "HTTP/2": (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no HTTP": (400, "hello\r\n\r\n"),
    "a header without a colon": (400, "GET / HTTP/1.1\r\nnonsense\r\n\r\n"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_wrong_request_gets_its_status(server: ServerProcess, name: str) -> None:
    expected, request = REQUESTS[name]
    request = request.replace("Host: h\r\n", f"Host: 127.0.0.1:{server.port}\r\n")
    status, _, body = await http_get(server.port, request.encode("latin-1"))
    assert status == expected
    assert b"Traceback" not in body


async def test_a_request_that_never_ends_is_cut_off(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as witness:
        with pytest.raises((HandshakeRefused, ConnectionError, EOFError)):
            await RawClient.connect(server.port, headers={"X-Long": "x" * 20_000})
        assert await witness.request({"type": "ping"}) == {"type": "pong"}


async def test_the_metrics_count_what_went_wrong(server: ServerProcess, tmp_path: Path) -> None:
    async with await RawClient.connect(server.port) as client:
        client.send("nonsense")
        await client.receive()
        client.send_frame(BINARY, b"x")
        await client.wait_closed()
    _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    text = page.decode()
    assert 'aldis_closes_total{code="1003"}' in text
    assert 'aldis_messages_total{outcome="invalid-message",type="unreadable"}' in text
    assert "aldis_faults_total 0.0" in text
