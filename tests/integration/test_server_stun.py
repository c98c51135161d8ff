"""The STUN port of a real server: when it is open, what it answers, and from where."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest

from aldis.cli.check_config import check
from aldis.errors import ConfigError
from aldis.peer.selftest import ask_stun
from aldis.protocol.stun import BINDING_REQUEST, read_message, write_message
from aldis.server.app import SignalingServer
from aldis.server.config import STUN_PORT, ServerConfig
from aldis.server.stun import BURST_SECONDS
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.settings import config

REQUEST = write_message(BINDING_REQUEST, bytes(range(12)))
BURST = ServerConfig().stun_per_address * BURST_SECONDS


async def answer_from(address: str, port: int, data: bytes = REQUEST) -> bytes:
    """What an address answers to a client that takes answers of this address alone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, (address, port))
        await loop.sock_sendall(client, data)
        async with asyncio.timeout(PATIENCE):
            return await loop.sock_recv(client, 2048)


async def scrape(server: SignalingServer) -> bytes:
    """Its metrics."""
    request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    return (await http_get(server.admin_port or 0, request))[2]


async def test_clients_are_told_of_it_and_it_answers_them() -> None:
    async with SignalingServer(config(host="0.0.0.0", stun_port=free_port())) as server:
        async with await RawClient.connect(server.port, address="10.77.0.1") as client:
            await client.register("alice")
            told = await client.request({"type": "ice-servers"})
        assert told["iceServers"] == [{"urls": [f"stun:10.77.0.1:{server.stun.port}"]}]
        assert (await ask_stun("10.77.0.1", server.stun.port, PATIENCE)).startswith("10.77.0.1:")


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2", "10.77.0.1"]),
        ("::", ["127.0.0.1", "127.0.0.2", "10.77.0.1", "::1"]),
    ],
)
async def test_an_answer_comes_from_the_address_that_was_asked(host: str, addresses: list[str]) -> None:
    async with SignalingServer(config(host=host, stun_port=free_port())) as server:
        for address in addresses:
            answer = read_message(await answer_from(address, server.stun.port))
            assert answer is not None
            assert answer.transaction == bytes(range(12))


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0", "stun_port": 0},
        {"host": "0.0.0.0", "stun_port": STUN_PORT, "stun": ("stun:other.example",)},
        {"host": "127.0.0.1", "stun_port": STUN_PORT},
        {"host": "localhost", "stun_port": STUN_PORT},
        {"host": "::1", "stun_port": STUN_PORT},
    ],
    ids=str,
)
async def test_it_is_closed_where_nobody_would_ask(settings: dict[str, object]) -> None:
    async with SignalingServer(config(**settings, admin_port=0)) as server:
        assert server.stun.port == 0
        metrics = await scrape(server)
        assert b"aldis_stun_up" not in metrics


async def test_behind_a_proxy_on_the_same_machine_it_is_open_for_those_who_are_told_of_it() -> None:
    settings = config(stun_port=free_port(), stun_address="10.77.0.1")
    async with SignalingServer(settings) as server:
        assert (await ask_stun("10.77.0.1", server.stun.port, PATIENCE)).startswith("10.77.0.1:")
        async with await RawClient.connect(server.port) as client:
            await client.register("alice")
            told = await client.request({"type": "ice-servers"})
            assert told["iceServers"] == [{"urls": [f"stun:10.77.0.1:{server.stun.port}"]}]


async def test_it_counts_what_it_answers_and_limits_what_one_address_gets() -> None:
    settings = config(host="0.0.0.0", stun_port=free_port(), admin_port=0)
    async with SignalingServer(settings) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(REQUEST + b"more", ("127.0.0.1", server.stun.port))
        for _ in range(BURST):
            await answer_from("127.0.0.1", server.stun.port)
        assert server.stun.answers.outcomes["ignored"] == 1
        assert server.stun.answers.outcomes["answered"] == BURST
        server.reload(replace(settings, stun_per_second=1))
        metrics = await scrape(server)
        for line in (
            b"aldis_stun_up 1.0",
            f'aldis_stun_requests_total{{outcome="answered"}} {BURST}.0'.encode(),
            b'aldis_limit{setting="stun_per_second"} 1.0',
        ):
            assert line in metrics


async def test_a_taken_port_is_an_error_if_it_was_chosen_and_a_warning_otherwise(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"stun_port: .* is in use by another program"):
            await SignalingServer(config(host="0.0.0.0", stun_port=port)).start()
        other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        other.bind(("0.0.0.0", STUN_PORT))
        async with SignalingServer(config(host="0.0.0.0", stun_port=STUN_PORT, admin_port=0)) as server:
            assert server.stun.port == 0
            metrics = await scrape(server)
            assert b"aldis_stun_up 0.0" in metrics
            words = {"host": "0.0.0.0", "data": ":memory:", "admin_port": "none", "port": server.port}
            (found,) = [finding for finding in check(dict(words), None) if finding.text.startswith("stun_port: ")]
            assert (found.mark, "(UDP) is in use" in found.text) == ("note", True)
        (found,) = [each for each in check({**words, "stun_port": port}, None) if each.text.startswith("stun_port: ")]
        assert found.mark == "wrong"
    (found,) = [each for each in check({**words, "stun_port": port}, None) if each.text.startswith("stun_port: ")]
    assert found.mark == "ok"
