"""A cluster with all that is around it: servers, a Redis (alone, behind a Sentinel, or a Cluster), and an nginx.

Each server reaches Redis through gates of its own (`benchmarks.cluster.gate`). Everything is on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from aldis.client.client import SignalingClient
from aldis.errors import AldisError
from aldis.identity.keys import Identity
from benchmarks.cluster.gate import Gate

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.cluster_servers import operator
from support.nginx import HOST, PASS, nginx_with
from support.ports import free_port
from support.raw_websocket import http_get
from support.redis_server import Cluster as RedisCluster
from support.redis_server import RedisServer, Sentinels
from support.server_process import ServerProcess

NODES: Final = 3
# Synced once a second, as an operator would have it: no name is new while anything fails.
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "everysec")


class Login(NamedTuple):
    """A user of Redis, and its rules in an ACL."""

    user: str
    password: str
    rules: tuple[str, ...]


# As docs/cluster.md tells an operator to have it; in a Cluster with `+cluster`.
LOGIN: Final = Login(
    "aldis",
    "secret",
    (
        *("on", ">secret", "~aldis:*", "&aldis:*"),
        *("+@read", "+@write", "+@scripting", "+@connection", "+@pubsub", "+time", "-@dangerous"),
        *("+info", "+config|get", "+cluster"),
    ),
)
# Milliseconds until the Sentinel replaces a silent master: as for all results so far.
_DOWN_AFTER: Final = 300
_SETTINGS: Final = (*DURABLE, "--user", LOGIN.user, *LOGIN.rules)
_WITH: Final = f"{LOGIN.user}:{LOGIN.password}@"
# The time-outs of deploy/nginx.
_TIMES: Final = "proxy_read_timeout 90s; proxy_send_timeout 90s; proxy_connect_timeout 2s; proxy_buffering off;"
# A connection of a client is two of nginx.
_CONNECTIONS: Final = 16_384
_PROBE_SECONDS: Final = 3.0
# For a server that does not start without Redis, and between two attempts: `Restart=` and `RestartSec=` of the kit.
_START_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 1.0
# By what `aldis top` shows.
_METRICS: Final = {
    "users": "aldis_users_online",
    "connections": "aldis_connections",
    "detached": "aldis_detached_sessions",
}


@dataclass
class Node:
    """A server: the same ports and settings each time that it is started."""

    name: str
    folder: Path
    front: int  # the port of nginx, by which clients know the server
    redis: str
    gates: list[Gate]
    workers: int = 1
    port: int = field(default_factory=free_port)
    admin: int = 0  # of worker 0; that of each other one is one more
    runs: list[ServerProcess] = field(default_factory=list)
    source: Path | None = None  # the folder of another build's packages
    identity: Identity = field(default_factory=Identity.generate)

    def __post_init__(self) -> None:
        ports = [free_port()]
        while len(ports) < self.workers:
            port = free_port()
            ports = [*ports, port] if port == ports[-1] + 1 else [port]
        self.admin = ports[0]

    @property
    def server(self) -> ServerProcess:
        """The process that runs now, or ran last."""
        return self.runs[-1]

    def workers_now(self) -> dict[int, int]:
        """The process of each worker; none for a server of one process."""
        lines = self.server.lines()
        return {line["worker"]: line["pid"] for line in lines if line["event"] == "a worker serves"}

    def signal(self, number: signal.Signals) -> None:
        """Send it to all processes of the server."""
        self.server.signal(number)
        for pid in self.workers_now().values():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def start(self) -> None:
        """Start it, and return when it serves. Without Redis it ends, and is started again, as systemd does it."""
        last = time.monotonic() + _START_SECONDS
        while True:
            server = self._made()
            self.runs.append(server)
            try:
                await server.start()
                if self.workers > 1:
                    await server.wait_for_line("all workers serve")
            except TimeoutError:
                raise AssertionError(f"{self.name} does not start:\n{server.log_text()}") from None
            except AssertionError:  # it has ended
                if time.monotonic() > last:
                    raise
                self.runs.pop()
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def _made(self) -> ServerProcess:
        return ServerProcess(
            self.folder,
            port=self.port,
            admin_port=self.admin,
            redis=self.redis,
            names=[f"127.0.0.1:{self.front}", f"127.0.0.1:{self.port}"],
            new_names_per_address=0,
            log_level="info",
            own_program=True,
            workers=self.workers,
            environ={} if self.source is None else {"PYTHONPATH": str(self.source)},
        )

    async def metric(self, name: str, worker: int = 0) -> float | None:
        """A metric of a worker; None when there is none."""
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        try:
            _, _, body = await http_get(self.admin + worker, request)
        except OSError:
            return None
        lines = (line.split() for line in body.decode().splitlines() if line.startswith(f"{name} "))
        return next((float(value) for _, value in lines), None)

    async def statistics(self) -> dict[str, Any] | None:
        """What `aldis top` shows of all servers; None when it does not answer."""
        try:
            return await self.operator("GET", "/api/v1/statistics")
        except (OSError, AssertionError):
            return None

    async def operator(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request to its admin API."""
        return await operator(self.server, method, path, body)

    async def online(self, names: list[str]) -> dict[str, bool]:
        """Who is online, asked by a client of this server. Raises `AldisError`."""
        url = f"ws://127.0.0.1:{self.port}"
        async with SignalingClient(url, f"probe-{self.name}", request_timeout=_PROBE_SECONDS) as probe:
            await probe.register(self.identity)
            found = await asyncio.gather(*(probe.discover(name) for name in names))
        return {each.user_id: each.online for each in found}

    async def cut_clients(self) -> None:
        """Cut all connections to clients, as a network does that forgets them."""
        command = ("ss", "--kill", "--no-header", "dst", "127.0.0.1", "dport", "=", str(self.port))
        killing = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
        assert await killing.wait() == 0, "ss cannot cut connections"

    async def wrong(self, truth: dict[str, bool], users: int | None) -> list[str]:
        """What it says of users that is not so, of their number in all (None: nobody knows it), and of itself."""
        wrong = []
        told = await self.statistics()
        if told is None or told["silentNodes"]:
            wrong.append(f"{self.name} does not hear of all servers")
        elif users is not None and told["users"] != users:
            wrong.append(f"{self.name} tells its operator of {told['users']} users, and there are {users}")
        for worker in range(self.workers):
            if await self.metric("aldis_cluster_up", worker) != 1:
                wrong.append(f"{self.name}: aldis_cluster_up of worker {worker} is not 1")
            if await self.metric("aldis_cluster_servers", worker) != NODES * self.workers:
                wrong.append(f"{self.name}, worker {worker}, does not count {NODES * self.workers} servers")
        try:
            said = await self.online(list(truth))
        except AldisError as error:
            return [*wrong, f"{self.name} does not answer: {error}"]
        return wrong + [
            f"{self.name} says that {name} is {'online' if said[name] else 'offline'}, and it is not"
            for name, online in truth.items()
            if said[name] is not online
        ]

    def problems(self) -> list[str]:
        """What is wrong in the logs of all its runs."""
        found = []
        for number, run in enumerate(self.runs, 1):
            traced = [line for line in run.lines() if "exception" in line]
            if traced:
                found.append(f"{self.name}, run {number}, has logged an exception: {json.dumps(traced[0])}")
            strange = [line for line in run.log_text().splitlines() if not line.startswith("{")]
            if strange:
                found.append(f"{self.name}, run {number}, has said: {' / '.join(strange[:20])}")
        return found


class World:
    """All of it, for the length of an `async with`."""

    def __init__(
        self,
        folder: Path,
        *,
        sentinel: bool = False,
        cluster: bool = False,
        workers: int = 1,
        source: Path | None = None,
    ) -> None:
        """`workers` of each server. `source`: all servers begin with another build."""
        self.workers = workers
        self._folder = folder
        self._source = source
        self._sentinel, self._cluster = sentinel, cluster
        self._stack = AsyncExitStack()
        self.front = free_port()
        self.nodes: list[Node] = []
        self.redis: RedisServer
        self.sentinels: Sentinels | None = None
        self.cluster: RedisCluster | None = None

    @property
    def url(self) -> str:
        """What clients dial."""
        return f"ws://127.0.0.1:{self.front}"

    async def __aenter__(self) -> World:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        folder = self._folder
        if self._sentinel:
            sentinels = Sentinels(folder / "redis", *_SETTINGS, down_after=_DOWN_AFTER)
            self.sentinels = stack.enter_context(sentinels)
            self.redis = sentinels.master
            async with asyncio.timeout(30):
                while not sentinels.has_replica():  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.2)
        elif self._cluster:
            self.cluster = stack.enter_context(RedisCluster(folder / "redis", *_SETTINGS, replicas=True))
            await asyncio.to_thread(self.cluster.until_whole)
        else:
            self.redis = stack.enter_context(RedisServer(folder / "redis", *_SETTINGS))
        for number in range(NODES):
            node = await self._node(stack, f"node{number + 1}")
            self.nodes.append(node)
            stack.push_async_callback(_end, node)
            await node.start()
        # With `max_fails`, nginx lets one connection in ten seconds to a server that has failed, until that one ends.
        servers = " ".join(f"server 127.0.0.1:{node.port} max_fails=0;" for node in self.nodes)
        site = f"""
            upstream aldis {{ least_conn; {servers} }}
            server {{
                listen 127.0.0.1:{self.front};
                location / {{ {PASS} {HOST} {_TIMES} proxy_pass http://aldis; }}
            }}"""
        (folder / "nginx").mkdir()
        await stack.enter_async_context(nginx_with(folder / "nginx", site, _CONNECTIONS))

    async def _node(self, stack: AsyncExitStack, name: str) -> Node:
        servers = self.redis_servers
        gates = [Gate(free_port(), server.port) for server in servers]
        ports = [(f"{server.port}", f"{gate.port}") for server, gate in zip(servers, gates, strict=True)]
        if self.sentinels is not None:
            where, _, service = self.sentinels.url.rpartition("/")
            told = {old.encode(): new.encode() for old, new in ports}
            gates.append(Gate(free_port(), int(where.rpartition(":")[2]), told))
            url = f"redis+sentinel://{_WITH}127.0.0.1:{gates[-1].port}/{service}"
        elif self.cluster is not None:
            # In the answer to CLUSTER SLOTS, and in MOVED.
            told = {f"127.0.0.1{before}:{old}".encode(): f"127.0.0.1{before}:{new}".encode()
                    for old, new in ports for before in ("\r\n", "")}  # fmt: skip
            for gate in gates:
                gate.rewrites = told
            url = f"redis+cluster://{_WITH}127.0.0.1:{gates[0].port},127.0.0.1:{gates[1].port}"
        else:
            url = f"redis://{_WITH}127.0.0.1:{gates[0].port}"
        for gate in gates:
            await gate.open()
            stack.push_async_callback(gate.close)
        return Node(name, self._folder / name, self.front, url, gates, self.workers, source=self._source)

    async def wrong_at_nodes(self, truth: dict[str, bool], users: int | None) -> list[str]:
        """What the servers say of users that is not so, of their number, and of themselves."""
        # One after the other: each asks as a user of its own, who counts for the others.
        return [problem for node in self.nodes for problem in await node.wrong(truth, users)]

    async def wrong_figures(self, clients: int) -> list[str]:
        """What metrics and `aldis top` say that is not so, while all clients are connected, and nobody else."""
        true = {"users": clients, "connections": clients, "detached": 0}
        found: dict[str, dict[str, float]] = {"the metrics of all": dict.fromkeys(true, 0.0)}
        for node in self.nodes:
            told = await node.statistics() or {}
            found[f"aldis top at {node.name}"] = {name: told.get(name, -1) for name in true}
            for worker in range(self.workers):
                for name, metric in _METRICS.items():
                    found["the metrics of all"][name] += await node.metric(metric, worker) or 0
        return [f"{where} say {said}, and it is {true}" for where, said in found.items() if said != true]

    def redis_logs(self) -> dict[str, bytes]:
        """What Redis and the Sentinel have logged."""
        return {f"redis-{path.parent.name}": path.read_bytes() for path in self._folder.glob("redis/**/log")}

    @property
    def redis_servers(self) -> list[RedisServer]:
        """All that run, replicas too."""
        if self.sentinels is not None:
            return [self.sentinels.master, self.sentinels.replica]
        return [self.redis] if self.cluster is None else list(self.cluster.servers)

    def masters(self) -> list[RedisServer]:
        """Those to which the servers write."""
        if self.cluster is not None:
            return self.cluster.masters()
        return [self.redis if self.sentinels is None else self.new_master()]

    def new_master(self) -> RedisServer:
        """The master that the Sentinel names."""
        assert self.sentinels is not None
        port = self.sentinels.masters_port()
        return next(each for each in (self.sentinels.master, self.sentinels.replica) if each.port == port)


async def _end(node: Node) -> None:
    """End it the hard way, if it runs."""
    await node.server.__aexit__(None, None, None)
