"""Behind a proxy that the server trusts: all clients come from there, and what it says of their addresses counts.

Honest users come through it, too. An attacker has no say in the address that the proxy adds; but who has an IPv6
network has as many addresses as it likes.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from ipaddress import IPv6Address
from types import MappingProxyType

from aldis.identity.keys import Identity
from benchmarks.attack.attack import Attack, attack, forever, together
from benchmarks.attack.doors import Holding
from benchmarks.attack.honest import PAIR
from benchmarks.attack.tricks import Requests
from benchmarks.attack.wire import FORWARDED, PROXY, Refused, Wire, handshake, proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def made_up() -> str:
    """An address that nobody has had before: IPv4, or of an IPv6 network of its own."""
    if random.random() < 0.5:
        return f"11.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}"
    return str(IPv6Address(b"\x20\x01\x0d\xb8" + os.urandom(12)))


class Proxied(Attack):
    """Something that many connections do again and again, behind a proxy that speaks the PROXY protocol."""

    proxy = PROXY
    at_once = 64

    async def once(self) -> None:
        """Once."""
        raise NotImplementedError

    async def strike(self) -> None:
        await together(forever(self.once) for _ in range(self.at_once))


class OneAddress(Proxied):
    """From one address, at a small server: so what all may do together is used up in seconds."""

    settings = MappingProxyType({"ALDIS_CONNECTS_PER_SECOND": "100"})


@attack("proxied-handshakes")
class ProxiedHandshakes(OneAddress):
    """WebSockets that are reset as soon as they are open, all from one address behind the proxy."""

    async def once(self) -> None:
        (await self.open()).abort()


@attack("proxied-resets")
class ProxiedResets(OneAddress):
    """Connections that are reset behind the header of the proxy, all from one address."""

    async def once(self) -> None:
        (await self.dial()).abort()


@attack("proxied-addresses")
class ProxiedAddresses(Proxied):
    """WebSockets that are reset as soon as they are open, each from another address."""

    async def once(self) -> None:
        (await self.open(via=made_up())).abort()


@attack("proxied-names")
class ProxiedNames(Proxied):
    """New names, each from another address."""

    async def once(self) -> None:
        wire = await self.open(via=made_up())
        try:
            await wire.enter(f"proxied-{os.urandom(6).hex()}", self.identity("one"))
        finally:
            wire.abort()


@attack("proxied-bad-proofs")
class ProxiedBadProofs(Proxied):
    """Proofs of the wrong key for an honest user's name, each from another address."""

    async def once(self) -> None:
        wire = await self.open(via=made_up())
        try:
            for _ in range(3):
                with suppress(Refused):
                    await wire.enter(PAIR[0], Identity.generate())
        finally:
            wire.abort()


@attack("proxied-strangers")
class ProxiedStrangers(Holding):
    """2,000 WebSockets that never register, each from another address."""

    proxy = PROXY
    number = 2000

    async def one(self, index: int) -> None:
        self.kept.append(await self.open(via=made_up()))


@attack("proxy-half-headers")
class ProxyHalfHeaders(Holding):
    """2,000 headers of the PROXY protocol that are not whole."""

    proxy = PROXY
    number = 2000

    async def one(self, index: int) -> None:
        wire = await self.dial(via="")
        self.kept.append(wire)
        await wire.send(proxy_header(made_up())[: 14 + index % 12])


@attack("proxy-slow-headers")
class ProxySlowHeaders(Holding):
    """500 headers of the PROXY protocol with 4 KB of extensions, of which a byte comes now and then."""

    proxy = PROXY
    number = 500

    async def one(self, index: int) -> None:
        wire = await self.dial(via="")
        self.kept.append(wire)
        await wire.send(SIGNATURE + b"\x21\x11\x10\x00" + bytes(12))

    async def strike(self) -> None:
        await together((super().strike(), self._go_on()))

    async def _go_on(self) -> None:
        while True:
            for wire in self.kept:
                with suppress(OSError):
                    wire.sock.send(b"x")
            await asyncio.sleep(0.02)


@attack("proxy-noise")
class ProxyNoise(Requests):
    """Headers of the PROXY protocol that are wrong, from the proxy itself: noise, version 1, lengths, families."""

    proxy = PROXY

    async def dial(self, **more: object) -> Wire:
        return await super().dial(via="", **more)

    def requests(self) -> list[bytes]:
        request = handshake(self.target.host)
        return [
            os.urandom(4000),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + request,
            request,
            SIGNATURE + b"\x21\x11\x00\x00" + request,  # no addresses
            SIGNATURE + b"\x21\x11\xff\xff" + bytes(60_000),
            SIGNATURE + b"\x20\x00\x10\x00" + os.urandom(4096) + request,  # the proxy's own
            SIGNATURE + b"\x21\x31\x00\xd8" + os.urandom(216) + request,  # a path
            SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12) + request,
            proxy_header("::ffff:127.0.0.1") + request,
            proxy_header("127.0.0.1") + proxy_header("10.0.0.1") + request,
        ]


class Forwarded(Proxied):
    """The same behind a proxy that adds to `X-Forwarded-For`."""

    proxy = FORWARDED


@attack("forwarded-handshakes")
class ForwardedHandshakes(OneAddress):
    """WebSockets that are reset as soon as they are open, all from one address behind a proxy."""

    proxy = FORWARDED

    async def once(self) -> None:
        (await self.open()).abort()


@attack("forwarded-addresses")
class ForwardedAddresses(Forwarded):
    """Handshakes that bring 14 KB of made-up addresses, to which the proxy adds the right one."""

    def __init__(self, target: object) -> None:
        super().__init__(target)  # type: ignore[arg-type]
        self._made_up = ", ".join(made_up() for _ in range(500))

    async def once(self) -> None:
        (await self.open(via=f"{self._made_up}, 10.1.0.1")).abort()


@attack("forwarded-everywhere")
class ForwardedEverywhere(Forwarded):
    """WebSockets that are reset as soon as they are open, each from another address."""

    async def once(self) -> None:
        (await self.open(via=made_up())).abort()


@attack("forwarded-strangers")
class ForwardedStrangers(ProxiedStrangers):
    """2,000 WebSockets that never register, each from another address that the proxy tells."""

    proxy = FORWARDED
