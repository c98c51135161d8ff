"""Requests and frames that are wrong, nearly right, or only slow: HTTP, WebSocket and JSON."""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from contextlib import suppress

from benchmarks.attack.attack import Attack, Flood, attack, each_of, forever, together
from benchmarks.attack.doors import (
    Broken,
    HalfOpen,
    Handshakes,
    Holding,
    HugeHeads,
    NewNames,
    Resets,
    StrangersWhoStay,
)
from benchmarks.attack.wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Wire, frame, handshake, many, text

EVERYWHERE = 250


@attack("half-open-everywhere")
class HalfOpenEverywhere(HalfOpen):
    """2,000 TCP connections that say nothing, from 250 addresses."""

    addresses = EVERYWHERE


@attack("huge-heads-everywhere")
class HugeHeadsEverywhere(HugeHeads):
    """1,000 requests of 15 KB that lack their last line, from 250 addresses."""

    addresses = EVERYWHERE


@attack("strangers-everywhere")
class StrangersEverywhere(StrangersWhoStay):
    """2,000 WebSockets that never register, from 250 addresses."""

    addresses = EVERYWHERE


@attack("handshakes-everywhere")
class HandshakesEverywhere(Handshakes):
    """WebSockets that are reset as soon as they are open, from 250 addresses."""

    addresses = EVERYWHERE


@attack("resets-everywhere")
class ResetsEverywhere(Resets):
    """TCP connections that are reset at once, from 250 addresses."""

    addresses = EVERYWHERE


@attack("new-names-everywhere")
class NewNamesEverywhere(NewNames):
    """New names as fast as possible, from 250 addresses."""

    addresses = EVERYWHERE


class Requests(Attack):
    """One request after the other, on 16 connections at a time."""

    def requests(self) -> list[bytes]:
        """What is sent, in turns."""
        raise NotImplementedError

    async def strike(self) -> None:
        requests = self.requests()
        number = 0

        async def once() -> None:
            nonlocal number
            number += 1
            wire = await self.dial()
            try:
                await wire.send(requests[number % len(requests)])
                await wire.discard()
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))

    def get(self, path: str, *headers: str) -> bytes:
        """A GET."""
        lines = "".join(f"{line}\r\n" for line in headers)
        return f"GET {path} HTTP/1.1\r\nHost: {self.target.host}\r\n{lines}\r\n".encode()


@attack("big-pages")
class BigPages(Requests):
    """The page and its scripts, again and again."""

    def requests(self) -> list[bytes]:
        return [self.get(path) for path in ("/", "/aldis.js", "/index.html")]


@attack("healthz")
class Healthz(Requests):
    """Health checks, metrics and the admin API on the public port."""

    def requests(self) -> list[bytes]:
        return [
            self.get(path, "Authorization: Bearer x") for path in ("/healthz", "/metrics", "/api/v1/users", "/readyz")
        ]


@attack("slow-pages")
class SlowPages(Holding):
    """500 clients that fetch the SDK 64 bytes at a time."""

    number = 500

    async def one(self, index: int) -> None:
        wire = await self.dial(receive_buffer=2048)
        self.kept.append(wire)
        await wire.send(f"GET /aldis.js HTTP/1.1\r\nHost: {self.target.host}\r\n\r\n".encode())

    async def strike(self) -> None:
        self.end()
        await each_of(self.number, self.one)
        while True:
            for wire in self.kept:
                with suppress(OSError):
                    wire.sock.recv(64)
            await asyncio.sleep(0.02)


@attack("slow-bodies")
class SlowBodies(Holding):
    """500 requests with a body that never ends: by its length, and in chunks."""

    number = 500

    async def one(self, index: int) -> None:
        wire = await self.dial()
        self.kept.append(wire)
        how = "Transfer-Encoding: chunked" if index % 2 else "Content-Length: 1000000"
        await wire.send(f"POST / HTTP/1.1\r\nHost: {self.target.host}\r\n{how}\r\n\r\n1\r\nx\r\n".encode())


@attack("smuggling")
class Smuggling(Requests):
    """Requests within requests: two lengths, chunks and a length, folded and empty headers, bare line feeds."""

    def requests(self) -> list[bytes]:
        host = self.target.host
        hidden = f"GET /aldis.js HTTP/1.1\r\nHost: {host}\r\n\r\n"
        heads = [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding\t: chunked",
            "X: a\r\n\tfolded: b",
            ": empty",
            "Content-Length: +5",
            "Content-Length: 0x5",
        ]
        made = [f"GET / HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n0\r\n\r\n{hidden}" for head in heads]
        made += [f"GET / HTTP/1.1\nHost: {host}\n\n{hidden}", "get / http/1.1\r\n\r\n"]
        for target in (" /", "http://other/", "/../../etc/passwd", "/%00%2e%2e/", "*", "//evil.example"):
            made.append(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        made.append(f"GET / HTTP/1.1\r\nHost: {host}\r\n" + "A: b\r\n" * 1000 + "\r\n")
        return [one.encode() for one in made]


@attack("origins")
class Origins(Requests):
    """Handshakes of foreign pages, with origins and hosts of every kind, and addresses that they make up."""

    def requests(self) -> list[bytes]:
        base = handshake(self.target.host)[:-2]
        heads = [
            b"Origin: https://evil.example",
            b"Origin: null",
            b"Origin: " + b"x" * 5000,
            b"Origin: http://" + self.target.host.encode() + b".evil.example",
            b"Origin: http://a\r\nOrigin: http://b",
            b"Origin: \xff\xfe",
            b"X-Forwarded-For: 127.0.0.1, " + b"1.2.3.4, " * 1000,
            b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99999999999",
            b"Sec-WebSocket-Protocol: " + b"aldis.v1, " * 1000,
        ]
        return [base + head + b"\r\n\r\n" for head in heads]


@attack("proxy-headers")
class ProxyHeaders(Requests):
    """Headers of the PROXY protocol from a client that is no proxy."""

    def requests(self) -> list[bytes]:
        signature = b"\r\n\r\n\0\r\nQUIT\n"
        v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"
        v2 = signature + b"\x21\x11\x00\x0c" + bytes(12)
        return [
            v1 + self.get("/"),
            v2 + self.get("/"),
            signature + b"\x21\x11\xff\xff" + os.urandom(4000),
            signature * 500,
        ]


@attack("tls-hellos")
class TlsHellos(Requests):
    """The beginnings of TLS handshakes, right and wrong, on a port without TLS."""

    def requests(self) -> list[bytes]:
        return [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(600), b"\x16\x03\x03\xff\xff" * 2000]


@attack("deflate-bombs")
class DeflateBombs(Broken):
    """Compressed frames of 64 KB that would be 64 MB, on connections that have asked for compression."""

    async def enter(self, index: int) -> Wire:
        wire = await self.dial()
        offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        await wire.send(handshake(self.target.host)[:-2] + offer)
        await wire.head()
        return wire

    def blob(self) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
        return frame(TEXT, bomb[:60_000], rsv=4)


@attack("empty-fragments")
class EmptyFragments(Flood):
    """Fragments without a byte, with pings and pongs between them, and now and then the end of a message."""

    def blob(self) -> bytes:
        piece = frame(TEXT, b'{"type":', fin=False)
        piece += (frame(CONTINUATION, b"", fin=False) + frame(PING) + frame(PONG)) * 50
        return many(piece + frame(CONTINUATION, b'"ping"}'))


@attack("bad-closes")
class BadCloses(Attack):
    """Closes with reasons that are not UTF-8, codes that nobody may send, and frames behind them."""

    async def strike(self) -> None:
        payloads = [b"\x03\xe8\xff\xfe", b"\x03", struct.pack(">H", 1005), struct.pack(">H", 65535) + b"x" * 123, b""]

        async def once() -> None:
            for payload in payloads:
                wire = await self.open()
                try:
                    await wire.send(frame(CLOSE, payload) + frame(TEXT, b"{}") * 100 + frame(CLOSE, payload))
                    await wire.discard()
                finally:
                    wire.abort()

        await together(forever(once) for _ in range(16))


class Json(Flood):
    """Texts that are hard to read, or that seem so."""


@attack("numbers")
class Numbers(Json):
    """Numbers that no computer has: 1e999, -0, 1e-999999999, 2^63, digits without end."""

    def blob(self) -> bytes:
        numbers = [b"1e999", b"-0", b"1e-999999999", b"9223372036854775808", b"1." + b"0" * 5000, b"1E+" + b"9" * 500]
        return many(b"".join(frame(TEXT, b'{"type":"ping","id":' + number + b"}") for number in numbers))


@attack("twice")
class Twice(Json):
    """The same key 3,000 times, with `type` among them."""

    def blob(self) -> bytes:
        keys = b",".join(b'"type":"rotate","to":"a"' for _ in range(2000))
        return many(frame(TEXT, b'{"type":"ping",' + keys + b',"type":"bye","to":"nobody"}'))


@attack("deep-escapes")
class DeepEscapes(Json):
    r"""Names of surrogates and nulls as escapes, in objects 500 deep."""

    def blob(self) -> bytes:
        deep = b'{"\\ud83d\\ude00\\u0000":' * 500 + b"1" + b"}" * 500
        return many(frame(TEXT, b'{"type":"offer","to":"nobody","offer":' + deep + b"}"))


@attack("lone-surrogates")
class LoneSurrogates(Json):
    """Half of a pair of surrogates in each name."""

    def blob(self) -> bytes:
        return many(frame(TEXT, b'{"type":"discover","userId":"\\ud800x","id":1}'))


@attack("watch-one")
class WatchOne(Flood):
    """`watch` and `unwatch` of one honest user, again and again, by 50 clients."""

    connections = 50

    def blob(self) -> bytes:
        names = {"userIds": ["honest-a"]}
        return many(text({"type": "watch", **names}) + text({"type": "unwatch", **names}), 4096)
