"""A cluster as deploy/cluster sets it up, on loopback: 10.0.0.11 of the kit is 127.0.0.11 here, and so on.

    async with cluster(folder, tls) as nodes, NGINX(nodes): ...

Redis, nodes and proxies run with the files of the kit. What differs are addresses, ports, paths and passwords.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from support.caddy import caddy
from support.certificates import Certificates
from support.kit import DEPLOY, program, running, tool, written
from support.nginx import nginx_with
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, read_reply
from support.redis_server import RedisServer
from support.server_process import ServerProcess

PASSWORD = "0123456789abcdef" * 4
ADDRESSES = ("127.0.0.11", "127.0.0.12")
HERE = {"10.0.0.": "127.0.0."}


def acl(*names: str, password: str = PASSWORD) -> str:
    """ACL files of the kit with the hash of a password."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return "".join(written(f"cluster/{name}", {"PASSWORD_SHA256": digest}) for name in names)


class KitRedis(RedisServer):
    """A Redis with redis.conf and users.acl of the kit; `more` are lines behind them."""

    def __init__(self, folder: Path, *settings: str, users: tuple[str, ...] = ("users.acl",), more: str = "") -> None:
        super().__init__(folder, *settings)
        (folder / "users.acl").write_text(acl(*users))
        changes = {"/etc/redis/users.acl": f"{folder}/users.acl", "bind 127.0.0.1 10.0.0.5": "bind 127.0.0.1"}
        (folder / "redis.conf").write_text(written("cluster/redis.conf", changes) + more)

    def _file(self) -> tuple[str, ...]:
        return (str(self.folder / "redis.conf"),)

    def ask(self, *words: str, user: str = "aldis", password: str = PASSWORD) -> str:
        """What a user of it is told."""
        command = ("-p", str(self.port), "--user", user, *words)
        return tool("redis-cli", *command, env={**os.environ, "REDISCLI_AUTH": password}).stdout.strip()


@dataclass
class Nodes:
    """Two servers, the port of the proxy before them, and what the proxy needs to know."""

    folder: Path
    tls: Certificates
    port: int
    node_port: int
    admin_port: int
    redis: KitRedis
    servers: list[ServerProcess]
    stack: AsyncExitStack

    @property
    def changes(self) -> dict[str, str]:
        """What differs from the kit's files in each of a proxy."""
        return {"10.0.0.11:8080": f"127.0.0.11:{self.node_port}", "10.0.0.12:8080": f"127.0.0.12:{self.node_port}"}

    async def connect(self) -> RawClient:
        """A client that dials the proxy; raises `HandshakeRefused`."""
        return await RawClient.connect(
            self.port, host=f"localhost:{self.port}", context=self.tls.client_context(), server_hostname="localhost"
        )

    async def start(self, number: int) -> None:
        """Start a node, or start it again after it has ended."""
        if self.servers[number].port:
            self.servers[number] = ServerProcess(self.folder / str(number), **self.servers[number].settings)
        await self.stack.enter_async_context(self.servers[number])

    async def page(self, number: int, path: str) -> tuple[int, str]:
        """Status and text of a page of a node's admin port."""
        reader, writer = await asyncio.open_connection(ADDRESSES[number], self.admin_port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            status, _, body = await read_reply(reader)
        finally:
            writer.close()
        return status, body.decode()

    async def metric(self, number: int, name: str) -> float:
        """The value of a metric without labels at a node."""
        _, text = await self.page(number, "/metrics")
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    async def until(self, number: int, name: str, value: float) -> None:
        """Wait until a metric of a node has this value."""
        async with asyncio.timeout(PATIENCE):
            while await self.metric(number, name) != value:
                pass


@asynccontextmanager
async def cluster(folder: Path, tls: Certificates) -> AsyncIterator[Nodes]:
    """Redis and two nodes."""
    port, node_port, admin_port = free_port(), free_port(), free_port()
    (folder / "password").write_text(f"{PASSWORD}\n")
    with KitRedis(folder / "redis") as redis:
        servers = []
        for number, address in enumerate(ADDRESSES):
            file = folder / f"aldis-{number}.toml"
            changes = {
                'host = "10.0.0.11"': f'host = "{address}"',
                'trusted_proxies = ["10.0.0.11", "10.0.0.12"]': 'trusted_proxies = ["127.0.0.1"]',
                "10.0.0.5:6379/0": f"127.0.0.1:{redis.port}/0",
                "/etc/aldis/redis-password": f"{folder}/password",
                "signal.example.com": "localhost",
                'names = ["localhost"]': f'names = ["localhost:{port}"]',
            }
            file.write_text(written("cluster/aldis.toml", changes))
            ports = {"port": node_port, "admin_port": admin_port, "stun_port": 0}
            servers.append(ServerProcess(folder / str(number), config=str(file), **ports))
        async with AsyncExitStack() as stack:
            nodes = Nodes(folder, tls, port, node_port, admin_port, redis, servers, stack)
            await asyncio.gather(*map(nodes.start, range(len(servers))))
            yield nodes


def nginx(nodes: Nodes) -> AbstractAsyncContextManager[None]:
    """nginx.conf and upstream.conf of the kit."""
    site = {
        "    listen [::]:443 ssl;\n": "",
        "    listen [::]:80;\n": "",
        "listen 443 ssl": f"listen 127.0.0.1:{nodes.port} ssl",
        "listen 80": f"listen 127.0.0.1:{free_port()}",
        "/etc/aldis/tls/fullchain.pem": str(nodes.tls.cert),
        "/etc/aldis/tls/privkey.pem": str(nodes.tls.key),
        "signal.example.com": "localhost",
    }
    upstream = written("cluster/upstream.conf", nodes.changes)
    return nginx_with(nodes.folder, upstream + written("cluster/nginx.conf", site))


@asynccontextmanager
async def haproxy(nodes: Nodes) -> AsyncIterator[None]:
    """haproxy.cfg of the kit."""
    pem = nodes.folder / "haproxy.pem"
    pem.write_bytes(nodes.tls.cert.read_bytes() + nodes.tls.key.read_bytes())
    changes = {
        **nodes.changes,
        "port 9080": f"port {nodes.admin_port}",
        "bind :443": f"bind 127.0.0.1:{nodes.port}",
        "bind :80": f"bind 127.0.0.1:{free_port()}",
        "/etc/aldis/tls/haproxy.pem": str(pem),
        # The machine of a test may have neither the user, nor the log, nor so many descriptors.
        "    user haproxy\n    group haproxy\n": "",
        "    log /dev/log local0\n": "",
        "    log global\n": "",
        "maxconn 40000": "maxconn 200",
    }
    file = nodes.folder / "haproxy.cfg"
    file.write_text(written("cluster/haproxy.cfg", changes))
    async with running(program("haproxy"), "-W", "-db", "-f", file, says=b"Loading success"):
        yield


def caddy_before(nodes: Nodes) -> AbstractAsyncContextManager[None]:
    """Caddyfile of the kit."""
    site = f"https://localhost:{nodes.port} {{\n\tbind 127.0.0.1\n\ttls {nodes.tls.cert} {nodes.tls.key}\n"
    ports = {"signal.example.com {\n": site, "health_port 9080": f"health_port {nodes.admin_port}"}
    return caddy(nodes.folder, written("cluster/Caddyfile", {**nodes.changes, **ports}))


Proxy: TypeAlias = Callable[[Nodes], AbstractAsyncContextManager[None]]
KIT = DEPLOY / "cluster"
