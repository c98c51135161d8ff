from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aldis.client.address import ServerAddress
from aldis.client.transport import Transport, open_transport
from aldis.errors import ServerUnreachable
from support.patience import PATIENCE
from support.scripted_server import BINARY, CLOSE, PING, PONG, TEXT, Line, ScriptedServer, accepted, frame


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self.life = asyncio.Event()
        self.ends: list[tuple[int, str]] = []
        self.ended = asyncio.Event()

    def text_received(self, text: str) -> None:
        self.texts.put_nowait(text)

    def life_shown(self) -> None:
        self.life.set()

    def transport_lost(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.ended.set()

    async def text(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.texts.get()

    async def end(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE):
            await self.ended.wait()
        (end,) = self.ends
        return end


@asynccontextmanager
async def connected(
    *, max_message: int = 1000, close_timeout: float = 2.0
) -> AsyncIterator[tuple[Line, Transport, Ear]]:
    """A transport and the server's end of it; afterwards nothing of it is left."""
    ear = Ear()
    async with ScriptedServer() as server:
        transport = await open_transport(
            ServerAddress.parse(server.url), max_message=max_message, close_timeout=close_timeout
        )
        transport.start(ear)
        line = await server.accept()
        try:
            yield line, transport, ear
        finally:
            transport.close(1000, "")
            line.hang_up()
            async with asyncio.timeout(PATIENCE):
                await transport.wait_closed()
            assert len(ear.ends) == 1


async def unreachable(url: str, *, connect_timeout: float = PATIENCE) -> str:
    """Why the server cannot be reached."""
    with pytest.raises(ServerUnreachable) as caught:
        await open_transport(ServerAddress.parse(url), connect_timeout=connect_timeout)
    assert caught.value.url == ServerAddress.parse(url).url
    return caught.value.reason


# --- dialling -------------------------------------------------------------------------------------------------------


async def test_the_handshake_names_the_host_that_is_signed_and_the_sub_protocol() -> None:
    async with ScriptedServer() as server:
        address = ServerAddress.parse(f"ws://LocalHost:{server.port}/path")
        transport = await open_transport(address)
        transport.start(Ear())
        line = await server.accept()
        assert line.headers["host"] == address.server == f"localhost:{server.port}"
        assert line.headers["sec-websocket-protocol"] == "aldis.v1"
        transport.close(1000, "")
        line.hang_up()
        await transport.wait_closed()


async def test_a_port_where_nobody_listens_is_said_to_refuse() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await unreachable(f"ws://127.0.0.1:{taken.getsockname()[1]}") == "connection refused"


async def test_a_name_that_does_not_exist_is_said_not_to() -> None:
    assert "cannot be resolved" in await unreachable("ws://name.invalid:8080")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 301 Moved Permanently\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", "301 Moved Permanently"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "no WebSocket"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no WebSocket server"),
        (b"\xff\xfe\x00\r\n\r\n", "no WebSocket server"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "no WebSocket server"),
    ],
)
async def test_a_server_of_another_kind_is_said_to_be_one(answer: bytes, why: str) -> None:
    async with ScriptedServer(upgrade=lambda _: answer) as server:
        assert why in await unreachable(server.url)


@pytest.mark.parametrize("chosen", ["", "Sec-WebSocket-Protocol: mqtt\r\n"])
async def test_a_server_that_does_not_speak_our_dialect_is_said_not_to(chosen: str) -> None:
    def upgrade(headers: dict[str, str]) -> bytes:
        return accepted(headers).replace(b"Sec-WebSocket-Protocol: aldis.v1\r\n", chosen.encode())

    async with ScriptedServer(upgrade=upgrade) as server:
        assert "no Aldis server" in await unreachable(server.url)


async def test_a_server_that_hangs_up_during_the_handshake_is_said_to() -> None:
    async with ScriptedServer(upgrade=lambda _: None) as server:
        dialling = asyncio.create_task(unreachable(server.url))
        (await server.accept()).hang_up()
        assert "closed the connection" in await dialling


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async with ScriptedServer(upgrade=lambda _: None) as server:
        dialling = asyncio.create_task(unreachable(server.url, connect_timeout=0.5))
        line = await server.accept()
        assert await dialling == "no answer within 0.5 s"
        await line.gone()


async def test_an_attempt_that_is_cancelled_leaves_nothing_behind() -> None:
    async with ScriptedServer(upgrade=lambda _: None) as server:
        dialling = asyncio.create_task(open_transport(ServerAddress.parse(server.url)))
        line = await server.accept()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await line.gone()
        assert len(asyncio.all_tasks()) <= 2  # this test, and the server's handler at most


# --- messages -------------------------------------------------------------------------------------------------------


async def test_messages_go_both_ways() -> None:
    async with connected() as (line, transport, ear):
        transport.send('{"type":"grüße"}')
        assert await line.receive() == {"type": "grüße"}
        line.write(frame(TEXT, "grüße".encode()))
        assert await ear.text() == "grüße"


async def test_what_comes_with_the_handshake_is_not_lost() -> None:
    def upgrade(headers: dict[str, str]) -> bytes:
        return accepted(headers) + frame(TEXT, b"first") + frame(TEXT, b"second")

    async with ScriptedServer(upgrade=upgrade) as server:
        transport = await open_transport(ServerAddress.parse(server.url))
        ear = Ear()
        transport.start(ear)
        assert [await ear.text(), await ear.text()] == ["first", "second"]
        transport.close(1000, "")
        (await server.accept()).hang_up()
        await transport.wait_closed()


async def test_what_comes_before_anybody_listens_may_be_as_long_as_one_message() -> None:
    def upgrade(headers: dict[str, str]) -> bytes:
        return accepted(headers) + frame(TEXT, b"x" * 600) + frame(TEXT, b"x" * 600)

    async with ScriptedServer(upgrade=upgrade) as server:
        transport = await open_transport(ServerAddress.parse(server.url), max_message=1000)
        ear = Ear()
        transport.start(ear)
        code, reason = await ear.end()
        assert code == 1006
        assert "before the first of ours" in reason
        (await server.accept()).hang_up()
        await transport.wait_closed()


async def test_fragments_are_joined_around_control_frames() -> None:
    async with connected() as (line, _, ear):
        line.write(frame(TEXT, b"one ", final=False) + frame(PING, b"?") + frame(0, b"mess", final=False))
        line.write(frame(0, b"age"))
        assert await ear.text() == "one message"
        assert ear.life.is_set()
        assert await line.read_frame() == (PONG, b"?")


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_pings_and_pongs_are_signs_of_life(opcode: int) -> None:
    async with connected() as (line, _, ear):
        line.write(frame(opcode, b"x"))
        async with asyncio.timeout(PATIENCE):
            await ear.life.wait()


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4001, 4503])
async def test_a_close_frame_is_answered_and_reported(code: int) -> None:
    async with connected() as (line, _, ear):
        line.close(code, "why")
        assert await ear.end() == (code, "why")
        assert (await line.read_close())[0] == (code if code >= 3000 else 1000)
        await line.gone()


async def test_a_close_frame_without_a_code_is_reported_as_such() -> None:
    async with connected() as (line, _, ear):
        line.write(frame(CLOSE, b""))
        assert await ear.end() == (1005, "")
        assert await line.read_close() == (1000, "")


async def test_a_connection_that_breaks_is_reported_as_broken() -> None:
    async with connected() as (line, _, ear):
        line.hang_up()
        assert await ear.end() == (1006, "the connection broke")


async def test_our_own_close_waits_for_the_servers_and_reports_it() -> None:
    async with connected() as (line, transport, ear):
        transport.close(4000, "grüße " * 50)
        code, reason = await line.read_close()
        assert code == 4000
        assert reason.startswith("grüße")
        assert not ear.ended.is_set()
        line.close(4000)
        assert await ear.end() == (4000, "")


async def test_a_server_that_does_not_answer_our_close_is_cut_off() -> None:
    async with connected(close_timeout=0.05) as (line, transport, ear):
        transport.close(1000, "")
        transport.close(4000, "again")
        transport.send("after the close")
        assert await line.read_close() == (1000, "")
        assert (await ear.end())[0] == 1006
        await line.gone()


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(BINARY, b"x"), 1003, "binary"),
        (frame(TEXT, b"\xff"), 1007, "UTF-8"),
        (frame(TEXT, b"x", reserved=4), 1002, "reserved"),
        (frame(TEXT, b"x", reserved=1), 1002, "reserved"),
        (frame(0, b"x"), 1002, "fragment"),
        (frame(TEXT, b"x", final=False) + frame(TEXT, b"x"), 1002, "fragment"),
        (frame(TEXT, b"x" * 1001), 1009, "max allowed size"),
        (frame(TEXT, b"x" * 600, final=False) + frame(0, b"x" * 600), 1009, "more than 1000"),
        (frame(TEXT, b"x" * 100_000), 1009, "1000"),
        (frame(0x3, b"x"), 1002, "opcode"),
        (frame(PING, b"x", final=False), 1002, "fragmented control"),
        (frame(CLOSE, b"x"), 1002, "close code"),
        (frame(CLOSE, b"\x00\x01"), 1002, "close code"),
        (b"\x81\x81mask!", 1002, "masked"),
    ],
)
async def test_what_a_server_may_not_send_ends_the_connection(
    data: bytes, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected() as (line, _, ear):
        line.write(data)
        end = await ear.end()
        assert end[0] == 1006
        assert reason in end[1]
        assert (await line.read_close())[0] == code
        assert ear.texts.empty()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_sender_waits_while_the_network_does_not_take_more() -> None:
    async with connected() as (line, transport, ear):
        await transport.writable()
        for _ in range(200):
            transport.send("x" * 100_000)
        waiting = asyncio.create_task(transport.writable())
        await asyncio.sleep(0)
        assert not waiting.done()
        for _ in range(200):
            await line.read_frame()
        async with asyncio.timeout(PATIENCE):
            await waiting
        assert not ear.ended.is_set()


async def test_a_sender_does_not_wait_for_a_dead_connection() -> None:
    async with connected() as (line, transport, _):
        for _ in range(200):
            transport.send("x" * 100_000)
        waiting = asyncio.create_task(transport.writable())
        line.hang_up()
        async with asyncio.timeout(PATIENCE):
            await waiting


async def test_an_end_that_comes_before_anybody_listens_is_told_all_the_same() -> None:
    # As with eager tasks (Python 3.12), which see that the connection is gone before `open_transport` has returned.
    async with ScriptedServer() as server:
        transport = await open_transport(ServerAddress.parse(server.url))
        line = await server.accept()
        line.hang_up()
        await transport.wait_closed()
        ear = Ear()
        transport.start(ear)
        assert (await ear.end())[0] == 1006
