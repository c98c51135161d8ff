"""One connection to a Redis 7 or Valkey that both subscribes and publishes (RESP3).

Rules:

* What is written in one turn of the event loop goes out together. Answers come in the order of the commands; what is
  published comes in between.
* What has come is handled for `TURN` seconds of each turn, and no more is read meanwhile: several nodes send more than
  one can handle, and its own clients have their turns, too.
* Behind the commands that subscribe goes a PING: its answer comes after all that the server says to them. A channel
  that is not in `channels` then was refused.
* A server that says nothing for `SILENCE`, though it has something to answer, is given up. It has a PING to answer when
  it was silent for `TICK`. So one that hangs is noticed within `SILENCE + 3 * TICK`.
* When the connection ends, the owner gets all that was published and not answered.

It knows no bucket and no node.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, cast

import hiredis

from aldis.backends.redis_client import CLIENT_NAME, CONNECT_SECONDS, Address, RedisServers
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.messages import Message

# Seconds.
TICK: Final = 0.5
SILENCE: Final = 3.0
# Of each turn of the event loop: some hundred messages. A read of 256 KB has 1,600, and one turn has up to 32 reads.
TURN: Final = 0.001
# A timer that is so late says that this process was held up, and has not read what has come.
_HELD_UP: Final = 2 * TICK

# What the PING may be refused with: by a server that is not ready, or whose disk is broken. The latter takes no changes
# of its data, and publishes on (Redis, `processCommand`).
_AWAY: Final = ("LOADING", "MASTERDOWN")
_DISK: Final = "MISCONF"
_NO_PING: Final = "the 'ping' command"  # in NOPERM
_NOTHING: Final = object()
_PING: Final = b"*2\r\n$4\r\nPING\r\n$1\r\n.\r\n"


class Sent(NamedTuple):
    """A message on its way. `node_id`: to whom; empty: to all. `size`: what it takes in the queue."""

    node_id: str
    message: Message
    size: int


class Asked:
    """Channels that were asked for, and the errors that came. `done` is called when the server has answered."""

    __slots__ = ("answer", "done", "errors")

    def __init__(self, done: Callable[[list[str]], None]) -> None:
        self.done = done
        self.errors: list[str] = []
        self.answer: Any = None


class LinkOwner(Protocol):
    """What is told of a link. No method raises."""

    def received(self, channel: bytes, data: bytes) -> None:
        """Something was published."""

    def answered(self, sent: Sent, receivers: int | Exception) -> None:
        """The server has published a message to so many, or has refused it."""

    def left(self, link: Link, channel: bytes) -> None:
        """The server has ended a subscription, perhaps by itself."""

    def ended(self, link: Link, why: str, unanswered: Sequence[Sent]) -> None:
        """The connection is gone."""


class Link(asyncio.Protocol):
    """See the module. `open_link` makes it."""

    def __init__(self, owner: LinkOwner, address: Address, *, sharded: bool) -> None:
        self.address = address
        self.channels: set[bytes] = set()
        """Those that the server has confirmed."""
        self.over = False
        self._owner = owner
        self._sharded = sharded
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._behind = False  # some of what has come waits for the next turn
        self._out: list[bytes] = []
        self._expected: deque[Sent | Asked] = deque()
        # When the server was last heard, and since when it has something to answer.
        self._heard = self._since = self._loop.time()
        self._tick_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def publish(self, command: bytes, sent: Sent) -> None:
        """Send a PUBLISH or SPUBLISH. `LinkOwner.answered` or `ended` gets it back."""
        self._write(command, sent)

    def subscribe(self, channels: Sequence[bytes], done: Callable[[list[str]], None]) -> None:
        """Ask for channels. `done` gets the errors; one when the connection ends, after `LinkOwner.ended`."""
        self._control("SUBSCRIBE", channels, done)

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Ask for channels no more."""
        self._control("UNSUBSCRIBE", channels, _nothing)

    async def settled(self) -> None:
        """Wait until all is answered. Raises `ClusterUnavailable` when the connection ends before."""
        done: asyncio.Future[list[str]] = self._loop.create_future()
        self._write(_PING, Asked(_setter(done)))
        if errors := await done:
            raise ClusterUnavailable(errors[0])

    def end(self, why: str) -> None:
        """Close at once."""
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        unanswered = [each for each in self._expected if isinstance(each, Sent)]
        asked = [each for each in self._expected if isinstance(each, Asked)]
        self._expected.clear()
        self._out.clear()
        self._owner.ended(self, why, unanswered)
        for each in asked:
            each.done([why])

    async def greet(self, servers: RedisServers) -> None:
        """Log in. Raises `ClusterUnavailable`."""
        where = servers.where
        words = ["HELLO", "3"]
        if where.user is not None or where.password is not None:
            words += ["AUTH", where.user or "default", where.password or ""]
        greeted: asyncio.Future[list[str]] = self._loop.create_future()
        words += ["SETNAME", CLIENT_NAME]
        hello = Asked(_setter(greeted))
        self._write(packed(*(word.encode() for word in words)), hello)
        # A server that is still loading its data greets, and answers nothing else.
        ready: asyncio.Future[list[str]] = self._loop.create_future()
        self._write(_PING, Asked(_setter(ready)))
        for answered in (greeted, ready):
            if errors := await answered:
                raise ClusterUnavailable(f"{servers.where} refuses a connection ({errors[0]})")
        if not isinstance(hello.answer, dict):
            raise ClusterUnavailable(f"{servers.where} does not speak the protocol of Redis 7")
        # What it publishes does not reach the others: its master has the subscriptions.
        if hello.answer.get(b"role") != b"master":
            raise ClusterUnavailable(f"{servers.where} has only a replica at {self.address[0]}:{self.address[1]}")
        self._tick_due = self._loop.time() + TICK
        self._timer = self._loop.call_at(self._tick_due, self._tick)

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._handle(inf)  # answers among it are good
        self.end(f"has ended the connection{f' ({exc})' if exc else ''}")

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._reader.feed(data)
        if not self._behind and not self._handle(TURN):
            self._wait()

    # --- what has come ------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Go on in the next turn, and read no more until then."""
        if not self._behind and self._transport is not None:
            self._transport.pause_reading()
        self._behind = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.over:
            return
        self._heard = self._loop.time()
        if not self._handle(TURN):
            self._wait()
        elif not self.over:
            self._behind = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _handle(self, seconds: float) -> bool:
        """Handle what has come, for so many seconds. Returns whether there is nothing left to handle."""
        reader, end = self._reader, monotonic() + seconds
        while not self.over:
            try:
                reply = reader.gets()
            except hiredis.ProtocolError as error:
                self.end(f"does not speak the protocol of Redis ({error})")
                break
            if reply is _NOTHING:
                break
            if type(reply) is not hiredis.PushNotification:
                self._answer(reply)
            else:
                self._pushed(reply)
            if monotonic() >= end:
                return self.over
        return True

    def _pushed(self, reply: Any) -> None:
        match reply[0]:
            case b"message" | b"smessage":
                self._owner.received(reply[1], reply[2])
            case b"subscribe" | b"ssubscribe":
                self.channels.add(reply[1])
            case b"unsubscribe" | b"sunsubscribe":
                self.channels.discard(reply[1])
                self._owner.left(self, reply[1])

    # --- internal ---------------------------------------------------------------------------------------------------

    def _control(self, name: str, channels: Sequence[bytes], done: Callable[[list[str]], None]) -> None:
        if not self._sharded:
            commands = packed(name.encode(), *channels)
        else:  # the channels of one command have one slot
            commands = b"".join(packed(b"S" + name.encode(), channel) for channel in channels)
        self._write(commands + _PING, Asked(done))

    def _write(self, commands: bytes, expected: Sent | Asked) -> None:
        if self.over:
            if isinstance(expected, Asked):
                self._loop.call_soon(expected.done, ["has ended the connection"])
            return
        if not self._expected:
            self._since = self._loop.time()
        self._expected.append(expected)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(commands)

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _answer(self, reply: Any) -> None:
        if not self._expected:
            self.end(f"has answered nothing that was asked ({reply})")
            return
        first = self._expected[0]
        if isinstance(first, Sent):
            self._expected.popleft()
            self._owner.answered(first, reply)
        elif isinstance(reply, hiredis.ReplyError):
            error = str(reply)
            if not error.startswith(_DISK):
                first.errors.append(error)
            # Others are about channels, and the answer to the PING is still to come.
            if self._timer is None or error.startswith((*_AWAY, _DISK)) or _NO_PING in error:
                self._expected.popleft()
                first.done(first.errors)
        else:
            self._expected.popleft()
            first.answer = reply
            first.done(first.errors)

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._tick_due > _HELD_UP:
            self._heard = now
        if self._expected:
            if now - max(self._heard, self._since) > SILENCE:
                self.end("does not answer in time")
                return
        elif now - self._heard >= TICK:
            self._write(_PING, Asked(_nothing))
        self._tick_due = now + TICK
        self._timer = self._loop.call_at(self._tick_due, self._tick)


def packed(*words: bytes) -> bytes:
    """A command as it goes to the server."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def open_link(owner: LinkOwner, servers: RedisServers, address: Address) -> Link:
    """Connect to a server, within `CONNECT_SECONDS`. Raises `OSError`, `TimeoutError` and `ClusterUnavailable`."""
    loop, sharded = asyncio.get_running_loop(), servers.where.kind == "cluster"
    link = Link(owner, address, sharded=sharded)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await loop.create_connection(lambda: link, *address, ssl=servers.tls_context)
            await link.greet(servers)
    except BaseException:
        link.end("cannot be reached")
        raise
    if link.over:
        raise ConnectionError("the connection has ended")
    return link


def _setter(future: asyncio.Future[list[str]]) -> Callable[[list[str]], None]:
    return lambda errors: None if future.done() else future.set_result(errors)


def _nothing(errors: list[str]) -> None:
    """The answer does not matter."""
