"""The hub alone, without a socket: what relaying one offer costs, and registering, and an idle session's memory.

The directory answers at once, and a connection takes what it is sent and drops it. Against the micro benchmark of the
codec this shows what the rules cost: who the recipient is, numbering and keeping for resume, counting.
"""

from __future__ import annotations

import gc
import os
import time
import tracemalloc

from aldis.backends.base import Claim, ClaimBinding, Question
from aldis.hub.dialects import V1
from aldis.hub.hub import Hub
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.protocol import codec
from aldis.protocol.messages import Received, Relay
from benchmarks.load.dialects import Aldis, AldisComplete
from benchmarks.micro.timing import Case, time_all

HOST = "127.0.0.1:8080"
NOW = 1000.0


class Sink:
    """A connection that keeps the last message only."""

    full = False
    kept = 0
    address = ""

    def __init__(self) -> None:
        self.last: bytes | bytearray = b""

    def write(self, kind: int, frame: bytearray, headroom: int) -> None:
        self.last = frame[headroom:]

    def ping(self, payload: bytes = b"") -> None:
        pass

    cork = uncork = pause_reading = resume_reading = ping

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"the hub closed a connection: {code} {reason}")


class Quiet(Sink):
    """A connection that keeps nothing."""

    def write(self, kind: int, frame: bytearray, headroom: int) -> None:
        pass


class Bench:
    """A hub with a directory that knows nobody else."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        # The clock stands still, so nobody gets anything back.
        settings = HubSettings(
            user_messages_per_second=10**12,
            user_bytes_per_second=10**15,
            user_relayed_bytes_per_second=10**15,
            user_sealed_bytes_per_second=10**15,
            pair_sealed_bytes_per_second=10**15,
        )
        self.hub = Hub(settings, ask=self.questions.append, random=os.urandom, wall=time.time)

    def register(self, dialect: Aldis) -> Session:
        dialect.url(int(HOST.partition(":")[2]))
        sink = Sink()
        session = self.hub.connected(sink, dialect=V1, host=HOST, now=NOW)
        frame = dialect.greeting()
        while frame is not None:
            self.hub.received(session, frame.decode(), NOW)
            while self.questions:
                question = self.questions.pop()
                assert isinstance(question, ClaimBinding)
                self.hub.answered(question, Claim(question.public_key, new=True), NOW)
            frame = dialect.reply(bytes(sink.last))
        assert dialect.registered
        session.connection = Quiet()
        return session


def measure(seconds: float) -> list[Case]:
    """Time relaying through the hub."""
    bench = Bench()
    alice, bob = Aldis("alice@example.com"), AldisComplete("bob@example.com")
    alices, bobs = bench.register(alice), bench.register(bob)
    bare = alice.offer(bob.user).decode()
    complete = bob.offer(alice.user).decode()
    # As long as the offer, so that the two can be compared.
    sealed = codec.encode_text(Relay(bob.user, "A" * (len(bare) - 100), id=1))
    confirmation = {"alice": 0, "bob": 0}

    def relay(name: str, sender: Session, recipient: Session, text: str, every: int) -> None:
        bench.hub.received(sender, text, NOW)
        confirmation[name] += 1
        if not confirmation[name] % every:
            bench.hub.received(recipient, codec.encode_text(Received(count=confirmation[name])), NOW)

    newcomers = Bench()

    def registration() -> None:
        session = newcomers.register(alice)
        alice.registered = False
        newcomers.hub.lost(session, NOW, clean=True)

    return time_all(
        {
            "relay an offer through the hub": lambda: relay("alice", alices, bobs, bare, alice.confirm_every),
            "relay an offer with proof, and ack it": lambda: relay("bob", bobs, alices, complete, bob.confirm_every),
            "relay a sealed message of that size, and ack it": lambda: relay(
                "alice", alices, bobs, sealed, alice.confirm_every
            ),
            "register, with the client's own part": registration,
        },
        seconds,
    )


def session_bytes(count: int = 1000) -> float:
    """Python memory of one registered session in the hub, in bytes: no socket, no WebSocket."""
    bench = Bench()
    dialects = [Aldis(f"peer{number}@example.com") for number in range(count)]
    bench.register(Aldis("early@example.com"))
    gc.collect()
    tracemalloc.start()
    sessions = [bench.register(dialect) for dialect in dialects]
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(sessions)
