"""The load: a process of its own that plays many clients against one relay and reads the relay's clock and memory.

It is started with one job as JSON on stdin and writes one JSON object to stdout. Jobs:

* `relay`: connections in pairs send each other offers, at one relay after the other in slices of less than a second,
  because what else the machine does changes from second to second; slices in which it did much are repeated. First
  saturated: every connection keeps exactly one message on its way (the partner answers each message with its own), so
  the relay is never idle, and nothing is batched but by itself. Then paced: a fixed number of messages a second, spread
  over all connections, for latency.
* `register`: many clients connect and register, stay, are counted in memory, leave, and register again.

Rules: nothing is parsed while the clock runs (a relayed message is known by its size); every message that was sent must
arrive, or the job fails; the first message on each connection is checked in full. Runs the same code for all relays.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.load.dialects import DIALECTS, Dialect
from benchmarks.load.process import busy_seconds, memory, processor_seconds
from benchmarks.load.sample import OFFER_SDP

# Everything smaller than the SDP is for the dialect: registration, acks, errors.
RELAYED_FROM = len(OFFER_SDP)
MOST_READ = 5_000
# The share of a core that others took in a slice from which on it counts as disturbed and is repeated, so many times.
DISTURBED = 0.10
MOST_TRIES = 4
PATIENCE = 20.0  # seconds; nothing here takes a tenth of it on a machine that works
TEXT = WSMsgType.TEXT


class LoadFailed(Exception):
    """The relay lost, altered or refused something, or took too long."""


class Client(WSListener):
    """One connection."""

    def __init__(self, dialect: Dialect, load: Load) -> None:
        self.dialect = dialect
        self.load = load
        self.partner: Client = self
        self.transport: WSTransport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frame = b""
        self.sent_at: deque[float] = deque()
        self.received = 0
        self.confirm_every = dialect.confirm_every

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        greeting = self.dialect.greeting()
        if greeting is not None:
            transport.send(TEXT, greeting)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.payload_size > RELAYED_FROM:
            self.relayed(transport, frame)
            return
        self.load.others += 1
        # Acks are too many to be read while the clock runs. An error among them comes with a message that is missing.
        if self.load.others < MOST_READ or not self.ready.done():
            self._control(transport, frame)

    def relayed(self, transport: WSTransport, frame: WSFrame) -> None:
        load = self.load
        now = perf_counter()
        latency = now - self.partner.sent_at.popleft()
        if load.recording:
            load.latencies.append(latency)
        load.received += 1
        self.received += 1
        if self.received == 1:
            self._check(frame)
        if self.confirm_every and not self.received % self.confirm_every:
            transport.send(TEXT, self.dialect.confirmation(self.received))
        if load.bouncing:
            load.sent += 1
            self.sent_at.append(now)
            transport.send(TEXT, self.frame)
        elif load.received == load.sent and load.drained is not None:
            load.drained.set()

    def shoot(self) -> None:
        assert self.transport is not None
        self.load.sent += 1
        self.sent_at.append(perf_counter())
        self.transport.send(TEXT, self.frame)

    def _control(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self._fail(LoadFailed(f"closed by the relay: {frame.get_close_code()} {frame.get_close_reason()}"))
            return
        if frame.msg_type != TEXT:
            return
        try:
            reply = self.dialect.reply(frame.get_payload_as_bytes())
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the job
            self._fail(error)
            return
        if reply is not None:
            transport.send(TEXT, reply)
        if self.dialect.registered and not self.ready.done():
            self.ready.set_result(None)

    def _check(self, frame: WSFrame) -> None:
        if not self.dialect.carries(frame.get_payload_as_bytes(), self.partner.dialect.user):
            self._fail(LoadFailed("a relayed message was altered, or does not name its sender"))

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        elif self.load.failure is None:
            self.load.failure = error

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.load.leaving:
            self._fail(LoadFailed("the relay closed a connection"))


@dataclass
class Window:
    """What was measured between two moments."""

    seconds: float
    processor: float  # seconds of the relay's processor time
    own_processor: float  # seconds of this process's
    busy: float  # seconds that the cores of both worked, for anybody
    messages: int
    latencies: list[float]

    def report(self) -> dict[str, float]:
        ordered = sorted(self.latencies)
        count = len(ordered)
        if not count:
            raise LoadFailed("no message arrived")
        at = {name: ordered[min(count - 1, int(count * q))] * 1e6 for name, q in QUANTILES.items()}
        return {
            "messages": self.messages,
            "seconds": self.seconds,
            "per_second": self.messages / self.seconds,
            "cpu_us": self.processor / self.messages * 1e6,
            "server_load": self.processor / self.seconds,
            "generator_load": self.own_processor / self.seconds,
            "disturbance": (self.busy - self.processor - self.own_processor) / self.seconds,
            **{f"latency_{name}_us": value for name, value in at.items()},
            "latency_max_us": ordered[-1] * 1e6,
        }


QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999}


class Load:
    """All connections of one job."""

    def __init__(self, dialect: str, port: int, pid: int, collects: bool) -> None:
        """`collects`: the relay collects garbage on SIGUSR2."""
        self._dialect = DIALECTS[dialect]
        self._port = port
        self._pid = pid
        self._collects = collects
        self._cores = os.sched_getaffinity(pid) | os.sched_getaffinity(0)
        self.clients: list[Client] = []
        self.sent = 0
        self.received = 0
        self.others = 0
        self.latencies: list[float] = []
        self.recording = False
        self.bouncing = False
        self.leaving = False
        self.drained: asyncio.Event | None = None
        self.failure: Exception | None = None

    def _dialects(self, count: int) -> list[Dialect]:
        # Names that nobody has had at this server: two loads may share one, and each makes keys of its own.
        batch = os.urandom(3).hex()
        return [self._dialect(f"{batch}-{number}@example.com") for number in range(count)]

    async def _connect(self, dialect: Dialect) -> Client:
        client = Client(dialect, self)
        await ws_connect(
            lambda: client,
            dialect.url(self._port),
            extra_headers=dialect.headers(),
            websocket_handshake_timeout=PATIENCE,
            read_buffer_init_size=8192,
        )
        await asyncio.wait_for(client.ready, PATIENCE)
        return client

    async def connect(self, dialects: list[Dialect], concurrency: int) -> None:
        """Connect and register all, `concurrency` at a time."""
        waiting = deque(dialects)

        async def work() -> None:
            while waiting:
                self.clients.append(await self._connect(waiting.popleft()))

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())

    async def leave(self) -> None:
        """Close all connections in order (1000), and wait until they are gone."""
        self.leaving = True
        for client in self.clients:
            assert client.transport is not None
            client.transport.send_close(WSCloseCode.OK)
            client.transport.disconnect()
        async with asyncio.timeout(PATIENCE):
            for client in self.clients:
                assert client.transport is not None
                await client.transport.wait_disconnected()
        self.clients.clear()
        self.leaving = False

    async def measure(self, seconds: float) -> Window:
        """Let the load run on and see what the relay does for it."""
        self.latencies = []
        self.recording = True
        busy = busy_seconds(self._cores)
        began, processor, own, received = self._now()
        await asyncio.sleep(seconds)
        # On a machine so busy that nothing has come yet, go on until something has.
        while not self.latencies and perf_counter() < began + PATIENCE and self.failure is None:  # noqa: ASYNC110
            await asyncio.sleep(seconds)
        ended, processor_then, own_then, received_then = self._now()
        self.recording = False
        if self.failure:
            raise self.failure
        return Window(
            seconds=ended - began,
            processor=processor_then - processor,
            own_processor=own_then - own,
            busy=busy_seconds(self._cores) - busy,
            messages=received_then - received,
            latencies=self.latencies,
        )

    def _now(self) -> tuple[float, float, float, int]:
        return perf_counter(), processor_seconds(self._pid), processor_seconds(os.getpid()), self.received

    async def drain(self) -> None:
        """Wait until everything that was sent has arrived."""
        self.bouncing = False
        if self.received < self.sent:
            self.drained = asyncio.Event()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.drained.wait()
            except TimeoutError:
                raise LoadFailed(f"{self.sent - self.received} of {self.sent} messages were lost") from None
            self.drained = None
        if self.failure:
            raise self.failure

    async def pair_up(self, pairs: int) -> None:
        """Connect, and give everybody a partner and a message for it."""
        await self.connect(self._dialects(pairs * 2), concurrency=16)
        self.clients.sort(key=lambda client: client.dialect.user)
        for one, other in zip(self.clients[::2], self.clients[1::2], strict=True):
            one.partner, other.partner = other, one
        for client in self.clients:
            client.frame = client.dialect.offer(client.partner.dialect.user)

    async def saturate(self, warm: float, seconds: float) -> Window:
        """One message on its way for every connection; each is answered by the next."""
        self._beat()
        self.bouncing = True
        for client in self.clients:
            client.shoot()
        await asyncio.sleep(warm)
        window = await self.measure(seconds)
        await self.drain()
        return window

    async def pace(self, warm: float, seconds: float, rate: int) -> Window:
        """`rate` messages a second, by every connection in turn."""
        pacing = asyncio.create_task(self._pace(rate))
        await asyncio.sleep(warm)
        window = await self.measure(seconds)
        pacing.cancel()
        await asyncio.wait([pacing])
        await self.drain()
        return window

    def _beat(self) -> None:
        for client in self.clients:
            beat = client.dialect.heartbeat()
            if beat is not None and client.transport is not None:
                client.transport.send(TEXT, beat)

    async def _pace(self, rate: int) -> None:
        began = perf_counter()
        done = 0
        count = len(self.clients)
        while True:
            due = int((perf_counter() - began) * rate)
            while done < due:
                self.clients[done % count].shoot()
                done += 1
            await asyncio.sleep(0.001)

    async def register(self, count: int, concurrency: int, settle: float) -> dict[str, object]:
        """The job `register`."""
        # A few come and go first, so that what a relay loads and allocates once is not counted for a connection.
        await self.connect(self._dialects(20), concurrency)
        await self.leave()
        await self._settle(settle)
        before = memory(self._pid)
        dialects = self._dialects(count)
        collect_no_more()
        result: dict[str, object] = {"connections": count, "first": await self._registrations(dialects, concurrency)}
        await self._settle(settle)
        after = memory(self._pid)
        result["memory"] = {
            "pss": (after.pss - before.pss) / count,
            "rss": (after.rss - before.rss) / count,
            "process_pss": before.pss,
        }
        await self.leave()
        await self._settle(settle)
        for dialect in dialects:
            dialect.registered = False
        result["again"] = await self._registrations(dialects, concurrency)
        await self.leave()
        return result

    async def _settle(self, seconds: float) -> None:
        """Give the relay time for what it does late, and have it collect garbage where it can (`collect.cjs`)."""
        await asyncio.sleep(seconds)
        if self._collects:
            os.kill(self._pid, signal.SIGUSR2)
            await asyncio.sleep(seconds)

    async def _registrations(self, dialects: list[Dialect], concurrency: int) -> dict[str, float]:
        began, processor, own, _ = self._now()
        await self.connect(dialects, concurrency)
        ended, processor_then, own_then, _ = self._now()
        if self.failure:
            raise self.failure
        seconds = ended - began
        return {
            "per_second": len(dialects) / seconds,
            "cpu_us": (processor_then - processor) / len(dialects) * 1e6,
            "server_load": (processor_then - processor) / seconds,
            "generator_load": (own_then - own) / seconds,
        }


async def relay(
    relays: dict[str, dict[str, Any]],
    rounds: int,
    pairs: int,
    warm: float,
    saturated: float,
    paced: float,
    rate: int,
    awake: bool,
) -> dict[str, list[dict[str, Any]]]:
    """The job `relay`. All relays have their connections throughout, and one at a time has work: slice by slice."""
    loads = {name: Load(**where) for name, where in relays.items()}
    for load in loads.values():
        await load.pair_up(pairs)
    collect_no_more()
    spinning = asyncio.create_task(spin() if awake else asyncio.sleep(0))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in loads}
    for load in loads.values():
        # Long enough for V8 to have compiled what is hot. Not counted.
        await load.saturate(warm, max(saturated, 6 * warm))
    retries = Retries(until=perf_counter() + 1.5 * rounds * len(loads) * (2 * warm + saturated + paced))
    for number in range(rounds):
        # Every other round backwards: nobody always comes after the same.
        for name, load in loads.items() if number % 2 == 0 else reversed(loads.items()):
            results[name].append(
                {
                    "saturated": await retries.least_disturbed(partial(load.saturate, warm, saturated)),
                    "paced": await retries.least_disturbed(partial(load.pace, warm, paced, rate)),
                }
            )
    spinning.cancel()
    await asyncio.wait([spinning])
    for load in loads.values():
        await load.leave()
    return results


class Retries:
    """Slices in which somebody else needed the cores are repeated, while there is time."""

    def __init__(self, until: float) -> None:
        self._until = until

    async def least_disturbed(self, measure: Callable[[], Awaitable[Window]]) -> dict[str, float]:
        best = (await measure()).report()
        tries = 1
        while best["disturbance"] > DISTURBED and tries < MOST_TRIES and perf_counter() < self._until:
            tries += 1
            best = min(best, (await measure()).report(), key=lambda report: report["disturbance"])
        return best


async def spin() -> None:
    """Keep the event loop from ever sleeping.

    A relay that writes to a sleeping reader pays for waking it: microseconds a message, and the more often, the slower
    the relay is. That is a matter of both being on one machine, and none of the relay's.
    """
    while True:  # noqa: ASYNC110 - to be busy is the point
        await asyncio.sleep(0)


def collect_no_more() -> None:
    """What exists now stays: no collection in the middle of a measurement."""
    gc.collect()
    gc.freeze()
    gc.disable()


async def main(job: dict[str, Any]) -> object:
    match job.pop("job"):
        case "relay":
            return await relay(**job)
        case "register":
            return await Load(**job.pop("relay")).register(**job)
        case unknown:
            raise LoadFailed(f"no such job: {unknown}")


if __name__ == "__main__":
    json.dump(uvloop.run(main(json.load(sys.stdin))), sys.stdout)
