"""10,000 random mutations of valid frames against a live server, which goes on serving others with a clean log.

The mutations are seeded, so that a failure happens again; ALDIS_FUZZ_SEED takes another seed. Some break the message
and leave the frame whole, others break the frame, others the HTTP request. Each connection sends a few of them in a row
without waiting, because that is what finds states that a polite client never reaches.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aldis.identity.keys import Identity
from aldis.protocol.codes import CloseCode
from support.patience import PATIENCE
from support.raw_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    ConnectionOver,
    HandshakeRefused,
    RawClient,
    encode_frame,
    http_get,
)
from support.server_process import ServerProcess

SEED = int(os.environ.get("ALDIS_FUZZ_SEED", "1"))
MUTATIONS = 10_000
PER_CONNECTION = 25
AT_ONCE = 8

KEY = base64.b64encode(Identity.generate().public_key).decode()
SDP = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n" + "a=fingerprint:sha-256 AA:BB\r\n" * 10
VALID: list[dict[str, Any]] = [
    {"type": "register", "userId": "fuzz", "publicKey": KEY, "device": "main", "id": 1},
    {
        "type": "register",
        "userId": "fuzz",
        "publicKey": KEY,
        "resume": {"session": "s", "secret": "t", "received": 3},
        "sealKey": {"publicKey": KEY, "signature": "AAAA"},
        "token": "t",
    },
    {"type": "prove", "signature": base64.b64encode(b"x" * 64).decode(), "id": "two"},
    {"type": "discover", "userId": "bystander-b", "id": 3},
    {"type": "watch", "userIds": ["bystander-a", "bystander-b", "nobody"], "id": 4},
    {"type": "unwatch", "userIds": ["bystander-a"], "id": 5},
    {"type": "offer", "to": "nobody", "offer": {"type": "offer", "sdp": SDP}, "connection": "c", "id": 6},
    {"type": "answer", "to": "nobody", "answer": {"type": "answer", "sdp": SDP}, "proof": {"publicKey": KEY}},
    {"type": "ice-candidate", "to": "nobody", "candidate": {"candidate": "candidate:1", "sdpMid": "0"}},
    {"type": "bye", "to": "nobody/phone", "reason": "done"},
    {"type": "relay", "to": "nobody", "sealed": "AAAA"},
    {"type": "seal-key", "sealKey": {"publicKey": KEY, "signature": base64.b64encode(b"x" * 64).decode()}, "id": 9},
    {"type": "ice-servers", "id": 7},
    {"type": "received", "count": 0},
    {"type": "rotate", "newPublicKey": KEY, "signature": base64.b64encode(b"x" * 64).decode()},
    {"type": "ping", "id": 8},
    {"type": "unregister"},
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, 10**400, "", " ", "\x00", "/", "a/b", "é", "\ud800", "😀",
    "x" * 200, "x" * 70_000, [], {}, [[]], [None], {"type": "offer"}, {"a": {"b": []}}, "fuzz", "bystander-a",
]  # fmt: skip
CODES = {int(code) for code in CloseCode}


# --- mutations of the message: the frame is whole ---------------------------------------------------------------------


def as_text(message: Any) -> bytes:
    return encode_frame(TEXT, json.dumps(message).encode())


def untouched(dice: random.Random, message: dict[str, Any]) -> bytes:
    return as_text(message)


def a_value_changed(dice: random.Random, message: dict[str, Any]) -> bytes:
    return as_text({**message, dice.choice(list(message)): dice.choice(VALUES)})


def a_nested_value_changed(dice: random.Random, message: dict[str, Any]) -> bytes:
    changed = json.loads(json.dumps(message))
    inner = [value for value in changed.values() if isinstance(value, dict | list) and value]
    if inner:
        target = dice.choice(inner)
        target[dice.choice(list(target) if isinstance(target, dict) else range(len(target)))] = dice.choice(VALUES)
    return as_text(changed)


def a_field_gone(dice: random.Random, message: dict[str, Any]) -> bytes:
    gone = dice.choice(list(message))
    return as_text({key: value for key, value in message.items() if key != gone})


def a_field_of_another_message(dice: random.Random, message: dict[str, Any]) -> bytes:
    return as_text({**message, **dice.choice(VALID)})


def a_key_twice(dice: random.Random, message: dict[str, Any]) -> bytes:
    text = json.dumps(message)
    return encode_frame(TEXT, f'{text[:-1]}, "type": {json.dumps(dice.choice(VALUES))}}}'.encode())


def characters_changed(dice: random.Random, message: dict[str, Any]) -> bytes:
    text = list(json.dumps(message))
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(len(text))
        what = dice.randrange(3)
        if what == 0:
            text[place] = dice.choice('{}[]",:\\0-.eE \x00\u2028tfn')
        elif what == 1:
            text.insert(place, dice.choice('{}[]",:\\'))
        elif len(text) > 1:
            del text[place]
    return encode_frame(TEXT, "".join(text).encode())


def cut_short(dice: random.Random, message: dict[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    return encode_frame(TEXT, text[: dice.randrange(len(text))])


def deeply_nested(dice: random.Random, message: dict[str, Any]) -> bytes:
    depth = dice.choice([50, 1000, 5000, 20_000])
    field = dice.choice(list(message))
    text = json.dumps({**message, field: 0}).replace(": 0", ": " + "[" * depth + "]" * depth, 1)
    return encode_frame(TEXT, text.encode())


def in_fragments(dice: random.Random, message: dict[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    cuts = sorted(dice.randrange(len(text) + 1) for _ in range(dice.randint(1, 6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    frames = b""
    for number, piece in enumerate(pieces):
        if dice.random() < 0.3:
            frames += encode_frame(dice.choice([PING, PONG]), b"between")
        frames += encode_frame(TEXT if number == 0 else 0, piece, fin=number == len(pieces) - 1)
    return frames


# --- mutations of the frame -------------------------------------------------------------------------------------------


def bytes_of_the_payload_changed(dice: random.Random, message: dict[str, Any]) -> bytes:
    payload = bytearray(json.dumps(message).encode())
    for _ in range(dice.randint(1, 4)):
        payload[dice.randrange(len(payload))] = dice.randrange(256)
    return encode_frame(TEXT, bytes(payload))


def bytes_of_the_frame_changed(dice: random.Random, message: dict[str, Any]) -> bytes:
    frame = bytearray(as_text(message))
    for _ in range(dice.randint(1, 3)):
        frame[dice.randrange(min(len(frame), dice.choice([2, 14, 10_000])))] = dice.randrange(256)
    return bytes(frame)


def another_head(dice: random.Random, message: dict[str, Any]) -> bytes:
    payload = json.dumps(message).encode()
    if dice.random() < 0.5:
        payload = payload[:125]
    return encode_frame(
        dice.randrange(16),
        payload,
        fin=dice.random() < 0.7,
        rsv=dice.choice([0, 0, 0, 1, 2, 4, 7]),
        masked=dice.random() < 0.9,
    )


def a_lie_about_the_length(dice: random.Random, message: dict[str, Any]) -> bytes:
    length = dice.choice([0, 1, 125, 126, 127, 65535, 65536, 65537, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
    return encode_frame(TEXT, json.dumps(message).encode(), length=length)


def a_close(dice: random.Random, message: dict[str, Any]) -> bytes:
    code = dice.choice([0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4000, 4999, 5000, 65535])
    return encode_frame(
        CLOSE, (code.to_bytes(2, "big") + dice.choice([b"", b"bye", b"\xff", b"x" * 123]))[: dice.randrange(126)]
    )


def binary(dice: random.Random, message: dict[str, Any]) -> bytes:
    return encode_frame(BINARY, json.dumps(message).encode(), fin=dice.random() < 0.8)


def noise(dice: random.Random, message: dict[str, Any]) -> bytes:
    return dice.randbytes(dice.randint(1, 300))


Mutator = Callable[[random.Random, dict[str, Any]], bytes]
OF_MESSAGES: list[Mutator] = [
    untouched,
    a_value_changed,
    a_value_changed,
    a_nested_value_changed,
    a_field_gone,
    a_field_of_another_message,
    a_key_twice,
    characters_changed,
    cut_short,
    deeply_nested,
    in_fragments,
]
OF_FRAMES: list[Mutator] = [
    bytes_of_the_payload_changed,
    bytes_of_the_frame_changed,
    another_head,
    a_lie_about_the_length,
    a_close,
    binary,
    noise,
]


async def abuse(server: ServerProcess, dice: random.Random, outcomes: Counter[str]) -> None:
    """One connection: a burst of mutations, then read until the server has closed, or has answered a last ping."""
    subprotocol = dice.choice(["aldis.v1", "aldis.v1", None])
    async with await RawClient.connect(server.port, subprotocol=subprotocol) as client:
        if subprotocol and dice.random() < 0.7:
            await client.register(f"fuzz{dice.randrange(10**9)}")
        for number in range(PER_CONNECTION):
            # Most broken frames end the connection, so they come last.
            mutators = OF_FRAMES if number >= PER_CONNECTION - dice.randint(1, 3) else OF_MESSAGES
            client.send_bytes(dice.choice(mutators)(dice, dice.choice(VALID)))
        client.send_frame(PING, b"last")
        client.send_frame(CLOSE, b"\x03\xe8")
        with suppress(OSError):  # it may be over already
            client.writer.write_eof()
        try:
            while True:
                frame = await client.receive_frame()
                if frame.opcode == TEXT:
                    message = json.loads(frame.payload)
                    outcomes[message.get("code") or message["type"]] += 1
                    if frame.payload.startswith(b'{"type":"error"'):
                        assert message.get("code") != "internal", message
                elif frame.opcode == CLOSE:
                    code = frame.close_code if len(frame.payload) >= 2 else 1005
                    outcomes[f"close {code}"] += 1
                    assert code in CODES or code >= 3000, code
                else:
                    assert frame.opcode in (PING, PONG), frame
        except ConnectionOver:
            outcomes["over"] += 1


@pytest.mark.timeout(180)
async def test_ten_thousand_mutations_of_valid_frames_leave_the_server_serving_others(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    async with ServerProcess(tmp_path, auth="open", log_level="info", admin_port=0) as server:
        async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
            await alice.register("bystander-a")
            await bob.register("bystander-b")
            work = iter(range(MUTATIONS // PER_CONNECTION))
            served = 0

            async def attacker() -> None:
                for number in work:
                    await abuse(server, random.Random(f"{SEED}/{number}"), outcomes)

            attackers = [asyncio.create_task(attacker()) for _ in range(AT_ONCE)]
            everybody = asyncio.gather(*attackers)
            while not everybody.done():
                alice.send({"type": "bye", "to": "bystander-b", "reason": str(served), "id": served})
                # Some mutations are valid messages to the bystanders.
                while (message := await bob.receive()).get("from") != "bystander-a":
                    pass
                assert message["reason"] == str(served)
                while (message := await alice.receive())["type"] != "ack":
                    pass
                assert message["re"] == served
                served += 1
            await everybody
            assert served > 100
            assert outcomes.total() > MUTATIONS / 2  # bursts that broke off early are the lesser part
        status, _, page = await http_get(
            server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        assert status == 200
        assert b"aldis_faults_total 0.0" in page
        assert await server.stop() == 0
        server.assert_clean_log()
        assert len(server.lines()) < 20  # no client can fill the log
    print(dict(outcomes))
    # It got everywhere: each documented error and close code that a random client can cause was met.
    for outcome in (
        "registered",
        "ack",
        "pong",
        "discover-response",
        "invalid-message",
        "unknown-type",
        "missing-fields",
        "invalid-field",
        "not-registered",
        "already-registered",
        "bad-signature",
        "not-online",
        "close 1002",
        "close 1003",
        "close 1007",
        "close 1009",
        "over",
    ):
        assert outcomes[outcome], outcome


@pytest.mark.timeout(120)
async def test_a_thousand_broken_requests_leave_the_front_door_open(tmp_path: Path) -> None:
    good = (
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: aldis.v1\r\nOrigin: null\r\n\r\n"
    )
    dice = random.Random(SEED)
    statuses: Counter[int] = Counter()
    async with ServerProcess(tmp_path, names="h", origins="https://good.example", log_level="info") as server:
        for _ in range(1000):
            request = bytearray(good)
            for _ in range(dice.randint(1, 6)):
                place = dice.randrange(len(request) - 4)  # the end stays, so that there is an answer
                if dice.random() < 0.5:
                    request[place] = dice.choice([*b"\r\n:, /", dice.randrange(256)])
                else:
                    del request[place : place + dice.randint(1, 20)]
            request += b"\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(bytes(request) + encode_frame(CLOSE, b"\x03\xe8"))
            async with asyncio.timeout(PATIENCE):
                try:
                    writer.write_eof()
                    answer = await reader.read()
                except OSError:
                    answer = b""
            writer.close()
            assert b"Traceback" not in answer
            statuses[int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0] += 1
        assert statuses[500] == 0
        assert {101, 400, 426} <= set(statuses)
        with pytest.raises(HandshakeRefused):
            await RawClient.connect(server.port, path="/other")
        async with await RawClient.connect(server.port, host="h") as client:
            assert (await client.register("alice"))["success"] is True
        assert await server.stop() == 0
        server.assert_clean_log()
        assert len(server.lines()) < 20
