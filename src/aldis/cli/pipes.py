"""Standard input and output as pipes, without blocking the event loop.

A pipe may be slow for hours, an event loop cannot wait for a file, and the heartbeat of a data channel must go on
meanwhile. So each of the two has its own thread. The threads are daemons and touch only the file descriptor: a thread
that hangs in `read` does not keep the process from ending.

Rules: input is held back while nothing takes it. Output is written line by line, at once.
"""

from __future__ import annotations

import asyncio
import io
import os
import queue
import select
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aldis.errors import MessageTooLarge
from aldis.protocol.channel import MAX_MESSAGE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_READ: Final = 64 * 1024  # the size of a pipe's buffer on Linux (pipe(7))
_AHEAD: Final = 2  # reads that may wait
_LOOK: Final = 0.2  # seconds after which a thread looks whether it is still wanted


class LineReader:
    """The lines of a file descriptor, as an async iterator of text without line ends. The last line needs no line end.

    Bytes that are not UTF-8 become U+FFFD; then `replaced` is true. Raises `MessageTooLarge` for a line that is too
    long for one message.
    """

    def __init__(self, descriptor: int) -> None:
        self.replaced = False
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._unfinished = bytearray()
        self._reads: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._room = threading.Semaphore(_AHEAD)
        threading.Thread(target=self._read, name="aldis-stdin", daemon=True).start()

    def __aiter__(self) -> LineReader:
        return self

    async def __anext__(self) -> str:
        while not self._lines:
            if self._reads:
                self._split(self._reads.popleft())
                self._room.release()
            elif self._ended:
                raise StopAsyncIteration
            else:
                self._arrived.clear()
                await self._arrived.wait()
        return self._decode(self._lines.popleft())

    def _split(self, data: bytes) -> None:
        if data:
            *whole, rest = data.split(b"\n")
            for line in whole:
                self._lines.append(bytes(self._unfinished) + line)
                self._unfinished.clear()
            self._unfinished += rest
        else:
            self._ended = True
            if self._unfinished:
                self._lines.append(bytes(self._unfinished))
        if len(self._unfinished) > MAX_MESSAGE:
            raise MessageTooLarge(len(self._unfinished), MAX_MESSAGE)

    def _decode(self, line: bytes) -> str:
        line = line.removesuffix(b"\r")
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.replaced = True
            return line.decode(errors="replace")

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        data = b"-"
        while data:
            self._room.acquire()
            data = self._read_some()
            try:
                self._loop.call_soon_threadsafe(self._take, data)
            except RuntimeError:
                return  # the loop is closed, so nothing takes the lines

    def _read_some(self) -> bytes:
        try:
            while True:
                with suppress(BlockingIOError):
                    return os.read(self._descriptor, _READ)
                # Another process with the same terminal or pipe has made it non-blocking.
                select.select([self._descriptor], [], [])
        except OSError:
            return b""  # a hang-up is an end too

    def _take(self, data: bytes) -> None:
        self._reads.append(data)
        self._arrived.set()


class LineWriter:
    """Writes lines to a file descriptor, each at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="aldis-stdout", daemon=True).start()

    async def write(self, line: str) -> None:
        """Write `line` and a line end; returns when they are written. Raises `OSError`, usually `BrokenPipeError`."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put(((line + "\n").encode(), done))
        await done

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            data, done = self._jobs.get()
            error: OSError | None = None
            try:
                self._write(data)
            except OSError as caught:
                error = caught
            try:
                self._loop.call_soon_threadsafe(_finish, done, error)
            except RuntimeError:
                return  # the loop is closed, so nothing waits

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


def _finish(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return  # the waiting task was cancelled
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class PipeTarget(io.FileIO):
    """A file descriptor as a binary stream that is written in a thread; `reader_is_gone` after a broken pipe."""

    reader_is_gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of it. Raises `OSError`."""
        while True:
            try:
                written: int | None = super().write(data)
            except BrokenPipeError:
                self.reader_is_gone = True
                raise
            if written is not None:
                return written
            select.select([], [self], [])  # another process with the same pipe has made it non-blocking


class PipeSource:
    """A file descriptor as a binary stream that is read in a thread, and can be left in the middle.

    The thread that reads the descriptor is a daemon of its own: who waits for `read` may be gone when data comes.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reads: queue.Queue[bytes | OSError] = queue.Queue(_AHEAD)
        self._rest = b""
        self._ended = self._closed = False
        threading.Thread(target=self._work, name="aldis-stdin", daemon=True).start()

    def read(self, size: int = -1) -> bytes:
        """Some bytes, at most `size`; none at the end. Raises `OSError`."""
        while not self._rest and not self._ended:
            with suppress(queue.Empty):
                found = self._reads.get(timeout=_LOOK)
                if isinstance(found, OSError):
                    raise found
                self._rest, self._ended = found, not found
            if self._closed:
                raise OSError("the input is not read any more")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Stop whoever reads."""
        self._closed = True

    def _work(self) -> None:
        data = b"-"
        while data:
            try:
                data = os.read(self._descriptor, _READ)
            except BlockingIOError:
                select.select([self._descriptor], [], [])
                continue
            except OSError as error:  # which is no end: what has come so far is not all
                self._reads.put(error)
                return
            self._reads.put(data)
