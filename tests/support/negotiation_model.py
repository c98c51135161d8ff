"""Two negotiation machines, their engines as bookkeeping, and an attempt that a script of numbers torments.

What an engine does is reduced to what matters here: it makes descriptions, takes them in order, and its channel opens
when both ends hold the same pair of descriptions. Proofs are reduced to their effect: an offer is taken once, an
answer only for the offer that is out. Every step is a choice among what could happen next, so a list of numbers is a
whole history, and a shorter list a simpler one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from aldis.peer import commands as n
from aldis.peer.attempts import fragments
from aldis.peer.commands import Command
from aldis.peer.negotiation import Negotiation, PeerState
from aldis.protocol.messages import Candidate, Capabilities

ATTEMPT, HEAL = 30.0, 15.0


@dataclass(frozen=True)
class Sent:
    """A message in flight."""

    to: str
    kind: str
    name: str
    sdp: str = ""
    offer_sdp: str = ""
    candidate: Candidate | None = None


@dataclass(eq=False)
class FakeEngine:
    """An engine connection: the descriptions it holds, and what is still to be done."""

    process: int
    todo: list[Command] = field(default_factory=list)
    local: str = ""
    remote: str = ""
    channel: bool = False  # the channel has opened
    greeted: bool = False  # HELLOs have been exchanged


class Half:
    """One side: a machine that may be started anew, as a process is."""

    def __init__(self, world: World, user: str, other: str, capabilities: Capabilities) -> None:
        self.world, self.user, self.other, self.capabilities = world, user, other, capabilities
        self.process = 0
        self.start()

    def start(self) -> None:
        self.process += 1
        self.machine = Negotiation(
            self.user,
            self.other,
            capabilities=self.capabilities,
            random=self.world.random,
            attempt_seconds=ATTEMPT,
            heal_seconds=HEAL,
        )
        self.engines: dict[str, FakeEngine] = {}
        self.dropped: set[str] = set()
        self.seen_offers: set[str] = set()
        self.answering: dict[str, str] = {}

    def sdp(self, kind: str, name: str) -> str:
        number = next(self.world.numbers)
        who = f"{self.user}{self.process}"
        return f"{kind} {number}\r\na=ice-ufrag:u{number}\r\na=fingerprint:sha-256 {who}:{name}\r\n"

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            self._do(command)
        opened = [attempt for attempt in self.machine._attempts.values() if attempt.opened]
        assert len(opened) <= 1
        assert set(self.engines) == set(self.machine._attempts)

    def _do(self, command: Command) -> None:
        name = command.name
        if isinstance(command, n.CreateConnection):
            assert name not in self.engines
            assert name not in self.dropped
            self.engines[name] = FakeEngine(self.process)
            return
        if isinstance(command, n.SendBye):
            self.world.send(Sent(self.other, "bye", name))
            return
        assert name in self.engines, f"{command} for a connection that is not there"
        match command:
            case n.DropConnection():
                del self.engines[name]
                self.dropped.add(name)
            case n.MakeOffer() | n.MakeAnswer() | n.ApplyAnswer() | n.AddCandidate():
                self.engines[name].todo.append(command)
            case n.SendOffer(_, _, sdp):
                self.world.send(Sent(self.other, "offer", name, sdp))
            case n.SendAnswer(_, _, sdp):
                self.world.send(Sent(self.other, "answer", name, sdp, offer_sdp=self.answering[name]))
            case n.SendCandidate(_, candidate):
                self.world.send(Sent(self.other, "candidate", name, candidate=candidate))
            case n.Probe():
                if not self.world.works(self, name):
                    self.do(self.machine.attempt_ended(name, "the probe failed", orderly=True))

    def receive(self, message: Sent) -> None:
        now, capabilities = self.world.now, self.world.half(self.other).capabilities
        match message.kind:
            case "offer":
                if message.sdp not in self.seen_offers:
                    self.seen_offers.add(message.sdp)
                    commands = self.machine.offer_received(message.name, message.sdp, capabilities, now)
                    self.do(commands)
            case "answer":
                attempt = self.machine._attempts.get(message.name)
                wanted = self.machine.awaits_answer(message.name) and attempt and attempt.offer_sdp == message.offer_sdp
                if wanted or self.machine.is_over(message.name):
                    self.do(self.machine.answer_received(message.name, message.sdp, capabilities, now))
            case "candidate":
                self.do(self.machine.candidate_received(message.name, message.candidate))
            case "bye":
                self.do(self.machine.bye_received(message.name, "bye"))

    def operate(self, name: str, *, refuse: bool = False) -> None:
        """Let the engine do the next thing."""
        engine = self.engines[name]
        command = engine.todo.pop(0)
        match command:
            case n.AddCandidate():
                assert engine.remote, "a candidate before its description"
            case n.MakeOffer(_, serial) | n.MakeAnswer(_, serial) | n.ApplyAnswer(_, serial) if refuse:
                self.do(self.machine.operation_failed(name, serial, "refused"))
            case n.MakeOffer(_, serial):
                engine.local = self.sdp("offer", name)
                self.do(self.machine.offer_made(name, serial, engine.local))
            case n.MakeAnswer(_, serial, sdp):
                engine.remote, engine.local = sdp, self.sdp("answer", name)
                self.answering[name] = sdp
                self.do(self.machine.answer_made(name, serial, engine.local))
            case n.ApplyAnswer(_, _, sdp):
                engine.remote = sdp
        if name in self.engines and not isinstance(command, n.AddCandidate):
            fragment = sorted(fragments(engine.local))
            candidate = Candidate("candidate", "0", 0, fragment[0] if fragment else None)
            self.do(self.machine.candidate_gathered(name, candidate))


class World:
    """Both halves, what is in flight between them, and the time."""

    def __init__(self, alice: Capabilities | None = None, bob: Capabilities | None = None) -> None:
        self.now = 0.0
        self.numbers = count(1)
        self.flying: list[Sent] = []
        self.halves = [
            Half(self, "alice", "bob", alice or Capabilities()),
            Half(self, "bob", "alice", bob or Capabilities()),
        ]

    def random(self, size: int) -> bytes:
        return next(self.numbers).to_bytes(size, "big")

    def half(self, user: str) -> Half:
        return next(half for half in self.halves if half.user == user)

    def send(self, message: Sent) -> None:
        self.flying.append(message)

    def works(self, half: Half, name: str) -> bool:
        """Whether both ends of a connection are there, of the processes that made it, with one pair of descriptions."""
        mine, theirs = half.engines.get(name), self.half(half.other).engines.get(name)
        return bool(
            mine
            and theirs
            and mine.local
            and theirs.local
            and mine.local == theirs.remote
            and mine.remote == theirs.local
        )

    # --- what can happen next ---------------------------------------------------------------------------------------

    def peaceful(self) -> list[Callable[[], None]]:
        """What happens by itself when nothing goes wrong."""
        steps: list[Callable[[], None]] = [partial(self.deliver, index) for index in range(len(self.flying))]
        for half in self.halves:
            for name, engine in half.engines.items():
                other = self.half(half.other).engines.get(name)
                if engine.todo:
                    steps.append(partial(half.operate, name))
                if not engine.channel and self.works(half, name):
                    steps.append(partial(self._open, half, name))
                if engine.channel and not engine.greeted and other is not None and other.channel:
                    steps.append(partial(self._greet, half, name))
                if engine.channel and (other is None or other.process != self.half(half.other).process):
                    steps.append(partial(self._notice, half, name))
        return steps

    def hostile(self) -> list[Callable[[], None]]:
        """What else may happen."""
        steps: list[Callable[[], None]] = []
        for index in range(len(self.flying)):
            steps += [partial(self.lose, index), partial(self.repeat, index)]
        for half in self.halves:
            steps += [partial(self.connect, half), partial(self.restart, half)]
            for name, engine in half.engines.items():
                if engine.todo:
                    steps.append(partial(half.operate, name, refuse=True))
                if engine.greeted:
                    steps.append(partial(self.lose_path, half, name, final=False))
                    steps.append(partial(self.restore_path, half, name))
                steps.append(partial(self.lose_path, half, name, final=True))
        steps += [partial(self.advance, seconds) for seconds in (1.0, 16.0)]
        return steps

    def deliver(self, index: int) -> None:
        message = self.flying.pop(index)
        self.half(message.to).receive(message)

    def lose(self, index: int) -> None:
        self.flying.pop(index)

    def repeat(self, index: int) -> None:
        self.flying.append(self.flying[index])

    def connect(self, half: Half) -> None:
        half.do(half.machine.connect(self.now))

    def restart(self, half: Half) -> None:
        """The process is killed and started anew."""
        half.start()

    def lose_path(self, half: Half, name: str, *, final: bool) -> None:
        half.do(half.machine.path_lost(name, self.now, final=final))

    def restore_path(self, half: Half, name: str) -> None:
        half.do(half.machine.path_restored(name))

    def _open(self, half: Half, name: str) -> None:
        half.engines[name].channel = True
        half.do(half.machine.channel_opened(name))

    def _greet(self, half: Half, name: str) -> None:
        half.engines[name].greeted = True
        half.do(half.machine.channel_ready(name))

    def _notice(self, half: Half, name: str) -> None:
        half.do(half.machine.attempt_ended(name, "the other end has gone", orderly=False))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for half in self.halves:
            half.do(half.machine.tick(self.now))
            deadline = half.machine.deadline
            assert deadline is None or deadline > self.now

    # --- histories --------------------------------------------------------------------------------------------------

    def torment(self, script: list[int]) -> None:
        """Live through a history: each number chooses the next step."""
        for number in script:
            steps = self.peaceful() * 3 + self.hostile()
            steps[number % len(steps)]()

    def settle(self) -> None:
        """Nothing goes wrong any more; go on until nothing is left to happen, however long it takes."""
        for _ in range(20):
            for _ in range(2000):
                steps = self.peaceful()
                if not steps:
                    break
                steps[0]()
            else:
                raise AssertionError("it goes on for ever")
            for half in self.halves:
                for name, engine in list(half.engines.items()):
                    if engine.greeted and self.works(half, name):
                        self.restore_path(half, name)
            if all(half.machine.deadline is None for half in self.halves):
                return
            self.advance(ATTEMPT + HEAL)
        raise AssertionError("it never comes to rest")

    def check_rest(self) -> None:
        """Both are connected by one connection, or neither is, and nothing is pending."""
        alice, bob = (half.machine for half in self.halves)
        for machine in (alice, bob):
            assert machine.state in (PeerState.NEW, PeerState.CONNECTED, PeerState.FAILED, PeerState.CLOSED)
            assert machine.deadline is None
        assert (alice.state is PeerState.CONNECTED) == (bob.state is PeerState.CONNECTED)
        if alice.current is not None and bob.current is not None:
            assert alice.current.name == bob.current.name
            assert len(alice._attempts) == len(bob._attempts) == 1
        else:
            assert not alice._attempts
            assert not bob._attempts
