"""A file that is sent: offered, read in pieces, checked at the end.

Rules of this module:

* A program with the feature FILES_2 gets a checked transfer, and is offered it again when it was started anew. Others
  get the plain one; folders and streams are not for them.
* The recipient says what it has kept. If the checksum of that is the one of our beginning, we go on behind it; else
  we start from 0.
* What is larger than the server relays waits for a direct path. What was not offered yet ends when there is none; what
  is under way stops, and goes on with the next one.
* When a session of the relay begins, the pieces that are not acknowledged are taken back, and sent again later: the
  messages need not wait for them. The recipient may have got some of them. A program without the feature FILES_3 takes
  no piece twice, so of its pieces only those are taken back that were never sent.
* The file is read in threads, piece after piece; the arithmetic is that of `window`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from aldis.errors import AldisError, FeatureMissing, ProtocolViolation, UsageError
from aldis.protocol.names import FILES, FILES_2, FILES_3
from aldis.store.files import disk
from aldis.store.files.digest import BLOCK
from aldis.store.files.job import FilePeer, Job, JobOwner
from aldis.store.files.kept import Sent
from aldis.store.files.transfer import Transfer, TransferState, TransferStep
from aldis.store.files.window import RELAY_WINDOW, SendWindow, share
from aldis.store.messages.control import (
    MAX_PIECE,
    MAX_SIZE,
    FileAccept,
    FileEnd,
    FileOffer,
    encode_control,
    encode_piece,
    to_base64url,
)
from aldis.store.messages.delivery import Delivery

_READ_BYTES: Final = 4 * MAX_PIECE  # at a time: a thread for each piece would cost more than the reading


class _Said(NamedTuple):
    """A control message that is on its way: with so many bytes of files, since `at`."""

    delivery: Delivery
    control: bytes
    on_its_way: int
    at: float


class OutgoingJob(Job):
    """See the module."""

    def __init__(
        self,
        owner: JobOwner,
        peer: FilePeer,
        transfer: Transfer,
        wire_id: str,
        found: disk.Found,
        *,
        addressed: bool,
        ready: bool = True,
    ) -> None:
        """Unless `ready`, nothing is said before `look_again`."""
        super().__init__(owner, peer, transfer, wire_id, announced=False)
        self.addressed = addressed  # it is for this device and no other of the user
        self.ready = ready
        self.begun_at = 0.0  # seconds since 1970
        self._found = found
        self._checked = False  # the other side takes part in the check
        self._skips = False  # the other side skips a piece that has come before
        self._flying: deque[_Said] = deque()  # pieces and the end: said, perhaps not acknowledged
        self._back: deque[bytes] = deque()  # those that were taken back, in order
        self._window = self._new_window(0)

    def _new_window(self, start: int) -> SendWindow:
        size = self._found.size
        return SendWindow(MAX_SIZE if size is None else size, start)

    def no_direct(self, reason: str) -> None:
        """There is no direct path: what was not offered yet fails if it needs one."""
        if self.needs_direct and not self.announced:
            self.give_up(TransferStep.FAILED, f"it needs a direct path: {reason}")

    # --- what is said -----------------------------------------------------------------------------------------------

    def announce(self, features: tuple[str, ...]) -> bool:
        """Offer it to a program with these features; False if that does not take it."""
        found, transfer = self._found, self.transfer
        plain = found.size is not None and not found.manifest
        missing = FILES if FILES not in features else FILES_2 if not plain and FILES_2 not in features else None
        if missing is not None:
            self.end(TransferStep.FAILED, FeatureMissing(self.peer.user_id, missing))
            return False
        self.announced = True
        self.owner.announcement_changed(self)
        transfer.device = self.peer.name
        if isinstance(self.record, Sent) and self.record.device != self.peer.name:
            self.record = replace(self.record, device=self.peer.name)
            self.owner.keep(self.record)
        self._checked, self._skips = FILES_2 in features, FILES_3 in features
        offer = FileOffer(self.id, transfer.name, found.size or 0, transfer.mime)
        if self._checked:
            offer.resumes = "" if self.id == transfer.id else transfer.id
            offer.version = found.version
            offer.manifest = len(found.manifest)
            offer.stream = found.size is None
        self.tell(offer)
        return True

    async def look_again(self, sent: Sent) -> None:
        """The file was offered by an earlier run of our program: see that it is the same still."""
        try:
            found = await asyncio.to_thread(disk.look, Path(os.fsdecode(sent.path)))
        except (UsageError, ValueError) as error:
            self.end(TransferStep.FAILED, str(error))
            return
        if found.version != sent.version:
            self.end(TransferStep.FAILED, "the file has changed since it was offered")
            return
        self._found, self.ready = found, True
        self.transfer.left_out, self.transfer.listing = found.left_out, len(found.manifest)
        self.owner.announce(self.peer)

    def restarted(self) -> bool:
        """The other program was started anew, or has left and may come back; False when that ends this transfer."""
        if not self._checked or self._found.size is None:
            return False
        self.announced = False
        self.owner.announcement_changed(self)
        self._window = self._new_window(0)
        self._flying.clear()
        self._back.clear()
        self.stirred.set()  # whoever reads for the old window ends
        if self.transfer.state is TransferState.RUNNING:
            self.transfer.move(TransferStep.RESTARTED, transferred=0)
        return True

    # --- what is heard ----------------------------------------------------------------------------------------------

    def accepted(self, accept: FileAccept) -> None:
        """The other side wants it."""
        if self.is_running():
            return
        start, size = accept.start, self._found.size
        if start and (not self._checked or size is None or start > size or start % BLOCK or not accept.sha256):
            self.violated("it has kept what it cannot have")
            return
        self._window = window = self._new_window(0)
        self.transfer.move(TransferStep.ACCEPTED)
        self.owner.tasks.spawn(self._read(window, start, accept.sha256), f"read {self.transfer.name}")

    def confirmed(self, count: int) -> None:
        """So much is written."""
        if not self.is_running():
            self.violated("data is confirmed before the file was accepted")
            return
        try:
            whole = self._window.received(count)
        except ProtocolViolation as error:
            self.violated(str(error))
            return
        if whole:
            self.end(TransferStep.COMPLETED, None, transferred=count)
        else:
            self.stirred.set()
            self.transfer.progressed(count)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _read(self, window: SendWindow, start: int, sha256: str) -> None:
        try:
            source = await asyncio.to_thread(disk.open_source, self._found)
            try:
                if start:
                    await asyncio.to_thread(disk.skip, source, start, lambda: self._is_current(window))
                    if not self._is_current(window):
                        return
                    if to_base64url(source.digest.result()) == sha256:
                        window.sent = window.confirmed = start
                        self.transfer.started(start)
                    else:
                        await asyncio.to_thread(source.close)
                        source = await asyncio.to_thread(disk.open_source, self._found)
                await self._send_all(window, source)
            finally:
                await asyncio.to_thread(source.close)
            while self._is_current(window):
                await self._wait(window)  # something may be taken back
        except disk.SourceChanged as error:
            self._fail(window, str(error))
        except (OSError, ValueError) as error:
            self._fail(window, f"the sender cannot read it: {disk.in_words(error)}")

    def _fail(self, window: SendWindow, reason: str) -> None:
        if self._is_current(window):
            self.give_up(TransferStep.FAILED, reason)

    def _is_current(self, window: SendWindow) -> bool:
        return self.is_open() and self._window is window

    async def _send_all(self, window: SendWindow, source: disk.Source) -> None:
        data = memoryview(b"")  # what was read and is not sent: the disk is not to be waited for when there is room
        while self._is_current(window) and window.sent < window.size:
            if not data:
                data = memoryview(await asyncio.to_thread(source.read, min(_READ_BYTES, window.size - window.sent)))
                if not data:
                    window.size = self.transfer.size = window.sent  # the end of a stream
                continue
            room = 0 if self._back else min(window.room(self._share()), len(data), MAX_PIECE)
            if room == 0 or not self._has_room:
                await self._wait(window)
                continue
            self._say_piece(encode_piece(self.id, window.sent, data[:room]))
            window.sent += room
            data = data[room:]
        if self._checked and self._is_current(window):
            end = encode_control(FileEnd(self.id, window.sent, to_base64url(source.digest.result())))
            if self._back:
                self._back.append(end)
            else:
                self._say_piece(end)

    def _say_piece(self, control: bytes) -> None:
        """Say something that may be taken back: a piece, or the end."""
        self._settle()
        on_its_way = self._on_its_way + len(control)
        try:
            self._flying.append(_Said(self.peer.send_control(control), control, on_its_way, self.owner.clock()))
        except AldisError as error:
            self.end(TransferStep.FAILED, str(error))

    async def _wait(self, window: SendWindow) -> None:
        """Wait until something has changed. Then say again what was taken back, as far as there is room."""
        await self.stir()
        while self._back and self._is_current(window) and self._has_room:
            self._say_piece(self._back.popleft())

    def acknowledged(self) -> None:
        """The peer has acknowledged something."""
        self._settle()
        self.stirred.set()

    def _settle(self) -> None:
        while self._flying and self._flying[0].delivery.done:
            said = self._flying.popleft()
            if said.delivery.delivered and self.peer.file_limit is None:
                self.owner.pace(self.peer).took(said.on_its_way, self.owner.clock() - said.at)

    @property
    def flying(self) -> int:
        """How many bytes of it are said, and not acknowledged."""
        return sum(len(said.control) for said in self._flying if not said.delivery.done)

    @property
    def _on_its_way(self) -> int:
        """How many bytes of all files are said to the peer, and not acknowledged."""
        return sum(job.flying for job in self._running)

    @property
    def _has_room(self) -> bool:
        """Whether the path takes one more piece now."""
        if self.peer.file_limit is None:
            pace = self.owner.pace(self.peer)
            return not pace.limits or pace.allows(self._on_its_way)
        return not self.needs_direct and self._on_its_way < RELAY_WINDOW

    def relayed(self) -> None:
        """A session of the relay begins."""
        back = []
        while self._flying and not (last := self._flying[-1].delivery).done and (self._skips or not last.sent):
            self._back.appendleft(self._flying.pop().control)
            back.append(last)
        if back:
            self.peer.take_back(back)

    @property
    def _running(self) -> list[OutgoingJob]:
        return [job for job in self.owner.announced(self.peer) if isinstance(job, OutgoingJob) and job.is_running()]

    def _share(self) -> int:
        running = self._running
        return share(running.index(self), len(running)) if self in running else 0


def path_of(found: disk.Found, path: Path) -> Path | None:
    """What the transfer shows as the path of what is sent."""
    return None if found.size is None else path
