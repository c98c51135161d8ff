"""The clients of the soak, in a process of their own: `python -m benchmarks.soak.visitors PORT CONNECTIONS RATE SEED`.

It says `ready`. At the line `enter` all connect, at `churn` they begin to come and go, at `leave` all leave. It answers
each with `done`, and at the end of its standard input says what has happened, as JSON.

Twice as many names as connections take turns, so that names and keys come back, and the directory stays as it is.
What happens next is drawn from the seed. Anything that goes wrong is kept, and makes the run fail.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop
from msgspec import Struct
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from aldis.client.resume import MOST_SECONDS, ResumeCounter
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol import codec
from aldis.protocol.messages import (
    Bye,
    Discover,
    Offer,
    Prove,
    Received,
    Register,
    Unwatch,
    Watch,
)
from benchmarks.load.sample import OFFER_SDP

PATIENCE: Final = 30.0
AT_ONCE: Final = 32
MIN_CONNECTIONS: Final = 4
NUMBERED: Final = ("presence", "offer", "answer", "ice-candidate", "bye", "relay")
WATCHED: Final = 10
# Faults that are kept in words; all are counted.
MOST_TOLD: Final = 20
_OFFER: Final = codec.raw({"type": "offer", "sdp": OFFER_SDP})


class Visitor(WSListener):
    """One connection of one name, and of the session of `before` if there is one. `entered`: whether that goes on."""

    def __init__(self, crowd: Crowd, name: str, before: Visitor | None) -> None:
        self.name = name
        self.watches: list[str] = [] if before is None else before.watches
        # As the library's own client, it confirms what has come within 2 s.
        self.counter: ResumeCounter = ResumeCounter() if before is None else before.counter
        self._crowd = crowd
        self._confirming: asyncio.TimerHandle | None = None
        self._transport: WSTransport | None = None
        self._leaving = False
        self.entered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def say(self, message: Struct) -> None:
        """Send a message."""
        assert self._transport is not None
        self._transport.send(WSMsgType.TEXT, codec.encode(message))

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        public_key = codec.to_base64(self._crowd.keys[self.name].public_key)
        self.say(Register(user_id=self.name, public_key=public_key, resume=self.counter.ticket))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            if not self._leaving:
                self._fail(f"closed with {frame.get_close_code()}")
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            text = frame.get_payload_as_bytes()
            self._hear(json.loads(text), len(text))

    def _hear(self, message: dict[str, str], size: int) -> None:
        kind = message["type"]
        if kind in NUMBERED:
            loop = asyncio.get_running_loop()
            if self.counter.processed(size, loop.time()):
                self._confirm()
            elif self._confirming is None:
                self._confirming = loop.call_later(MOST_SECONDS, self._confirm)
        elif kind == "challenge":
            host, nonce = f"127.0.0.1:{self._crowd.port}", codec.from_base64(message["nonce"])
            signed = self._crowd.keys[self.name].sign(proofs.registration(host, nonce, self.name, "main"))
            self.say(Prove(signature=codec.to_base64(signed)))
        elif kind == "registered":
            if message["resumed"]:
                self.counter.resumed(message["session"], message["secret"])
            else:
                self.counter = ResumeCounter(message["session"], message["secret"])
            self.entered.set_result(bool(message["resumed"]))
        elif kind == "error" and message["code"] != "not-online":  # somebody has just left
            self._fail(f"refused: {message}")

    def _confirm(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None
        self.say(Received(count=self.counter.count))
        self.counter.confirmed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
        if not self._leaving:
            self._fail("lost its connection")

    def _fail(self, text: str) -> None:
        if not self.entered.done():
            self.entered.set_exception(ConnectionError(text))
        self._crowd.fault(f"{self.name} {text}")

    async def leave(self) -> None:
        """Close as a client should."""
        assert self._transport is not None
        self._leaving = True
        self._transport.send_close(WSCloseCode.OK)
        async with asyncio.timeout(PATIENCE):
            await self._transport.wait_disconnected()

    async def vanish(self) -> None:
        """Cut the connection without a word."""
        assert self._transport is not None
        self._leaving = True
        self._transport.disconnect(graceful=False)
        await self._transport.wait_disconnected()


class Crowd:
    """All visitors, and those who are away."""

    def __init__(self, port: int, connections: int, seed: int) -> None:
        self.port = port
        if connections < MIN_CONNECTIONS:
            raise SystemExit(f"a soak has {MIN_CONNECTIONS} connections at least")
        self.keys = {f"soak-{number}": Identity.generate() for number in range(2 * connections)}
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.fault_count = 0
        self._random = random.Random(seed)
        self._connections = connections
        self._ending = False
        self._away = list(self.keys)
        self._here: list[Visitor] = []
        self._actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._exchange, 25),
            (self._resume, 20),
            (self._disappear, 10),
            (self._call, 20),
            (self._watch, 10),
            (self._discover, 5),
            (self._say_nothing, 5),
            (self._break_the_rules, 5),
        ]

    def fault(self, text: str) -> None:
        """Something has gone wrong."""
        self.fault_count += 1
        if len(self.faults) < MOST_TOLD:
            self.faults.append(text)

    async def enter(self) -> None:
        """Have all connections made. Those who come later have been there before, so that the directory knows them."""
        await self._enter_half()
        early, self._here = self._here, []
        await asyncio.gather(*(visitor.leave() for visitor in early))
        await self._enter_half()
        self._away += [visitor.name for visitor in early]

    async def _enter_half(self) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with slots:
                await self._enter_somebody()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(one())

    async def churn(self, rate: float) -> None:
        """Have something happen `rate` times a second, until all leave."""
        actions, weights = zip(*self._actions, strict=True)
        # At least half of all stay here, however slow the server is: two of them are needed for a call.
        slots = asyncio.Semaphore(min(AT_ONCE, self._connections // 2))

        async def act(action: Callable[[], Awaitable[None]]) -> None:
            async with slots:
                try:
                    await action()
                except (OSError, TimeoutError) as error:
                    self.fault(f"{action.__name__}: {error!r}")
                self.done[action.__name__.strip("_")] += 1

        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            while not self._ending:
                (action,) = self._random.choices(actions, weights)
                await slots.acquire()  # no more at once than there are slots
                slots.release()
                group.create_task(act(action))
                due += self._random.expovariate(rate)
                await asyncio.sleep(max(due - loop.time(), 0))

    async def leave(self, churning: asyncio.Task[None]) -> None:
        """Let what happens end, and have all leave."""
        self._ending = True
        await churning
        await asyncio.gather(*(visitor.leave() for visitor in self._here))
        self._here.clear()

    # --- what happens -----------------------------------------------------------------------------------------------

    async def _exchange(self) -> None:
        visitor = self._take()
        await visitor.leave()
        self._away.append(visitor.name)
        await self._enter_somebody()

    async def _resume(self) -> None:
        visitor = self._take()
        await visitor.vanish()
        await self._enter(visitor.name, visitor)

    async def _disappear(self) -> None:
        visitor = self._take()
        await visitor.vanish()
        self._away.append(visitor.name)
        await self._enter_somebody()

    async def _call(self) -> None:
        one, other = self._random.sample(self._here, 2)
        one.say(Offer(to=other.name, offer=_OFFER, connection=f"{one.name}-{other.name}", id=1))
        one.say(Bye(to=other.name, connection=f"{one.name}-{other.name}"))

    async def _watch(self) -> None:
        """Watch others than before."""
        visitor = self._random.choice(self._here)
        visitor.say(Unwatch(user_ids=visitor.watches))
        self._watch_somebody(visitor)

    def _watch_somebody(self, visitor: Visitor) -> None:
        visitor.watches = self._random.sample(list(self.keys), WATCHED)
        visitor.say(Watch(user_ids=visitor.watches))

    async def _discover(self) -> None:
        self._random.choice(self._here).say(Discover(user_id=self._random.choice(list(self.keys))))

    async def _say_nothing(self) -> None:
        """Connect, send half a request, and go."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _break_the_rules(self) -> None:
        """Be thrown out for a binary message, and do not answer the close."""
        listener = WSListener()
        transport, _ = await ws_connect(lambda: listener, self._url, extra_headers=_HEADERS)
        transport.send(WSMsgType.BINARY, b"no text")
        async with asyncio.timeout(PATIENCE):
            await transport.wait_disconnected()

    # --- coming and going -------------------------------------------------------------------------------------------

    @property
    def _url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def _take(self) -> Visitor:
        """Somebody who is here, and is going to leave."""
        return self._here.pop(self._random.randrange(len(self._here)))

    async def _enter_somebody(self) -> None:
        await self._enter(self._away.pop(self._random.randrange(len(self._away))), None)

    async def _enter(self, name: str, before: Visitor | None) -> None:
        visitor = Visitor(self, name, before)
        await ws_connect(
            lambda: visitor,
            self._url,
            extra_headers=_HEADERS,
            websocket_handshake_timeout=PATIENCE,
            read_buffer_init_size=2048,
        )
        async with asyncio.timeout(PATIENCE):
            resumed = await visitor.entered
        if before is not None and not resumed:
            self.fault(f"{name} was not resumed")
        if before is None:
            self._watch_somebody(visitor)
        self._here.append(visitor)


_HEADERS: Final = {"Sec-WebSocket-Protocol": "aldis.v1"}


async def obey(port: int, connections: int, rate: float, seed: int) -> None:
    """Do as the lines say."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(port, connections, seed)
    churning: asyncio.Task[None] | None = None
    print("ready", flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "enter":
            await crowd.enter()
        elif line == "churn":
            churning = asyncio.create_task(crowd.churn(rate))
        elif churning is not None:
            await crowd.leave(churning)
        print("done", flush=True)
    print(json.dumps({"done": crowd.done, "faults": crowd.faults, "faultCount": crowd.fault_count}))


def main() -> None:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, connections, rate, seed = sys.argv[1:]
    uvloop.run(obey(int(port), int(connections), float(rate), int(seed)))


if __name__ == "__main__":
    main()
