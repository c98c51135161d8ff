"""The line between a supervisor and one of its workers: a socket that the worker inherits.

    supervisor -> worker    `WorkerStart`: the settings, the open sockets; later `WorkerOrder`
    worker -> supervisor    `WorkerReport`

Its end is the end of the other one: a worker whose supervisor is gone stops in good order.

Rules: each message is four bytes with its size, then MessagePack. Supervisor and worker may be of two releases, because
an upgrade replaces workers by new ones: what one does not know it ignores, and settings go as names and values.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import msgpack

from aldis.errors import ConfigError
from aldis.server.config import SETTINGS, ServerConfig
from aldis.server.systemd import ActivatedSockets
from aldis.server.tuning import Tuning

_SIZE: Final = struct.Struct("!I")
# Settings are some KB; long lists of origins or networks may be more.
_MOST: Final = 64 * 1024 * 1024

_T = TypeVar("_T", "WorkerStart", "WorkerOrder", "WorkerReport")


class WorkerStart(msgspec.Struct, kw_only=True):
    """What a worker starts with. Sockets are numbers of descriptors that it inherits."""

    worker: int
    settings: dict[str, Any]
    supervisor: int
    tuning: dict[str, float] = {}
    public: list[int] = []
    redirect: list[int] = []
    admin: list[int] = []
    stun: list[int] = []
    # How often it reports that its event loop turns, in seconds; None: not at all.
    alive_every: float | None = None


class WorkerOrder(msgspec.Struct, kw_only=True):
    """`stop` in good order. `replaced`: another worker takes the clients that come from now on.

    Another order is one of another release.
    """

    order: str
    replaced: bool = False


class WorkerReport(msgspec.Struct, kw_only=True):
    """How a worker is: `serving`, with its addresses; `stopping`, as an operator has asked; `alive`, so not hanging.

    Another report is one of another release.
    """

    report: str
    url: str = ""
    page: str | None = None
    port: int = 0
    admin_port: int | None = None


def encode(message: WorkerStart | WorkerOrder | WorkerReport) -> bytes:
    """The bytes of a message."""
    body = msgpack.encode(message)
    return _SIZE.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader, kind: type[_T]) -> _T | None:
    """The next message; None at the end. Raises `msgspec.DecodeError` for one that is none."""
    try:
        size: int = _SIZE.unpack(await reader.readexactly(_SIZE.size))[0]
        if size > _MOST:
            raise msgspec.DecodeError(f"a message of {size} bytes")
        body = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return msgpack.decode(body, type=kind)


# --- settings ---------------------------------------------------------------------------------------------------------


def to_plain(config: ServerConfig) -> dict[str, Any]:
    """The settings that are not the defaults, by name, as numbers, bytes and lists of these."""
    defaults = {each.name: each.default for each in fields(ServerConfig) if each.default is not MISSING}
    found = {name: getattr(config, name) for name in SETTINGS}
    return {name: _plain(value) for name, value in found.items() if value != defaults.get(name)}


def from_plain(settings: Mapping[str, Any]) -> ServerConfig:
    """The settings of `to_plain`. Raises `ConfigError`."""
    unknown = sorted(settings.keys() - set(SETTINGS))
    if unknown:
        raise ConfigError(unknown[0], "is no setting of this release; restart the whole server")
    return ServerConfig(**{name: _valued(value) for name, value in settings.items()})


def _plain(value: object) -> object:
    """Texts as bytes: a path need not be UTF-8."""
    if isinstance(value, Path):
        return _plain(str(value))
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _valued(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return tuple(_valued(each) for each in value)
    return value


# --- the worker's end -------------------------------------------------------------------------------------------------


class WorkerLink:
    """The end of the worker. The constructor waits for what the supervisor says first; it raises `EOFError` when that
    never comes."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        try:
            self._socket.set_inheritable(False)
            body = self._read(_SIZE.unpack(self._read(_SIZE.size))[0])
            self.start = msgpack.decode(body, type=WorkerStart)
        except BaseException:
            self._socket.close()
            raise
        self._reading: asyncio.Task[None] | None = None

    def _read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self._socket.recv(size - len(got))
            if not more:
                raise EOFError("the supervisor has ended")
            got += more
        return got

    @property
    def config(self) -> ServerConfig:
        """The settings of this worker. Raises `ConfigError`."""
        return from_plain(self.start.settings)

    @property
    def tuning(self) -> Tuning:
        """The constants of this worker."""
        return Tuning(**self.start.tuning)  # type: ignore[arg-type]  # whole numbers are `int` in MessagePack too

    def sockets(self) -> ActivatedSockets:
        """The open sockets of this worker. Call it once."""
        start = self.start
        return ActivatedSockets(*map(_opened, (start.public, start.redirect, start.admin, start.stun)))

    async def listen(self, stop: Callable[[bool], None]) -> None:
        """From now on call `stop(replaced)` when the supervisor says so, or has ended."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        self._reading = asyncio.create_task(self._obey(reader, stop), name="aldis-supervisor")

    async def _obey(self, reader: asyncio.StreamReader, stop: Callable[[bool], None]) -> None:
        with suppress(msgspec.DecodeError):
            while (order := await receive(reader, WorkerOrder)) is not None:
                if order.order == "stop":
                    stop(order.replaced)
        self._writer.close()
        stop(False)

    def report(self, report: WorkerReport) -> None:
        """Tell the supervisor; nothing happens when that has ended."""
        if not self._writer.is_closing():
            self._writer.write(encode(report))


def _opened(descriptors: list[int]) -> tuple[socket.socket, ...]:
    opened = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    for each in opened:
        each.set_inheritable(False)
    return opened
