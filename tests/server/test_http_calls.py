"""Requests to the operator's own servers, against servers that misbehave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.server.http_calls import CallFailed, HttpCalls
from support.certificates import make_certificates
from support.ports import free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[tuple[HttpCalls, str]]:
    """A server that does what the test says with each connection, and calls to it."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    port, calls = free_port(), HttpCalls()
    server = await asyncio.start_server(served, "127.0.0.1", port)
    try:
        yield calls, f"http://127.0.0.1:{port}/"
    finally:
        await calls.close()
        server.close()


async def get(calls: HttpCalls, url: str) -> bytes:
    return await calls.get(url, most=10, seconds=10)


async def post(calls: HttpCalls, url: str) -> bytes:
    return await calls.post(url, b"", {}, most=10, seconds=10)


BOTH = pytest.mark.parametrize("ask", [get, post])


@BOTH
async def test_a_kept_connection_that_has_ended_is_made_anew(ask: Callable[[HttpCalls, str], Awaitable[bytes]]) -> None:
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")  # and no reply to that

    async with serving(once) as (calls, url):
        for _ in range(3):
            assert await ask(calls, url) == b"ok"
    assert connections == 3


@BOTH
async def test_a_server_that_always_hangs_up_is_asked_twice_and_no_more(
    ask: Callable[[HttpCalls, str], Awaitable[bytes]],
) -> None:
    connections = 0

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")

    async with serving(never) as (calls, url):
        with pytest.raises(CallFailed):
            await ask(calls, url)
    assert connections == 2


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11, "more than 10 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, "more than 10 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n9\r\nxxxxxxxxx\r\n0\r\n\r\n",
            "more than 10",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "."),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "."),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "."),
    ],
)
async def test_a_reply_that_cannot_be_used_is_one_kind_of_failure(reply: bytes, problem: str) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()

    async with serving(say) as (calls, url):
        with pytest.raises(CallFailed, match=problem):
            await calls.get(url, most=10, seconds=10)


async def test_a_compressed_reply_is_not_unpacked() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Accept-Encoding: identity" in head
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")

    async with serving(say) as (calls, url):
        assert await calls.get(url, most=10, seconds=10) == b"\x1f\x8b\x08"


async def test_a_server_that_trickles_is_not_waited_for_without_end() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        await reader.read()

    async with serving(trickle) as (calls, url):
        with pytest.raises(CallFailed, match=r"within 0.2 s"):
            await calls.get(url, most=10, seconds=0.2)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_where_nobody_listens_is_told_in_plain_words(scheme: str) -> None:
    calls, port = HttpCalls(), free_port()
    with pytest.raises(CallFailed) as failed:
        await calls.get(f"{scheme}://127.0.0.1:{port}/", most=10, seconds=10)
    assert str(failed.value) == f"127.0.0.1:{port} cannot be reached: Connection refused"
    await calls.close()


async def test_a_name_that_is_not_found_is_told_in_plain_words() -> None:
    calls = HttpCalls()
    with pytest.raises(CallFailed, match=r"^nobody\.invalid:80 cannot be reached: [A-Z][a-z ]+$"):
        await calls.get("http://nobody.invalid/", most=10, seconds=10)
    await calls.close()


async def test_a_server_without_tls_is_told_in_plain_words() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(say) as (calls, url):
        with pytest.raises(CallFailed, match=r"^127\.0\.0\.1:\d+ does not speak TLS as it should: [a-z ]+$"):
            await calls.get(url.replace("http:", "https:"), most=10, seconds=10)


async def test_a_certificate_that_nobody_trusts_is_told_in_plain_words(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    calls, files = HttpCalls(), make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    async with await asyncio.start_server(say, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CallFailed, match=rf"^the certificate of 127\.0\.0\.1:{port} cannot be trusted: [a-z ]+$"):
            await calls.get(f"https://127.0.0.1:{port}/", most=10, seconds=10)
    await calls.close()
