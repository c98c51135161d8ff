"""A server that says byte for byte what the test wants, for what no honest server does.

    async with ScriptedServer() as server:
        dialling = asyncio.create_task(client.connect())
        line = await server.accept()                # the WebSocket is open
        request = await line.receive()              # the next message of the client, as a dictionary
        await line.say(type="pong", re=request["id"])
        line.write(frame(0x2, b"binary"))           # or raw frames

It is a plain TCP server that writes its own WebSocket frames (RFC 6455), since a library would refuse to write wrong
ones. `upgrade` can be replaced to answer the handshake with anything. Waiting has a time-out, so a test that hangs says
where.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha1
from typing import Any

from aldis.protocol.codec import to_base64
from support.patience import PATIENCE

NONCE = bytes(range(32))
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0) -> bytes:
    """A frame as a server sends it, unmasked; `reserved` are the three bits that have no meaning."""
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    if size < 65536:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload


def accepted(headers: dict[str, str]) -> bytes:
    """The answer of an Aldis server to an upgrade."""
    accept = b64encode(sha1((headers["sec-websocket-key"] + _GUID).encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: aldis.v1\r\n\r\n"
    ).encode()


class Line:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        self.headers = headers
        self._reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)

    def say(self, **message: Any) -> None:
        """One message."""
        self.write(frame(TEXT, json.dumps(message).encode()))

    def close(self, code: int, reason: str = "") -> None:
        """A CLOSE frame; the connection stays."""
        self.write(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))

    def hang_up(self) -> None:
        """Cut the connection without a word."""
        self._writer.transport.abort()

    async def read_frame(self) -> tuple[int, bytes]:
        """The next frame of the client: opcode and payload. Raises `EOFError` at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8), "big")
            assert second & 0x80, "a client has to mask (RFC 6455 section 5.3)"
            mask = await self._reader.readexactly(4)
            data = await self._reader.readexactly(size)
            masks = (mask * (size // 4 + 1))[:size]
            return first & 0x0F, (int.from_bytes(data) ^ int.from_bytes(masks)).to_bytes(size)

    async def receive(self) -> dict[str, Any]:
        """The next message of the client."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == TEXT:
                message = json.loads(payload)
                assert isinstance(message, dict)
                return message

    async def read_close(self) -> tuple[int, str]:
        """The client's CLOSE frame, past what comes before it."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass

    async def admit(self, **more: Any) -> dict[str, Any]:
        """Play the registration through; the client's `register`."""
        register = await self.receive()
        assert register["type"] == "register", register
        self.say(type="challenge", nonce=to_base64(NONCE), re=register["id"])
        prove = await self.receive()
        assert prove["type"] == "prove", prove
        reply = {
            "userId": register["userId"],
            "device": register["device"],
            "session": "s",
            "secret": "t",
            "resumed": False,
            **more,
        }
        self.say(type="registered", success=True, re=prove["id"], **reply)
        return register


class ScriptedServer:
    """Listens on a port of loopback; the test takes the connections with `accept`."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, upgrade: Callable[[dict[str, str]], bytes | None] = accepted
    ) -> None:
        """`upgrade` makes the answer to a handshake of its headers (names in lower case); None: no answer at all."""
        self.upgrade = upgrade
        self._tls = tls
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for writer in list(self._writers):
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
            return
        lines = head.split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        answer = self.upgrade(headers)
        line = Line(reader, writer, headers)
        if answer is not None:
            line.write(answer)
        self._lines.put_nowait(line)

    async def accept(self) -> Line:
        """The next connection, once it has been upgraded."""
        async with asyncio.timeout(PATIENCE):
            return await self._lines.get()
