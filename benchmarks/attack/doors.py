"""Connections that come in crowds, or never become what they should: handshakes, requests, half-open and idle ones."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress

from aldis.identity.keys import Identity
from benchmarks.attack.attack import Attack, Flood, Opening, attack, each_of, flood, forever, idle, key_of, together
from benchmarks.attack.wire import BINARY, PING, TEXT, Refused, Wire, frame, handshake, many, text


class Holding(Attack):
    """Many connections that stay, each with the same beginning."""

    number = 1000

    def beginning(self) -> bytes:
        """What each says first."""
        return b""

    async def one(self, index: int) -> None:
        wire = await self.dial()
        self.kept.append(wire)
        await wire.send(self.beginning())

    async def strike(self) -> None:
        self.end()
        await each_of(self.number, self.one)
        await idle()


@attack("half-open")
class HalfOpen(Holding):
    """2,000 TCP connections that say nothing."""

    number = 2000


@attack("huge-heads")
class HugeHeads(Holding):
    """1,000 requests of 15 KB each that lack their last line."""

    def beginning(self) -> bytes:
        return handshake(self.target.host)[:-2] + b"X-Padding: " + b"x" * 15_000


@attack("slow-heads")
class SlowHeads(Holding):
    """500 requests of which a byte comes now and then."""

    number = 500

    async def strike(self) -> None:
        self.end()
        await each_of(self.number, self.one)
        while True:
            for wire in self.kept:
                try:
                    await wire.send(b"G")
                except OSError:
                    wire.abort()
            self.kept = [wire for wire in self.kept if wire.sock.fileno() >= 0]
            await asyncio.sleep(0.05)


@attack("strangers-who-stay")
class StrangersWhoStay(Holding):
    """2,000 WebSockets that never register."""

    number = 2000

    async def one(self, index: int) -> None:
        self.kept.append(await self.open())


@attack("classic-strangers")
class ClassicStrangers(Holding):
    """500 WebSockets in the classic dialect that never say a name, and send 64 KB for a key."""

    number = 500

    async def one(self, index: int) -> None:
        wire = await self.open(subprotocol=None)
        self.kept.append(wire)
        await wire.send(text({"type": "register", "userId": f"classic-{index}", "publicKey": "A" * 64_000}))


@attack("pipelined-gets")
class PipelinedGets(Opening):
    """Requests for the page, 200 in each packet."""

    async def begin(self, wire: Wire) -> None:
        await wire.send(f"GET /healthz HTTP/1.1\r\nHost: {self.target.host}\r\n\r\n".encode() * 200)
        await wire.discard()


@attack("pages-unread")
class PagesUnread(Holding):
    """500 requests for the SDK by clients whose window is closed."""

    number = 500

    async def one(self, index: int) -> None:
        wire = await self.dial(receive_buffer=2048)
        self.kept.append(wire)
        await wire.send(f"GET /aldis.js HTTP/1.1\r\nHost: {self.target.host}\r\n\r\n".encode())


@attack("resets")
class Resets(Attack):
    """TCP connections that are reset at once."""

    async def strike(self) -> None:
        async def once() -> None:
            (await self.dial()).abort()

        await together(forever(once) for _ in range(16))


@attack("handshakes")
class Handshakes(Attack):
    """WebSockets that are reset as soon as they are open."""

    async def strike(self) -> None:
        async def once() -> None:
            (await self.open()).abort()

        await together(forever(once) for _ in range(16))


@attack("bad-requests")
class BadRequests(Attack):
    """Requests that are none: bytes at random, two hosts, other versions."""

    async def strike(self) -> None:
        host = self.target.host.encode()
        requests = [
            b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nHost: " + host + b"\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
            b"\x16\x03\x01" + os.urandom(500),
            os.urandom(4000),
            b"GET /" + b"a" * 15_000 + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
            handshake(self.target.host).replace(b"Version: 13", b"Version: 8"),
        ]

        async def once() -> None:
            wire = await self.dial()
            try:
                await wire.send(random.choice(requests))
                await wire.discard()
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("token-and-reset")
class TokenAndReset(Attack):
    """Connect, register with a token of 64 KB, reset."""

    async def strike(self) -> None:
        key = key_of(Identity.generate())
        message = text({"type": "register", "userId": "attacker", "publicKey": key, "token": "x" * 64_000})

        async def once() -> None:
            wire = await self.open()
            try:
                await wire.send(message)
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("new-names")
class NewNames(Attack):
    """New names, as fast as possible."""

    def __init__(self, target: object) -> None:
        super().__init__(target)  # type: ignore[arg-type]
        self._next = 0

    async def strike(self) -> None:
        async def once() -> None:
            self._next += 1
            (await self.user(f"new-{self._next}")).abort()

        await together(forever(once) for _ in range(16))


@attack("bad-proofs")
class BadProofs(Attack):
    """Proofs of the wrong key for an honest user's name, three on each connection."""

    async def strike(self) -> None:
        name, identity = "honest-a", Identity.generate()

        async def once() -> None:
            wire = await self.open()
            try:
                for _ in range(3):
                    with suppress(Refused):
                        await wire.enter(name, identity)
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("close-without-reply")
class CloseWithoutReply(Attack):
    """Clients that break the protocol, and do not answer the close."""

    # Each of the 1,000 may have sent nearly all of its message, which takes a read buffer of up to 128 KiB. An address
    # that is not a loopback address has 256 connections at most.
    growth = 125 + 16  # and `closing_bytes`

    async def strike(self) -> None:
        async def once() -> None:
            if len(self.kept) >= 1000:
                self.kept.pop(0).abort()
            wire = await self.open()
            self.kept.append(wire)
            await wire.send(frame(BINARY, b"x" * 60_000))

        await together(forever(once) for _ in range(16))


class Broken(Flood):
    """A frame that is wrong, on one connection after the other; and a flood behind it."""

    connections = 8
    registered = False
    first = b""

    async def enter(self, index: int) -> Wire:
        wire = await super().enter(index)
        await wire.send(self.first)
        return wire

    def blob(self) -> bytes:
        return many(frame(PING))


@attack("unmasked")
class Unmasked(Broken):
    """Frames without a mask, and pings behind them."""

    first = frame(TEXT, b'{"type":"ping"}', masked=False)


@attack("compressed")
class Compressed(Broken):
    """Frames with the bit of a compression that was not agreed, and pings behind them."""

    first = frame(TEXT, b"\xaa\x56\x2a\xa9\x2c\x48", rsv=4)


@attack("noise")
class Noise(Broken):
    """Bytes at random after the handshake."""

    def blob(self) -> bytes:
        return os.urandom(65536)


@attack("one-byte-packets")
class OneBytePackets(Attack):
    """Messages of which each packet has one byte, on 50 connections."""

    async def strike(self) -> None:
        message = text({"type": "ping"})

        async def once() -> None:
            wire = await self.open()
            try:
                while True:
                    for byte in message:
                        await wire.send(bytes([byte]))
                        await asyncio.sleep(0)
            finally:
                wire.abort()

        await together(forever(once) for _ in range(50))


@attack("never-reads")
class NeverReads(Attack):
    """200 clients that ask, and never read."""

    async def strike(self) -> None:
        blob = many(text({"type": "ping", "id": "\u20ac" * 64}))

        async def one(index: int) -> None:
            async def once() -> None:
                wire = await self.user(f"attacker-{index}", receive_buffer=2048)
                try:
                    await flood(wire, blob, listens=False)
                finally:
                    wire.abort()

            await forever(once)

        await together(one(index) for index in range(200))
