"""Clients behind a proxy that speaks the PROXY protocol, version 2."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

from support.raw_websocket import RawClient


def proxy_header(client: str, *, command: int = 1) -> bytes:
    """The header for a client at this address; with `command` 0 that of the proxy's own connection (LOCAL)."""
    addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.250") + struct.pack("!HH", 4711, 443)
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20 | command, 0x11, len(addresses)) + addresses


async def arrive_by_proxy(port: int, client: str, context: ssl.SSLContext | None) -> RawClient:
    """As HAProxy passes a connection on: the header in two pieces, then TLS or none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    header = proxy_header(client)
    writer.write(header[:7])
    await writer.drain()
    writer.write(header[7:])
    if context is not None:
        await writer.start_tls(context, server_hostname="127.0.0.1")
    made = RawClient(reader, writer, f"127.0.0.1:{port}")
    try:
        await made.shake_hands("/", "aldis.v1", {})
    except BaseException:
        writer.close()
        raise
    return made
