"""Attacks of several phases, and requests that are whole and right but for their number of parts."""

from __future__ import annotations

import asyncio
import base64
import socket
from contextlib import suppress
from itertools import count
from typing import ClassVar

from benchmarks.attack.attack import Attack, Flood, Opening, attack, each_of, forever, key_of, sealed, together
from benchmarks.attack.doors import Holding
from benchmarks.attack.honest import TRAVELLER
from benchmarks.attack.tls import TlsOpening, hello
from benchmarks.attack.tricks import Requests
from benchmarks.attack.wire import TEXT, Target, Wire, frame, handshake, many, text

EVERYWHERE = 250
# Seconds between two that begin to send. All at once are another attack: the server then reads from all in one turn.
BETWEEN = 0.004


class Heads(Opening):
    """Requests for a WebSocket with more in their heads than anybody needs, from 250 addresses."""

    addresses = EVERYWHERE
    at_once = 32

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._request = handshake(target.host, subprotocol=None)[:-2] + self.lines().encode() + b"\r\n"
        assert len(self._request) < 16_000

    def lines(self) -> str:
        """What is in the head beside the usual."""
        raise NotImplementedError

    async def begin(self, wire: Wire) -> None:
        await wire.send(self._request)
        await wire.receive_raw()


@attack("many-headers")
class ManyHeaders(Heads):
    """Requests for a WebSocket with 3,000 headers, from 250 addresses."""

    def lines(self) -> str:
        return "a:\r\n" * 3000


@attack("many-protocols")
class ManyProtocols(Heads):
    """Requests for a WebSocket that offer 6,000 protocols, from 250 addresses."""

    def lines(self) -> str:
        return f"Sec-WebSocket-Protocol: {'a,' * 6000}aldis.v1\r\n"


@attack("many-extensions")
class ManyExtensions(Heads):
    """Requests for a WebSocket that offer 500 forms of compression, from 250 addresses."""

    def lines(self) -> str:
        return f"Sec-WebSocket-Extensions: {'permessage-deflate; a=1,' * 500}a\r\n"


@attack("many-tags")
class ManyTags(Requests):
    """Requests for the page with 3,000 tags that it might have, and as many codings, from 250 addresses."""

    addresses = EVERYWHERE

    def requests(self) -> list[bytes]:
        return [
            self.get("/", f"If-None-Match: {chr(44).join([chr(34) + 'a' + chr(34)] * 3000)}"),
            self.get("/aldis.js", f"Accept-Encoding: {'a;q=0,' * 2300}gzip"),
        ]


@attack("frames-at-once")
class FramesAtOnce(Opening):
    """Requests for a WebSocket with 60 KB of frames right behind them, from 250 addresses."""

    addresses = EVERYWHERE
    at_once = 32

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._blob = handshake(target.host) + many(text({"type": "ping"}), 60_000)

    async def begin(self, wire: Wire) -> None:
        await wire.send(self._blob)
        await wire.discard()


@attack("heads-byte-by-byte")
class HeadsByteByByte(Opening):
    """Heads of 15 KB of which each packet has one byte, on 50 connections."""

    at_once = 50

    async def begin(self, wire: Wire) -> None:
        head = handshake(self.target.host)[:-2] + b"X-Padding: " + b"x" * 15_000
        for at in range(len(head)):
            wire.sock.send(head[at : at + 1])
            if at % 50 == 0:
                await asyncio.sleep(0)


@attack("half-closed")
class HalfClosed(Holding):
    """2,000 WebSockets whose clients have closed their own half, and stay."""

    number = 2000

    async def one(self, index: int) -> None:
        wire = await self.open()
        self.kept.append(wire)
        wire.sock.shutdown(socket.SHUT_WR)


@attack("urgent")
class Urgent(Flood):
    """Pings of which each has a byte of urgent data behind it."""

    def blob(self) -> bytes:
        return text({"type": "ping"})

    async def _flood(self, index: int, blob: bytes) -> None:
        async def once() -> None:
            wire = await self.enter(index)
            reading = asyncio.create_task(wire.discard())
            try:
                while not reading.done():
                    with suppress(BlockingIOError):
                        wire.sock.send(blob)
                        wire.sock.send(b"!", socket.MSG_OOB)
                    await asyncio.sleep(0)
            finally:
                reading.cancel()
                wire.abort()

        await forever(once)


@attack("large-proofs")
class LargeProofs(Flood):
    """Challenges, and proofs with signatures of 60 KB, on 8 connections."""

    connections = 8
    registered = False

    def blob(self) -> bytes:
        register = text({"type": "register", "userId": "attacker", "publicKey": key_of(self.identity("attacker"))})
        proof = text({"type": "prove", "signature": base64.b64encode(bytes(45_000)).decode()})
        return register + proof


@attack("combining")
class Combining(Flood):
    """`discover` and `watch` of names that consist of combining characters, signs for direction and emoji."""

    def blob(self) -> bytes:
        names = ["\u0344" * 128, "\u202e" * 128, "a" + "\u0301" * 127, "\U0001f468\u200d" * 64, "\ufdfa" * 128]
        said = [{"type": "discover", "userId": name, "id": number} for number, name in enumerate(names)]
        return many(b"".join(map(text, said)) + text({"type": "watch", "userIds": names}), 8192)


class ToTheTraveller(Attack):
    """Many users who send to the honest client that loses its connection again and again."""

    number: ClassVar[int]

    def message(self) -> bytes:
        """What each sends."""
        return text({"type": "bye", "to": TRAVELLER})

    async def strike(self) -> None:
        self.end()

        async def one(index: int) -> None:
            self.kept.append(await self.user(f"sender-{index}"))

        await each_of(self.number, one)
        reading = [asyncio.create_task(wire.discard()) for wire in self.kept]
        message = self.message()
        try:
            while True:
                for wire in self.kept:
                    with suppress(OSError):
                        wire.sock.send(message)
                await asyncio.sleep(0.05)
        finally:
            for task in reading:
                task.cancel()


@attack("many-to-a-traveller")
class ManyToATraveller(ToTheTraveller):
    """50 users who send tiny messages to the honest client that loses its connection again and again."""

    number = 50


@attack("crowd-to-a-traveller")
class CrowdToATraveller(ToTheTraveller):
    """The same from 300 users at 30 addresses: as many as messages are kept."""

    number = 300
    addresses = 30


@attack("sealed-crowd-to-a-traveller")
class SealedCrowd(CrowdToATraveller):
    """300 users at 30 addresses who send sealed messages to the honest client that loses its connection."""

    def message(self) -> bytes:
        return sealed(TRAVELLER, 100)


@attack("lost-everywhere")
class LostEverywhere(Attack):
    """Sessions of new users at 250 addresses whose connections are lost at once: more than are waited for."""

    addresses = EVERYWHERE
    growth = 128

    async def strike(self) -> None:
        numbers = count()

        async def once() -> None:
            index = next(numbers)
            wire = await self.user(f"lost-{index % 15_000}")
            wire.abort()

        await together(forever(once) for _ in range(64))


@attack("full-of-lost")
class FullOfLost(Attack):
    """40 users with ten devices each, whose connections are lost, and 250 others who send them all that is kept."""

    addresses = EVERYWHERE
    growth = 128
    # 1.9 MiB for the devices of each user, of the 2 MiB that one may have, and 76 MiB for all, of 64. Small messages: a
    # stranger has no room for a large one where much waits already (`hub.shares`).
    users = 40
    devices = 10
    size = 4000

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._senders: list[Wire] = []
        self._lost: list[Wire] = []

    async def prepare(self) -> None:
        async def sender(index: int) -> None:
            self._senders.append(await self.user(f"sender-{index}"))

        async def lost(index: int) -> None:
            user, device = divmod(index, self.devices)
            self._lost.append(await self.user(f"lost-{user}", device=f"d{device}"))

        await each_of(EVERYWHERE, sender)
        await each_of(self.users * self.devices, lost)

    async def strike(self) -> None:
        if not self._senders:
            await self.prepare()
        senders, self._senders = self._senders, []
        while self._lost:
            self._lost.pop().abort()
        devices = [f"lost-{user}/d{device}" for user in range(self.users) for device in range(self.devices)]
        messages = [text({"type": "bye", "to": to, "reason": "A" * self.size}) for to in devices]

        async def send(index: int, wire: Wire) -> None:
            reading = asyncio.create_task(wire.discard())
            # Each begins with another device, so that all are filled at the same time.
            mine = messages[index:] + messages[:index]
            try:
                await asyncio.sleep(index * BETWEEN)
                with suppress(OSError):
                    while not reading.done():
                        for message in mine:
                            await wire.send(message)
                            await asyncio.sleep(0)
            finally:
                reading.cancel()
                wire.abort()

        await together(send(index, wire) for index, wire in enumerate(senders))


@attack("shut-windows")
class ShutWindows(Holding):
    """1,000 users with small windows who ask for refusals and never read them."""

    addresses = EVERYWHERE

    async def one(self, index: int) -> None:
        wire = await self.user(f"deaf-{index}", receive_buffer=2048)
        self.kept.append(wire)
        wire.sock.send(many(text({"type": "discover", "userId": "a b", "id": "x" * 64}), 30_000))


@attack("reply-ids")
class ReplyIds(Flood):
    """Requests with ids of every kind: the smallest and largest numbers, texts of escapes, none, and wrong ones."""

    def blob(self) -> bytes:
        ids = ["9007199254740991", "-9007199254740991", "9007199254740992", "1.0", "1e2", "null", "[]", "{}", "true"]
        ids += ['"' + "\\u0000" * 64 + '"', '"' + "\\ud83d\\ude00" * 64 + '"', '""', "-0", "0x1"]
        return many(b"".join(frame(TEXT, f'{{"type":"ice-servers","id":{each}}}'.encode()) for each in ids), 8192)


@attack("tls-large-hellos")
class LargeHellos(TlsOpening):
    """First flights of TLS of 15 KB, most of it an extension that nobody knows, from 250 addresses."""

    addresses = EVERYWHERE
    at_once = 32

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        body = bytearray(hello()[5:])
        # RFC 8446 section 4.1.2: type and length, version, random, session id, suites, compressions, extensions.
        at = 4 + 2 + 32
        at += 1 + body[at]
        at += 2 + int.from_bytes(body[at : at + 2], "big")
        at += 1 + body[at]
        extension = b"\xfe\xfe" + (14_000).to_bytes(2, "big") + bytes(14_000)
        body[at : at + 2] = (int.from_bytes(body[at : at + 2], "big") + len(extension)).to_bytes(2, "big")
        body[at + 2 : at + 2] = extension  # before the others: the last one may have to stay the last
        body[1:4] = (len(body) - 4).to_bytes(3, "big")
        self._record = b"\x16\3\1" + len(body).to_bytes(2, "big") + bytes(body)

    async def begin(self, wire: Wire) -> None:
        await wire.send(self._record)
        await wire.receive_raw()
