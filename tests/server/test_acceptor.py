"""Connections of the ports beside the public one: in what portions they are accepted."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aldis.server import acceptor
from aldis.server.acceptor import Acceptor
from support.patience import PATIENCE


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as made:
        yield made


class Made(asyncio.Protocol):
    """The protocol of all connections, which it counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.transports: list[asyncio.BaseTransport] = []

    def __call__(self) -> asyncio.Protocol:
        self.asked += 1
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.append(transport)

    async def all(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.transports) < number:  # noqa: ASYNC110 - each turn of the loop is looked at
                await asyncio.sleep(0)


def fault(error: Exception) -> None:
    raise error


async def test_one_connection_of_a_crowd_is_accepted_in_each_turn_of_the_loop(listening: socket.socket) -> None:
    made = Made()
    accepting = Acceptor(made, fault)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        accepting.add(listening)
        before = 0
        async with asyncio.timeout(PATIENCE):
            while before < 8:
                await asyncio.sleep(0)
                assert made.asked - before <= 1
                before = made.asked
        await made.all(8)
        accepting.close()
        for transport in made.transports:
            transport.close()


async def test_nothing_is_accepted_after_its_end_and_connections_stay(listening: socket.socket) -> None:
    made, address = Made(), listening.getsockname()
    accepting = Acceptor(made, fault)
    accepting.add(listening)
    assert accepting.port == address[1]
    with socket.create_connection(address):
        await made.all(1)
        accepting.close()
        assert accepting.port is None
        assert not made.transports[0].is_closing()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        made.transports[0].close()


async def test_it_goes_on_when_there_were_too_many_files(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "ACCEPT_AGAIN", 0.01)
    made, failures = Made(), [OSError(errno.EMFILE, "too many")] * 3

    class Full(socket.socket):
        def accept(self) -> Any:
            if failures:
                raise failures.pop()
            return super().accept()

    accepting = Acceptor(made, fault)
    accepting.add(Full(fileno=listening.detach()))
    with socket.create_connection(("127.0.0.1", accepting.port or 0)):
        await made.all(1)
    accepting.close()
    made.transports[0].close()
