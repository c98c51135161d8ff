"""A file that is received: accepted, written as it arrives, checked at the end.

Rules of this module:

* What arrives is written in threads, and confirmed as it is written; the arithmetic is that of `window`. As much is
  written at a time as is confirmed at a time, and less where no more comes for `_GATHER` seconds.
* A checked transfer gets its name only if its checksum is the one that the sender says. Else it is thrown away.
* Of a checked transfer that fails, what is written stays (`sinks`); of one that is cancelled, refused or broken by
  the other side, nothing does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

from msgspec.structs import replace

from aldis.errors import ProtocolViolation
from aldis.store.files import disk
from aldis.store.files.job import FilePeer, Job, JobOwner
from aldis.store.files.kept import Taken
from aldis.store.files.sinks import ArrivedSink, Incoming, Sink, open_sink, partial_key
from aldis.store.files.transfer import Transfer, TransferState, TransferStep
from aldis.store.files.window import ReceiveWindow
from aldis.store.messages.control import (
    FileAccept,
    FileEnd,
    FileOffer,
    FileReceived,
    Piece,
    to_base64url,
)

# For each piece, a thread would cost more than the writing.
_GATHER: Final = 0.01


class IncomingJob(Job):
    """See the module."""

    def __init__(self, owner: JobOwner, peer: FilePeer, transfer: Transfer, offer: FileOffer) -> None:
        super().__init__(owner, peer, transfer, offer.id, announced=True)
        self._offer = offer
        self._window = ReceiveWindow(transfer.size)
        self._ready = False  # file-accept was said
        self._data = bytearray()  # what is not written yet
        self._soon: asyncio.TimerHandle | None = None  # until that is written
        self._ended: FileEnd | None = None
        self._spoiled = False  # by the other side; nothing of it can be used
        self._closed = asyncio.Event()  # the disk is done with it

    def violated(self, reason: str) -> None:
        self._spoiled = True
        super().violated(reason)

    # --- what is heard ----------------------------------------------------------------------------------------------

    def taken(self, target: Path | None = None, sender: str = "", begun_at: float = 0.0) -> Taken:
        """What the journal may keep of it when it is accepted. Raises `OSError` for a path in a working directory that
        is gone."""
        offer, transfer = self._offer, self.transfer
        path = b"" if target is None else os.fsencode(os.path.abspath(target))
        return Taken(
            offer.resumes or offer.id,
            transfer.user_id,
            transfer.name,
            offer.size,
            offer.version,
            offer.manifest,
            sender,
            path,
            begun_at,
        )

    @property
    def resumable(self) -> bool:
        """Whether it can go on after a restart."""
        return bool(self._offer.version) and not self._offer.stream

    def accept(self, target: Path | BinaryIO | ArrivedSink, sender: str) -> None:
        """The application wants it, or has it."""
        self.transfer.move(TransferStep.ACCEPTED)
        self.owner.tasks.spawn(self._write(target, sender), f"write {self.transfer.name}")

    def arrived(self, piece: Piece) -> None:
        """A piece has come."""
        if not self.is_running() or not self._ready:
            self.violated("data came before the file was accepted")
            return
        try:
            is_new = self._window.arrive(piece.offset, len(piece.data))
        except ProtocolViolation as error:
            self.violated(str(error))
            return
        if is_new:
            self._data += piece.data
            if self._window.is_due:
                self.stirred.set()
            elif self._soon is None:
                self._soon = asyncio.get_running_loop().call_later(_GATHER, self.stirred.set)

    def all_sent(self, end: FileEnd) -> None:
        """The sender has sent everything."""
        window = self._window
        if not self._ready or self._ended is not None or not self._offer.version:
            return
        if end.bytes != window.arrived or not (self._offer.stream or end.bytes == window.size):
            self.violated(f"it ends at {end.bytes} bytes, of which {window.arrived} have come")
            return
        self.transfer.size = end.bytes
        window.ends(end.bytes)
        self._ended = end
        self.stirred.set()

    # --- receiving --------------------------------------------------------------------------------------------------

    def accept_again(self, before: Taken) -> None:
        """It was accepted by an earlier run of our program, or before the sender has left."""
        self.record = before
        if before.sha256:
            self.accept(ArrivedSink(before.size, before.sha256, before.blocks_sha256), before.sender)
        else:
            self.accept(Path(os.fsdecode(before.target)), before.sender)

    async def _write(self, target: Path | BinaryIO | ArrivedSink, sender: str) -> None:
        sink: Sink | None = None
        incoming = self._incoming(sender)
        writing, key = self.owner.writing, incoming.key or self.id
        before = writing.get(key)
        if isinstance(before, IncomingJob) and not before.is_open():
            await before._closed.wait()  # what it has written can be used then
        writing.setdefault(key, self)
        try:
            if isinstance(target, ArrivedSink):
                sink = target
            else:
                sink = await asyncio.to_thread(open_sink, target, incoming)
            if self.is_open():
                self._window = window = ReceiveWindow(self.transfer.size, sink.kept)
                sha256 = to_base64url(sink.digest.result()) if sink.kept else ""
                self._ready = True
                self.transfer.started(sink.kept)
                self.tell(FileAccept(self.id, sink.kept, sha256))
                await self._receive(window, sink)
        except ProtocolViolation as error:
            self.violated(str(error))
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            self.give_up(TransferStep.FAILED, f"the recipient cannot write it: {disk.in_words(error)}")
        finally:
            self._forget_timer()
            if sink is not None:
                failed = self.transfer.state is TransferState.FAILED and not self._spoiled
                await asyncio.to_thread(sink.keep if failed else sink.discard)
            if writing.get(key) is self:
                del writing[key]
            self._closed.set()

    def _incoming(self, sender: str) -> Incoming:
        offer, transfer = self._offer, self.transfer
        key = None
        if offer.version and transfer.size is not None:
            key = partial_key(sender, transfer.name, offer.size, offer.version, offer.manifest)
        return Incoming(transfer.name, self.id, transfer.size, key, offer.manifest, self.is_open)

    async def _receive(self, window: ReceiveWindow, sink: Sink) -> None:
        checked = bool(self._offer.version)
        while self.is_open() and (window.written < window.size or (checked and self._ended is None)):
            await self.stir()
            if window.restarted:
                window.restarted = False
                await asyncio.to_thread(sink.restart)
                self.transfer.started(0)
            self._forget_timer()
            data, self._data = self._data, bytearray()
            if data:
                window.write()
                await asyncio.to_thread(sink.write, data)
                self._wrote(window, len(data))
        if not self.is_open():
            return
        if self._ended is not None and to_base64url(sink.digest.result()) != self._ended.sha256:
            self._spoiled = True
            self.give_up(TransferStep.FAILED, "what arrived does not fit the checksum of the sender")
            return
        await self._finish(sink)

    def _forget_timer(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _wrote(self, window: ReceiveWindow, size: int) -> None:
        due = window.wrote(size)
        if self.is_open() and due is not None:
            self.tell(FileReceived(self.id, due))
        if self.is_open():
            self.transfer.progressed(window.written)

    async def _finish(self, sink: Sink) -> None:
        path = await asyncio.to_thread(sink.finish)
        size = self._window.size
        if self.is_open():
            if isinstance(self.record, Taken):
                digest = sink.digest
                self.record = replace(self.record, sha256=digest.result(), blocks_sha256=digest.of_blocks)
                self.owner.keep(self.record)
                self.later = True
            self.say(FileReceived(self.id, size))
            self.end(TransferStep.COMPLETED, None, transferred=size, path=path)
        elif path is not None:  # it was cancelled in this very moment, so it must not be there
            await asyncio.to_thread(_remove, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
