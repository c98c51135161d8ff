"""Files between two devices: offered, accepted, sent in pieces, confirmed as they are written.

Rules of this module:

* Everything is said in control messages (`messages.control`), which arrive once and in order over however many
  connections. So a transfer does not notice a path that is lost and mended, and nothing is ever sent twice.
* An offer goes out when the peer is connected and its program takes files. From then on it ends when the other side
  is not the same program any more, or when either has taken leave.
* Who ends a transfer before its time says so (`file-cancel`), also when the other side is believed to be gone; so no
  end waits for one that has given up. What is said about a transfer that is not known here is ignored.
* A peer that breaks the rules of a transfer (a wrong offset, more than was offered or than the window allows, data
  before the file was accepted, a confirmation of what was not sent) loses the transfer, and nothing else.
* Files are read and written in threads, piece after piece; the arithmetic is that of `window`.

It does not know connections, nor where the user wants to have a file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from aldis.errors import (
    AldisError,
    FeatureMissing,
    PeerConnectionFailed,
    ProtocolViolation,
    StateError,
    TransferFailed,
)
from aldis.protocol.names import FILES
from aldis.protocol.texts import clean
from aldis.store.files import disk
from aldis.store.files.transfer import OPEN, Transfer, TransferState, TransferStep
from aldis.store.files.window import MAX_OPEN, ReceiveWindow, SendWindow, share
from aldis.store.messages.control import (
    ID_BYTES,
    MAX_PIECE,
    ControlMessage,
    FileAccept,
    FileCancel,
    FileDecline,
    FileMessage,
    FileOffer,
    FileReceived,
    Piece,
    encode_control,
    encode_piece,
    new_id,
    safe_mime,
    safe_name,
)
from aldis.store.messages.delivery import Delivery
from aldis.store.subscriptions import Callbacks
from aldis.store.tasks import Tasks

_READ_BYTES: Final = 4 * MAX_PIECE  # at a time: a thread for each piece would cost more than the reading
_CLOSE_SECONDS: Final = 5.0  # for a disk to finish what it has begun


class FilePeer(Protocol):
    """A device of a peer, as files need it."""

    user_id: str
    name: str | None  # of the device; None until it is known

    @property
    def features(self) -> Sequence[str] | None:
        """What the peer's program can do; None while it is not connected."""

    def send_control(self, data: bytes) -> Delivery:
        """Queue a control message. Raises `AldisError` when it cannot be."""

    def call(self) -> None:
        """Have the peer called, from now on for as long as `FileService.busy`. Raises `AldisError` where that is in
        vain."""


class _Job:
    """A transfer that is not over yet, and what is known of it besides."""

    def __init__(self, peer: FilePeer, transfer: Transfer, window: SendWindow | ReceiveWindow) -> None:
        self.peer = peer
        self.transfer = transfer
        self.window = window
        self.announced = False  # the offer has gone out, or come in
        self.addressed = True  # it is for this device and no other of the user
        self.found: disk.Found | None = None  # what is sent
        self.arrived = bytearray()  # what is not written yet
        self.stirred = asyncio.Event()  # there is something to do, or to end

    def is_open(self) -> bool:
        return self.transfer.state in OPEN

    def is_running(self) -> bool:
        return self.transfer.state is TransferState.RUNNING

    async def stir(self) -> None:
        """Wait until something has changed."""
        await self.stirred.wait()
        self.stirred.clear()


class FileService:
    """All transfers of one store."""

    def __init__(self, on_file: Callbacks[Transfer]) -> None:
        """`on_file` are told of what others offer; while there are none, offers are declined."""
        self._on_file = on_file
        self._jobs: dict[FilePeer, dict[str, _Job]] = {}  # by peer and id, in the order in which they were begun
        self._open: dict[Transfer, _Job] = {}  # the same
        self._tasks = Tasks()
        self._closed = False

    # --- for the application ----------------------------------------------------------------------------------------

    def offer(
        self, peer: FilePeer, path: Path, found: disk.Found, name: str | None, *, addressed: bool = True
    ) -> Transfer:
        """Offer a file that was looked at (`disk.look`); unless `addressed`, another device of the user will do as well
        while this one has not heard of it. Raises `StateError`, and what `FilePeer.call` raises."""
        if self._closed:
            raise StateError("the store was closed meanwhile")
        made, shown = new_id(os.urandom(ID_BYTES)), safe_name(name or path.name)
        transfer = Transfer(self, peer.user_id, made, "out", shown, found.size, safe_mime(found.mime))
        transfer.offered(path)
        job = self._add(peer, transfer, SendWindow(found.size))
        job.found, job.addressed = found, addressed
        try:
            peer.call()
        except AldisError:
            self._remove(job)
            raise
        self._announce(peer)
        return transfer

    def accept(self, transfer: Transfer, path: Path) -> None:
        """See `Transfer.accept`."""
        job = self._offered(transfer)
        if job is not None and isinstance(job.window, ReceiveWindow):
            transfer.move(TransferStep.ACCEPTED)
            self._tasks.spawn(self._write(job, job.window, path), f"write {transfer.name}")

    def decline(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.decline`."""
        job = self._offered(transfer)
        if job is not None:
            self._say(job.peer, FileDecline(transfer.id, clean(reason)))
            self._end(job, TransferStep.DECLINED, _words("declined", reason))

    def cancel(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.cancel`."""
        job = self._open.get(transfer)
        if job is not None:
            self._give_up(job, TransferStep.CANCELLED, _words("cancelled", reason), told=reason)

    def _offered(self, transfer: Transfer) -> _Job | None:
        job = self._open.get(transfer)
        if transfer.direction == "out":
            raise StateError("this file is our own: the other side accepts or declines it")
        if job is not None and job.is_running():
            raise StateError("the file was accepted before")
        return job

    # --- from the store ---------------------------------------------------------------------------------------------

    def busy(self, peer: FilePeer) -> bool:
        """Whether a connection with this peer is needed. An offer that nobody has answered needs none: else strangers
        could make us call them."""
        return any(job.is_running() or job.transfer.direction == "out" for job in self._of(peer))

    def movable(self, peer: FilePeer) -> bool:
        """Whether something was not offered yet, and is not for exactly this device."""
        return any(_is_movable(job) for job in self._of(peer))

    def moved(self, peer: FilePeer, other: FilePeer) -> None:
        """Offer to the other device what was not offered to this one."""
        for job in [job for job in self._of(peer) if _is_movable(job)]:
            self._remove(job)
            job.peer = other
            self._open[job.transfer] = self._jobs.setdefault(other, {})[job.transfer.id] = job
        # Later: it may end a transfer, and no callback may come between what moves with it.
        asyncio.get_running_loop().call_soon(self._announce, other)

    def connected(self, peer: FilePeer) -> None:
        """The peer is connected, now or again."""
        self._announce(peer)

    def ended(self, peer: FilePeer, error: AldisError, *, restarted: bool = False) -> None:
        """What is under way with this user will not get any further. With `restarted` somebody else has taken the
        peer's place, to whom what was not offered yet can be offered."""
        reason = error.reason if isinstance(error, PeerConnectionFailed) else str(error)
        for job in self._of(peer):
            if job.announced or not restarted:
                self._give_up(job, TransferStep.FAILED, reason)

    def received(self, peer: FilePeer, control: ControlMessage) -> None:
        """The peer's store has said something."""
        if isinstance(control, FileOffer):
            self._offered_by(peer, control)
            return
        job = self._job(peer, control.id)
        if job is None or not job.announced:
            return
        match control, job.window:
            case FileCancel(), _:
                self._end(job, TransferStep.CANCELLED, _words("cancelled by the other side", control.reason))
            case FileDecline(), SendWindow():
                self._end(job, TransferStep.DECLINED, _words("declined", control.reason))
            case FileAccept(), SendWindow() as window if not job.is_running():
                job.transfer.move(TransferStep.ACCEPTED)
                self._tasks.spawn(self._read(job, window), f"read {job.transfer.name}")
            case FileReceived(), SendWindow() as window:
                self._confirmed(job, window, control.bytes)
            case Piece(), ReceiveWindow() as window:
                self._arrived(job, window, control)
            case _:
                pass  # said twice, or by the wrong side: it changes nothing

    async def close(self) -> None:
        """End everything, and wait until the files are closed."""
        self._closed = True
        for jobs in list(self._jobs.values()):
            for job in list(jobs.values()):
                self._end(job, TransferStep.FAILED, "the store was closed")
        await self._tasks.finish(_CLOSE_SECONDS)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _announce(self, peer: FilePeer) -> None:
        """Offer what waits for that, as far as the other side will take it."""
        features = peer.features
        if features is None:
            return
        sending = [job for job in self._of(peer) if job.transfer.direction == "out"]
        announced = sum(job.announced for job in sending)
        for job in sending:
            transfer = job.transfer
            if job.announced or not job.is_open():
                continue
            if FILES not in features:
                self._end(job, TransferStep.FAILED, FeatureMissing(peer.user_id, FILES))
            elif announced < MAX_OPEN:
                announced += 1
                job.announced = True
                transfer.device = peer.name
                self._tell(job, FileOffer(transfer.id, transfer.name, transfer.size, transfer.mime))

    async def _read(self, job: _Job, window: SendWindow) -> None:
        """Send a file that was accepted."""
        path, found = job.transfer.path, job.found
        assert path is not None and found is not None  # noqa: S101, PT018 - it is ours
        try:
            source = await asyncio.to_thread(disk.Source, path, found)
            try:
                await self._send_all(job, window, source)
            finally:
                await asyncio.to_thread(source.close)
        except disk.SourceChanged as error:
            self._give_up(job, TransferStep.FAILED, str(error))
        except (OSError, ValueError) as error:
            self._give_up(job, TransferStep.FAILED, f"the sender cannot read it: {disk.in_words(error)}")

    async def _send_all(self, job: _Job, window: SendWindow, source: disk.Source) -> None:
        while job.is_open() and window.sent < window.size:
            room = min(window.room(self._share(job)), _READ_BYTES)
            if room == 0:
                await job.stir()
                continue
            data = await asyncio.to_thread(source.read, room)
            for start in range(0, len(data), MAX_PIECE):
                if not job.is_open():
                    return
                piece = data[start : start + MAX_PIECE]
                self._tell(job, encode_piece(job.transfer.id, window.sent, piece))
                window.sent += len(piece)

    def _share(self, job: _Job) -> int:
        running = [other for other in self._of(job.peer) if other.is_running() and other.found is not None]
        return share(running.index(job), len(running)) if job in running else 0

    def _confirmed(self, job: _Job, window: SendWindow, count: int) -> None:
        if not job.is_running():
            self._violated(job, "data is confirmed before the file was accepted")
            return
        try:
            whole = window.received(count)
        except ProtocolViolation as error:
            self._violated(job, str(error))
            return
        if whole:
            self._end(job, TransferStep.COMPLETED, None, transferred=count)
        else:
            job.stirred.set()
            job.transfer.progressed(count)

    # --- receiving --------------------------------------------------------------------------------------------------

    def _offered_by(self, peer: FilePeer, offer: FileOffer) -> None:
        jobs = self._of(peer)
        if any(job.transfer.id == offer.id for job in jobs):
            return  # random ids do not meet by chance
        if not self._on_file:
            self._say(peer, FileDecline(offer.id, "this program takes no files"))
            return
        if sum(job.transfer.direction == "in" for job in jobs) >= MAX_OPEN:
            self._say(peer, FileDecline(offer.id, f"{MAX_OPEN} files are on offer or under way already"))
            return
        name, mime = safe_name(offer.name), safe_mime(offer.mime)
        transfer = Transfer(self, peer.user_id, offer.id, "in", name, offer.size, mime)
        transfer.device = peer.name
        self._add(peer, transfer, ReceiveWindow(offer.size)).announced = True
        self._on_file.tell(transfer)

    def _arrived(self, job: _Job, window: ReceiveWindow, piece: Piece) -> None:
        if not job.is_running():
            self._violated(job, "data came before the file was accepted")
            return
        try:
            window.arrive(piece.offset, len(piece.data))
        except ProtocolViolation as error:
            self._violated(job, str(error))
            return
        job.arrived += piece.data
        job.stirred.set()

    async def _write(self, job: _Job, window: ReceiveWindow, path: Path) -> None:
        """Receive a file."""
        transfer = job.transfer
        sink: disk.Sink | None = None
        try:
            sink = await asyncio.to_thread(disk.Sink, path, transfer.name, transfer.id, transfer.size)
            if job.is_open():
                self._tell(job, FileAccept(transfer.id))
            while job.is_open() and window.written < window.size:
                await job.stir()
                data, job.arrived = job.arrived, bytearray()
                await asyncio.to_thread(sink.write, data)
                self._wrote(job, window, len(data))
            if job.is_open():
                await self._finish(job, sink)
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            self._give_up(job, TransferStep.FAILED, f"the recipient cannot write it: {disk.in_words(error)}")
        finally:
            if sink is not None:
                await asyncio.to_thread(sink.discard)

    def _wrote(self, job: _Job, window: ReceiveWindow, size: int) -> None:
        due = window.wrote(size)
        if job.is_open() and due is not None:
            self._tell(job, FileReceived(job.transfer.id, due))
        if job.is_open() and size:
            job.transfer.progressed(window.written)

    async def _finish(self, job: _Job, sink: disk.Sink) -> None:
        path = await asyncio.to_thread(sink.finish)
        if job.is_open():
            self._say(job.peer, FileReceived(job.transfer.id, job.transfer.size))
            self._end(job, TransferStep.COMPLETED, None, transferred=job.transfer.size, path=path)
        else:  # it was cancelled in this very moment, so it must not be there
            await asyncio.to_thread(path.unlink)

    # --- both -------------------------------------------------------------------------------------------------------

    def _of(self, peer: FilePeer) -> list[_Job]:
        return list(self._jobs.get(peer, {}).values())

    def _job(self, peer: FilePeer, transfer_id: str) -> _Job | None:
        return self._jobs.get(peer, {}).get(transfer_id)

    def _add(self, peer: FilePeer, transfer: Transfer, window: SendWindow | ReceiveWindow) -> _Job:
        job = _Job(peer, transfer, window)
        self._open[transfer] = self._jobs.setdefault(peer, {})[transfer.id] = job
        return job

    def _say(self, peer: FilePeer, message: FileMessage | bytes) -> AldisError | None:
        """Say something; what keeps it from being said is returned."""
        try:
            peer.send_control(message if isinstance(message, bytes) else encode_control(message))
        except AldisError as error:
            return error
        return None

    def _tell(self, job: _Job, message: FileMessage | bytes) -> None:
        """Say something without which the transfer cannot go on."""
        error = self._say(job.peer, message)
        if error is not None:
            self._end(job, TransferStep.FAILED, str(error))

    def _violated(self, job: _Job, reason: str) -> None:
        self._give_up(job, TransferStep.FAILED, f"the other side breaks the protocol: {reason}")

    def _give_up(self, job: _Job, step: TransferStep, reason: str, *, told: str | None = None) -> None:
        """End a transfer from this side, and say so; `told` is what the other side hears instead of `reason`."""
        if job.is_open():
            if job.announced:
                self._say(job.peer, FileCancel(job.transfer.id, clean(reason if told is None else told)))
            self._end(job, step, reason)

    def _end(
        self,
        job: _Job,
        step: TransferStep,
        why: str | AldisError | None,
        *,
        transferred: int | None = None,
        path: Path | None = None,
    ) -> None:
        """A transfer is over, unless it was already."""
        transfer = job.transfer
        if not self._remove(job):
            return
        error = TransferFailed(transfer.user_id, transfer.name, why) if isinstance(why, str) else why
        transfer.move(step, transferred=transferred, error=error, path=path)
        job.arrived = bytearray()
        job.stirred.set()
        for other in self._of(job.peer):
            other.stirred.set()  # it may be their turn now
        asyncio.get_running_loop().call_soon(self._announce, job.peer)

    def _remove(self, job: _Job) -> bool:
        """Forget a transfer; False when that was done before."""
        if self._open.pop(job.transfer, None) is None:
            return False
        jobs = self._jobs[job.peer]
        del jobs[job.transfer.id]
        if not jobs:
            del self._jobs[job.peer]
        return True


def _is_movable(job: _Job) -> bool:
    return job.is_open() and not (job.announced or job.addressed)


def _words(what: str, reason: str) -> str:
    return f"{what}: {clean(reason)}" if clean(reason) else what
