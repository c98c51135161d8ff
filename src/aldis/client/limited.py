"""The requests that the server has refused as `rate-limited` for a while, and those that wait behind them.

Rules:

* Requests that share a limit form a line: messages to one address, or all requests of one other kind. A line is sent
  again in the order in which its requests were made, when the pause of the server is over. Other lines go on.
* First one request is sent. Each that the server takes lets one more be on its way. So the server refuses little, and
  messages keep their order, except those that were on their way when the limit came.
* Nothing waits for ever: each request has a time until which it may wait, and each line and all lines have a limit of
  requests and bytes.

It knows the numbers of requests, and not what they say. Pure: the time is an argument.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Final

from aldis.errors import RequestFailed

# A program that starts asks for a thousand users at once. Two attempts to connect send at most 128 candidates each.
LINE_REQUESTS: Final = 2048
LINE_BYTES: Final = 1024 * 1024
# A program that connects to a thousand peers has a few messages for each.
ALL_REQUESTS: Final = 8192
ALL_BYTES: Final = 8 * 1024 * 1024
# Requests of a line that may be on their way at a time, when the server takes them again.
MOST_ON_WAY: Final = 32
# Seconds. A server that says "at once" must not make the client send without end.
SHORTEST_PAUSE: Final = 0.25
# A pause is up to so much longer than the server says, at random: others were refused in the same moment.
SPREAD: Final = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A request that waits: its number, its size in bytes, until when it may wait, and its peer connection if any."""

    number: int
    size: int = field(compare=False)
    until: float = field(compare=False)
    connection: str | None = field(compare=False)


@dataclass(slots=True)
class _Line:
    error: RequestFailed  # the last refusal
    due: float  # when to send again
    pausing: bool = True  # nothing was sent since the last refusal
    at_once: int = 1
    size: int = 0  # of all that waits, in bytes
    waiting: list[Waiting] = field(default_factory=list)  # by number
    on_way: set[int] = field(default_factory=set)


class LimitedRequests:
    """All lines of one client."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        # The line of each request that waits or is on its way again.
        self._line_of: dict[int, str] = {}
        self._requests = 0
        self._bytes = 0

    def __contains__(self, line: str) -> bool:
        """Whether requests of this line wait."""
        return line in self._lines

    def holds(self, number: int) -> bool:
        """Whether a request waits in a line."""
        line = self._lines.get(self._line_of.get(number, ""))
        return line is not None and number not in line.on_way

    def refused(self, line: str, request: Waiting, error: RequestFailed, now: float, random: float) -> float | None:
        """The server has refused a request, which waits now. Returns the seconds of a new pause, 0 in a pause that has
        begun already, and None when the request may not wait so long or has no room."""
        pause = max(error.retry_after or 0.0, SHORTEST_PAUSE) * (1 + SPREAD * random)
        self.ended(request.number)
        found = self._lines.get(line)
        anew = found is None or not found.pausing
        if found is not None:
            found.due = now + pause if anew else max(found.due, now + pause)
            found.error, found.pausing, found.at_once = error, True, 1
        if now + pause > request.until or not self._has_room(found, request):
            return None
        if found is None:
            found = self._lines[line] = _Line(error, now + pause)
        self._put(line, found, request)
        return pause if anew else 0.0

    def add(self, line: str, request: Waiting) -> RequestFailed | None:
        """Put a new request behind those of its line, which has some. Returns the error when there is no room."""
        found = self._lines[line]
        if not self._has_room(found, request):
            return found.error
        self._put(line, found, request)
        return None

    def release(self, now: float) -> list[int]:
        """The requests to send now, which are on their way then."""
        numbers: list[int] = []
        for line in self._lines.values():
            if line.due > now:
                continue
            while line.waiting and len(line.on_way) < line.at_once:
                first = line.waiting.pop(0)
                self._forget(line, first)
                line.on_way.add(first.number)
                line.pausing = False
                numbers.append(first.number)
        return numbers

    def taken(self, number: int) -> None:
        """The server has taken a request: another one may be on its way."""
        line = self._lines.get(self._line_of.get(number, ""))
        if line is not None:
            line.at_once = min(line.at_once + 1, MOST_ON_WAY)

    def ended(self, number: int) -> None:
        """A request has ended, or is refused again."""
        name = self._line_of.pop(number, None)
        if name is None:
            return
        line = self._lines[name]
        line.on_way.discard(number)
        for index, each in enumerate(line.waiting):
            if each.number == number:
                del line.waiting[index]
                self._forget(line, each)
                break
        if not line.waiting and not line.on_way:
            del self._lines[name]

    def of_connection(self, line: str, connection: str) -> list[tuple[int, RequestFailed]]:
        """The requests about a peer connection that wait in a line, with the error to end them with."""
        found = self._lines.get(line)
        if found is None:
            return []
        return [(each.number, found.error) for each in found.waiting if each.connection == connection]

    def overdue(self, now: float) -> list[tuple[int, RequestFailed]]:
        """The requests that may not wait any longer, with the error to end them with."""
        return [
            (each.number, _still_limited(line.error, line.due - now))
            for line in self._lines.values()
            for each in line.waiting
            if each.until <= now
        ]

    @property
    def due(self) -> float | None:
        """When `release` has something to send; None when nothing waits for the time alone."""
        lines = self._lines.values()
        return min((each.due for each in lines if each.waiting and len(each.on_way) < each.at_once), default=None)

    @property
    def deadline(self) -> float | None:
        """When the first request may not wait any longer."""
        return min((each.until for line in self._lines.values() for each in line.waiting), default=None)

    def _has_room(self, line: _Line | None, request: Waiting) -> bool:
        if self._requests >= ALL_REQUESTS or self._bytes + request.size > ALL_BYTES:
            return False
        if line is None:
            return True
        return len(line.waiting) < LINE_REQUESTS and line.size + request.size <= LINE_BYTES

    def _put(self, name: str, line: _Line, request: Waiting) -> None:
        insort(line.waiting, request)
        self._line_of[request.number] = name
        self._requests += 1
        self._bytes += request.size
        line.size += request.size

    def _forget(self, line: _Line, request: Waiting) -> None:
        """A request does not wait any more."""
        self._requests -= 1
        self._bytes -= request.size
        line.size -= request.size


def _still_limited(error: RequestFailed, seconds: float) -> RequestFailed:
    """The last refusal of a line, with the time that is left of its pause."""
    left = max(0.0, seconds)
    return RequestFailed(error.code, error.message, temporary=True, retry_after=left, request=error.request)
