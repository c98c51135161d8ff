"""The connection to a Redis or Valkey: one server, the master behind Sentinels, or a Cluster, with the same calls.

Rules:

* Every wait has an end: `CONNECT_SECONDS` for a connection, `ANSWER_SECONDS` for an answer.
* Nothing is sent a second time by itself, except a script that the server does not know (any more), which has had no
  effect, and in a Cluster a command that the server refused because another one has its keys.
* A master that Sentinels have replaced gets no more commands, a second later.
* At most `MAX_CONNECTIONS` connections to each server.

It does not know what is kept there.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from importlib.resources import files
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, PipelineCommand, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - the library's own
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TimeoutError,  # noqa: A004 - the library's own
    TryAgainError,
)

from aldis.backends.redis_url import RedisUrl
from aldis.errors import ConfigError

# Seconds. In one data center a connection takes milliseconds; clients give up soon after these together.
CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 4.0
# Between two questions to the Sentinels, while commands are sent: a master that they have replaced answers on for ten
# seconds, and longer when it is cut off from them. What it takes is lost.
FOLLOW_SECONDS: Final = 1.0
# For the masters of a Cluster, of which one server after the other is asked in any order: one that hangs would hold up
# the question for as long as a command. The next one is asked by the next call.
LOOK_SECONDS: Final = 1.0
# To each server: twice what the lanes of the directory use at a time.
MAX_CONNECTIONS: Final = 16
CLIENT_NAME: Final = "aldis"
# What uvloop says of a transport that is closed.
_CLOSED: Final = "the handler is closed"

Word: TypeAlias = str | bytes | int
Address: TypeAlias = tuple[str, int]
"""The host and port of a server."""


class Script:
    """A Lua script in a file, known to the server by its hash.

    The file is in the folder `lua` of a package. `shared` is another one there, whose functions the script uses.
    """

    def __init__(self, name: str, package: str = "aldis.backends", *, shared: str | None = None) -> None:
        folder = files(package).joinpath("lua")
        self.text = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
        if shared is not None:
            before = folder.joinpath(f"{shared}.lua").read_text(encoding="utf-8")
            # A first line with flags stays the first (Redis, "Script flags").
            flags, _, rest = self.text.partition("\n") if self.text.startswith("#!") else ("", "", self.text)
            self.text = "\n".join(filter(None, (flags, before, rest)))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Command(NamedTuple):
    """A command on one key, or a script on one and `others`; in a Cluster all have the slot of the first."""

    name: str | Script
    key: str
    words: tuple[Word, ...] = ()
    others: tuple[str, ...] = ()

    def sent(self, *, whole: bool = False) -> tuple[Word, ...]:
        """What goes to the server; with `whole`, the text of a script instead of its hash."""
        if isinstance(self.name, str):
            return (self.name, self.key, *self.words)
        how = ("EVAL", self.name.text) if whole else ("EVALSHA", self.name.sha)
        return (*how, 1 + len(self.others), self.key, *self.others, *self.words)


class RedisServers:
    """The servers of a URL. Calls raise what redis-py raises; `in_words` puts it in words."""

    def __init__(self, where: RedisUrl) -> None:
        self.where = where
        self._sentinel: Sentinel | None = None
        self._following: asyncio.Task[None] | None = None
        self._followed = -inf
        more: dict[str, Any] = _login(where) | _timeouts() | _tls(where)
        try:
            self._client: Redis | RedisCluster
            if where.kind == "cluster":
                nodes = [ClusterNode(host, port) for host, port in where.hosts]
                # A node that is away is found out by the call that needs it: not by all calls.
                self._client = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **more)
            elif where.kind == "sentinel":
                kwargs = _timeouts() | _tls(where)
                self._sentinel = _Sentinels(where.hosts, sentinel_kwargs=kwargs, **more)  # type: ignore[no-untyped-call]
                self._client = self._sentinel.master_for(
                    where.service, connection_pool_class=_MasterPool, db=where.database
                )
            else:
                ((host, port),) = where.hosts
                self._client = Redis(host=host, port=port, db=where.database, **more)
        except (OSError, RedisError) as error:
            raise ConfigError("directory", f"{where} cannot be used: {error}") from error

    async def run(self, commands: Sequence[Command], *, sync_ms: int | None = None, ordered: bool = False) -> list[Any]:
        """Send commands at once; return an answer or exception for each.

        With `sync_ms`, wait for so long until their effects are in the synced append-only file (WAITAOF). Commands
        whose effects are not get an exception.

        With `ordered`, those of one server take effect in this order, also when it does not know the scripts: the first
        call of each has its text. Without, a script that was unknown takes effect after the others.
        """
        self._follow()
        with _connections():
            whole = await self._first_calls(commands) if ordered else frozenset()
            answers = await self._send(commands, whole=whole, sync_ms=sync_ms)
            if sync_ms is not None and (moved := _places_of(answers, _REDIRECTED)):
                # redis-py would send these to another server behind the wait for the disk, and nobody waits there.
                assert isinstance(self._client, RedisCluster)  # noqa: S101 - no other server says so
                await self._client.nodes_manager.initialize()
                await self._again(commands, answers, moved, sync_ms=sync_ms)
                # Of a slot that is being moved, key by key.
                for place in _places_of(answers, AskError):
                    if not isinstance(answers[place], MovedError):
                        answers[place] = await self._asking(commands[place], answers[place], sync_ms)
                # Keys of one script that are at two servers, or a slot that has moved meanwhile: the library finds the
                # server, without a wait for the disk.
                moved = _places_of(answers, _REDIRECTED)
                await self._again(commands, answers, moved, sync_ms=None)
            unknown = _places_of(answers, NoScriptError)
            await self._again(commands, answers, unknown, sync_ms=sync_ms)
        return answers

    async def of_each(self, *words: Word) -> list[Any]:
        """The answers to one command of all servers that take writes."""
        client = self._client
        with _connections():
            await self._leave_the_dead()
            if isinstance(client, RedisCluster):
                return [await node.execute_command(*words) for node in client.get_primaries()]
            return [await client.execute_command(*words)]  # type: ignore[no-untyped-call]

    async def masters(self) -> list[Address]:
        """The addresses of all servers that take writes; Sentinels and a Cluster are asked anew."""
        client = self._client
        with _connections():
            if isinstance(client, RedisCluster):
                await client.initialize()
                async with asyncio.timeout(LOOK_SECONDS):
                    await client.nodes_manager.initialize()
                return [(str(node.host), int(node.port)) for node in client.get_primaries()]
            if self._sentinel is not None:
                # It closes the connections to a former master that are idle.
                host, port = await client.connection_pool.get_master_address()  # type: ignore[attr-defined]
                return [(str(host), int(port))]
        return list(self.where.hosts)

    def master_of(self, key: bytes) -> Address | None:
        """In a Cluster, the address of the server that has a key or channel, as far as it is known."""
        assert isinstance(self._client, RedisCluster)  # noqa: S101 - of a Cluster
        try:
            node = self._client.get_node_from_key(key)  # type: ignore[arg-type]
        except RedisClusterException:
            return None
        return None if node is None else (str(node.host), int(node.port))

    @cached_property
    def tls_context(self) -> ssl.SSLContext | None:
        """What another connection to these servers needs; None without TLS."""
        where = self.where
        if not where.tls:
            return None
        context = ssl.create_default_context()
        if where.ca_file is not None:
            context.load_verify_locations(where.ca_file)
        if where.cert_file is not None:
            context.load_cert_chain(where.cert_file, where.key_file)
        return context

    async def keys(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys of this pattern; one that comes or goes meanwhile may be missing, and some come twice."""
        # Keys looked at in one call: a call takes about a millisecond, during which the server answers nobody else.
        with _connections():
            await self._leave_the_dead()
            async for key in self._client.scan_iter(match=pattern, count=1000):
                yield cast(bytes, key)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._client.aclose()
        if self._sentinel is not None:
            for sentinel in self._sentinel.sentinels:
                await sentinel.aclose()

    def in_words(self, error: BaseException) -> str | None:
        """What an operator has to know about a fault of a call; None for one that is a bug."""
        for kind, words in _WORDS.items():
            if isinstance(error, kind):
                return f"{self.where} {words} ({error})" if str(error) else f"{self.where} {words}"
        return None

    # --- internal ---------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """See whether there is another master, without waiting for it."""
        now = asyncio.get_running_loop().time()
        if self._sentinel is None or self._following is not None or now - self._followed < FOLLOW_SECONDS:
            return
        self._followed = now

        async def look() -> None:
            try:
                await self.masters()
            except (OSError, RedisError, builtins.TimeoutError):
                pass  # no Sentinel answers: the connections that there are will do
            finally:
                self._following = None

        self._following = asyncio.create_task(look(), name="aldis-redis-master")

    async def _again(
        self,
        commands: Sequence[Command],
        answers: list[Any],
        places: Sequence[int],
        *,
        sync_ms: int | None,
    ) -> None:
        """Send the commands at these places again, with the texts of their scripts, and put their answers in place."""
        if not places:
            return
        again = await self._send([commands[place] for place in places], whole=range(len(places)), sync_ms=sync_ms)
        for place, answer in zip(places, again, strict=True):
            answers[place] = answer

    async def _asking(self, command: Command, asked: AskError, sync_ms: int) -> Any:
        """The answer of the server that a slot is being moved to, when it is on its disk."""
        assert isinstance(self._client, RedisCluster)  # noqa: S101 - no other server says so
        node = self._client.get_node(host=asked.host, port=asked.port)
        if node is None:
            return asked
        words = (("ASKING",), command.sent(whole=True), (*_WAIT_FOR_DISK, sync_ms))
        sent = [PipelineCommand(place, *some) for place, some in enumerate(words)]
        try:
            await node.execute_pipeline(sent)
        except (OSError, RedisError) as error:
            return error
        _, answer, synced = (each.result for each in sent)
        return answer if isinstance(answer, Exception) or _is_synced(synced) else _late()

    async def _first_calls(self, commands: Sequence[Command]) -> frozenset[int]:
        """The places of the first call of each script at each server."""
        if isinstance(self._client, RedisCluster):
            await self._client.initialize()
        try:
            servers = self._servers_of(commands)
        except RedisClusterException:
            return frozenset()  # a key has no server: its command will say so
        first: dict[tuple[ClusterNode | None, str], int] = {}
        for node, places in servers.items():
            for place in places:
                if isinstance(script := commands[place].name, Script):
                    first.setdefault((node, script.sha), place)
        return frozenset(first.values())

    async def _send(self, commands: Sequence[Command], *, whole: Container[int], sync_ms: int | None) -> list[Any]:
        """Send commands; those at the places `whole` with the text of their script."""
        await self._leave_the_dead()
        pipeline: Any  # both kinds of the library, which share no type
        if isinstance(self._client, RedisCluster):
            pipeline = self._client.pipeline()
        else:
            pipeline = self._client.pipeline(transaction=False)
        for place, command in enumerate(commands):
            pipeline.execute_command(*command.sent(whole=place in whole))
        # WAITAOF is about the writes of its own connection, so it goes behind them, once to each server.
        servers = self._servers_of(commands) if sync_ms is not None else {}
        for node in servers:
            more = {} if node is None else {"target_nodes": node}
            pipeline.execute_command(*_WAIT_FOR_DISK, sync_ms, **more)
        alone = {"allow_redirections": False} if servers and isinstance(self._client, RedisCluster) else {}
        answers: list[Any] = await pipeline.execute(raise_on_error=False, **alone)
        waits = answers[len(commands) :]
        for places, synced in zip(servers.values(), waits, strict=True):
            if not _is_synced(synced):
                late = _late()
                for place in places:
                    answers[place] = late if not isinstance(answers[place], Exception) else answers[place]
        return answers[: len(commands)]

    async def _leave_the_dead(self) -> None:
        """Close idle connections that have ended; in a Cluster, ask who has the slots of their servers now.

        redis-py takes the next one that is idle: in a Cluster as it is, and elsewhere one that was reset, because it
        only sees those that were closed. So the first call after that would fail, although a server is there.
        """
        client = self._client
        if not isinstance(client, RedisCluster):
            await _close_ended(_idle(client))
            return
        await client.initialize()
        if await _close_ended(one for node in client.get_nodes() for one in getattr(node, "_free", ())):
            await client.nodes_manager.initialize()

    def _servers_of(self, commands: Sequence[Command]) -> Mapping[ClusterNode | None, list[int]]:
        """The places of the commands by the server that gets them; None is the only one."""
        found: dict[ClusterNode | None, list[int]] = {}
        for place, command in enumerate(commands):
            cluster = self._client if isinstance(self._client, RedisCluster) else None
            node = None if cluster is None else cluster.get_node_from_key(command.key)
            found.setdefault(node, []).append(place)
        return found


_WAIT_FOR_DISK: Final[tuple[Word, ...]] = ("WAITAOF", 1, 0)
# What a server of a Cluster says of a key that another one has.
_REDIRECTED: Final = (AskError, TryAgainError)  # a MovedError is an AskError


def _is_synced(answer: Any) -> bool:
    return not isinstance(answer, Exception) and answer[0] >= 1


def _late() -> Exception:
    return TimeoutError("its append-only file was not synced in time")


def _places_of(answers: Sequence[Any], kind: type[Exception] | tuple[type[Exception], ...]) -> list[int]:
    return [place for place, answer in enumerate(answers) if isinstance(answer, kind)]


# The first one that fits counts.
_WORDS: Final[dict[type[BaseException], str]] = {
    AuthenticationError: "refuses the user or the password",
    AuthorizationError: "refuses the user or the password",
    NoPermissionError: "does not allow its user a command or a key: see its ACL",
    BusyLoadingError: "is still loading its data",
    OutOfMemoryError: "has no memory left: raise its maxmemory",
    ReadOnlyError: "is a replica, and takes no writes",
    ClusterDownError: "is down: some of its slots have no server",
    TimeoutError: "does not answer in time",
    builtins.TimeoutError: "does not answer in time",
    ConnectionError: "cannot be reached",
    RedisClusterException: "cannot be reached",
    RedisError: "refuses a command",
    OSError: "cannot be reached",
}


class _Sentinels(Sentinel):
    """Asks all Sentinels for the master, also when several calls ask at once."""

    async def discover_master(self, service_name: str) -> Any:
        """redis-py puts the Sentinel that knew it before the others, in the list that all calls go through: another
        call then skips that one, and one that knew it too leaves it in two places, and a Sentinel in none."""
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        for sentinel in asked.sentinels:
            await _close_ended(_idle(sentinel))
        try:
            found = await super(_Sentinels, asked).discover_master(service_name)
        except MasterNotFoundError as error:
            raise MasterNotFoundError(_without_objects(str(error))) from None
        self.sentinels = sorted(self.sentinels, key=lambda sentinel: sentinel is not asked.sentinels[0])
        return found


def _without_objects(text: str) -> str:
    """What redis-py says of Sentinels without their objects, of which each takes a thousand characters."""
    kept, depth = [], 0
    for part in re.split("([<>])", text):
        if part == "<":
            kept += ["a Sentinel"] if not depth else []
            depth += 1
        elif part == ">":
            depth = max(0, depth - 1)
        elif not depth:
            kept.append(part)
    return "".join(kept)


class _MasterPool(SentinelConnectionPool):
    """Keeps no connection to a former master, be it idle or in use when there was another one."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """redis-py leaves idle connections in the pool while it closes them, so that a call may get one of them: it
        would go to the former master, or fail."""
        if inuse_connections:
            await super().disconnect()
            return
        idle, self._available_connections = self._available_connections, []
        await asyncio.gather(*(connection.disconnect() for connection in idle), return_exceptions=True)

    async def release(self, connection: Any) -> None:
        if self.master_address != (connection.host, connection.port):
            await connection.disconnect()
        await super().release(connection)


# `_available_connections`, `_free` and `_reader` of redis-py are no public names.


def _idle(client: Redis) -> list[Any]:
    return list(getattr(client.connection_pool, "_available_connections", ()))


async def _close_ended(idle: Iterable[Any]) -> bool:
    """Close those connections that have ended; whether there are any. No other call gets one of them meanwhile."""
    ended = [
        connection
        for connection in idle
        if (reader := getattr(connection, "_reader", None)) is not None
        and (reader.at_eof() or reader.exception() is not None)
    ]
    for connection in ended:
        await connection.disconnect(nowait=True)
    return bool(ended)


@contextmanager
def _connections() -> Iterator[None]:
    """A call on connections that may have ended.

    One may end just before it is used, and for that uvloop raises what it uses for bugs, too.
    """
    try:
        yield
    except RuntimeError as error:
        if _CLOSED not in str(error):
            raise
        raise ConnectionError("the connection has ended") from error


def _login(where: RedisUrl) -> dict[str, Any]:
    return {"username": where.user, "password": where.password, "max_connections": MAX_CONNECTIONS}


def _timeouts() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "client_name": CLIENT_NAME,
        "protocol": 2,  # nothing here needs RESP3
    }


def _tls(where: RedisUrl) -> dict[str, Any]:
    if not where.tls:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": where.ca_file,
        "ssl_certfile": where.cert_file,
        "ssl_keyfile": where.key_file,
    }
