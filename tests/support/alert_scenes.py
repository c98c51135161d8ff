"""What is done to a real `aldis serve`, so that a real Prometheus fires the alerts of the kit.

Each scene has servers of its own and names the alerts that it provokes. They need the addresses of tools/netns.sh.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aldis.backends.sqlite_file import FILE_NAME
from aldis.identity.keys import Identity
from support.certificates import make_certificates
from support.commands import aldis
from support.coturn import RELAY_ADDRESS, Coturn
from support.ports import free_port
from support.prometheus import Prometheus
from support.raw_websocket import TEXT, HandshakeRefused, RawClient, encode_frame, http_get
from support.redis_server import RedisServer
from support.server_process import Process, ServerProcess
from support.settings import UNLIMITED

# Alerts that no scene provokes, and why.
SHOWN_BY_SERIES_ALONE: Final = {
    "AldisFaults": "it tells of a bug, and none is known",
    "AldisBusy": "a core has to be busy for the five minutes that the rule looks at",
    "AldisMemoryHigh": "it tells of memory that the server does not count, which is a bug",
    "AldisRelaySlow": "the machine has to be too slow for minutes",
}


class AldisServe(ServerProcess):
    """The command itself, with its settings in variables."""

    async def _spawn(self) -> Process:
        given = {
            f"ALDIS_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in self.settings.items()
        }
        return await aldis_serve({**os.environ, **given})


async def aldis_serve(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aldis", "serve"), stderr=asyncio.subprocess.PIPE, env=environment
    )


class Stage:
    """What a scene has: servers that are watched, and clients that are there until it ends."""

    def __init__(self, prometheus: Prometheus, folder: Path, name: str, stack: AsyncExitStack) -> None:
        self.prometheus = prometheus
        self.folder = folder
        self.name = name
        self.stack = stack

    async def serve(self, instance: str = "", *, watched: bool = True, **settings: Any) -> AldisServe:
        """A server of this scene; `watched`: return when Prometheus has read its metrics."""
        instance = instance or self.name
        folder = self.folder / instance
        folder.mkdir(exist_ok=True)
        server = AldisServe(folder, **{"admin_port": 0, "stun_port": 0, "log_level": "warning,server=info", **settings})
        await self.stack.enter_async_context(server)
        if watched:
            await self.watch(server, instance)
        return server

    async def watch(self, server: ServerProcess, instance: str = "") -> None:
        instance = instance or self.name
        self.prometheus.watch(instance, server.admin_port, self.name)
        self.stack.callback(self.prometheus.forget, instance)
        await self.prometheus.until_seen(instance)

    async def client(self, server: ServerProcess, user: str = "", **more: Any) -> RawClient:
        """A connection that stays, registered under this name if there is one."""
        client = await RawClient.connect(server.port, **more)
        self.stack.callback(client.vanish)
        if user:
            reply = await client.register(user)
            assert reply["type"] == "registered", reply
        return client

    async def fires(self, alert: str, instance: str = "") -> None:
        await self.prometheus.until_has_fired(alert, instance or self.name)

    async def operate(self, server: ServerProcess, *words: str) -> None:
        environment = {
            "ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}",
            "ALDIS_DATA": str(server.settings["data"]),
        }
        await asyncio.to_thread(aldis, "admin", *words, home=self.folder, extra=environment)


@dataclass(frozen=True)
class Scene:
    """`play` raises when one of the alerts does not fire."""

    name: str
    alerts: tuple[str, ...]
    play: Callable[[Stage], Awaitable[None]]


SCENES: Final[dict[str, Scene]] = {}


def scene(*alerts: str) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[Stage], Awaitable[None]]]:
    """A function that plays a scene; at its end these alerts have to fire, unless it waited for them itself."""

    def add(play: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
        name = play.__name__.replace("_", "-")
        SCENES[name] = Scene(name, tuple(f"Aldis{alert}" for alert in alerts), play)
        return play

    return add


@asynccontextmanager
async def staged(prometheus: Prometheus, folder: Path, name: str) -> AsyncIterator[Stage]:
    """The stage of one scene; all that it has started ends with it."""
    folder = folder / name
    folder.mkdir()
    async with AsyncExitStack() as stack:
        yield Stage(prometheus, folder, name, stack)


def datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def frame(message: dict[str, Any]) -> bytes:
    return encode_frame(TEXT, json.dumps(message).encode())


# --- the process ------------------------------------------------------------------------------------------------------


@scene("Down")
async def down(stage: Stage) -> None:
    server = await stage.serve()
    server.signal(signal.SIGKILL)
    await server.wait()


@scene("Restarting")
async def restarting(stage: Stage) -> None:
    port = free_port()
    for number in range(4):
        server = await stage.serve(admin_port=port)
        if number < 3:
            await server.stop()


@scene("DescriptorsNearLimit")
async def descriptors(stage: Stage) -> None:
    server = await stage.serve()
    used = len(os.listdir(f"/proc/{server.pid}/fd"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    for _ in range(18):
        await stage.client(server)


# --- the directory ----------------------------------------------------------------------------------------------------


async def try_to_register(server: ServerProcess, name: str) -> str:
    async with await RawClient.connect(server.port) as client:
        reply = await client.register(name)
        return str(reply.get("code", reply["type"]))


@scene("DirectoryFailing")
async def directory_cannot_be_written(stage: Stage) -> None:
    """Another program holds a lock on the database, as a person at a prompt of SQLite may."""
    server = await stage.serve(**UNLIMITED)
    with closing(sqlite3.connect(Path(server.settings["data"]) / FILE_NAME, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert await try_to_register(server, "alice") != "registered"
        database.execute("ROLLBACK")


@scene("DirectorySlow")
async def directory_slow(stage: Stage) -> None:
    """Another program holds it for half a second, again and again."""
    server = await stage.serve(**UNLIMITED)
    with closing(sqlite3.connect(Path(server.settings["data"]) / FILE_NAME, isolation_level=None)) as database:
        for number in range(3):
            database.execute("BEGIN EXCLUSIVE")
            trying = asyncio.create_task(try_to_register(server, f"user{number}"))
            answered, _ = await asyncio.wait({trying}, timeout=0.6)
            assert not answered
            database.execute("ROLLBACK")
            assert await trying == "registered"


# --- connections ------------------------------------------------------------------------------------------------------


@scene("RefusingConnections", "ConnectionsNearLimit")
async def full(stage: Stage) -> None:
    server = await stage.serve(max_connections=10)
    refused = 0
    for _ in range(15):
        try:
            await stage.client(server)
        except HandshakeRefused as error:
            refused += error.status == 503
    assert refused == 5


@scene("WrongHost")
async def wrong_host(stage: Stage) -> None:
    server = await stage.serve(names="a.example")
    for _ in range(30):
        status, _, _ = await http_get(server.port, b"GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n")
        assert status == 421


@scene("HandshakesNearLimit", "SilentConnections")
async def silent(stage: Stage) -> None:
    server = await stage.serve(handshakes=10)
    for _ in range(1200):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        stage.stack.callback(writer.close)


async def dial(server: ServerProcess, times: int) -> None:
    """Connect from an address that is not loopback, which has limits."""
    for _ in range(times):
        with suppress(HandshakeRefused, ConnectionError, asyncio.IncompleteReadError):
            await RawClient.connect(server.port, address=RELAY_ADDRESS)


@scene("AddressesRefused")
async def one_address(stage: Stage) -> None:
    server = await stage.serve(host="0.0.0.0", connections_per_address=1)
    await stage.client(server, address=RELAY_ADDRESS)
    await dial(server, 600)


@scene("ConnectRateReached")
async def connect_rate(stage: Stage) -> None:
    server = await stage.serve(host="0.0.0.0", connects_per_second=1)
    await dial(server, 40)


@scene("DeadConnections")
async def dead(stage: Stage) -> None:
    """Clients that answer no ping."""
    server = await stage.serve(ping_interval=1, **UNLIMITED)
    for number in range(40):
        await stage.client(server, f"user{number}")


@scene("SlowConsumers")
async def slow_consumers(stage: Stage) -> None:
    """Clients that ask and do not read the answers."""
    server = await stage.serve(resume_window=0, **UNLIMITED)
    ping = frame({"type": "ping", "id": "\U0001f526" * 64}) * 100
    for number in range(25):
        taken = socket.create_connection(("127.0.0.1", server.port))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await asyncio.open_connection(sock=taken, limit=1024)
        slow = RawClient(reader, writer, f"127.0.0.1:{server.port}")
        stage.stack.callback(slow.vanish)
        await slow.shake_hands("/", "aldis.v1", {})
        await slow.register(f"slow{number}")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        slow.send_bytes(ping * 200)


# --- limits -----------------------------------------------------------------------------------------------------------


@scene("ManyThrottled", "ConnectionsWaiting")
async def throttled(stage: Stage) -> None:
    """Prometheus begins to look when the clients send already: the rule asks that they wait all the time."""
    server = await stage.serve(watched=False, messages_per_second=50, connections_per_address=1000)
    ping = frame({"type": "ping"})
    for number in range(80):
        client = await stage.client(server, f"user{number}")
        client.send_bytes(ping * 20_000)
    await stage.watch(server)


@scene("RegistrationsRefused")
async def registrations_refused(stage: Stage) -> None:
    server = await stage.serve(**UNLIMITED, failed_proofs_per_address=1_000_000, failed_proofs_per_name=1_000_000)
    await stage.client(server, "alice")
    for _ in range(70):
        assert await try_to_register(server, "alice") == "key-mismatch"


@scene("LimitMet")
async def limit_met(stage: Stage) -> None:
    server = await stage.serve(**{**UNLIMITED, "user_discovers_per_second": 1})
    for number in range(10):
        client = await stage.client(server, f"user{number}")
        client.send_bytes(frame({"type": "discover", "userId": "nobody", "id": 1}) * 300)


@scene("RelayLimitMet")
async def relay_limit_met(stage: Stage) -> None:
    server = await stage.serve(**{**UNLIMITED, "pair_sealed_bytes_per_second": 1024})
    await stage.client(server, "bob")
    message = frame({"type": "relay", "to": "bob", "sealed": "AAAA", "id": 1})
    for number in range(40):
        client = await stage.client(server, f"user{number}")
        client.send_bytes(message * 900)


@scene("LostClientsGivenUp", "DetachedMemoryNearLimit")
async def lost_clients(stage: Stage) -> None:
    server = await stage.serve(detached_bytes=64 * 1024, **UNLIMITED)
    alice = await stage.client(server, "alice")
    names = [f"user{number}" for number in range(80)]
    for name in names:
        (await stage.client(server, name)).vanish()
    for name in names:
        await alice.request({"type": "relay", "to": name, "sealed": "A" * 2000, "id": 1})


@scene("MemoryBudgetNearLimit", "ClientsGivenUp")
async def memory_budget(stage: Stage) -> None:
    """Clients that confirm nothing of what is sent to them, until the budget is used up."""
    server = await stage.serve(memory_budget=1_500_000, **UNLIMITED)
    flood = await stage.client(server, "flood")
    for number in range(8):
        reader = await stage.client(server, f"user{number}", receive_buffer=1024)
        reader.writer.transport.pause_reading()  # type: ignore[attr-defined]
    with suppress(AssertionError):  # the flood itself may be given up
        for turn in range(64):
            await flood.request({"type": "relay", "to": f"user{turn % 8}", "sealed": "A" * 60_000, "id": 1})


# --- certificates, STUN and TURN --------------------------------------------------------------------------------------


@scene("CertificateExpires")
async def certificate_near_its_end(stage: Stage) -> None:
    files = make_certificates(stage.folder)  # for one more day of four
    await stage.serve(tls_cert=files.cert, tls_key=files.key)


@scene("CertificateRefused")
async def certificate_past_its_end(stage: Stage) -> None:
    files = make_certificates(stage.folder, expired=True)
    await stage.serve(tls_cert=files.cert, tls_key=files.key)


@scene("NoCertificate", "CertificateNotRenewed")
async def no_certificate(stage: Stage) -> None:
    """The authority cannot be reached."""
    server = await stage.serve(
        acme_domain="a.example", acme_agree_tos="yes", acme_directory=f"https://127.0.0.1:{free_port()}/"
    )
    for number in range(1, 4):
        await server.wait_for_line("no new certificate", number=number)
        await stage.operate(server, "certificate", "renew")


@scene("StunDown")
async def stun_port_taken(stage: Stage) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 3478))
        await stage.serve(host="0.0.0.0", stun_port=3478)
        await stage.fires("AldisStunDown")


@scene("StunLimited")
async def stun_limited(stage: Stage) -> None:
    port = free_port()
    await stage.serve(host="0.0.0.0", stun_port=port, stun_address=RELAY_ADDRESS, stun_per_address=1)
    binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    with datagram_socket() as asking:
        for number in range(400):
            for _ in range(20):
                asking.sendto(binding, (RELAY_ADDRESS, port))
            # The answer to another address says that the server has read them. A full buffer of the kernel drops the
            # rest.
            await answered(binding, port, f"127.0.{1 + number // 200}.{1 + number % 200}")


async def answered(binding: bytes, port: int, address: str) -> None:
    with datagram_socket() as asking:
        asking.bind((address, 0))
        asking.sendto(binding, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_recv(asking, 1024)


@scene("TurnDown")
async def turn_away(stage: Stage) -> None:
    """There is no coturn where the server asks for one."""
    await stage.serve(turn_check=f"turn:127.0.0.1:{free_port()}", turn_secret="a secret")


@scene("TurnNotRelaying")
async def turn_with_another_secret(stage: Stage) -> None:
    words = ("--use-auth-secret", "--static-auth-secret=another")
    async with Coturn(stage.folder, *words) as coturn:
        await stage.serve(turn_check=f"turn:127.0.0.1:{coturn.port}", turn_secret="a secret")
        await stage.fires("AldisTurnNotRelaying")


@scene("TurnRestarting")
async def turn_killed(stage: Stage) -> None:
    server = await stage.serve(
        host="0.0.0.0",
        turn_server="yes",
        turn_address=RELAY_ADDRESS,
        turn_port=free_port(),
        turn_relay_ports="50000-50063",
        log_level="info",
    )
    for number in range(1, 5):
        (child,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        await server.wait_for_line("the TURN server is up again", number=number)


# --- accounts ---------------------------------------------------------------------------------------------------------


@scene("TokenKeysOld")
async def no_token_keys(stage: Stage) -> None:
    await stage.serve(auth="token", jwks=f"http://127.0.0.1:{free_port()}/keys")


@scene("ApplicationFailing", "PresenceEventsDropped")
async def application_away(stage: Stage) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    settings = {"hook_secret": "x" * 32, "resume_window": 0, **UNLIMITED}
    asked = await stage.serve("asked", hook_url=url, **settings)
    for number in range(15):
        await try_to_register(asked, f"user{number}")
    # Who comes and goes is not told of; those who vanish stay online for a while.
    told = await stage.serve(presence_url=url, presence_queue=100, **{**settings, "resume_window": 30})
    for number in range(150):
        await try_to_register(told, f"user{number}")


# --- a cluster --------------------------------------------------------------------------------------------------------


@scene("ClusterRedisSlow")
async def slow_redis(stage: Stage) -> None:
    redis = RedisServer(stage.folder / "redis")
    stage.stack.enter_context(redis)
    node = await stage.serve(redis=redis.url(), **UNLIMITED)
    clients = [await stage.client(node, f"user{number}") for number in range(4)]
    for client in clients:
        await asyncio.to_thread(redis.say, "CLIENT", "PAUSE", "1000", "ALL")  # waits for the end of the one before
        await client.leave()
    await stage.fires("AldisClusterRedisSlow")


@scene("ClusterServerMissing", "ClusterUnreadable", "ClusterQueueNearLimit", "ClusterDown")
async def cluster(stage: Stage) -> None:
    redis = RedisServer(stage.folder / "redis")
    stage.stack.enter_context(redis)
    nodes = [await stage.serve(f"node-{number}", redis=redis.url(), **UNLIMITED) for number in (1, 2, 3)]
    for channel in redis.say("PUBSUB", "CHANNELS", "*").split():
        redis.say("PUBLISH", channel, "this is no message")
    await stage.fires("AldisClusterUnreadable")
    nodes[2].signal(signal.SIGKILL)
    await stage.fires("AldisClusterServerMissing")
    alice = await stage.client(nodes[0], "alice")
    bob = Identity.generate()
    receiver = await RawClient.connect(nodes[1].port)
    stage.stack.callback(receiver.vanish)
    await receiver.register("bob", bob)
    assert (await alice.request({"type": "discover", "userId": "bob", "id": 1}))["online"] is True
    redis.pause()
    alice.send_bytes(frame({"type": "relay", "to": "bob", "sealed": "A" * 60_000}) * 250)
    await stage.fires("AldisClusterQueueNearLimit", "node-1")
    await stage.fires("AldisClusterDown", "node-1")
