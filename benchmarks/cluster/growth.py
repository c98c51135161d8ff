"""How the cost of a cluster grows with its servers, its users and their watches.

    .venv/bin/python -m benchmarks.cluster.growth                  # clusters of 1 to 4 servers: four minutes
    .venv/bin/python -m benchmarks.cluster.growth --nodes 2 --users 500 --watches 5

Each cluster is new, with a Redis of its own. Users register, in turn at each server, and watch random others. Then some
leave and return, whom others watch; then as many whom nobody watches, though each server hears of them. Pairs send each
other messages, with the partner at any server. Every presence that is due must come, and every message must arrive.

Of each event it says what it costs: processor time of all servers and of Redis, commands that Redis has run, scripts
included, and bytes in and out of Redis. What a cluster does when nobody does anything is measured first, and left out.
All servers share one core, and Redis and the clients the other. Linux only, with Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from aldis.protocol import codec
from aldis.protocol.messages import Watch
from benchmarks.cluster.relay import DURABLE, pids_of
from benchmarks.load import servers
from benchmarks.load.dialects import AldisComplete
from benchmarks.load.process import choose_cores, memory, processor_seconds, running_on

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.redis_server import RedisServer

CONCURRENCY: Final = 32
PATIENCE: Final = 60.0
IDLE_SECONDS: Final = 5.0
# Messages a second that are sent, and for how long.
RATE: Final = 1000
MESSAGE_SECONDS: Final = 3.0
# How long a server may take to hear what does not concern its users.
SETTLE_SECONDS: Final = 1.0
CONFIRM_EVERY: Final = AldisComplete("").confirm_every


class User(WSListener):
    """A user at one server, who counts the presences and the messages that come."""

    def __init__(self, dialect: AldisComplete, port: int, crowd: Crowd) -> None:
        self.dialect = dialect
        self.port = port
        self.crowd = crowd
        self.transport: WSTransport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages = 0

    async def connect(self) -> None:
        """Connect and register."""
        self.dialect.registered = False
        self.ready = asyncio.get_running_loop().create_future()
        await ws_connect(lambda: self, self.dialect.url(self.port), extra_headers=self.dialect.headers())
        async with asyncio.timeout(PATIENCE):
            await self.ready

    async def leave(self) -> None:
        """Close in order: the user is offline at once."""
        assert self.transport is not None
        self.transport.send_close(WSCloseCode.OK)
        self.transport.disconnect()
        await self.transport.wait_disconnected()

    def send(self, frame: bytes) -> None:
        """Send a text."""
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, frame)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        greeting = self.dialect.greeting()
        assert greeting is not None
        self.send(greeting)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.crowd.fail(f"{self.dialect.user} was closed: {frame.get_close_code()} {frame.get_close_reason()}")
            return
        if frame.msg_type != WSMsgType.TEXT:
            return
        text = frame.get_payload_as_bytes()
        if text.startswith(b'{"type":"presence"'):
            self.crowd.came("presences")
        elif text.startswith(b'{"type":"offer"'):
            self.messages += 1
            if self.messages % CONFIRM_EVERY == 0:
                self.send(self.dialect.confirmation(self.messages))
            self.crowd.came("messages")
        elif text.startswith(b'{"type":"ack"'):
            self.crowd.came("acks")
        else:
            self._control(text)

    def _control(self, text: bytes) -> None:
        try:
            reply = self.dialect.reply(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, the measurement is void
            self.crowd.fail(f"{self.dialect.user} got {text!r}: {error}")
            return
        if reply is not None:
            self.send(reply)
        if self.dialect.registered and not self.ready.done():
            self.ready.set_result(None)


class Crowd:
    """All users, and what has come to them."""

    def __init__(self) -> None:
        self.counts = {"presences": 0, "messages": 0, "acks": 0}
        self._failure: str | None = None
        self._more = asyncio.Event()

    def came(self, kind: str) -> None:
        """Count one."""
        self.counts[kind] += 1
        self._more.set()

    def fail(self, why: str) -> None:
        """End the measurement."""
        self._failure = self._failure or why
        self._more.set()

    async def until(self, kind: str, count: int) -> None:
        """Wait until so many have come, and no more."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.counts[kind] < count and self._failure is None:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            self._failure = f"{self.counts[kind]} of {count} {kind} have come"
        if self._failure is None and self.counts[kind] > count:
            self._failure = f"{self.counts[kind]} {kind} have come, and {count} were due"
        if self._failure is not None:
            raise AssertionError(self._failure)


@dataclass(frozen=True)
class Cost:
    """What was spent, in seconds of the processor, commands and bytes."""

    servers: tuple[float, ...]
    redis: float
    commands: float
    bytes_in: float
    bytes_out: float
    seconds: float


@dataclass
class Cluster:
    """The processes of a cluster, and what they do when nobody does anything."""

    running: Sequence[servers.Running]
    redis: RedisServer
    idle: Cost = field(init=False)

    def __post_init__(self) -> None:
        self._redis_pid = pids_of(self.redis)

    async def spent(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """What some work costs."""
        before, began = self._read(), perf_counter()
        await work()
        seconds = perf_counter() - began
        now = self._read()
        times = tuple(now[place] - before[place] for place in range(len(self.running)))
        redis, commands, bytes_in, bytes_out = (one - other for one, other in zip(now[-4:], before[-4:], strict=True))
        return Cost(times, redis, commands, bytes_in, bytes_out, seconds)

    async def of_each(self, count: int, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
        """What each of `count` events costs beyond what the cluster does all the time."""
        cost = await self.spent(work)
        share = cost.seconds / self.idle.seconds
        spent = [now - share * idle for now, idle in zip(cost.servers, self.idle.servers, strict=True)]
        return {
            "servers_us": sum(spent) / count * 1e6,
            "first_server_us": spent[0] / count * 1e6,
            "redis_us": (cost.redis - share * self.idle.redis) / count * 1e6,
            "commands": (cost.commands - share * self.idle.commands) / count,
            "bytes_in": (cost.bytes_in - share * self.idle.bytes_in) / count,
            "bytes_out": (cost.bytes_out - share * self.idle.bytes_out) / count,
            "per_second": count / cost.seconds,
        }

    def redis_bytes(self) -> int:
        """What Redis keeps, in bytes."""
        return int(self._info("memory")["used_memory"])

    def server_bytes(self) -> int:
        """What the servers occupy together."""
        return sum(memory(each.pid).rss for each in self.running)

    def _read(self) -> tuple[float, ...]:
        stats = self._info("stats")
        return (
            *(processor_seconds(each.pid) for each in self.running),
            processor_seconds(self._redis_pid),
            sum(_calls(value) for name, value in self._info("commandstats").items() if not name.startswith(_ASIDE)),
            float(stats["total_net_input_bytes"]),
            float(stats["total_net_output_bytes"]),
        )

    def _info(self, section: str) -> dict[str, str]:
        lines = (line.partition(":") for line in self.redis.say("info", section).splitlines())
        return {name: value.strip() for name, _, value in lines if value}


# What a measurement itself asks, and redis-cli when it begins.
_ASIDE: Final = ("cmdstat_info", "cmdstat_command")


def _calls(value: str) -> int:
    return int(value.partition("calls=")[2].partition(",")[0])


async def _at_a_time(works: Sequence[Callable[[], Awaitable[object]]]) -> None:
    waiting = list(reversed(works))

    async def work() -> None:
        while waiting:
            await waiting.pop()()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


async def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    """All events at one cluster."""
    seeded = random.Random(options.seed)
    crowd = Crowd()
    batch = f"{seeded.getrandbits(32):08x}"

    def users(kind: str, count: int) -> list[User]:
        ports = [each.port for each in cluster.running]
        return [
            User(AldisComplete(f"{kind}-{batch}-{number}@example.com"), ports[number % len(ports)], crowd)
            for number in range(count)
        ]

    async def come(them: Sequence[User]) -> None:
        await _at_a_time([user.connect for user in them])

    async def go(them: Sequence[User]) -> None:
        await _at_a_time([user.leave for user in them])

    # What a process loads and allocates once is not counted for a user.
    first = users("first", 50)
    await come(first)
    await go(first)
    await asyncio.sleep(SETTLE_SECONDS)
    cluster.idle = await cluster.spent(lambda: asyncio.sleep(IDLE_SECONDS))
    figures: dict[str, Any] = {
        "idle": {
            "redis_percent": 100 * cluster.idle.redis / cluster.idle.seconds,
            "server_percent": 100 * sum(cluster.idle.servers) / len(cluster.running) / cluster.idle.seconds,
            "commands_per_second": cluster.idle.commands / cluster.idle.seconds,
        }
    }

    staying = users("user", options.users)
    redis_bytes, server_bytes = cluster.redis_bytes(), cluster.server_bytes()
    figures["registration"] = await cluster.of_each(len(staying), lambda: come(staying))
    await asyncio.sleep(SETTLE_SECONDS)
    figures["memory"] = {
        "redis_bytes_per_user": (cluster.redis_bytes() - redis_bytes) / len(staying),
        "server_bytes_per_user": (cluster.server_bytes() - server_bytes) / len(staying),
    }

    # Those who will leave watch nobody: what they are told would depend on who leaves first.
    leaving, watching = staying[: options.changes], staying[options.changes :]
    names = [user.dialect.user for user in staying]
    watched = {user.dialect.user: seeded.sample(names, options.watches) for user in watching}
    watchers = Counter(name for each in watched.values() for name in each)
    count = watchers.total()

    async def watch() -> None:
        for user in watching:
            user.send(codec.encode(Watch(user_ids=watched[user.dialect.user])))
            await asyncio.sleep(0)
        await crowd.until("presences", count)

    server_bytes, redis_bytes = cluster.server_bytes(), cluster.redis_bytes()
    figures["watch"] = await cluster.of_each(count, watch)
    figures["memory"] |= {
        "server_bytes_per_watch": (cluster.server_bytes() - server_bytes) / count,
        "redis_bytes_per_watch": (cluster.redis_bytes() - redis_bytes) / count,
    }

    async def change(them: Sequence[User]) -> None:
        told = sum(watchers[user.dialect.user] for user in them)
        for work in (go, come):
            due = crowd.counts["presences"] + told
            await work(them)
            await crowd.until("presences", due)
            await asyncio.sleep(SETTLE_SECONDS)

    figures["change"] = await cluster.of_each(2 * len(leaving), lambda: change(leaving))
    strangers = users("stranger", options.changes)
    if len(cluster.running) > 1:  # at all servers but the first, which only hears of them
        ports = [each.port for each in cluster.running[1:]]
        for number, user in enumerate(strangers):
            user.port = ports[number % len(ports)]
    await come(strangers)
    await asyncio.sleep(SETTLE_SECONDS)
    figures["unwatched"] = await cluster.of_each(2 * len(strangers), lambda: change(strangers))

    senders = seeded.sample(watching, min(200, len(watching)))
    frames = [
        user.dialect.offer(other.dialect.user) for user, other in zip(senders, [*senders[1:], senders[0]], strict=True)
    ]
    messages = int(RATE * MESSAGE_SECONDS)

    async def send(count: int) -> None:
        due, began = crowd.counts["messages"] + count, perf_counter()
        for number in range(count):
            senders[number % len(senders)].send(frames[number % len(senders)])
            ahead = began + number / RATE - perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
        await crowd.until("messages", due)

    await send(len(senders))  # where each partner is, is known then
    figures["message"] = await cluster.of_each(messages, lambda: send(messages))
    await go([*strangers, *staying])
    return figures


EVENTS: Final = {
    "registration": "a registration of a new name",
    "watch": "a watch of one user",
    "change": "a user comes or goes, watched",
    "unwatched": "a user comes or goes, unwatched",
    "message": "a message, at random servers",
}


def tables(results: dict[int, dict[str, Any]]) -> str:
    """What people read."""
    lines = [
        "| event | servers | all servers, us | the first, us | Redis, us | commands | bytes in | bytes out |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for event, title in EVENTS.items():
        for nodes, figures in results.items():
            cost = figures[event]
            row = [f"{cost[name]:,.0f}" for name in ("servers_us", "first_server_us", "redis_us")]
            row += [f"{cost['commands']:,.1f}", *(f"{cost[name]:,.0f}" for name in ("bytes_in", "bytes_out"))]
            lines.append(f"| {title} | {nodes} | {' | '.join(row)} |")
    lines += [
        "",
        "| servers | commands a second | Redis, % | a server, % | bytes a user: Redis | servers | bytes a watch |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for nodes, figures in results.items():
        idle, kept = figures["idle"], figures["memory"]
        row = [f"{idle[name]:,.1f}" for name in ("commands_per_second", "redis_percent", "server_percent")]
        names = ("redis_bytes_per_user", "server_bytes_per_user", "server_bytes_per_watch")
        row += [f"{kept[name]:,.0f}" for name in names]
        lines.append(f"| {nodes} | {' | '.join(row)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", default="1,2,3,4", help="servers of each cluster (%(default)s)")
    parser.add_argument("--users", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--watches", type=int, default=10, help="of each user (%(default)s)")
    parser.add_argument("--changes", type=int, default=500, help="users that leave and return (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="who watches whom (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    if options.users - options.changes < 2 or options.watches > options.users:
        parser.error("there have to be more users than --changes, and as many as --watches")
    results: dict[int, dict[str, Any]] = {}
    cores = choose_cores()
    for nodes in map(int, options.nodes.split(",")):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-growth-")))
            with running_on(cores.generator):
                redis = stack.enter_context(RedisServer(folder / "redis", *DURABLE))
            limits = {**servers.UNLIMITED, "ALDIS_REDIS": redis.url()}
            running = [stack.enter_context(servers.started(servers.ALDIS, cores.server, limits)) for _ in range(nodes)]
            with running_on(cores.generator):
                results[nodes] = uvloop.run(measure(Cluster(running, redis), options))
    print(tables(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
