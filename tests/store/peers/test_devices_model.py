"""Whatever happens to the devices of a user: every message arrives, once and in order at each device (seeded)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from types import NoneType
from typing import cast

import pytest

from aldis.errors import PeerConnectionFailed, PeerOffline, TooManyPeers
from aldis.peer.connection import PeerConnection, PeerListener, PeerState
from aldis.protocol.channel import VERSION, Ack, Chunk, Content, Hello, decode, encode_ack
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.inbox import Inbox
from aldis.store.messages.outbox import Outbox
from aldis.store.peers.device import PeerDevice
from support.dial_target import settle
from support.peer_context import Connection, PeerWorld

NAMES = ("phone", "desk", "tablet")
STEPS = 60
MANY_TURNS = 60


class Program:
    """A run of bob's program on one device."""

    def __init__(self, number: int) -> None:
        self.outbox = Outbox(f"run {number}")
        self.inbox = Inbox()
        self.got: list[str] = []

    def take(self, frame: bytes) -> list[bytes]:
        """Take in a frame; return what to say then."""
        match decode(frame):
            case Ack(sequence):
                self.outbox.acknowledge(sequence)
            case Chunk() as chunk:
                self.inbox.receive(chunk)
                while (first := self.inbox.first) is not None:
                    self.inbox.take()
                    if first.content is not Content.CONTROL:
                        self.got.append(first.data.decode())
        return self.say()

    def say(self) -> list[bytes]:
        said = []
        due = self.inbox.due
        if due is not None:
            said.append(encode_ack(due))
            self.inbox.confirmed(due)
        while (frame := self.outbox.next_frame()) is not None:
            said.append(frame)
            self.outbox.sent()
        return said


class Channel(Connection):
    """A connection with a program; frames wait on both ways until the test lets them through."""

    def __init__(self, device: str | None, listener: PeerListener, hello: Callable[[], Hello]) -> None:
        super().__init__(device, listener)
        self.program: Program | None = None
        self.back: deque[bytes] = deque()
        self._hello = hello
        self._silent = False

    def silence(self) -> None:
        self._silent = True
        self.frames.clear()

    def send_frame(self, frame: bytes) -> bool:
        if self.state is not PeerState.CONNECTED or len(self.frames) >= 3:
            return False
        self.frames.append(frame)
        return True

    def meets(self, program: Program) -> None:
        """The channel opens, to this program."""
        if self.state is PeerState.CONNECTED:
            self.lose(PeerState.DISCONNECTED)
        self.program = program
        program.inbox.opened(self._hello())
        hello = Hello(VERSION, program.outbox.stream, program.outbox.hello_sent(), [], program.inbox.position())
        self.state = PeerState.CONNECTED
        self._listener.channel_opened(hello)
        if self._silent:
            return
        self._listener.state_changed(PeerState.CONNECTED, None)
        program.outbox.opened(None)
        self.back.extend(program.say())

    def lose(self, state: PeerState) -> None:
        """The channel ends; what was on its way is lost."""
        if self.program is not None:
            self.program.inbox.closed()
            self.program.outbox.closed()
        self.program = None
        self.frames.clear()
        self.back.clear()
        if not self._silent and self.state in (PeerState.CONNECTING, PeerState.CONNECTED, PeerState.DISCONNECTED):
            self.becomes(state)

    def forth(self) -> None:
        """One frame comes through."""
        if self.frames and self.program is not None:
            full = len(self.frames) >= 3
            self.back.extend(self.program.take(self.frames.pop(0)))
            if full and not self._silent:
                self._listener.writable()

    def answer(self) -> None:
        """One frame comes back."""
        if self.back and not self._silent:
            frame = decode(self.back.popleft())
            assert isinstance(frame, Chunk | Ack)
            self._listener.frame_received(frame)


class World(PeerWorld):
    """Bob, whose devices do what they like."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.chance = random
        self.watchable = random.random() < 0.7
        self.lying = 3 * (random.random() < 0.3)
        self.channels: dict[str, Channel] = {}
        self.programs: dict[str, Program] = {}
        self.runs: dict[str, list[Program]] = {name: [] for name in NAMES}
        self.listed: list[str] = []
        self.sent: list[tuple[str, Delivery]] = []
        self.holders: dict[str, set[tuple[PeerDevice, int]]] = {}  # with the numbers there
        self.killed: set[str] = set()
        self.wishes: list[asyncio.Task[None]] = []

    def prepare(self, user_id: str) -> None:
        pass

    def connection(
        self, user_id: str, device: str | None, listener: PeerListener, hello: Callable[[], Hello]
    ) -> PeerConnection:
        assert device is not None
        if device in self.channels:
            self.channels[device].lose(PeerState.CLOSED)
        made = self.channels[device] = Channel(device, listener, hello)
        return cast(PeerConnection, made)

    # --- what may happen --------------------------------------------------------------------------------------------

    def starts(self, name: str) -> None:
        if name not in self.programs:
            program = self.programs[name] = Program(sum(map(len, self.runs.values())))
            self.runs[name].append(program)

    def registers(self, name: str) -> None:
        self.starts(name)
        self.listed = [name, *(each for each in self.listed if each != name)]
        self.tell()

    def unregisters(self, name: str) -> None:
        if name in self.listed:
            self.listed.remove(name)
            self.tell()

    def tell(self) -> None:
        self.online = tuple(self.listed)
        if self.registered and self.peer.presence.watched:
            self.lists(*self.listed)

    def dies(self, name: str) -> None:
        if self.programs.pop(name, None) is not None:
            self.killed.add(name)
            self.breaks(name)

    def breaks(self, name: str) -> None:
        if name in self.channels:
            channel = self.channels[name]
            may_heal = [PeerState.DISCONNECTED] * (channel.state is not PeerState.CONNECTING)
            channel.lose(self.chance.choice([PeerState.FAILED, PeerState.CLOSED, *may_heal]))

    def gives_up(self, name: str) -> None:
        """What was lost, or is tried, comes to nothing."""
        channel = self.channels.get(name)
        if channel is not None and not channel._silent and channel.state is not PeerState.CONNECTED:
            channel.becomes(PeerState.FAILED)

    def calls(self, name: str) -> None:
        if name in self.programs and name in self.listed and self.registered:
            self.offered(name)

    def opens_if_it_can(self, name: str) -> None:
        channel, program = self.channels.get(name), self.programs.get(name)
        if channel is None or channel._silent or program is None:
            return
        if channel.state in (PeerState.CONNECTING, PeerState.DISCONNECTED):
            channel.meets(program)

    def speaks(self, name: str) -> None:
        if name in self.programs:
            self.programs[name].outbox.put(Content.TEXT, b"from bob")
            if name in self.channels and self.channels[name].program is self.programs[name]:
                self.channels[name].back.extend(self.programs[name].say())

    def passes(self, name: str) -> None:
        if name in self.channels:
            for _ in range(self.chance.randint(1, 4)):
                self.chance.choice((self.channels[name].forth, self.channels[name].answer))()

    def sends(self, name: str) -> None:
        text = f"{len(self.sent)} to bob"
        self.sent.append((text, self.send(text)))

    def sends_here(self, name: str) -> None:
        text = f"{len(self.sent)} to {name}"
        self.sent.append((text, self.send(text, name)))

    def wants(self, name: str) -> None:
        """The application asks for a connection; it may lose interest later."""
        call = self.peer.connect(self.chance.choice((None, name)), 5, None)
        self.wishes.append(asyncio.create_task(call))

    def loses_interest(self, name: str) -> None:
        if self.wishes:
            self.chance.choice(self.wishes).cancel()

    def watch_ends(self, name: str) -> None:
        if self.registered and self.peer.presence.watched and self.chance.random() < 0.2:
            self.peer.watch_ended()

    def server_lies(self, name: str) -> None:
        """It lists devices that there are not, and not those that there are; one of them calls."""
        said = self.chance.sample([*NAMES, *(f"none-{number}" for number in range(50))], self.chance.randint(0, 5))
        self.online = tuple(said)
        if self.registered and self.peer.presence.watched and self.chance.random() < 0.5:
            self.lists(*said)
        if self.registered and said:
            with suppress(TooManyPeers):
                self.offered(said[-1])

    def server_goes(self, name: str) -> None:
        self.registered = False

    def server_comes(self, name: str) -> None:
        if self.registered:
            return
        self.registered = True
        resumed = self.chance.random() < 0.5
        self.peer.signaling_returned(resumed=resumed)
        if self.peer.presence.watched:
            self.lists(*self.listed, initial=not resumed)

    def time_passes(self, name: str) -> None:
        self.timers.advance(self.chance.choice((0.5, 2, 12)))

    def step(self) -> None:
        steps = [
            *(self.registers, self.registers, self.unregisters, self.dies, self.breaks, self.gives_up, self.calls),
            *(self.opens_if_it_can, self.opens_if_it_can, self.opens_if_it_can, self.speaks, self.passes, self.passes),
            *(self.sends, self.sends, self.sends_here, self.server_goes, self.server_comes, self.time_passes),
            *(self.wants, self.loses_interest, self.watch_ends, *([self.server_lies] * self.lying)),
        ]
        self.chance.choice(steps)(self.chance.choice(NAMES))
        self.look()

    def look(self) -> None:
        """Note where each message is."""
        pending = {id(delivery): text for text, delivery in self.sent if not delivery.done}
        for device in self.peer.devices:
            for delivery in device.messages._deliveries.values():
                self.holders.setdefault(pending.pop(id(delivery)), set()).add((device, delivery.sequence))
        assert not pending, "a message was lost"

    async def all_is_well(self) -> None:
        """All devices are there, and every path works."""
        self.server_comes("")
        for name in self.channels:
            self.gives_up(name)
        for name in NAMES:
            self.registers(name)
        for _ in range(MANY_TURNS):
            await settle()
            self.look()
            for name in NAMES:
                self.opens_if_it_can(name)
                self.look()  # what waits for the user has moved by that
                for _ in range(20):
                    if name in self.channels:
                        self.channels[name].forth()
                        self.channels[name].answer()
            self.timers.advance(1)
            if all(delivery.done for _, delivery in self.sent) and all(wish.done() for wish in self.wishes):
                return


@pytest.mark.parametrize("seed", range(100))
async def test_every_message_arrives_whatever_the_devices_do(seed: int) -> None:
    world = World(Random(seed))
    for _ in range(STEPS):
        world.step()
        if world.chance.random() < 0.5:
            await settle()
            world.look()
    await world.all_is_well()
    assert [text for text, delivery in world.sent if not delivery.delivered] == []
    assert all(wish.done() for wish in world.wishes)
    for wish in world.wishes:
        assert wish.cancelled() or isinstance(wish.exception(), PeerConnectionFailed | PeerOffline | NoneType)
    order = {text: number for number, (text, _) in enumerate(world.sent)}
    for text, delivery in world.sent:
        runs = [(name, run) for name in NAMES for run in world.runs[name] if text in run.got]
        assert runs, f"{text} has not arrived"
        # One that goes and comes back to a device gets a new number.
        there = [device.name for device, _ in world.holders[text]]
        assert all(run.got.count(text) <= there.count(name) for name, run in runs)
        if delivery.device is not None:
            assert {name for name, _ in runs} == {delivery.device}
        if len(world.holders[text]) == 1 and not world.killed:
            assert len(runs) == 1
    for name in NAMES:
        for run in world.runs[name]:
            stayed = [order[text] for text in run.got if len(world.holders[text]) == 1]
            assert stayed == sorted(stayed)
    for task in world.tasks:
        if task.done() and not task.cancelled():
            assert task.exception() is None
        task.cancel()
