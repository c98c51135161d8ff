"""The session of two programs over any path: what the vectors (`vectors/session.json`) do not show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aldis.peer.session import Ended, PathLost, PathRestored, PeerSession, SessionEvent, Violated
from aldis.protocol.channel import Ack, Chunk, Goodbye, Hello, Ping, Pong, decode, encode_ack, encode_hello, encode_pong

HELLO = Hello(1, "ours", 1)


class Kept:
    """A path that keeps what is sent."""

    def __init__(self) -> None:
        self.room = 1000
        self.closed = self.may_bundle = False
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


def made(now: float = 0.0) -> tuple[PeerSession, Kept]:
    path = Kept()
    return PeerSession(path, now, silence=5.0, heartbeat=1.5, probe=1.5), path


def opened() -> tuple[PeerSession, Kept]:
    session, path = made()
    assert session.open(HELLO, 0.0) == []
    assert session.received(encode_hello(HELLO), 0.0) == [HELLO]
    return session, path


def test_two_sessions_keep_each_other_alive_and_each_measures() -> None:
    (one, to_other), (other, to_one) = made(), made()
    one.open(HELLO, 0.0)
    other.open(HELLO, 0.0)
    told: list[SessionEvent] = []
    now = 0.0
    while now < 120.0:
        while to_other.sent or to_one.sent:
            now += 0.0625
            frames, to_other.sent = to_other.sent, []
            back, to_one.sent = to_one.sent, []
            told += [event for frame in frames for event in other.received(frame, now)]
            told += [event for frame in back for event in one.received(frame, now)]
        due = [session.deadline for session in (one, other) if session.deadline is not None]
        now = max(now, min(due))
        for session in (one, other):
            if session.deadline is not None and session.deadline <= now:
                told += session.tick(now)
    assert told == [HELLO, HELLO]
    assert one.round_trip_time is not None
    assert other.round_trip_time is not None


def test_signs_of_life_of_the_path_hold_off_silence_until_a_ping_is_not_answered() -> None:
    session, path = opened()
    ping = decode(path.sent[-1])
    assert isinstance(ping, Ping)
    session.received(encode_pong(ping.token), 0.0)
    told: list[SessionEvent] = []
    now = 0.0
    while now < 34.0:
        now += 1.0
        while session.deadline is not None and session.deadline <= now:
            told += session.tick(session.deadline)
        session.alive(now)
    assert told == []
    measuring = decode(path.sent[-1])  # after 30 s
    assert isinstance(measuring, Ping)
    while session.deadline is not None and session.deadline <= 36.0:
        told += session.tick(session.deadline)
    assert told == [PathLost()]
    session.alive(36.0)
    assert session.lost
    assert session.received(encode_ack(1), 36.0) == [PathRestored(), Ack(1)]


@given(
    frames=st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=10)), max_size=10),
    greeted=st.booleans(),
    lost=st.booleans(),
)
def test_whatever_arrives_is_told_or_a_violation_and_never_an_exception(
    frames: list[bytes | str], greeted: bool, lost: bool
) -> None:
    session, path = opened() if greeted else made()
    if lost:
        session.lose()
    events = [event for number, frame in enumerate(frames) for event in session.received(frame, float(number))]
    assert all(isinstance(event, Hello | Chunk | Ack | PathRestored | Ended | Violated) for event in events)
    assert all(isinstance(decode(frame), Hello | Ping | Pong | Goodbye) for frame in path.sent)


def test_what_is_expected_besides_something_else_needs_no_time() -> None:
    (one, _), (two, _) = opened(), opened()
    for session in (one, two):
        session.received(encode_ack(1), 1.0)
    assert not two.expect_more(10)  # nothing was expected: the time has to be known
    for number in range(1, 8):
        one.expect(10_000, 1.0 + number / 100)
        two.expect_more(10_000) or two.expect(10_000, 1.0 + number / 100)
        assert one.deadline == two.deadline
        one.tick(5.0 + number)
        two.tick(5.0 + number)
    assert one.lost == two.lost
