"""The cases of the Autobahn test suite (version 25.10, for servers), each by its number, against one server.

Autobahn's server sends each message back. Ours is a relay, so a case's text is the `reason` of a `bye` to itself; and
where the bytes of a case have to be the whole message, which is no JSON then, the server's error stands for the echo.

What is other than in Autobahn, and on purpose:

* Binary messages are refused with 1003: 1.2.*, 9.2.*, 9.4.*, 9.6.*, 9.8.*.
* Messages of more than 64 KiB are refused with 1009: the larger cases of 9.*.
* There is no compression: 12.* and 13.* are one case, an offer that the server does not take up.
* Text that is wrong within one frame is refused when that frame has come, not at the wrong byte: 6.4.3, 6.4.4.
* picows reads one frame ahead. So a message is dropped if the same packet goes on with a frame that is refused: 4.1.3,
  4.2.3. A second close in the packet of the first is such a frame, too: 7.1.2.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest
import pytest_asyncio

from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from support.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ConnectionOver,
    RawClient,
    encode_frame,
)
from support.settings import UNLIMITED, config
from support.utf8_cases import UTF8_CASES

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDENTITY: Final = Identity.from_seed(bytes(32))
LIMIT: Final = 65536
HEAD: Final = b'{"type":"bye","to":"me","reason":"'
TAIL: Final = b'"}'
# What a message may carry besides.
ROOM: Final = LIMIT - len(HEAD + TAIL)
MASK: Final = b"\x12\x34\x56\x78"


@dataclass(frozen=True)
class Case:
    """One case. `sends` are frames; with `chop`, their bytes go out in pieces of that size."""

    number: str
    title: str
    sends: tuple[bytes, ...]
    # What comes back, in this order: ("pong", payload), ("echo", text), ("error", b""). Then the connection goes on;
    # with `closed`, the server closes with one of these codes.
    answers: tuple[tuple[str, bytes], ...] = ()
    closed: tuple[int, ...] = ()
    chop: int = 0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, rsv=rsv, masked=masked, mask=MASK)


def message(text: bytes) -> bytes:
    """A message that comes back with this text."""
    return HEAD + text + TAIL


def fragments(whole: bytes, size: int) -> tuple[bytes, ...]:
    """A text message in fragments of that size, the first one not empty."""
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    return tuple(
        frame(TEXT if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1)
        for index, part in enumerate(parts)
    )


def framing() -> list[Case]:
    """1.*: messages of many lengths."""
    cases = [Case("1.1.1", "an empty text", (frame(TEXT),), (("error", b""),))]
    sizes = {"1.1.2": 125, "1.1.3": 126, "1.1.4": 127, "1.1.5": 128, "1.1.6": LIMIT - 1, "1.1.7": LIMIT}
    for number, size in sizes.items():
        text = b"*" * (size - len(HEAD + TAIL))
        cases.append(Case(number, f"a text message of {size} bytes", (frame(TEXT, message(text)),), (("echo", text),)))
    text = b"*" * ROOM
    cases.append(
        Case("1.1.8", "the same in pieces of 997 bytes", (frame(TEXT, message(text)),), (("echo", text),), (), 997)
    )
    for index, size in enumerate((0, 125, 126, 127, 128, LIMIT - 1, LIMIT, LIMIT), 1):
        title = f"a binary message of {size} bytes"
        chop = 997 if index == 8 else 0
        cases.append(Case(f"1.2.{index}", title, (frame(BINARY, b"\xfe" * size),), (), (1003,), chop))
    return cases


def pings() -> list[Case]:
    """2.*"""
    octets = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    ten = tuple(frame(PING, b"payload-%d" % number) for number in range(10))
    pongs = tuple(("pong", b"payload-%d" % number) for number in range(10))
    return [
        Case("2.1", "a ping without payload", (frame(PING),), (("pong", b""),)),
        Case("2.2", "a ping with text", (frame(PING, b"Hello, world!"),), (("pong", b"Hello, world!"),)),
        Case("2.3", "a ping with bytes", (frame(PING, octets),), (("pong", octets),)),
        Case("2.4", "a ping of 125 bytes", (frame(PING, b"\xfe" * 125),), (("pong", b"\xfe" * 125),)),
        Case("2.5", "a ping of 126 bytes", (frame(PING, b"\xfe" * 126),), (), (1002,)),
        Case(
            "2.6",
            "a ping of 125 bytes in single bytes",
            (frame(PING, b"\xfe" * 125),),
            (("pong", b"\xfe" * 125),),
            (),
            1,
        ),
        Case("2.7", "a pong that nobody asked for, without payload", (frame(PONG),)),
        Case("2.8", "a pong that nobody asked for", (frame(PONG, b"unsolicited"),)),
        Case("2.9", "such a pong, and a ping", (frame(PONG, b"unsolicited"), frame(PING, b"p")), (("pong", b"p"),)),
        Case("2.10", "ten pings", ten, pongs),
        Case("2.11", "ten pings in single bytes", ten, pongs, (), 1),
    ]


def reserved_bits() -> list[Case]:
    """3.*"""
    good, ping = frame(TEXT, message(b"before")), frame(PING)
    echo = ("echo", b"before")
    return [
        Case("3.1", "reserved bit 3", (frame(TEXT, message(b"x"), rsv=1),), (), (1002,)),
        Case("3.2", "bit 2 behind a good message", (good, frame(TEXT, message(b"x"), rsv=2), ping), (echo,), (1002,)),
        Case("3.3", "bits 2 and 3", (good, frame(TEXT, message(b"x"), rsv=3), ping), (echo,), (1002,)),
        Case("3.4", "bit 1, in single bytes", (good, frame(TEXT, message(b"x"), rsv=4), ping), (echo,), (1002,), 1),
        Case("3.5", "bits 1 and 3 in a binary frame", (frame(BINARY, b"x", rsv=5),), (), (1002,)),
        Case("3.6", "bits 1 and 2 in a ping", (frame(PING, b"x", rsv=6),), (), (1002,)),
        Case("3.7", "all three in a close", (frame(CLOSE, b"\x03\xe8", rsv=7),), (), (1002,)),
    ]


def opcodes() -> list[Case]:
    """4.*"""
    good, echo = frame(TEXT, message(b"before")), ("echo", b"before")
    cases = []
    for kind, first in (("4.1", 3), ("4.2", 11)):
        for index in range(5):
            bad = frame(first + index, b"reserved" if index % 2 else b"")
            before = (good,) if index >= 2 else ()
            cases.append(
                Case(
                    f"{kind}.{index + 1}",
                    f"opcode {first + index}",
                    (*before, bad, frame(PING)),
                    (echo,) if index > 2 else (),
                    (1002,),
                    1 if index in (3, 4) else 0,
                )
            )
    return cases


def fragmentation() -> list[Case]:
    """5.*"""
    whole = message(b"fragment1fragment2")
    first, second = whole[:40], whole[40:]
    begin, more, end = frame(TEXT, first, fin=False), frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, second)
    echo, ping, pong = ("echo", b"fragment1fragment2"), frame(PING, b"between"), ("pong", b"between")
    stray_end, stray = frame(CONTINUATION, b"stray"), frame(CONTINUATION, b"stray", fin=False)
    text = frame(TEXT, message(b"whole"))
    five = fragments(message(b"fragment1fragment2fragment3fragment4fragment5"), 20)
    all_five = ("echo", b"fragment1fragment2fragment3fragment4fragment5")
    return [
        Case(
            "5.1", "a ping in two fragments", (frame(PING, b"f1", fin=False), frame(CONTINUATION, b"f2")), (), (1002,)
        ),
        Case(
            "5.2", "a pong in two fragments", (frame(PONG, b"f1", fin=False), frame(CONTINUATION, b"f2")), (), (1002,)
        ),
        Case("5.3", "a text in two fragments", (begin, end), (echo,)),
        Case("5.4", "the same in two packets", (begin, end), (echo,), (), len(begin)),
        Case("5.5", "the same in single bytes", (begin, end), (echo,), (), 1),
        Case("5.6", "a ping between two fragments", (begin, ping, end), (pong, echo)),
        Case("5.7", "the same in two packets", (begin, ping, end), (pong, echo), (), len(begin)),
        Case("5.8", "the same in single bytes", (begin, ping, end), (pong, echo), (), 1),
        Case("5.9", "a last fragment of nothing, and a text", (stray_end, text), (), (1002,)),
        Case("5.10", "the same in two packets", (stray_end, text), (), (1002,), len(stray_end)),
        Case("5.11", "the same in single bytes", (stray_end, text), (), (1002,), 1),
        Case("5.12", "a fragment of nothing, and a text", (stray, text), (), (1002,)),
        Case("5.13", "the same in two packets", (stray, text), (), (1002,), len(stray)),
        Case("5.14", "the same in single bytes", (stray, text), (), (1002,), 1),
        Case("5.15", "a message, and a fragment of nothing", (begin, end, stray, text), (echo,), (1002,)),
        Case("5.16", "fragments of nothing before messages", (stray, begin, end), (), (1002,)),
        Case("5.17", "last fragments of nothing before messages", (stray_end, begin, end), (), (1002,)),
        Case("5.18", "a text within a text", (begin, frame(TEXT, second)), (), (1002,)),
        Case(
            "5.19",
            "five fragments and two pings",
            (*five[:2], ping, *five[2:4], ping, *five[4:]),
            (pong, pong, all_five),
        ),
        Case(
            "5.20",
            "the same in single bytes",
            (*five[:2], ping, *five[2:4], ping, *five[4:]),
            (pong, pong, all_five),
            (),
            1,
        ),
        Case("5.e", "an empty fragment in the middle", (begin, more, end), (echo,)),
    ]


def utf8() -> list[Case]:
    """6.*"""
    euro = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!".encode()
    empty = frame(TEXT, b"", fin=False)
    bad = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode() + b"\xed\xa0\x80" + b"edited"
    good, wrong, rest = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode(), b"\xf4\x90\x80\x80", b"edited"
    cases = [
        Case("6.1.1", "an empty text", (frame(TEXT),), (("error", b""),)),
        Case(
            "6.1.2",
            "three empty fragments",
            (empty, frame(CONTINUATION, b"", fin=False), frame(CONTINUATION)),
            (("error", b""),),
        ),
        Case(
            "6.1.3",
            "a text between two empty fragments",
            (empty, frame(CONTINUATION, message(b"x"), fin=False), frame(CONTINUATION)),
            (("echo", b"x"),),
        ),
        Case("6.2.1", "a text beyond ASCII", (frame(TEXT, message(euro)),), (("echo", euro),)),
        Case("6.2.2", "in two fragments", fragments(message(euro), 44), (("echo", euro),)),
        Case("6.2.3", "in fragments of a byte", fragments(message(euro), 1), (("echo", euro),)),
        Case("6.2.4", "five Greek letters in fragments of a byte", fragments(message(good), 1), (("echo", good),)),
        Case("6.3.1", "a surrogate", (frame(TEXT, bad),), (), (1007,)),
        Case("6.3.2", "a surrogate, in fragments of a byte", fragments(bad, 1), (), (1007,)),
        # The end of the message does not come: the server has to close before.
        Case(
            "6.4.1",
            "a wrong fragment",
            (frame(TEXT, good, fin=False), frame(CONTINUATION, wrong, fin=False)),
            (),
            (1007,),
        ),
        Case(
            "6.4.2",
            "a character that goes wrong at its second byte, which ends the fragment",
            (frame(TEXT, good + wrong[:1], fin=False), frame(CONTINUATION, wrong[1:2], fin=False)),
            (),
            (1007,),
        ),
        Case("6.4.3", "a wrong text in one frame", (frame(TEXT, good + wrong + rest),), (), (1007,), len(good) + 6),
        Case("6.4.4", "the same in single bytes", (frame(TEXT, good + wrong + rest),), (), (1007,), 1),
    ]
    for number, title, data in UTF8_CASES:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            cases.append(Case(number, title, (frame(TEXT, message(data)),), (), (1007,)))
        else:
            # JSON has no control characters in strings: they come alone, and are no message.
            as_text = frame(TEXT, message(data)), ("echo", data)
            sent, answer = as_text if min(text) >= " " else (frame(TEXT, data), ("error", b""))
            cases.append(Case(number, title, (sent,), (answer,)))
    return cases


def closing() -> list[Case]:
    """7.*"""
    text, ping = frame(TEXT, message(b"x")), frame(PING)
    close = frame(CLOSE, b"\x03\xe8")
    echo = ("echo", b"x")
    begin, end = frame(TEXT, message(b"x")[:10], fin=False), frame(CONTINUATION, message(b"x")[10:])
    cases = [
        Case("7.1.1", "a message, and a close", (text, close), (echo,), (1000,)),
        Case("7.1.2", "two closes", (close, close), (), (1002,)),
        Case("7.1.2x", "two closes in single bytes", (close, close), (), (1000,), 1),
        Case("7.1.3", "a ping behind a close", (close, ping), (), (1000,)),
        Case("7.1.4", "a message behind a close", (close, text), (), (1000,)),
        Case("7.1.5", "a close between two fragments", (begin, close, end), (), (1000,)),
        Case(
            "7.1.6",
            "much, a close, and a ping",
            (frame(TEXT, message(b"*" * ROOM)), close, ping),
            (("echo", b"*" * ROOM),),
            (1000,),
        ),
        Case("7.3.1", "a close without payload", (frame(CLOSE),), (), (1000,)),
        Case("7.3.2", "a close with one byte", (frame(CLOSE, b"a"),), (), (1002,)),
        Case("7.3.3", "a close with a code", (close,), (), (1000,)),
        Case("7.3.4", "a close with a reason", (frame(CLOSE, b"\x03\xe8Hello World!"),), (), (1000,)),
        Case("7.3.5", "a close with the longest reason", (frame(CLOSE, b"\x03\xe8" + b"*" * 123),), (), (1000,)),
        Case("7.3.6", "a close with too long a reason", (frame(CLOSE, b"\x03\xe8" + b"*" * 124),), (), (1002,)),
        Case(
            "7.5.1",
            "a close with a reason that is no UTF-8",
            (frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80"),),
            (),
            (1007,),
        ),
    ]
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for index, code in enumerate(valid, 1):
        cases.append(
            Case(f"7.7.{index}", f"a close with {code}", (frame(CLOSE, code.to_bytes(2, "big")),), (), (code,))
        )
    invalid = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
    for index, code in enumerate(invalid, 1):
        cases.append(
            Case(f"7.9.{index}", f"a close with {code}", (frame(CLOSE, code.to_bytes(2, "big")),), (), (1002,))
        )
    for index, code in enumerate((5000, 65535), 1):
        cases.append(
            Case(f"7.13.{index}", f"a close with {code}", (frame(CLOSE, code.to_bytes(2, "big")),), (), (1002,))
        )
    return cases


def limits() -> list[Case]:
    """9.*: large messages, whole, in fragments, and in pieces."""
    whole = message(b"*" * ROOM)
    echo = ("echo", b"*" * ROOM)
    cases = [Case("9.1.1", "a text of 64 KiB", (frame(TEXT, whole),), (echo,))]
    megabytes = {2: LIMIT * 4, 3: 1 << 20, 4: 1 << 22, 5: 1 << 23, 6: 1 << 24}
    for index, size in megabytes.items():
        cases.append(Case(f"9.1.{index}", f"a text of {size} bytes", (frame(TEXT, b"*" * size),), (), (1009,)))
    cases.append(Case("9.2.1", "a binary message of 64 KiB", (frame(BINARY, b"*" * LIMIT),), (), (1003,)))
    for index, size in enumerate((64, 256, 1024, 4096, 16384, 65536), 1):
        cases.append(Case(f"9.3.{index}", f"64 KiB in fragments of {size}", fragments(whole, size), (echo,)))
        cases.append(
            Case(f"9.3.{index}x", f"more in fragments of {size}", fragments(b"*" * 4 * LIMIT, size), (), (1009,))
        )
        cases.append(
            Case(f"9.4.{index}", f"binary fragments of {size}", (frame(BINARY, b"*" * size, fin=False),), (), (1003,))
        )
    for index, size in enumerate((64, 128, 256, 512, 1024, 2048), 1):
        cases.append(Case(f"9.5.{index}", f"64 KiB in packets of {size}", (frame(TEXT, whole),), (echo,), (), size))
    for kind, chop in (("9.7", 0), ("9.9", 7)):  # 9.8 is binary
        for index, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            sent = tuple(frame(TEXT, message(b"*" * size)) for _ in range(100))
            title = f"100 messages of {size} bytes" + (" in packets of 7" if chop else "")
            if not chop or size <= 256:
                cases.append(Case(f"{kind}.{index}", title, sent, (("echo", b"*" * size),) * 100, (), chop))
    cases.append(Case("10.1.1", "64 KiB in fragments of 1300", fragments(whole, 1300), (echo,)))
    return cases


CASES: Final = [
    *framing(),
    *pings(),
    *reserved_bits(),
    *opcodes(),
    *fragmentation(),
    *utf8(),
    *closing(),
    *limits(),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(**UNLIMITED)) as server:
        yield server
        assert server.faults.count == 0


async def test_each_case_has_a_number_of_its_own() -> None:
    assert len({case.number for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.title}")
async def test_autobahn(server: SignalingServer, case: Case) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("me", IDENTITY)
        data = b"".join(case.sends)
        sending = asyncio.create_task(send(client, data, case.chop))
        for kind, payload in case.answers:
            assert await answer(client) == (kind, payload)
        if case.closed:
            code, reason = await closed(client)
            assert code in case.closed, reason
        else:
            await sending
            client.send_frame(PING, b"still there")
            assert await answer(client) == ("pong", b"still there")
            await client.leave()
        sending.cancel()


async def send(client: RawClient, data: bytes, chop: int) -> None:
    """Send bytes, in pieces of that size if it is not 0; each has left before the next one comes."""
    for at in range(0, len(data), chop or len(data)):
        client.send_bytes(data[at : at + (chop or len(data))])
        await client.writer.drain()
        await asyncio.sleep(0)


async def answer(client: RawClient) -> tuple[str, bytes]:
    """What the server says next, as a case has it."""
    frame = await client.receive_frame()
    if frame.opcode == PONG:
        return "pong", frame.payload
    assert frame.opcode == TEXT, frame
    said = json.loads(frame.payload)
    return ("error", b"") if said["type"] == "error" else ("echo", said["reason"].encode())


async def closed(client: RawClient) -> tuple[int, str]:
    """The code with which the server closes."""
    frame = await client.receive_frame()
    assert frame.opcode == CLOSE, frame
    client.send_frame(CLOSE, frame.payload[:2])
    with pytest.raises(ConnectionOver):
        await client.receive_frame()
    return frame.close_code, frame.close_reason


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=8, permessage-deflate",
    ],
)
async def test_autobahn_12_and_13_compression_is_not_taken_up(server: SignalingServer, offer: str) -> None:
    headers = {"Sec-WebSocket-Extensions": offer}
    async with await RawClient.connect(server.port, headers=headers) as client:
        assert "sec-websocket-extensions" not in client.response_headers
        await client.register("me", IDENTITY)
        client.send_bytes(frame(TEXT, message(b"plain")))
        assert await answer(client) == ("echo", b"plain")
