"""deploy/cluster: two nodes over a real Redis, behind nginx, HAProxy or Caddy, with the files of the kit."""

from __future__ import annotations

import asyncio
import signal
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aldis.identity.keys import Identity
from aldis.protocol.codes import CloseCode
from support.certificates import make_certificates
from support.cluster_kit import Nodes, Proxy, caddy_before, cluster, haproxy, nginx
from support.kit import tool
from support.patience import PACE, PATIENCE
from support.raw_websocket import TEXT, ConnectionOver, HandshakeRefused, RawClient

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
OFFER = {"type": "offer", "offer": {"type": "offer", "sdp": "v=0"}}
# New connections after a node has gone: more than any proxy gives to one node before it notices.
MANY = 20
EACH = pytest.mark.parametrize("proxy", [nginx, haproxy, caddy_before], ids=["nginx", "haproxy", "caddy"])


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with cluster(tmp_path, make_certificates(tmp_path, host="localhost")) as made:
        yield made


async def person(nodes: Nodes, name: str, identity: Identity | None = None) -> RawClient:
    """A registered client, through the proxy."""
    client = await nodes.connect()
    reply = await client.register(name, identity)
    assert reply.get("success"), reply
    return client


async def come(nodes: Nodes) -> None:
    """A client comes, asks something, and leaves; raises `HandshakeRefused`, or `ConnectionOver` without an answer."""
    async with await nodes.connect() as client:
        client.send({"type": "ping"})
        frame = await client.receive_frame()
        # A server that begins to stop at this very moment says so.
        assert frame.opcode == TEXT or frame.close_code == CloseCode.GOING_AWAY


async def found(client: RawClient, user_id: str) -> bool:
    reply = await client.request({"type": "discover", "userId": user_id, "id": 1})
    return bool(reply["devices"])


@EACH
async def test_clients_are_spread_over_both_nodes_and_find_each_other(nodes: Nodes, proxy: Proxy) -> None:
    async with proxy(nodes), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await person(nodes, name)) for name in NAMES]
        counts = [await nodes.metric(number, "aldis_connections") for number in (0, 1)]
        assert counts == [len(NAMES) / 2] * 2
        for number in (0, 1):
            await nodes.until(number, "aldis_cluster_servers", 2)
        for client in clients:
            assert all([await found(client, name) for name in NAMES])
        # The first two are at different nodes, if connections are counted.
        assert (await clients[0].request({**OFFER, "to": "bob", "id": 2}))["type"] == "ack"
        assert (await clients[1].receive())["from"] == "alice"


@EACH
async def test_after_a_kill_clients_go_on_at_the_other_node_and_no_new_one_is_refused(
    nodes: Nodes, proxy: Proxy
) -> None:
    people = {name: Identity.generate() for name in NAMES}
    async with proxy(nodes), AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(await person(nodes, name, key)) for name, key in people.items()
        }
        nodes.servers[0].signal(signal.SIGKILL)
        await nodes.servers[0].wait()
        lost = []
        for name, client in clients.items():
            try:
                await client.request({"type": "ping"})
            except ConnectionOver:
                lost.append(name)
        assert len(lost) == len(NAMES) / 2
        for name in lost:
            clients[name] = await stack.enter_async_context(await person(nodes, name, people[name]))
        for _ in range(MANY):
            await come(nodes)
        assert await nodes.metric(1, "aldis_users_online") == len(NAMES)
        for client in clients.values():
            assert all([await found(client, name) for name in NAMES])
        # It comes back, and the proxy notices by itself.
        await nodes.start(0)
        await until_used(nodes, 0)


async def until_used(nodes: Nodes, number: int) -> None:
    """Wait until new clients are sent to a node again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with await nodes.connect() as client:
                assert (await client.request({"type": "ping"}))["type"] == "pong"
                if await nodes.metric(number, "aldis_connections"):
                    return


@EACH
async def test_a_rolling_restart_refuses_nobody(nodes: Nodes, proxy: Proxy) -> None:
    """New clients come all the time while each node stops in good order, and starts again."""
    people = {name: Identity.generate() for name in NAMES}
    async with proxy(nodes), AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(await person(nodes, name, key)) for name, key in people.items()
        }

        async def stay(name: str) -> None:
            assert (await clients[name].wait_closed())[0] == CloseCode.GOING_AWAY
            clients[name] = await stack.enter_async_context(await person(nodes, name, people[name]))

        for number in (0, 1):
            async with asyncio.TaskGroup() as tasks:
                coming = tasks.create_task(come_all_the_time(nodes))
                staying = [tasks.create_task(stay(name)) for name in NAMES]
                there = await nodes.metric(number, "aldis_users_online")
                assert await nodes.servers[number].stop() == 0
                # So many clients may keep a small machine from answering Redis in time.
                assert "Traceback" not in nodes.servers[number].log_text()
                await nodes.start(number)
                async with asyncio.timeout(PATIENCE):
                    while await nodes.page(number, "/readyz") != (200, "ready\n"):
                        pass
                await until_used(nodes, number)
                while sum(task.done() for task in staying) < there:  # some are on their way to the other node yet
                    await asyncio.wait([task for task in staying if not task.done()], return_when=FIRST_COMPLETED)
                for task in (coming, *staying):
                    task.cancel()
        for client in clients.values():
            assert all([await found(client, name) for name in NAMES])


async def come_all_the_time(nodes: Nodes) -> None:
    while True:
        await come(nodes)
        await asyncio.sleep(PACE)


@pytest.mark.parametrize("proxy", [haproxy, caddy_before], ids=["haproxy", "caddy"])
async def test_a_proxy_that_asks_readyz_sends_nobody_to_a_node_that_hangs(nodes: Nodes, proxy: Proxy) -> None:
    """It does not answer at /readyz, though the kernel takes connections for it."""
    async with proxy(nodes), AsyncExitStack() as stack:
        nodes.servers[0].signal(signal.SIGSTOP)
        try:
            in_a_row = 0  # of clients that stay, so each second of them would get the node that hangs
            async with asyncio.timeout(PATIENCE):
                while in_a_row < MANY:
                    in_a_row = in_a_row + 1 if await comes_soon(nodes, stack) else 0
        finally:
            nodes.servers[0].signal(signal.SIGCONT)


async def comes_soon(nodes: Nodes, stack: AsyncExitStack) -> bool:
    """Whether a client gets an answer within 2 seconds, or none at all; it stays until the stack ends."""
    try:
        async with asyncio.timeout(2):
            client = await stack.enter_async_context(await nodes.connect())
            assert (await client.request({"type": "ping"}))["type"] == "pong"
    except (TimeoutError, HandshakeRefused):
        return False
    return True


@EACH
async def test_clients_of_a_machine_that_is_lost_get_the_other_node(nodes: Nodes, proxy: Proxy) -> None:
    """Its packets are dropped, and no connection is refused: the proxies wait two seconds for it."""
    table = f"lost{nodes.node_port}"
    rules = f"""table inet {table} {{
        chain input {{
            type filter hook input priority 0;
            ip daddr 127.0.0.11 tcp dport {{ {nodes.node_port}, {nodes.admin_port} }} drop
            ip saddr 127.0.0.11 tcp sport {{ {nodes.node_port}, {nodes.admin_port} }} drop
        }}
    }}"""
    async with proxy(nodes), AsyncExitStack() as stack:
        file = nodes.folder / "lost.nft"
        file.write_text(rules)
        told = tool("nft", "-f", file)
        assert told.returncode == 0, told.stdout
        stack.callback(tool, "nft", "delete", "table", "inet", table)
        clients = [await stack.enter_async_context(await person(nodes, name)) for name in NAMES]
        for client in clients:
            assert (await client.request({"type": "ping"}))["type"] == "pong"
