"""Which accepted connections may stay: counted from the moment the port has accepted them.

Rules:

* Each accepted connection has a place, from its acceptance to its end, whatever comes of it: a WebSocket, a reply, or
  nothing.
* A connection is *pending* until it has sent a whole request. There may be `handshakes` silent pending connections: one
  more, and the oldest of them goes. A client that is at work, which has sent something, stays.
* When all `max_connections` places are taken, the oldest silent connection makes room for a new one. Without a silent
  one, the new connection is refused. So it is when no memory is left for it.
* A refused connection gets one of `max_refusals` places for this, so that it can be told why.
* `server.addresses` limits the connections of each address, and how fast new ones come.

Pure: it knows no socket and no clock. A caller says how a connection ends, and whether it is silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from aldis.server.addresses import AddressLimits
from aldis.server.refusals import Refusal

# How many pending connections are looked at for a silent one. A client at work leaves the search for good.
_SEARCH: Final = 64


# The reasons in the metrics that are no refusals in words.
SILENT: Final = "silent"
UNTOLD: Final = "untold"
LATE: Final = "late"
HEADS: Final = "heads"
OPENING: Final = "opening"
NO_HEADER: Final = "no-proxy-header"
_OTHERS: Final = (SILENT, UNTOLD, LATE, HEADS, OPENING, NO_HEADER)


class Place:
    """One accepted connection. `refusal` says why it is to be refused, if it is. Call `leave` at its end."""

    __slots__ = ("_admission", "end", "is_silent", "network", "refusal")

    def __init__(
        self,
        admission: Admission,
        refusal: Refusal | None,
        end: Callable[[], object],
        is_silent: Callable[[], bool],
    ) -> None:
        self._admission = admission
        # Where it counts, if it does (`networks.network_of`).
        self.network: bytes | None = None
        self.refusal = refusal
        # Ends the connection at once. Whoever has the connection replaces it.
        self.end: Callable[[], object] | None = end
        # Whether the client has sent nothing yet.
        self.is_silent: Callable[[], bool] | None = is_silent

    def spoke(self) -> None:
        """The client has sent a part of its request."""
        self._admission.spoke(self)

    def asked(self) -> None:
        """The client has sent its whole request."""
        self._admission.asked(self)

    def leave(self) -> None:
        """The connection is over. A second call does nothing."""
        self._admission.left(self)


class Admission:
    """The places of one port."""

    def __init__(
        self,
        limits: AddressLimits,
        *,
        max_connections: int,
        handshakes: int,
        max_refusals: int,
        has_memory: Callable[[], bool] = lambda: True,
    ) -> None:
        self._has_memory = has_memory
        self.addresses = limits
        """The limits of each address."""
        self.limit(max_connections=max_connections, handshakes=handshakes)
        self._max_refusals = max_refusals
        self._places: set[Place] = set()
        # Pending connections in the order of their arrival: those that may be silent, and those that are not.
        self._silent: dict[Place, None] = {}
        self._speaking: dict[Place, None] = {}
        self._refused: dict[Place, None] = {}
        # Connections that were not served, by reason.
        self.refusals: Counter[str] = Counter(dict.fromkeys((*Refusal, *_OTHERS), 0))

    def __len__(self) -> int:
        """All accepted connections, without those that are being refused."""
        return len(self._places)

    @property
    def pending(self) -> int:
        """Connections without a whole request."""
        return len(self._silent) + len(self._speaking)

    @property
    def speaking(self) -> int:
        """Those of them that have sent a part of their request."""
        return len(self._speaking)

    def limit(self, *, max_connections: int, handshakes: int) -> None:
        """Use these limits for the connections to come."""
        self._max_connections = max_connections
        self._handshakes = handshakes

    def arrive(
        self,
        network: bytes | None,
        now: float,
        end: Callable[[], object],
        is_silent: Callable[[], bool],
        source: bytes | None = None,
        *,
        proxied: bool = False,
    ) -> Place | None:
        """Give a new connection a place; None when it has to go without a word.

        `network` is `networks.network_of` its client; None when that has no limits or is not known yet. `source` is
        that of where it comes from, be it a proxy or this machine. `proxied`: a trusted proxy will tell more
        (`identify`).
        """
        refusal = None if network is None else self.addresses.enter(network, now)
        if refusal is not None:
            return self._refuse(refusal, end, is_silent)
        # A client beyond its own limits takes nothing from the others.
        refusal = self.addresses.accept(source, now, proxied=proxied)
        if refusal is None and len(self._places) >= self._max_connections and not self.make_room():
            refusal = Refusal.FULL
        if refusal is None and not self._has_memory():
            refusal = Refusal.MEMORY
        if refusal is not None:
            if network is not None:
                self.addresses.leave(network)
            return self._refuse(refusal, end, is_silent)
        if len(self._silent) >= self._handshakes:
            self.make_room()
        place = Place(self, None, end, is_silent)
        place.network = network
        self._places.add(place)
        self._silent[place] = None
        return place

    def identify(self, place: Place, network: bytes | None, now: float) -> None:
        """A trusted proxy has told where the client of a place counts. Its `refusal` may be set after that."""
        if network is None or place.refusal is not None or place.network is not None or place not in self._places:
            return
        place.refusal = self.addresses.identify(network, now)
        if place.refusal is None:
            place.network = network
        else:
            self.refusals[place.refusal] += 1

    def _refuse(self, refusal: Refusal, end: Callable[[], object], is_silent: Callable[[], bool]) -> Place | None:
        self.refusals[refusal] += 1
        if len(self._refused) >= self._max_refusals:
            self.refusals[UNTOLD] += 1
            return None
        place = Place(self, refusal, end, is_silent)
        self._refused[place] = None
        return place

    def make_room(self) -> bool:
        """End the oldest silent connection; False when there is none."""
        for _ in range(_SEARCH):
            oldest = next(iter(self._silent), None)
            if oldest is None:
                return False
            if oldest.is_silent is None or oldest.is_silent():
                self._end(oldest, SILENT)
                return True
            self.spoke(oldest)
        return False

    def end_late(self, place: Place) -> None:
        """End a connection that has taken too long to send its request."""
        self._end(place, LATE)

    def end_for_its_head(self, place: Place) -> None:
        """End a connection because all unfinished requests take too much memory."""
        self._end(place, HEADS)

    def end_in_its_handshake(self, place: Place) -> None:
        """End a connection because there are too many whose TLS handshake is not over."""
        self._end(place, OPENING)

    def _end(self, place: Place, reason: str) -> None:
        self.refusals[reason] += 1
        end = place.end
        self.left(place)
        if end is not None:
            end()

    def spoke(self, place: Place) -> None:
        """See `Place.spoke`."""
        if place in self._silent:
            del self._silent[place]
            self._speaking[place] = None

    def asked(self, place: Place) -> None:
        """See `Place.asked`."""
        self._silent.pop(place, None)
        self._speaking.pop(place, None)
        # Not needed any more, and small objects count where there are ten thousand connections.
        place.end = place.is_silent = None

    def left(self, place: Place) -> None:
        """See `Place.leave`."""
        self.asked(place)
        self._places.discard(place)
        network, place.network = place.network, None
        if network is not None:
            self.addresses.leave(network)
        self._refused.pop(place, None)

    def end_pending(self) -> None:
        """End all connections that have not sent a whole request."""
        for place in [*self._silent, *self._speaking, *self._refused]:
            end = place.end
            self.left(place)
            if end is not None:
                end()
