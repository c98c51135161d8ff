"""TLS: handshakes, which cost the server much, and records that are odd, tiny or unfinished. All have it here."""

from __future__ import annotations

import asyncio
import os
import ssl

from benchmarks.attack.attack import Attack, Flood, Opening, attack, forever, together
from benchmarks.attack.doors import Holding
from benchmarks.attack.wire import Target, Tls, Wire, text, tls_context


def hello() -> bytes:
    """A client's first flight."""
    tls = Tls(tls_context())
    tls.shake_hands(b"")
    return tls.to_send()


class TlsOpening(Opening):
    """The same with TLS."""

    tls = True


@attack("tls-handshakes")
class TlsHandshakes(TlsOpening):
    """Whole handshakes of TLS 1.3, and nothing after them."""

    async def begin(self, wire: Wire) -> None:
        await wire.secure()


@attack("tls-handshakes-1.2")
class OlderHandshakes(TlsOpening):
    """Whole handshakes of TLS 1.2, and nothing after them."""

    async def begin(self, wire: Wire) -> None:
        await wire.secure(tls_context(ssl.TLSVersion.TLSv1_2))


@attack("tls-handshakes-everywhere")
class HandshakesEverywhere(TlsHandshakes):
    """Whole handshakes of TLS 1.3 from 250 addresses."""

    addresses = 250


@attack("tls-first-flights")
class FirstFlights(TlsOpening):
    """First flights of TLS, whose answer nobody reads: the server signs, the client computes nothing."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._hello = hello()

    async def begin(self, wire: Wire) -> None:
        await wire.send(self._hello)
        await wire.receive_raw()


@attack("tls-noise")
class TlsNoise(TlsOpening):
    """Bytes at random instead of a handshake."""

    async def begin(self, wire: Wire) -> None:
        await wire.send(b"\x16\x03\x01" + os.urandom(600))
        await wire.discard()


class Unfinished(Holding):
    """Connections that begin a handshake and stay."""

    tls = True
    growth = 128  # `tls_handshakes` of 100 KB, and what came before them


@attack("tls-silent")
class SilentAtOnce(Unfinished):
    """2,000 connections that say nothing to a server which waits for TLS."""

    number = 2000


@attack("tls-half-hellos")
class HalfHellos(Unfinished):
    """1,000 first flights of which the last bytes never come."""

    def beginning(self) -> bytes:
        return hello()[:-3]


@attack("tls-half-handshakes")
class HalfHandshakes(Unfinished):
    """1,000 handshakes that the client does not finish."""

    def beginning(self) -> bytes:
        return hello()


@attack("tls-strangers")
class TlsStrangers(Unfinished):
    """1,000 handshakes, and no request after them."""

    async def one(self, index: int) -> None:
        wire = await self.dial()
        self.kept.append(wire)
        await wire.secure()


@attack("tls-tiny-records")
class TinyRecords(Attack):
    """Messages of which each record has one byte, on 20 connections."""

    tls = True

    async def strike(self) -> None:
        async def one(index: int) -> None:
            wire = await self.user(f"attacker-{index}")
            reading = asyncio.create_task(wire.discard())
            assert wire.tls is not None
            try:
                message = text({"type": "ping"})
                while not reading.done():
                    for _ in range(20):
                        records = b"".join(wire.tls.seal(message[at : at + 1]) for at in range(len(message)))
                        await wire.send_raw(records)
                    await asyncio.sleep(0)
            finally:
                reading.cancel()
                wire.abort()

        await together(forever(lambda index=index: one(index)) for index in range(20))  # type: ignore[misc]


@attack("tls-pings")
class TlsPings(Flood):
    """Pings in JSON over TLS."""

    tls = True
    registered = True

    def blob(self) -> bytes:
        return text({"type": "ping"}) * 2000


@attack("tls-never-reads")
class TlsNeverReads(Attack):
    """100 clients that ask over TLS, and never read."""

    tls = True
    growth = 192  # a MiB may wait for each, and some of it as records, too

    async def strike(self) -> None:
        self.end()

        async def one(index: int) -> None:
            wire = await self.user(f"deaf-{index}", receive_buffer=4096)
            self.kept.append(wire)
            names = [f"nobody-{number}" for number in range(1000)]
            while True:
                await wire.send(text({"type": "watch", "userIds": names}))
                await asyncio.sleep(0.01)

        await together(forever(lambda index=index: one(index)) for index in range(100))  # type: ignore[misc]
