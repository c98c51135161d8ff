"""Programs with journals that are killed, ended, put back to earlier states, and cut off, in an order drawn by chance.

`a` sends to the user `b`, who has two devices, `main` and `tablet`, each a program of its own. Each program has a
journal, an application that reads, and a disk that is done when the world says so. The world checks at each step what a
journal promises: what was accepted is on the disk; what is sent is on the disk; what is acknowledged is on the disk of
the recipient; nothing comes twice, out of order, or with a gap, except what docs/store.md allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from aldis.protocol.channel import CHUNK, Ack, Chunk, Content, Hello, decode
from aldis.store.journal.rows import Changes
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.mailbox import QueuedMessage
from support.crash_storage import Storage, Watched, key_of
from support.journals import Line, Program

# --- the world ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Sent:
    """A message that the application of `sender` has sent in its run number `run`, over a link."""

    sender: Node
    run: int
    link: int
    delivery: Delivery
    accepted: bool = False  # its sender was told that it is stored
    moved: bool = False  # it was taken back, and sent to the other device
    excused: bool = False  # the journal was put back to a state without it
    twice: bool = False  # it may come twice (`Backup.held`)


@dataclass(slots=True)
class Backup:
    """A copy of a journal, and what was in it to be sent."""

    copy: object
    queued: set[int]
    held: bool  # it says of some that they were not sent; where nobody notices that it is old, these may come twice


@dataclass(slots=True, eq=False)
class Node:
    """One of the three programs, over all its runs. What is said of links is by their numbers."""

    user_id: str
    device: str
    storage: Storage
    peers: dict[int, Node] = field(default_factory=dict)
    program: Program | None = None
    run: int = 0
    lines: dict[int, Line] = field(default_factory=dict)
    calls: bool = False  # the application has a callback, and no loop
    came: dict[int, tuple[str, int]] = field(default_factory=dict)  # what has come, with the stream and the number
    in_hands: int | None = None
    at_crash: set[int] = field(default_factory=set)  # what it had in its hands when it ended
    excused: set[int] = field(default_factory=set)  # the journal was put back: may come again, or never
    queued: set[int] = field(default_factory=set)  # what was ever on the disk to be sent
    arrived: set[int] = field(default_factory=set)  # and of what has arrived
    wired: dict[tuple[str, int], int] = field(default_factory=dict)  # which message has a number of a stream
    streams: dict[int, str] = field(default_factory=dict)  # that its HELLO has named
    backup: Backup | None = None
    dies: bool = False  # it will be killed within the next callback
    left: object = None  # the files at that moment

    @property
    def running(self) -> Program:
        """Its run."""
        assert self.program is not None
        return self.program

    def written(self, changes: Changes) -> None:
        """The disk has these."""
        rows = [row for row in changes.queued.values() if row is not None]
        self.queued |= {key for row in rows if (key := key_of(row.data)) is not None}
        self.arrived |= {key for row in changes.arrived.values() if (key := key_of(row.data)) is not None}


class World:
    """See the module. `storage` makes one for each program, by its name."""

    def __init__(self, seed: int, storage: Callable[[str], Storage]) -> None:
        self.random = Random(seed)
        self.sent: list[Sent] = []
        self.log: list[str] = []  # what was done, for a person who reads a failure
        names = (("a", "main"), ("b", "main"), ("b", "tablet"))
        self.nodes = [Node(user, device, storage(user + device)) for user, device in names]
        self.connected: set[int] = set()
        for link in (0, 1):
            self.nodes[0].peers[link] = self.nodes[link + 1]
            self.nodes[link + 1].peers[link] = self.nodes[0]

    async def play(self, steps: int) -> None:
        """So many steps, then what brings everything over that is not lost."""
        for node in self.nodes:
            await self._start(node)
        actions = [action for action, weight in self._weights.items() for _ in range(weight)]
        try:
            for _ in range(steps):
                action = self.random.choice(actions)
                self.log.append(action.__name__)
                await action(self.random.choice(self.nodes))
                await self._settle()
            await self._bring_all_over()
        finally:
            for node in self.nodes:
                if node.program is not None:
                    node.program.kill(written=False)
            await asyncio.sleep(0)

    @property
    def _weights(self) -> dict[Callable[[Node], Awaitable[None]], int]:
        return {
            self.send: 16,
            self.connect: 8,
            self.lose: 3,
            self.transmit: 12,
            self.deliver: 20,
            self.write: 16,
            self.carry: 8,
            self.read: 14,
            self.meet_a_full_disk: 3,
            self.kill: 5,
            self.kill_within_a_callback: 3,
            self.end: 2,
            self.back_up: 3,
            self.put_back: 2,
            self.move: 3,
            self.forget: 3,
        }

    def _link(self, node: Node) -> int:
        return self.random.choice(list(node.peers))

    async def _start(self, node: Node) -> None:
        node.run += 1
        peer = next(iter(node.peers.values()))
        program = node.program = Program(Watched(node.storage.open(), node.written), node.user_id, peer.user_id)
        unread = await program.bind()
        program.lines.clear()
        waiting = program.writer.waiting
        for link, peer in node.peers.items():
            name: str | None = peer.device
            if link == 0 and node is self.nodes[0]:
                nameless = ("b", None) in waiting or self.random.random() < 0.3
                name = None if nameless and ("b", "main") not in waiting else "main"
            self._add_line(node, link, name)
        node.calls = self.random.random() < 0.4
        program.mailbox.bind(program.writer, unread)
        if node.calls:
            program.mailbox.on_message(lambda message: self._called(node, program, message))
        program.thread.holding = True

    def _add_line(self, node: Node, link: int, name: str | None) -> None:
        line = node.lines[link] = node.running.line(node.peers[link].user_id, name)
        line.on_frame = lambda frame: self._check_frame(node, link, frame)
        node.running.lines[:] = node.lines.values()

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        for node in self.nodes:
            if node.left is not None:
                await self._kill(node)
            self._collect(node)
            self._check_disk(node)

    # --- what happens -----------------------------------------------------------------------------------------------

    async def send(self, node: Node) -> None:
        """The application sends a message, or the program one of its own."""
        line = node.lines[link := self._link(node)]
        data = b"%d:" % len(self.sent) + bytes(self.random.choice([0, 1, CHUNK + 1]))
        if self.random.random() < 0.3:
            line.stream.send(Content.CONTROL, b"control")
        else:
            addressed = line.name is not None and self.random.random() < 0.3
            delivery = line.stream.send(Content.BYTES, data, addressed=addressed)
            self.sent.append(Sent(node, node.run, link, delivery))

    async def connect(self, node: Node) -> None:
        """A channel begins, perhaps in the place of another one."""
        self._connect(self._link(node))

    def _connect(self, link: int) -> None:
        self._lose(link)
        here, there = self.nodes[0], self.nodes[link + 1]
        if here.lines[link].name is None:
            here.lines[link].name = there.device
            here.running.writer.name_device(here.lines[link].stream, there.user_id, there.device)
        for each in (here, there):
            each.lines[link].connect()
        self.connected.add(link)

    async def lose(self, node: Node) -> None:
        """A channel is lost, with all that is under way on it."""
        self._lose(self._link(node))
        if self.random.random() < 0.3:
            await self.forget(node)

    def _lose(self, link: int) -> None:
        for node in (self.nodes[0], self.nodes[link + 1]):
            node.lines[link].lose()
        self.connected.discard(link)

    async def transmit(self, node: Node) -> None:
        """There is room for some frames."""
        line = node.lines[link := self._link(node)]
        line.room = self.random.randint(1, 6)
        if link in self.connected:
            line.stream.pump()

    async def deliver(self, node: Node) -> None:
        """Some frames reach the other side."""
        self._deliver(node, self._link(node), self.random.randint(1, 8))

    def _deliver(self, node: Node, link: int, frames: int) -> None:
        line = node.lines[link]
        for _ in range(frames):
            if line.wire and not node.peers[link].lines[link].arrive(line.wire.popleft()):
                self._lose(link)  # to begin anew

    async def write(self, node: Node) -> None:
        """The disk is done with what it was given."""
        node.running.thread.run()

    async def carry(self, node: Node) -> None:
        """A stretch without trouble."""
        link = self._link(node)
        ends = (node, node.peers[link])
        for _ in range(self.random.randint(0, 3)):
            await self.send(node)
        if link not in self.connected:
            await self.connect(node)
        for _ in range(3):
            for each in ends:
                await self.write(each)
                await self._settle()
                each.lines[link].room = 20
                if link in self.connected:
                    each.lines[link].stream.pump()
                self._deliver(each, link, 20)
                await self._settle()
        for _ in range(self.random.randint(0, 4)):
            await self.read(ends[1])
            await self._settle()

    async def meet_a_full_disk(self, node: Node) -> None:
        """What the disk was given fails; it is tried again, or later."""
        node.running.thread.fail()
        await self._settle()
        if self.random.random() < 0.7:
            node.running.writer._try_again()

    async def read(self, node: Node) -> None:
        """The application asks for the next message."""
        program = node.running
        if not node.calls and program.reading is None:
            program.reading = asyncio.ensure_future(program.mailbox.next(program.reader))
            node.in_hands = None

    async def kill(self, node: Node) -> None:
        """The program is killed, after or before the disk is done."""
        if self.random.random() < 0.5:
            node.running.thread.run()
        await self._kill(node)

    async def kill_within_a_callback(self, node: Node) -> None:
        """The program will be killed when the application gets the next message."""
        node.dies = node.calls

    async def _kill(self, node: Node) -> None:
        await self._stop(node)
        await self._start(node)

    async def _stop(self, node: Node) -> None:
        for link in node.peers:
            self._lose(link)
        left = node.storage.copy() if node.left is None else node.left
        program, node.program = node.running, None
        program.kill(written=False)
        await asyncio.sleep(0)
        node.storage.go_on(left)
        if node.in_hands is not None:
            node.at_crash.add(node.in_hands)
        node.in_hands = node.left = None
        node.dies = False

    async def end(self, node: Node) -> None:
        """The program ends in order, with a full disk perhaps."""
        program = node.running
        for link in node.peers:
            self._lose(link)
            node.lines[link].stream.fail("the program ends", keep=True)
        program.mailbox.close()
        if self.random.random() < 0.5:
            await self.read(node)
            await self._settle()
        if self.random.random() < 0.3:
            program.thread.fail()
            program.thread.broken = self.random.random() < 0.5
        program.thread.holding = False
        program.thread.run()
        await program.writer.close()
        await self._kill(node)

    async def back_up(self, node: Node) -> None:
        """Somebody copies the journal."""
        held = any(line.stream._held for line in node.lines.values())
        node.backup = Backup(node.storage.copy(), node.storage.queued(), held)

    async def put_back(self, node: Node) -> None:
        """The program is killed, and its journal put back to an earlier state."""
        if node.backup is None:
            return
        await self._stop(node)
        node.storage.put_back(node.backup.copy, self.random)
        for key, sent in enumerate(self.sent):
            if sent.sender is node and key not in node.backup.queued:
                sent.excused = True
            elif sent.sender is node:
                sent.twice |= node.backup.held
            elif sent.sender.user_id != node.user_id:
                node.excused.add(key)
        node.at_crash.clear()
        await self._start(node)
        if self.random.random() < 0.5:  # it is killed again before a peer has said what it has
            for _ in range(self.random.randint(0, 4)):
                await self.send(node)
            await self._settle()
            await self.kill(node)
        if self.random.random() < 0.5:
            await self._greet(node, self._link(node))

    async def _greet(self, node: Node, link: int) -> None:
        """A channel begins, and gets no further for now."""
        self._connect(link)
        for each in (node, node.peers[link]):
            self._deliver(each, link, 1)
        await self._settle()

    async def move(self, node: Node) -> None:
        """What waits for one device of `b` goes to the other one."""
        link = self.random.randrange(2)
        if self.random.random() < 0.5 or not self._move(link):
            return
        if self.random.random() < 0.3:
            await self._greet(self.nodes[0], link)
            await self._kill(self.nodes[0])
        elif self.random.random() < 0.3:
            await self._settle()
            await self.meet_a_full_disk(self.nodes[0])

    def _move(self, link: int) -> bool:
        lines = self.nodes[0].lines
        if link in self.connected or not lines[link].stream.movable:
            return False
        withdrawn = lines[link].stream.withdraw()
        for _, _, data in withdrawn:
            key = key_of(data)
            assert key is not None
            self.sent[key].moved = True
        lines[1 - link].stream.take_over(withdrawn)
        return True

    async def forget(self, node: Node) -> None:
        """The store forgets an idle device, and meets it again."""
        line = node.lines[link := self._link(node)]
        if link in self.connected or line.stream.queued or line.stream.waiting:
            return
        node.running.writer.detach(line.stream)
        self._add_line(node, link, line.name)

    # --- what the applications get ----------------------------------------------------------------------------------

    def _collect(self, node: Node) -> None:
        reading = node.running.reading
        if reading is None or not reading.done():
            return
        node.running.reading = None
        message = reading.result()
        if message is not None:
            node.in_hands = self._got(node, message)

    def _called(self, node: Node, program: Program, message: QueuedMessage) -> None:
        if node.left is not None or program is not node.program:
            return  # it is dead
        node.in_hands = self._got(node, message)
        if node.dies:
            node.left = node.storage.copy()
        else:
            node.in_hands = None

    def _got(self, node: Node, message: QueuedMessage) -> int:
        key = key_of(message.data)
        assert key is not None
        sent = self.sent[key]
        identity = message.stream, message.sequence
        delivery = sent.delivery
        failed = delivery.done and not delivery.delivered and not delivery.stored
        assert sent.moved or not failed, f"{key} has failed and comes"
        if key in node.excused or sent.moved or (sent.twice and key in node.came):
            pass
        elif message.redelivered:
            assert key in node.at_crash, f"{key} was not in the application's hands"
            assert node.came[key] == identity, f"{key} has another id now"
        else:
            assert key not in node.came, f"{key} came twice"
            self._check_order(node, key, sent)
        node.at_crash.discard(key)
        node.came[key] = identity
        return key

    def _check_order(self, node: Node, key: int, sent: Sent) -> None:
        for number, other in enumerate(self.sent):
            if (other.sender, other.link) != (sent.sender, sent.link) or number in node.excused or other.moved:
                continue
            if number > key:
                assert number not in node.came or other.excused, f"{key} came after {number}"
            elif number < key and other.delivery.stored and not other.excused:
                assert number in node.came, f"{key} came before {number}"

    # --- what has to be ---------------------------------------------------------------------------------------------

    def _check_frame(self, node: Node, link: int, frame: bytes) -> None:
        match decode(frame):
            case Hello(stream=stream, received=received):
                node.streams[link] = stream
                if received is not None:
                    self._check_acknowledged(node, link, received.stream, received.sequence)
            case Ack(sequence):
                self._check_acknowledged(node, link, node.peers[link].streams[link], sequence)
            case Chunk(Content.BYTES, sequence, data=data) if (key := key_of(data)) is not None:
                assert key in node.queued, f"{key} is sent and not stored"
                node.wired[node.streams[link], sequence] = key

    def _check_acknowledged(self, node: Node, link: int, stream: str, sequence: int) -> None:
        for (name, number), key in node.peers[link].wired.items():
            if name == stream and number <= sequence and not self.sent[key].moved:
                assert key in node.arrived, f"{key} is acknowledged and not stored"

    def _check_disk(self, node: Node) -> None:
        queued = node.storage.queued()
        for key, sent in enumerate(self.sent):
            if sent.sender is not node or sent.run != node.run:
                continue
            delivery = sent.delivery
            if delivery.stored and not delivery.done:
                assert key in queued, f"{key} was accepted and is not on the disk"
            assert delivery.stored or not sent.accepted, f"{key} was accepted and has failed"
            sent.accepted = delivery.stored
        due = node.arrived - node.excused - set(node.came) | node.at_crash
        if node.in_hands is not None:
            due.add(node.in_hands)
        assert due - node.excused <= node.storage.arrived(), "what was not handed over is not on the disk"

    async def _bring_all_over(self) -> None:
        """Channels that hold, and disks; but one device of `b` may be gone for ever."""
        gone = self.random.random() < 0.3
        self.log.append("bring all over")
        if gone:
            self._lose(1)
        for turn in range(40):
            if gone:
                self._move(1)
            for link in range(1 if gone else 2):
                if link not in self.connected:
                    await self.connect(self.nodes[link + 1])
            for node in self.nodes:
                if node.running.writer.error is not None:
                    node.running.writer._try_again()
                await self.write(node)
                await self._settle()
                for link in self.connected & set(node.peers):
                    node.lines[link].room = 50
                    node.lines[link].stream.pump()
                    self._deliver(node, link, 50)
                for _ in range(10):
                    await self.read(node)
                    await self._settle()
            if turn > 2 and self._is_over(gone):
                break
        for node in self.nodes * 2:
            await self.write(node)
            await self._settle()
        self._check_end(gone)

    def _is_over(self, gone: bool) -> bool:
        busy = any(line.stream.queued or line.wire for node in self.nodes for line in node.lines.values())
        return not (gone or busy or any(node.at_crash for node in self.nodes))

    def _check_end(self, gone: bool) -> None:
        for key, sent in enumerate(self.sent):
            peers = list(sent.sender.peers.values())
            waits = gone and sent.link == 1 and (sent.sender is not self.nodes[0] or sent.delivery.device is not None)
            if sent.excused or waits or any(key in node.came or key in node.excused for node in peers):
                continue
            assert not sent.delivery.stored, f"{key} was accepted and never came"
            if sent.run == sent.sender.run:
                assert sent.delivery.done, f"what became of {key} is not known"
        for node in self.nodes:
            assert not node.at_crash, f"{node.at_crash} were in the application's hands and did not come again"
            waits = gone and 1 in node.lines
            for link, line in node.lines.items():
                assert (gone and link == 1) or not line.stream.queued
            assert waits or not node.storage.queued(), "what has arrived is still in the journal"
