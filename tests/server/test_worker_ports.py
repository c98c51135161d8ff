"""The sockets of several workers, and the line between a worker and its supervisor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aldis.errors import ConfigError
from aldis.server import worker_ports
from aldis.server.config import ServerConfig
from aldis.server.logs import get_logger
from aldis.server.systemd import ActivatedSockets
from aldis.server.worker_link import WorkerLink, WorkerOrder, WorkerReport, WorkerStart, encode, receive, to_plain
from aldis.server.worker_ports import WorkerPorts, check_sockets
from support.ports import free_port


def several(**settings: Any) -> ServerConfig:
    more = {"port": 0, "admin_port": None, "stun_port": 0, **settings}
    return ServerConfig(redis="redis://127.0.0.1:1", workers=2, **more)


@asynccontextmanager
async def opened(given: ActivatedSockets | None = None, **settings: Any) -> AsyncIterator[WorkerPorts]:
    ports = WorkerPorts(several(**settings), given or ActivatedSockets(), get_logger("aldis.server"))
    try:
        await ports.open()
        yield ports
    finally:
        ports.close()


def port_of(sockets: tuple[socket.socket, ...]) -> int:
    (one,) = sockets
    return int(one.getsockname()[1])


def accepts(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        one.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_each_slot_listens_at_the_same_free_port(host: str) -> None:
    async with opened(host=host) as ports:
        one, other = await ports.of(0), await ports.of(1)
        assert port_of(one.public) == port_of(other.public) != 0
        assert one.public != other.public
        assert await ports.of(0) == one
        clients = [socket.create_connection(("127.0.0.1", port_of(one.public))) for _ in range(40)]
        assert accepts(one.public[0])
        assert accepts(other.public[0])
        for client in clients:
            client.close()


async def test_while_a_slot_pauses_the_other_gets_all_clients_and_without_any_the_port_is_kept() -> None:
    async with opened() as ports:
        one, other = await ports.of(0), await ports.of(1)
        port = port_of(other.public)
        ports.pause(0)
        assert one.public[0].fileno() == -1
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)):
                assert accepts(other.public[0])
        ports.pause(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert port_of((await ports.of(0)).public) == port


async def test_a_taken_port_is_an_error_with_the_name_of_its_setting(tmp_path: Path) -> None:
    settings: dict[str, Callable[[int], dict[str, Any]]] = {
        "port": lambda taken: {"port": taken},
        "admin_port": lambda taken: {"admin_port": taken},
        "redirect_port": lambda taken: {"redirect_port": taken, "tls_cert": tmp_path / "c", "tls_key": tmp_path / "k"},
    }
    for name, with_port in settings.items():
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = server.getsockname()[1]
            with pytest.raises(ConfigError, match=f"{name}: 127.0.0.1:{taken} is in use"):
                async with opened(**with_port(taken)) as ports:
                    await ports.of(0)


async def test_another_server_of_this_user_with_workers_is_noticed() -> None:
    async with opened() as ports:
        port = port_of((await ports.of(0)).public)
        with pytest.raises(ConfigError, match=r"port: .* is in use"):
            async with opened(port=port):
                pass


async def test_where_the_kernel_does_not_spread_connections_all_accept_from_one_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_ports, "BALANCES", False)
    async with opened() as ports:
        assert (await ports.of(0)).public == (await ports.of(1)).public
        ports.pause(0)
        assert (await ports.of(1)).public[0].fileno() > 0
    assert "does not spread connections over workers" in caplog.text


async def test_sockets_of_systemd_are_for_all_and_the_plain_one_needs_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as plain:
        given = ActivatedSockets((public,), (plain,))
        async with opened(given) as ports:
            for slot in (0, 1):
                assert await ports.of(slot) == ActivatedSockets((public,), (plain,))
        with pytest.raises(ConfigError, match="tls_cert: is needed"):
            check_sockets(given, several())


async def test_admin_ports_follow_each_other_and_the_port_of_stun_is_one() -> None:
    admin, stun = free_port(), free_port()
    assert free_port() == stun + 1  # so nobody else has it
    async with opened(admin_port=admin, host="0.0.0.0", stun_port=stun) as ports:
        one, other = await ports.of(0), await ports.of(1)
        assert (port_of(one.admin), port_of(other.admin)) == (admin, admin + 1)
        assert one.stun == other.stun
        assert port_of(one.stun) == stun
        assert ports.stun
        ports.close_slot(1)
        socket.create_server(("127.0.0.1", admin + 1)).close()
    async with opened(admin_port=0) as ports:
        assert port_of((await ports.of(0)).admin) != port_of((await ports.of(1)).admin)
        assert not ports.stun


# --- the line ---------------------------------------------------------------------------------------------------------


async def test_a_worker_hears_its_settings_its_orders_and_the_end_of_its_supervisor() -> None:
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as public:
        # A descriptor of its own, as an inherited one is.
        start = WorkerStart(worker=3, settings=to_plain(several()), supervisor=1, public=[public.dup().detach()])
        ours.sendall(encode(start))
        link = WorkerLink(theirs.detach())
        assert link.config == several()
        (given,) = link.sockets().public
        assert given.getsockname() == public.getsockname()
        given.close()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    told: asyncio.Queue[bool] = asyncio.Queue()
    await link.listen(told.put_nowait)
    link.report(WorkerReport(report="of a newer release"))
    link.report(WorkerReport(report="serving", url="ws://x", port=1))
    assert await receive(reader, WorkerReport) == WorkerReport(report="of a newer release")
    report = await receive(reader, WorkerReport)
    assert report is not None
    assert (report.report, report.url, report.port) == ("serving", "ws://x", 1)
    for order in ("of a newer release", "stop"):
        writer.write(encode(WorkerOrder(order=order, replaced=True)))
    assert await told.get() is True
    assert told.empty()
    writer.close()
    assert await told.get() is False
    link.report(WorkerReport(report="stopping"))  # nobody hears it
    await asyncio.sleep(0)  # both ends close in the next turn


async def test_a_worker_without_a_supervisor_does_not_start() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"\0\0")
    ours.close()
    with pytest.raises(EOFError):
        WorkerLink(theirs.detach())


async def test_what_is_no_message_is_an_error_and_the_end_is_none() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(msgspec.DecodeError):
        await receive(reader, WorkerReport)
    reader.feed_data(b"\0\0\0\1\xc0")
    with pytest.raises(msgspec.DecodeError):
        await receive(reader, WorkerReport)
    reader.feed_data(b"\0\0")
    reader.feed_eof()
    assert await receive(reader, WorkerReport) is None
