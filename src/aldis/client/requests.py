"""The requests that have no answer yet.

This module numbers, encodes and sends them, finds the request of a reply, reports those that are overdue, and ends each
exactly once, with `Completed` or `Failed`. `client.machine` knows what the end of a request means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from msgspec import UnsetType

from aldis.client.effects import Completed, Effect, Failed, Happened, Result, Send
from aldis.client.events import IceServers, WatchEnded
from aldis.client.inbound import discovery_of
from aldis.client.watches import Watches
from aldis.errors import (
    AldisError,
    MessageTooLarge,
    ProtocolViolation,
    RequestFailed,
    RequestTimeout,
    UsageError,
)
from aldis.identity.keys import Identity
from aldis.protocol import messages as m
from aldis.protocol.codec import encode, raw, to_base64

# The largest message while the server has not told its limit; a server's default.
DEFAULT_MAX_MESSAGE: Final = 64 * 1024
# A server looks names up one after the other for each client. Meanwhile 256 requests may wait. With more, this version
# stops reading, and earlier versions close the connection for good (4504). So leave most of that to messages to peers.
MOST_LOOKUPS: Final = 32
# Seconds. A longer resume window of a server is cut to this, because a request without an answer has to end some time.
_LONGEST_WINDOW: Final = 120.0
# Type, id, brackets and commas of a `watch`, rounded up.
_WATCH_OVERHEAD: Final = 128

Request: TypeAlias = (
    m.Register | m.Rotate | m.Discover | m.Watch | m.Unwatch | m.IceServersRequest | m.Ping | m.Unregister | m.Relayed
)
Reply: TypeAlias = m.Ack | m.DiscoverResponse | m.IceServers | m.Pong | m.Rotated | m.Unregistered

# The possible replies to each request, except `error`. Relayed messages, `watch` and `unwatch` get an `ack`.
_REPLIES: Final[dict[type[Request], type[Reply]]] = {
    m.Discover: m.DiscoverResponse,
    m.IceServersRequest: m.IceServers,
    m.Ping: m.Pong,
    m.Rotate: m.Rotated,
    m.Unregister: m.Unregistered,
}


@dataclass(slots=True, eq=False)
class Pending:
    """A request without an answer."""

    number: int
    message: Request
    text: str
    deadline: float
    seconds: float  # its time from sending to the deadline
    # The machine's own request, without `Completed` or `Failed`.
    internal: bool
    # The key of a registration or a rotation.
    identity: Identity | None
    # None while it waits for a registration.
    sent_at: float | None = None
    # For a `watch`: the names that were not watched before.
    added: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The type of the request in the protocol."""
        return str(self.message.__struct_config__.tag)

    def result(self, reply: Reply, now: float) -> Result:
        """The result in a reply; `ProtocolViolation` when the reply does not fit this request."""
        # A registration ends with `registered`, which the machine handles, or with an `error`.
        if isinstance(self.message, m.Register) or type(reply) is not _REPLIES.get(type(self.message), m.Ack):
            raise ProtocolViolation(f"{reply.__struct_config__.tag} as the reply to {self.name}")
        match reply:
            case m.DiscoverResponse():
                if not isinstance(self.message, m.Discover) or reply.user_id != self.message.user_id:
                    raise ProtocolViolation("a discover-response about another user")
                return discovery_of(reply)
            case m.IceServers():
                return IceServers(tuple(reply.ice_servers), max(0, reply.ttl))
            case m.Pong():
                return now - (now if self.sent_at is None else self.sent_at)
            case m.Rotated():
                if self.identity is None or reply.public_key != to_base64(self.identity.public_key):
                    raise ProtocolViolation("rotated to another key")
        return None


class RequestBook:
    """All requests of one client without an answer, in the order in which they were made."""

    def __init__(self, timeout: float, watches: Watches, effects: list[Effect]) -> None:
        self.timeout = timeout
        self.max_message = DEFAULT_MAX_MESSAGE
        """The largest message that the server accepts, in bytes."""
        self._watches = watches
        self._effects = effects
        self._window = 0.0
        self._pending: dict[int, Pending] = {}
        # The same requests in two groups: the server answers the first at once, and the second when it has reached
        # another user. All requests of a group wait equally long, so their order is that of the deadlines too.
        self._prompt: dict[int, Pending] = {}
        self._relayed: dict[int, Pending] = {}
        # `discover` requests: those that were sent, and those that wait for answers to them.
        self._lookups: set[int] = set()
        self._held_lookups: dict[int, Pending] = {}
        self._last = 0

    def allow(self, resume_window: float) -> None:
        """Set how many seconds the server keeps a message for a user whose connection is lost: it answers only then
        (docs/protocol.md, "Resume"). Before this call, the value is 0."""
        self._window = min(max(resume_window, 0.0), _LONGEST_WINDOW)

    def add(self, message: Request, now: float, *, identity: Identity | None = None, internal: bool = False) -> Pending:
        """Enter a request, with a number that becomes its `id`.

        Raises `MessageTooLarge` (the server would end the connection) and `UsageError` for text that is not UTF-8. Then
        nothing is entered.
        """
        number = self._last + 1
        message.id = number
        try:
            data = encode(message)
        except UnicodeEncodeError as error:
            raise UsageError(f"the text cannot be sent: {error}") from None
        if len(data) > self.max_message and not internal:
            raise MessageTooLarge(len(data), self.max_message)
        self._last = number
        pending = Pending(number, message, data.decode(), now + self.timeout, self.timeout, internal, identity)
        self._pending[number] = self._prompt[number] = pending
        if isinstance(message, m.Discover):
            self._held_lookups[number] = pending
        return pending

    def may_go(self, pending: Pending) -> bool:
        """Whether the number of requests on their way allows this one to be sent now."""
        return not isinstance(pending.message, m.Discover) or len(self._lookups) < MOST_LOOKUPS

    def next_lookup(self) -> Pending | None:
        """The first waiting `discover` that may be sent now."""
        first = next(iter(self._held_lookups.values()), None)
        return first if first is not None and self.may_go(first) else None

    def send(self, pending: Pending, now: float) -> None:
        """Send a request. The server may have to wait for the recipient."""
        self._effects.append(Send(pending.text))
        pending.added = self._watches.sent(pending.message, pending.number)
        pending.sent_at = now
        if self._held_lookups.pop(pending.number, None) is not None:
            self._lookups.add(pending.number)
        if isinstance(pending.message, m.Relayed):
            pending.seconds = self.timeout + self._window
            pending.deadline = now + pending.seconds
            self._relayed[pending.number] = self._prompt.pop(pending.number)

    def complete(self, pending: Pending, result: Result) -> None:
        """End a request with its result."""
        if self._remove(pending) and not pending.internal:
            self._effects.append(Completed(pending.number, result))

    def fail(self, pending: Pending, error: AldisError) -> None:
        """End a request without a result."""
        if not self._remove(pending):
            return
        self._watches.drop(pending.added)
        if not pending.internal:
            self._effects.append(Failed(pending.number, error))
        elif isinstance(pending.message, m.Watch) and isinstance(error, RequestFailed | RequestTimeout):
            # The server did not restore a watch in a new session, while the application thinks that it still watches.
            user_ids = tuple(pending.message.user_ids)
            self._watches.drop(user_ids)
            self._effects.append(Happened(WatchEnded(user_ids, error)))

    def _remove(self, pending: Pending) -> bool:
        """Remove an ended request; False when it had ended before."""
        self._watches.ended(pending.number)
        for kind in (self._prompt, self._relayed, self._held_lookups):
            kind.pop(pending.number, None)
        self._lookups.discard(pending.number)
        return self._pending.pop(pending.number, None) is not None

    def answered_by(self, re: m.RequestId | UnsetType) -> Pending | None:
        """The sent request that a message with this `re` answers."""
        pending = self._pending.get(re) if isinstance(re, int) else None
        return pending if pending is not None and pending.sent_at is not None else None

    def sent(self) -> list[Pending]:
        """The requests that wait for the server."""
        return [pending for pending in self._pending.values() if pending.sent_at is not None]

    def held(self) -> Iterator[Pending]:
        """The requests that wait for a registration and may be sent then."""
        for pending in self.all():
            if pending.sent_at is None and self.may_go(pending):
                yield pending

    def all(self) -> list[Pending]:
        """All requests."""
        return list(self._pending.values())

    def overdue(self, now: float) -> list[Pending]:
        """The requests whose deadline has passed."""
        found: list[Pending] = []
        for kind in (self._prompt, self._relayed):
            for pending in kind.values():
                if pending.deadline > now:
                    break
                found.append(pending)
        return found

    @property
    def deadline(self) -> float | None:
        """The earliest deadline."""
        first = (next(iter(kind.values()), None) for kind in (self._prompt, self._relayed))
        return min((pending.deadline for pending in first if pending is not None), default=None)

    def chunks(self, user_ids: Iterable[str]) -> Iterator[list[str]]:
        """User ids without duplicates, in lists that fit into one message."""
        chunk: list[str] = []
        room = self.max_message - _WATCH_OVERHEAD
        for user_id in dict.fromkeys(user_ids):
            size = len(bytes(raw(user_id))) + 1
            if chunk and (len(chunk) >= m.MAX_WATCHED_PER_MESSAGE or size > room):
                yield chunk
                chunk, room = [], self.max_message - _WATCH_OVERHEAD
            chunk.append(user_id)
            room -= size
        if chunk:
            yield chunk
