"""A program with a journal, without sockets: its stream, its mailbox and its journal's writer, to be killed at will."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from aldis.errors import JournalDiskFull, ProtocolViolation
from aldis.protocol.channel import Ack, Chunk, Content, Hello, StreamPosition, decode, encode_hello
from aldis.store.journal.journal import Journal
from aldis.store.journal.rows import Owner
from aldis.store.journal.writer import JournalWriter, new_stream
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.mailbox import Mailbox, QueuedMessage, Reader
from aldis.store.messages.stream import MessageStream, StreamRenewed
from aldis.store.state import StoreLimits
from support.peers import FakeTimers


class HeldThread(Executor):
    """Runs what it is given when the test says so; loading runs at once."""

    def __init__(self) -> None:
        self.held: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.holding = False
        self.broken = False  # the disk is full for good

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        work = self._fail if self.broken and getattr(fn, "__name__", "") == "write" else fn
        self.held.append((future, lambda: work(*args, **kwargs)))
        if not self.holding:
            self.run()
        return future

    def run(self) -> None:
        """Do all that waits."""
        while self.held:
            future, work = self.held.popleft()
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - as a real executor does
                future.set_exception(error)

    @staticmethod
    def _fail(*args: Any, **kwargs: Any) -> None:
        raise JournalDiskFull("test", "cannot grow")

    def fail(self) -> None:
        """Let all that waits meet a full disk."""
        while self.held:
            self.held.popleft()[0].set_exception(JournalDiskFull("test", "cannot grow"))


class Line:
    """What a program says to one device: the stream, and a path for it."""

    def __init__(
        self,
        user_id: str,
        name: str | None,
        limits: StoreLimits,
        recipient: Mailbox,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.user_id = user_id
        self.name = name
        self.wire: deque[bytes] = deque()
        self.room = 0
        self.greeted = False
        self.controls: list[bytes] = []
        self.on_frame: Callable[[bytes], None] = lambda frame: None
        self.stream = MessageStream(
            self,
            new_stream(),
            limits=limits,
            path=self,
            recipient=recipient,
            control=self.controls.append,
            timers=FakeTimers(),
            journaled=True,
            now=now,
        )

    def send_frame(self, frame: bytes) -> bool:
        if not (self.greeted and self.room):
            return False
        self.room -= 1
        self._put(frame)
        return True

    def combines(self, size: int) -> bool:
        return True

    def _put(self, frame: bytes) -> None:
        self.on_frame(frame)
        self.wire.append(frame)

    def connect(self) -> None:
        self.wire.clear()
        self.greeted = False
        self._put(encode_hello(self.stream.hello()))

    def lose(self) -> None:
        self.wire.clear()
        self.greeted = False
        self.stream.closed()

    def arrive(self, data: bytes) -> bool:
        """False when the channel has to begin anew."""
        match decode(data):
            case Hello() as hello:
                self.greeted = True
                try:
                    self.stream.opened(hello)
                except (StreamRenewed, ProtocolViolation):
                    return False
            case Chunk() | Ack() as frame:
                self.stream.received(frame)
        return True


class Program(Line):
    """One run of a program, which talks with one other; `line` adds one."""

    def __init__(
        self,
        journal: Journal,
        name: str,
        other: str,
        limits: StoreLimits | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or StoreLimits(unread_messages=8)
        self.sent: list[tuple[bytes, Delivery]] = []
        self.told: list[object] = []
        self.journal = journal
        self.thread = HeldThread()
        self.writer = JournalWriter(journal, self.limits, on_error=self._error_changed, thread=self.thread)
        self.mailbox = Mailbox(self.limits.unread_messages, self.limits.unread_size, on_room=self.read_on)
        self.reader = Reader(self.mailbox)
        self.reading: asyncio.Task[QueuedMessage | None] | None = None
        self.lines: list[Line] = [self]
        self._owner = Owner("here", name, "main")
        super().__init__(other, "main", self.limits, self.mailbox, now)

    def _error_changed(self) -> None:
        self.told.append(self.writer.error)
        if self.writer.error is None:
            self.mailbox.try_again()

    async def start(self) -> None:
        unread = await self.bind()
        self.writer.attach(self.stream, self.user_id, self.name)
        self.mailbox.bind(self.writer, unread)
        self.thread.holding = True

    async def bind(self) -> list[QueuedMessage]:
        """Know what is in the journal."""
        return await self.writer.bind(self._owner)

    def line(self, user_id: str, name: str | None) -> Line:
        """Another device."""
        line = Line(user_id, name, self.limits, self.mailbox)
        self.writer.attach(line.stream, user_id, name)
        return line

    def read_on(self) -> None:
        for line in self.lines:
            line.stream.hand_over()

    def send(self, data: bytes, content: Content = Content.BYTES) -> Delivery:
        delivery = self.stream.send(content, data)
        if content is not Content.CONTROL:
            self.sent.append((data, delivery))
        return delivery

    def kill(self, *, written: bool) -> None:
        """The program ends as by `kill -9`, after or before what it was writing is on the disk."""
        if written:
            self.thread.run()
        self.thread.held.clear()
        self.journal.close()
        if self.reading is not None:
            self.reading.cancel()


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def started(journal: Journal, limits: StoreLimits | None = None) -> Program:
    program = Program(journal, "alice", "bob", limits)
    await program.start()
    await turns()
    program.thread.run()
    await turns()
    return program


def open_channel(program: Program, *, received: StreamPosition | None = None) -> None:
    program.connect()
    program.wire.clear()
    program.greeted = True
    program.room = 1000
    program.stream.opened(Hello(1, "theirs", 1, [], received))


def piece(number: int, data: bytes) -> Chunk:
    return Chunk(sequence=number, content=Content.BYTES, last=True, size=len(data), data=data)
