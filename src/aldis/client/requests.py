"""The requests that have no answer yet.

This module numbers, encodes and sends them, finds the request of a reply, reports those that are overdue, and ends each
exactly once, with `Completed` or `Failed`. Requests that the server has refused for a while wait in lines
(`client.limited`). `client.machine` knows what the end of a request means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.client.effects import Completed, Effect, Failed, Happened, Result, Send
from aldis.client.events import IceServers, WatchEnded
from aldis.client.inbound import discovery_of, privacy_of
from aldis.client.limited import LimitedRequests, Waiting
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
from aldis.protocol.codes import LONGEST_PAUSE

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
    m.Register
    | m.Rotate
    | m.Discover
    | m.Watch
    | m.Unwatch
    | m.IceServersRequest
    | m.PrivacyRequest
    | m.SealKeyRequest
    | m.Ping
    | m.Unregister
    | m.Relayed
)
Reply: TypeAlias = m.Ack | m.DiscoverResponse | m.IceServers | m.Pong | m.PrivacyMessage | m.Rotated | m.Unregistered

# The possible replies to each request, except `error`. The others get an `ack`.
_REPLIES: Final[dict[type[Request], type[Reply]]] = {
    m.Discover: m.DiscoverResponse,
    m.IceServersRequest: m.IceServers,
    m.Ping: m.Pong,
    m.PrivacyRequest: m.PrivacyMessage,
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
    # Until when it may wait because the server refuses it for a while.
    until: float = 0.0
    # For a `watch`: the names that were not watched before.
    added: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The type of the request in the protocol."""
        return str(self.message.__struct_config__.tag)

    @property
    def line(self) -> str:
        """The requests that wait when the server refuses this one for a while."""
        message = self.message
        if isinstance(message, m.Relay):
            return f"relay to {message.to}"  # a budget of its own
        if isinstance(message, m.Relayed):
            return f"to {message.to}"
        return "watch" if isinstance(message, m.Unwatch) else self.name

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
            case m.PrivacyMessage():
                return privacy_of(reply)
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
        # The same requests in three groups: the server answers the first at once, the second when it has reached
        # another user, and watches one by one. All of a group wait equally long: their order is that of the deadlines.
        self._prompt: dict[int, Pending] = {}
        self._relayed: dict[int, Pending] = {}
        self._watching: dict[int, Pending] = {}
        # When the time of those watches began anew.
        self._watches_from = -inf
        # `discover` requests: those that were sent, and those that wait for answers to them.
        self._lookups: set[int] = set()
        self._held_lookups: dict[int, Pending] = {}
        self._limited = LimitedRequests()
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
        self._pending[number] = self._group(pending)[number] = pending
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
        """Send a request, for the first time or again. The server may have to wait for the recipient."""
        self._effects.append(Send(pending.text))
        pending.added = self._watches.sent(pending.message, pending.number)
        pending.sent_at = now
        self._held_lookups.pop(pending.number, None)
        if isinstance(pending.message, m.Discover):
            self._lookups.add(pending.number)
        if isinstance(pending.message, m.Relayed):
            self._prompt.pop(pending.number, None)
            self._allow_time(pending, now)
            pending.deadline = now + pending.seconds
            self._relayed[pending.number] = pending
        elif pending.until:  # again
            pending.deadline = now + pending.seconds
            self._group(pending)[pending.number] = pending

    def _group(self, pending: Pending) -> dict[int, Pending]:
        """Where a request waits that is not relayed, or not sent yet."""
        return self._watching if isinstance(pending.message, m.Watch | m.Unwatch) else self._prompt

    def _allow_time(self, pending: Pending, now: float) -> None:
        """Set the time of a message to another user, once: the server may have to wait for the recipient."""
        if not pending.until:
            pending.seconds = self.timeout + self._window
            pending.until = now + pending.seconds

    # --- limits of the server ---------------------------------------------------------------------------------------

    def refused(self, pending: Pending, error: RequestFailed, now: float, random: float) -> float | None:
        """The server has refused a request for a while: send it again later. Returns the seconds until then, 0 when
        others of its line wait already, and None when it may not wait."""
        if isinstance(pending.message, m.Ping | m.Register):
            return None
        pause = self._limited.refused(pending.line, self._waiting(pending, now), error, now, random)
        if pause is None:
            return None
        self._take_back(pending)
        if isinstance(pending.message, m.Discover):
            for other in list(self._held_lookups.values()):
                self.queue(other, now)
        return pause

    def queue(self, pending: Pending, now: float) -> bool:
        """Put a request behind others of its line that wait, if there are any. It fails when there is no room."""
        self._withdraw(pending)
        if pending.line not in self._limited:
            return False
        error = self._limited.add(pending.line, self._waiting(pending, now))
        if error is None:
            self._take_back(pending)
        else:
            self.fail(pending, error)
        return True

    def release(self, now: float) -> list[Pending]:
        """The requests whose pause is over, to be sent now."""
        return [self._pending[number] for number in self._limited.release(now)]

    def drop_restored_watches(self) -> None:
        """A new session has no watches: all of them are restored anew."""
        for pending in self.all():
            if pending.internal and isinstance(pending.message, m.Watch) and self._limited.holds(pending.number):
                self._remove(pending)

    def limited(self) -> list[Pending]:
        """The requests that wait because of a limit."""
        return [pending for pending in self.all() if self._limited.holds(pending.number)]

    def _waiting(self, pending: Pending, now: float) -> Waiting:
        if isinstance(pending.message, m.Relayed):
            self._allow_time(pending, now)
        elif not pending.until:
            # Nobody waits for the machine's own requests.
            pending.until = pending.deadline + (LONGEST_PAUSE if pending.internal else 0.0)
        return Waiting(pending.number, len(pending.text.encode()), pending.until, _connection(pending.message))

    def _take_back(self, pending: Pending) -> None:
        """A request counts as not sent."""
        pending.sent_at = None
        self._watches.ended(pending.number)
        self._watches.drop(pending.added)
        pending.added = ()
        for kind in (self._prompt, self._relayed, self._watching, self._held_lookups):
            kind.pop(pending.number, None)
        self._lookups.discard(pending.number)

    def _withdraw(self, pending: Pending) -> None:
        """A `bye` ends a peer connection: nobody needs the earlier messages about it that wait."""
        connection = _connection(pending.message)
        if isinstance(pending.message, m.Bye) and connection is not None:
            for number, error in self._limited.of_connection(pending.line, connection):
                self.fail(self._pending[number], error)

    # --- the end of a request ---------------------------------------------------------------------------------------

    def complete(self, pending: Pending, result: Result) -> None:
        """End a request with its result."""
        self._limited.taken(pending.number)
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
        self._limited.ended(pending.number)
        for kind in (self._prompt, self._relayed, self._watching, self._held_lookups):
            kind.pop(pending.number, None)
        self._lookups.discard(pending.number)
        return self._pending.pop(pending.number, None) is not None

    def answered_by(self, re: m.RequestId | UnsetType, now: float) -> Pending | None:
        """The sent request that a message with this `re` answers.

        An answer to a watch gives those behind it their whole time anew. Many watches cost much, so a server may take
        longer for all of them than one may wait.
        """
        pending = self._pending.get(re) if isinstance(re, int) else None
        if pending is None or pending.sent_at is None:
            return None
        if pending.number == next(iter(self._watching), None):
            self._watches_from = now
        return pending

    def sent(self) -> list[Pending]:
        """The requests that wait for the server."""
        return [pending for pending in self._pending.values() if pending.sent_at is not None]

    def held(self) -> Iterator[Pending]:
        """The requests that wait for a registration and may be sent then."""
        for pending in self.all():
            if pending.sent_at is None and self.may_go(pending) and not self._limited.holds(pending.number):
                yield pending

    def all(self) -> list[Pending]:
        """All requests."""
        return list(self._pending.values())

    def overdue(self, now: float) -> list[tuple[Pending, AldisError]]:
        """The requests whose time is over, with the error to end them with."""
        found: list[tuple[Pending, AldisError]] = []
        for kind in (self._prompt, self._relayed, self._watching):
            for pending in kind.values():
                if self._deadline_of(pending) > now:
                    break
                found.append((pending, RequestTimeout(pending.name, pending.seconds)))
        return found + [(self._pending[number], error) for number, error in self._limited.overdue(now)]

    @property
    def deadline(self) -> float | None:
        """When the first request has to end."""
        first = (next(iter(kind.values()), None) for kind in (self._prompt, self._relayed, self._watching))
        times = [None if pending is None else self._deadline_of(pending) for pending in first]
        return min((time for time in (*times, self._limited.deadline) if time is not None), default=None)

    def _deadline_of(self, pending: Pending) -> float:
        if pending.sent_at is None or pending.number not in self._watching:
            return pending.deadline
        return max(pending.deadline, self._watches_from + pending.seconds)

    @property
    def due(self) -> float | None:
        """When `release` has something to send."""
        return self._limited.due

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


def _connection(message: Request) -> str | None:
    """The peer connection that a message is about."""
    connection = getattr(message, "connection", UNSET)
    return None if connection is UNSET else connection
