"""What an attack is, and the list of them all."""

from __future__ import annotations

import asyncio
import base64
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count, cycle
from typing import Any, ClassVar, Final, TypeVar

from aldis.identity.keys import Identity
from benchmarks.attack.wire import Refused, Target, Wire, text

# How many of many connections are opened at a time.
AT_ONCE: Final = 64


class Attack(ABC):
    """One attack. Its docstring says in a line what it does."""

    name: ClassVar[str]
    # From how many addresses it comes.
    addresses: ClassVar[int] = 1
    # How much the server's memory may grow in MiB, where a limit allows more than to others.
    growth: ClassVar[float | None] = None
    # Whether the server speaks TLS, to all.
    tls: ClassVar[bool] = False
    # Which other ports it opens: "stun", "redirect" (with TLS only) and "admin".
    ports: ClassVar[frozenset[str]] = frozenset()
    # How a proxy tells where all clients come from (`Target.proxy`).
    proxy: ClassVar[str] = ""
    # Whether all clients need a token, and whether an application decides on registrations (`application`).
    tokens: ClassVar[bool] = False
    hook: ClassVar[bool] = False
    # Other settings of the server, as variables of its environment.
    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, target: Target) -> None:
        self.target = target
        self._sources = cycle(sources(self.addresses))
        # Connections that stay until the end.
        self.kept: list[Wire] = []
        self._identities: dict[str, Identity] = {}

    async def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """What comes before the attack and is none."""

    @abstractmethod
    async def strike(self) -> None:
        """Attack until cancelled. Called again after a rest."""

    def end(self) -> None:
        """Leave nothing."""
        for wire in self.kept:
            wire.abort()
        self.kept.clear()

    def identity(self, name: str) -> Identity:
        """The key of a name."""
        if name not in self._identities:
            self._identities[name] = Identity.generate()
        return self._identities[name]

    async def user(self, name: str, **more: Any) -> Wire:
        """A registered user."""
        return await Wire.register(self.target, name, self.identity(name), source=next(self._sources), **more)

    async def open(self, **more: Any) -> Wire:
        """A WebSocket."""
        return await Wire.open(self.target, next(self._sources), **more)

    async def dial(self, **more: Any) -> Wire:
        """A TCP connection."""
        return await Wire.dial(self.target, next(self._sources), **more)


class Opening(Attack):
    """Connections that come, do the same thing, and are reset."""

    at_once = 16

    async def once(self) -> None:
        wire = await self.dial()
        try:
            await self.begin(wire)
        finally:
            wire.abort()

    async def begin(self, wire: Wire) -> None:
        """What each does."""

    async def strike(self) -> None:
        await together(forever(self.once) for _ in range(self.at_once))


class Flood(Attack):
    """The same bytes as fast as the server takes them."""

    connections: ClassVar[int] = 1
    registered: ClassVar[bool] = True
    listens: ClassVar[bool] = True  # reads what the server says, and throws it away

    @abstractmethod
    def blob(self) -> bytes:
        """What is sent again and again."""

    async def enter(self, index: int) -> Wire:
        """A connection that is ready for the flood."""
        if self.registered:
            return await self.user(f"attacker-{index}")
        return await self.open()

    async def strike(self) -> None:
        await together(self._flood(index, self.blob()) for index in range(self.connections))

    async def _flood(self, index: int, blob: bytes) -> None:
        async def once() -> None:
            wire = await self.enter(index)
            try:
                await flood(wire, blob, self.listens)
            finally:
                wire.abort()

        await forever(once)


def sources(number: int) -> list[str]:
    """So many addresses of attackers. The honest users have 127.0.0.1 to 127.0.0.3."""
    return [f"127.1.{index // 250}.{index % 250 + 1}" for index in range(number)]


async def flood(wire: Wire, blob: bytes, listens: bool = True) -> None:
    """Send the same bytes until the server ends the connection."""
    reading = asyncio.create_task(wire.discard()) if listens else None
    try:
        while reading is None or not reading.done():
            await wire.send(blob)
            await asyncio.sleep(0)  # what is sent at once does not yield
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # seen


async def forever(once: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again, whatever the server does about it."""
    while True:
        try:
            async with asyncio.timeout(10):
                await once()
        except (Refused, OSError, TimeoutError, KeyError):
            await asyncio.sleep(0.01)


async def together(what: Iterable[Awaitable[object]]) -> None:
    """Do all at once; end all when cancelled."""
    tasks = [asyncio.ensure_future(each) for each in what]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def each_of(number: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Do one for each number below `number`, some at a time. What the server refuses is left out."""
    numbers = count()

    async def some() -> None:
        while (index := next(numbers)) < number:
            try:
                async with asyncio.timeout(10):
                    await one(index)
            except (Refused, OSError, TimeoutError, KeyError):
                await asyncio.sleep(0.01)

    await together(some() for _ in range(min(AT_ONCE, number)))


async def idle() -> None:
    """Until cancelled."""
    await asyncio.get_running_loop().create_future()


def key_of(identity: Identity) -> str:
    """The public key as messages have it."""
    return base64.b64encode(identity.public_key).decode()


def relay(to: str, size: int) -> bytes:
    """A frame with a message of about that size to somebody."""
    return text({"type": "bye", "to": to, "reason": "A" * size})


def sealed(to: str, size: int) -> bytes:
    """A frame with a sealed message of about that size to somebody."""
    return text({"type": "relay", "to": to, "sealed": "A" * size, "id": 1})


A = TypeVar("A", bound=type[Attack])
ATTACKS: Final[dict[str, type[Attack]]] = {}


def attack(name: str) -> Callable[[A], A]:
    """Put an attack on the list."""

    def put(kind: A) -> A:
        kind.name = name
        if name in ATTACKS:
            raise ValueError(f"there are two attacks {name}")
        ATTACKS[name] = kind
        return kind

    return put
