"""Which accepted connections may stay, without a socket."""

from __future__ import annotations

from dataclasses import dataclass, field

from aldis.server.addresses import AddressLimits
from aldis.server.admission import Admission, Place
from aldis.server.refusals import Refusal


@dataclass
class Port:
    """A port whose connections are numbers: what is admitted, and which connections were ended."""

    max_connections: int = 100
    handshakes: int = 100
    max_refusals: int = 2
    ended: list[int] = field(default_factory=list)
    talking: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        limits = AddressLimits(connections_per_address=5, connects_per_address=1, connects_per_second=20, now=0.0)
        self.admission = Admission(
            limits, max_connections=self.max_connections, handshakes=self.handshakes, max_refusals=self.max_refusals
        )
        self.number = 0

    def arrive(self, network: bytes | None = None) -> Place | None:
        number = self.number = self.number + 1
        talks, source = self.talking, b"%d" % number
        return self.admission.arrive(
            network, 0.0, lambda: self.ended.append(number), lambda: number not in talks, source
        )

    def let_in(self, network: bytes | None = None) -> Place:
        place = self.arrive(network)
        assert place is not None
        return place


def test_a_connection_counts_from_its_acceptance_to_its_end() -> None:
    port = Port(max_connections=2)
    first, second = port.let_in(), port.let_in()
    first.asked()
    second.asked()
    assert (len(port.admission), port.admission.pending) == (2, 0)
    third = port.let_in()
    assert third.refusal is Refusal.FULL
    third.asked()
    third.leave()
    first.leave()
    first.leave()
    assert len(port.admission) == 1
    assert port.let_in().refusal is None


def test_a_silent_connection_makes_room_for_a_new_one_the_oldest_first() -> None:
    port = Port(max_connections=3)
    port.let_in().asked()
    for _ in range(4):
        assert port.let_in().refusal is None
    assert port.ended == [2, 3]
    assert (len(port.admission), port.admission.pending, port.admission.refusals["silent"]) == (3, 2, 2)


def test_silent_connections_are_limited_while_places_are_left() -> None:
    port = Port(handshakes=2)
    for _ in range(5):
        assert port.let_in().refusal is None
    assert port.ended == [1, 2, 3]


def test_a_client_at_work_stays() -> None:
    port = Port(max_connections=3, handshakes=2)
    port.let_in().spoke()
    port.let_in()
    port.talking.add(2)  # known to the kernel alone, as in a TLS handshake
    port.let_in()
    assert port.let_in().refusal is None
    assert port.ended == [3]
    port.talking.add(4)
    assert port.let_in().refusal is Refusal.FULL
    assert (port.ended, port.admission.pending) == ([3], 3)


def test_refusals_are_limited_too_and_then_told_to_nobody() -> None:
    port = Port(max_connections=1, max_refusals=2)
    port.let_in().asked()
    refused = [port.let_in() for _ in range(2)]
    assert port.arrive() is None
    assert (port.admission.refusals["full"], port.admission.refusals["untold"]) == (3, 1)
    refused[0].leave()
    assert port.let_in().refusal is Refusal.FULL
    assert len(port.admission) == 1


def test_at_a_stop_all_go_that_have_not_asked() -> None:
    port = Port(max_connections=3)
    port.let_in().asked()
    port.let_in().spoke()
    port.let_in().asked()
    port.let_in()
    port.admission.end_pending()
    assert port.ended == [2, 4]
    assert len(port.admission) == 2


def test_a_connection_counts_for_its_address_until_its_end() -> None:
    port = Port(max_refusals=100)
    places = [port.let_in(b"home") for _ in range(5)]
    assert port.let_in(b"home").refusal is Refusal.ADDRESS
    assert port.let_in(b"other").refusal is None
    assert port.let_in().refusal is None
    places[0].asked()
    places[0].leave()
    places[0].leave()
    assert port.let_in(b"home").refusal is None
    assert port.let_in(b"home").refusal is Refusal.ADDRESS
    for _ in range(2):
        port.let_in(b"home")
    assert port.let_in(b"home").refusal is Refusal.ADDRESS_RATE, "refused ones count as new connections"
    assert len(port.admission) == 7


def test_what_is_refused_for_all_counts_for_no_address() -> None:
    port = Port(max_connections=1, max_refusals=1000)
    port.let_in().asked()
    for _ in range(6):
        assert port.let_in(b"home").refusal is Refusal.FULL
    while port.let_in().refusal is not Refusal.RATE:
        pass
    assert port.number == 1 + 6 + 194, "twenty a second, two hundred at once"
    assert port.admission.refusals["rate"] == 1
