"""A WebSocket client that does what it is told, right or wrong: for tests of what a server does with either.

It speaks bytes over asyncio streams (RFC 6455) and knows nothing that the server could have got wrong in the same way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aldis.identity import proofs
from aldis.identity.keys import Identity
from support.patience import PATIENCE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Frame:
    """A frame as it came from the server."""

    opcode: int
    payload: bytes
    fin: bool

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")

    @property
    def close_reason(self) -> str:
        assert self.opcode == CLOSE
        return self.payload[2:].decode()


class ConnectionOver(Exception):
    """The server has closed the TCP connection."""


class HandshakeRefused(Exception):
    """The server did not switch protocols."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.headers = headers
        self.body = body


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    mask: bytes | None = None,
    length: int | None = None,
) -> bytes:
    """The bytes of a frame. `length` lies about the length of the payload; `rsv` holds the three reserved bits."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    flag = 0x80 if masked else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 1 << 16:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = mask or os.urandom(4)
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(payload), "big")
    return head + key + body


async def http_get(
    port: int, request: bytes, context: ssl.SSLContext | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send the bytes of an HTTP request and read the whole response: status, headers in lower case, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            return await read_reply(reader)
    finally:
        writer.close()


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one HTTP response: status, headers in lower case, body."""
    status, headers = await _read_head(reader)
    if headers.get("connection") == "close":
        return status, headers, await reader.read()
    return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in filter(None, head[1:]):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(head[0].split(" ")[1]), headers


class RawClient:
    """One connection. `async with await RawClient.connect(port) as client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        # What registration proofs name.
        self.host = host
        self.response_headers: dict[str, str] = {}

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        address: str = "127.0.0.1",
        host: str | None = None,
        path: str = "/",
        subprotocol: str | None = "aldis.v1",
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        receive_buffer: int | None = None,
    ) -> RawClient:
        """Connect and shake hands; raises `HandshakeRefused`. `headers` replace those that are sent anyway."""
        more: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_hostname}
        if receive_buffer is not None:
            more["limit"] = receive_buffer
        reader, writer = await asyncio.open_connection(address, port, **more)
        client = cls(reader, writer, host or f"{address}:{port}")
        try:
            await client.shake_hands(path, subprotocol, headers or {})
        except BaseException:
            writer.close()
            raise
        return client

    async def shake_hands(self, path: str, subprotocol: str | None, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": self.host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        if subprotocol is not None:
            fields["Sec-WebSocket-Protocol"] = subprotocol
        fields.update(headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        async with asyncio.timeout(PATIENCE):
            status, self.response_headers = await _read_head(self.reader)
            if status != 101:
                raise HandshakeRefused(status, self.response_headers, await self.reader.read())

    # --- sending ----------------------------------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def send_frame(self, opcode: int, payload: bytes = b"", **more: Any) -> None:
        """Send a frame; see `encode_frame`."""
        self.writer.write(encode_frame(opcode, payload, **more))

    def send(self, message: dict[str, Any] | str) -> None:
        """Send a message: a text as it is, anything else as JSON."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.send_frame(TEXT, text.encode())

    # --- receiving --------------------------------------------------------------------------------------------------

    async def receive_frame(self) -> Frame:
        """The next frame; raises `ConnectionOver` when there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                first, second = await self.reader.readexactly(2)
                assert not second & 0x80, "a server must not mask its frames (RFC 6455 section 5.1)"
                size = second & 0x7F
                if size == 126:
                    size = int.from_bytes(await self.reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self.reader.readexactly(8), "big")
                payload = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ConnectionOver from error
        return Frame(first & 0x0F, payload, bool(first & 0x80))

    async def receive_text(self) -> str:
        """The text of the next message; pings are answered."""
        while True:
            frame = await self.receive_frame()
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
                continue
            assert frame.opcode == TEXT, f"expected a message, got {frame}"
            return frame.payload.decode()

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(await self.receive_text())
        return message

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and take the next one as its reply."""
        self.send(message)
        return await self.receive()

    async def wait_closed(self) -> tuple[int, str]:
        """Read on until the server closes; answer as a client should; return the code and the reason."""
        while True:
            frame = await self.receive_frame()
            if frame.opcode == CLOSE:
                self.send_frame(CLOSE, frame.payload[:2])
                await self.wait_over()
                return frame.close_code, frame.close_reason

    async def wait_over(self) -> None:
        """Read on until the TCP connection is over."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            pass

    # --- the protocol -----------------------------------------------------------------------------------------------

    async def register(
        self, user_id: str, identity: Identity | None = None, *, device: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Register with a proof; returns the reply to `prove`. `fields` go into `register`."""
        identity = identity or Identity.generate()
        public_key = base64.b64encode(identity.public_key).decode()
        message = {"type": "register", "userId": user_id, "publicKey": public_key, **fields}
        if device is not None:
            message["device"] = device
        challenge = await self.request(message)
        assert challenge["type"] == "challenge", challenge
        return await self.request({"type": "prove", "signature": self.sign(identity, challenge, user_id, device)})

    def sign(self, identity: Identity, challenge: dict[str, Any], user_id: str, device: str | None = None) -> str:
        """The signature that `challenge` asks for."""
        nonce = base64.b64decode(challenge["nonce"])
        return base64.b64encode(
            identity.sign(proofs.registration(self.host, nonce, user_id, device or "main"))
        ).decode()

    # --- ending -----------------------------------------------------------------------------------------------------

    async def leave(self, code: int = 1000) -> None:
        """Close as a client should, and wait until the server has closed as well."""
        self.send_frame(CLOSE, code.to_bytes(2, "big"))
        await self.wait_over()

    def vanish(self) -> None:
        """Cut the TCP connection without a word (RST)."""
        self.writer.transport.abort()

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
