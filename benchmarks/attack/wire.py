"""A WebSocket client of few words, for attackers and honest users alike: bytes over sockets, right or wrong.

Frames are masked with zeros (RFC 6455 section 5.3 asks for a mask, and a server cannot tell): so an attacker sends the
same bytes again and again, which costs it less than the server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import ssl
import struct
import time
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self

from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.server.token_keys import sign_token

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# In the environment: leave the priorities of all processes alone.
KEEP_PRIORITIES: Final = "BENCHMARK_KEEP_PRIORITIES"
# What one write of a flood has at least.
BLOB: Final = 64 * 1024
# How a proxy tells where a client comes from: the PROXY protocol, and `X-Forwarded-For`.
PROXY, FORWARDED = "proxy", "forwarded"
# Where the proxy is.
PROXY_ADDRESS: Final = "127.2.0.1"
TOKEN_SECONDS: Final = 3600
# The password of the admin API.
ADMIN_TOKEN: Final = "the-token-of-the-operator"


class Refused(Exception):
    """The server did not let us in; the text says at which step."""


@dataclass(frozen=True)
class Target:
    """The server under attack, as its clients dial it. As a text it is JSON: `{"port": 8080}`."""

    port: int
    tls: bool = False
    # How a proxy that the server trusts tells where its clients come from: "" without one, PROXY, or FORWARDED.
    proxy: str = ""
    # The file with the key of tokens; "" when nobody needs one.
    key: str = ""
    # The other ports; 0 for those that are closed.
    stun: int = 0
    redirect: int = 0
    admin: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """From its text."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """The bytes of a frame."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([flag | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + len(payload).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


def text(message: dict[str, Any]) -> bytes:
    """A message in one frame."""
    return frame(TEXT, json.dumps(message, separators=(",", ":")).encode())


def many(piece: bytes, size: int = BLOB) -> bytes:
    """The same bytes again and again, `size` in all or a little more."""
    return piece * (size // len(piece) + 1)


def proxy_header(address: str) -> bytes:
    """What a proxy says first of a client, in the PROXY protocol, version 2."""
    packed = ip_address(address).packed
    body = packed + bytes(len(packed)) + bytes(4)
    kind = 0x11 if len(packed) == 4 else 0x21
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, kind]) + len(body).to_bytes(2, "big") + body


def behind_proxy(source: str) -> str:
    """The address that a proxy tells of a client which has this loopback address here."""
    return "10." + source.partition(".")[2]


@lru_cache(maxsize=4096)
def token_for(key: str, name: str) -> str:
    """A token of this user."""
    return sign_token(Path(key), {"sub": name, "exp": int(time.time()) + TOKEN_SECONDS})


def handshake(host: str, path: str = "/", subprotocol: str | None = "aldis.v1", forwarded: str = "") -> bytes:
    """The request for a WebSocket."""
    offered = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    offered += f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
    ).encode()


@cache
def tls_context(newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    """What believes every server: it is on loopback, and the suite has started it. `newest`: what it offers at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    return context


class Tls:
    """The client's end of TLS, without a socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)

    @property
    def cipher(self) -> str:
        """The name of the cipher suite, after the handshake."""
        suite = self._tls.cipher()
        assert suite is not None
        return suite[0]

    def shake_hands(self, came: bytes) -> bool:
        """Go on with the handshake. Returns whether it is done; `to_send` is to be sent in any case."""
        self._in.write(came)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def to_send(self) -> bytes:
        """What is to be sent now."""
        return self._out.read()

    def seal(self, data: bytes) -> bytes:
        """The records for some bytes."""
        self._tls.write(data)
        return self._out.read()

    def open(self, came: bytes) -> bytes:
        """The bytes in what has come."""
        self._in.write(came)
        opened = bytearray()
        while True:
            try:
                opened += (some := self._tls.read(1 << 16))
            except ssl.SSLWantReadError:
                return bytes(opened)
            if not some:
                return bytes(opened)


class Wire:
    """One connection. Whoever makes one ends it: `abort`."""

    def __init__(self, target: Target, sock: socket.socket) -> None:
        self.target = target
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()
        self.tls: Tls | None = None
        """The TLS of the connection, if it has any."""

    @classmethod
    async def dial(
        cls,
        target: Target,
        source: str = "127.0.0.1",
        receive_buffer: int | None = None,
        via: str | None = None,
        port: int | None = None,
    ) -> Self:
        """A TCP connection from the address `source`, which has said nothing yet.

        `via`: what the proxy says of its client's address, nothing if empty. `port`: another one of the server.
        """
        sock = socket.socket()
        sock.setblocking(False)
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Else the kernel would take the port now, for all addresses of servers, and soon have none left.
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((PROXY_ADDRESS if target.proxy and port is None else source, 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port or target.port))
            wire = cls(target, sock)
            if target.proxy == PROXY and port is None and via != "":
                await wire.send_raw(proxy_header(via or behind_proxy(source)))
        except BaseException:
            sock.close()
            raise
        return wire

    @classmethod
    async def open(
        cls,
        target: Target,
        source: str = "127.0.0.1",
        receive_buffer: int | None = None,
        subprotocol: str | None = "aldis.v1",
        via: str | None = None,
    ) -> Self:
        """A WebSocket."""
        wire = await cls.dial(target, source, receive_buffer, via)
        try:
            if target.tls:
                await wire.secure()
            forwarded = (via or behind_proxy(source)) if target.proxy == FORWARDED else ""
            await wire.send(handshake(target.host, subprotocol=subprotocol, forwarded=forwarded))
            head = await wire._until(b"\r\n\r\n")
            if b" 101 " not in head[:16]:
                raise Refused("handshake: " + head.partition(b"\r\n")[0].decode())  # noqa: TRY301 - the wire ends, too
        except BaseException:
            wire.abort()
            raise
        return wire

    @classmethod
    async def register(
        cls,
        target: Target,
        name: str,
        identity: Identity,
        source: str = "127.0.0.1",
        receive_buffer: int | None = None,
        via: str | None = None,
        **fields: Any,
    ) -> Self:
        """A WebSocket of a registered user."""
        wire = await cls.open(target, source, receive_buffer, via=via)
        try:
            await wire.enter(name, identity, **fields)
        except BaseException:
            wire.abort()
            raise
        return wire

    async def secure(self, context: ssl.SSLContext | None = None) -> None:
        """Speak TLS from now on."""
        tls = Tls(context or tls_context())
        came = b""
        while True:
            done = tls.shake_hands(came)
            await self.send_raw(tls.to_send())
            if done:
                self.tls = tls
                return
            came = await self.receive_raw()

    async def enter(self, name: str, identity: Identity, **fields: Any) -> dict[str, Any]:
        """Register, and return the answer to the proof."""
        await self.prove(name, identity, **fields)
        registered = await self.receive()
        if registered["type"] != "registered":
            raise Refused(f"prove: {registered}")
        return registered

    async def prove(self, name: str, identity: Identity, **fields: Any) -> None:
        """Ask for a name, and send the proof."""
        public_key = base64.b64encode(identity.public_key).decode()
        if self.target.key:
            fields = {"token": token_for(self.target.key, name), **fields}
        await self.send(text({"type": "register", "userId": name, "publicKey": public_key, **fields}))
        challenge = await self.receive()
        if challenge["type"] != "challenge":
            raise Refused(f"register: {challenge}")
        nonce = base64.b64decode(challenge["nonce"])
        signed = identity.sign(proofs.registration(self.target.host, nonce, name, fields.get("device", "main")))
        await self.send(text({"type": "prove", "signature": base64.b64encode(signed).decode()}))

    async def head(self) -> bytes:
        """The head of an HTTP reply."""
        return await self._until(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send bytes as they are, but for TLS."""
        await self.send_raw(data if self.tls is None else self.tls.seal(data))

    async def receive_frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload; raises `ConnectionError` when there is none."""
        while True:
            came = self._came
            if len(came) >= 2:
                size, start = came[1] & 0x7F, 2
                if size == 126:
                    size, start = int.from_bytes(came[2:4], "big"), 4
                elif size == 127:
                    size, start = int.from_bytes(came[2:10], "big"), 10
                if len(came) >= start and len(came) >= start + size:
                    opcode, payload = came[0] & 0x0F, bytes(came[start : start + size])
                    del came[: start + size]
                    return opcode, payload
            await self._more()

    async def receive(self) -> dict[str, Any]:
        """The next message. Answers pings; raises `ConnectionError` with code and reason when the server closes."""
        while True:
            opcode, payload = await self.receive_frame()
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
            if opcode == PING:
                await self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                raise ConnectionError(f"closed by the server: {code} {payload[2:].decode(errors='replace')}")

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, past TLS."""
        await self._loop.sock_sendall(self.sock, data)

    async def receive_raw(self) -> bytes:
        """What has come, as it is; raises `ConnectionError` at the end."""
        data = await self._loop.sock_recv(self.sock, 1 << 18)
        if not data:
            raise ConnectionError("the connection is over")
        return data

    async def _more(self) -> None:
        data = await self.receive_raw()
        if self.tls is None:
            self._came += data
            return
        self._came += self.tls.open(data)
        if answer := self.tls.to_send():
            await self.send_raw(answer)

    async def _until(self, end: bytes) -> bytes:
        while (at := self._came.find(end)) < 0:
            await self._more()
        head = bytes(self._came[: at + len(end)])
        del self._came[: at + len(end)]
        return head

    async def discard(self) -> None:
        """Read what comes until the connection is over, and look at nothing."""
        buffer = bytearray(1 << 18)
        while await self._loop.sock_recv_into(self.sock, buffer):
            pass

    def abort(self) -> None:
        """Cut the connection (RST)."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
