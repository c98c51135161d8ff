"""The ports beside the public one that strangers reach: STUN, and the plain port that sends browsers on to https."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from aldis.protocol.stun import BINDING_REQUEST, Attribute, write_head, write_message
from benchmarks.attack.attack import Attack, attack, forever, sources, together
from benchmarks.attack.doors import HalfOpen, Holding, HugeHeads, Resets, SlowHeads
from benchmarks.attack.tricks import Requests
from benchmarks.attack.wire import Wire

# Datagrams that are sent before anything else has a turn.
IN_A_ROW = 64
# The largest request that the server reads, without its header.
LARGEST = 528


class Datagrams(Attack):
    """Datagrams as fast as the kernel takes them, whose answers nobody reads."""

    ports = frozenset({"stun"})

    def datagrams(self) -> Sequence[bytes]:
        """What is sent, in turns."""
        return [write_message(BINDING_REQUEST, os.urandom(12))]

    async def strike(self) -> None:
        said = self.datagrams()
        with ExitStack() as stack:
            made = [stack.enter_context(_datagrams(source, self.target.stun)) for source in sources(self.addresses)]
            number = 0
            while True:
                for _ in range(IN_A_ROW):
                    number += 1
                    with suppress(OSError):
                        made[number % len(made)].send(said[number % len(said)])
                await asyncio.sleep(0)


def _datagrams(source: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.bind((source, 0))
    made.connect(("127.0.0.1", port))
    return made


@attack("stun-requests")
class StunRequests(Datagrams):
    """Requests for the own address in a flood."""


@attack("stun-requests-everywhere")
class StunRequestsEverywhere(Datagrams):
    """Requests for the own address in a flood, from 250 addresses."""

    addresses = 250


@attack("stun-crowd")
class StunCrowd(Datagrams):
    """Requests for the own address from 2,000 addresses."""

    addresses = 2000


@attack("stun-noise")
class StunNoise(Datagrams):
    """Datagrams of bytes at random, empty ones, and answers that nobody has asked for."""

    def datagrams(self) -> Sequence[bytes]:
        answer = write_message(0x0101, os.urandom(12), fingerprint=True)
        return [os.urandom(size) for size in (1, 19, 20, 100, 548, 1400)] + [answer, b""]


@attack("stun-many-attributes")
class StunManyAttributes(Datagrams):
    """Requests with 132 attributes that have to be understood, all of them different, from 250 addresses."""

    addresses = 250

    def datagrams(self) -> Sequence[bytes]:
        kinds = range(0x4000, 0x4000 + LARGEST // 4)
        return [write_message(BINDING_REQUEST, os.urandom(12), [(kind, b"") for kind in kinds])]


@attack("stun-skipped-attributes")
class StunSkippedAttributes(Datagrams):
    """Other messages with 132 attributes: indications, which get no answer."""

    def datagrams(self) -> Sequence[bytes]:
        return [write_message(0x0011, os.urandom(12), [(0x8000 + kind, b"") for kind in range(LARGEST // 4)])]


@attack("stun-wrong-fingerprints")
class StunWrongFingerprints(Datagrams):
    """The largest requests, with a checksum that is wrong: each is computed, and none is answered."""

    def datagrams(self) -> Sequence[bytes]:
        fingerprint = struct.pack(">HHI", Attribute.FINGERPRINT, 4, 0)
        rest = struct.pack(">HH", 0x8022, LARGEST - len(fingerprint) - 4) + bytes(LARGEST - len(fingerprint) - 4)
        return [write_head(BINDING_REQUEST, LARGEST, os.urandom(12)) + rest + fingerprint]


class AtRedirect(Attack):
    """At the plain port."""

    ports = frozenset({"redirect"})
    tls = True

    async def dial(self, **more: object) -> Wire:
        return await super().dial(port=self.target.redirect, **more)


@attack("redirect-half-open")
class RedirectHalfOpen(AtRedirect, HalfOpen):
    """2,000 connections to the plain port that say nothing."""


@attack("redirect-huge-heads")
class RedirectHugeHeads(AtRedirect, HugeHeads):
    """1,000 requests of 15 KB at the plain port that lack their last line."""


@attack("redirect-slow-heads")
class RedirectSlowHeads(AtRedirect, SlowHeads):
    """200 requests at the plain port of which a byte comes now and then."""

    number = 200


@attack("redirect-small-pieces")
class RedirectSmallPieces(AtRedirect):
    """Heads of 16 KB at the plain port, of which each packet has one byte."""

    async def strike(self) -> None:
        async def once() -> None:
            wire = await self.dial()
            try:
                await wire.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 8_000)
                for _ in range(8_000):
                    await wire.send(b"x")
                    await asyncio.sleep(0)
            finally:
                wire.abort()

        await together(forever(once) for _ in range(50))


@attack("redirect-resets")
class RedirectResets(AtRedirect, Resets):
    """Connections to the plain port that are reset at once."""


@attack("redirect-crowds")
class RedirectCrowds(AtRedirect, Holding):
    """256 connections to the plain port at the same moment, again and again."""

    async def strike(self) -> None:
        async def once() -> None:
            await together(self.one(index) for index in range(256))
            self.end()

        await forever(once)


@attack("redirect-requests")
class RedirectRequests(AtRedirect, Requests):
    """Requests at the plain port: right ones, for other hosts, for challenges, with 4,000 headers, and of noise."""

    def requests(self) -> list[bytes]:
        host = f"127.0.0.1:{self.target.redirect}"
        made = [
            f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET /{'x' * 15_000} HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            f"GET /.well-known/acme-challenge/{'x' * 43} HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "GET / HTTP/1.1\r\n" + "a:\r\n" * 4000 + f"Host: {host}\r\n\r\n",
            "GET / HTTP/1.1\r\n" + "Host: a\r\n" * 1700 + "\r\n",
        ]
        return [one.encode() for one in made] + [os.urandom(17_000)]
