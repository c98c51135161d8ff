"""Files between two devices: which are on offer or under way with which peer.

Rules of this module:

* Everything is said in control messages (`messages.control`), which arrive once and in order over however many
  connections. So a transfer does not notice a path that is lost and mended. Only when the relay takes over, pieces are
  taken back, and sent later.
* An offer goes out when the peer is connected and its program takes files. When the other program is started anew, it
  is offered once more what it can resume, and the rest ends. A goodbye of either ends all, but for what the journal
  keeps (`kept`): that is offered again when the other side is back, with a new id, since the other side may still say
  that the old one has ended.
* What is said about a transfer that is not known here is ignored.

The course of one transfer is in `outgoing` and `incoming`. It does not know connections, nor where the user wants to
have a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from aldis.errors import AldisError, JournalError, PeerConnectionFailed, StateError, TooManyTransfers, TransferExpired
from aldis.protocol.texts import clean
from aldis.store.clock import wall
from aldis.store.files import disk
from aldis.store.files.incoming import IncomingJob
from aldis.store.files.job import Ending, FilePeer, Job, in_short
from aldis.store.files.kept import KeptTransfers, Record, Sent, moved
from aldis.store.files.manifest import MAX_MANIFEST
from aldis.store.files.outgoing import OutgoingJob, path_of
from aldis.store.files.pace import Pace
from aldis.store.files.transfer import Transfer, TransferStep
from aldis.store.files.window import MAX_OPEN
from aldis.store.messages.control import (
    ID_BYTES,
    ControlMessage,
    FileAccept,
    FileCancel,
    FileDecline,
    FileEnd,
    FileOffer,
    FileReceived,
    Piece,
    encode_control,
    new_id,
    safe_mime,
    safe_name,
)
from aldis.store.subscriptions import Callbacks
from aldis.store.tasks import Tasks

_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 5.0  # for a disk to finish what it has begun
_RESTARTED: Final = (Ending.RESTARTED, Ending.REPLACED)


class FileService:
    """All transfers of one store."""

    def __init__(
        self,
        on_file: Callbacks[Transfer],
        on_resumed: Callbacks[Transfer] | None = None,
        kept: KeptTransfers | None = None,
        *,
        now: Callable[[], float] = wall,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_file` are told of what others offer; while there are none, offers are declined. `kept`: what outlives the
        program; `on_resumed` are told of what goes on from there. `now`: seconds since 1970.
        `clock`: monotonic seconds."""
        self.tasks = Tasks()
        self.clock = clock
        self._on_resumed = Callbacks() if on_resumed is None else on_resumed
        self._kept = kept
        self._now = now
        self.writing: dict[str, Job] = {}
        self._on_file = on_file
        self._jobs: dict[FilePeer, dict[str, Job]] = {}  # by peer and id, in the order in which they were begun
        self._announced: dict[FilePeer, dict[Job, None]] = {}  # of these: see `JobOwner`
        self._open: dict[Transfer, Job] = {}  # the same
        self._paces: defaultdict[FilePeer, Pace] = defaultdict(Pace)  # of peers that have jobs
        self._closed = False

    # --- for the application ----------------------------------------------------------------------------------------

    def offer(
        self, peer: FilePeer, path: Path, found: disk.Found, name: str | None, *, addressed: bool = True
    ) -> Transfer:
        """Offer what was looked at (`disk.look`); unless `addressed`, another device of the user will do as well
        while this one has not heard of it. Raises `StateError`, and what `FilePeer.call` raises."""
        if self._closed:
            raise StateError("the store was closed meanwhile")
        made, shown = new_id(os.urandom(ID_BYTES)), safe_name(name or path.name)
        transfer = Transfer(
            self,
            peer.user_id,
            made,
            "out",
            shown,
            found.size,
            safe_mime(found.mime),
            folder=bool(found.manifest),
            listing=len(found.manifest),
            left_out=found.left_out,
        )
        transfer.offered(path_of(found, path))
        job = OutgoingJob(self, peer, transfer, made, found, addressed=addressed)
        job.begun_at = self._now()
        if self._kept is not None and found.size is not None:
            job.record = Sent(
                made,
                peer.user_id,
                peer.name if addressed else None,
                os.fsencode(os.path.abspath(path)),
                shown,
                found.size,
                found.version,
                transfer.mime,
                job.begun_at,
                transfer.folder,
            )
            self._kept.add(job.record)
        self._add(job)
        try:
            peer.call()
        except AldisError:
            self.remove(job)
            if job.record is not None:
                self.forget(job.record)
            raise
        self.announce(peer)
        return transfer

    async def stored(self, transfer: Transfer) -> None:
        """Return when the journal has what is to be sent. When it cannot take it the transfer ends: `JournalError`."""
        if self._kept is None:
            return
        try:
            await self._kept.flush()
        except JournalError as error:
            job = self._open.get(transfer)
            if job is not None:
                job.give_up(TransferStep.FAILED, str(error), told="the sender's journal has a fault")
            raise

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Those that are not over, in the order in which they were begun."""
        return tuple(self._open)

    def restore(self, find: Callable[[str, str | None], FilePeer]) -> None:
        """The journal is loaded: go on with what is to be sent. `find` gives a device of a user; it may raise
        `AldisError`."""
        if self._kept is None:
            return
        found = self._kept.load()
        if self._kept.unreadable:
            _log.warning("the journal forgets %s files under way that cannot be read", self._kept.unreadable)
        for sent in found:
            try:
                peer = find(sent.user_id, sent.device)
            except AldisError as error:
                _log.warning("a file for %s stays in the journal: %s", sent.user_id, error)
                continue
            transfer = Transfer(self, sent.user_id, sent.id, "out", sent.name, sent.size, sent.mime, folder=sent.folder)
            transfer.device = sent.device
            transfer.offered(Path(os.fsdecode(sent.path)))
            told = disk.Found(sent.size, sent.mime, sent.version)
            addressed = sent.device is not None
            job = OutgoingJob(
                self, peer, transfer, new_id(os.urandom(ID_BYTES)), told, addressed=addressed, ready=False
            )
            job.begun_at, job.record = sent.begun_at, sent
            self._kept.use(sent)
            self._add(job)
            self.tasks.spawn(job.look_again(sent), f"look at {sent.name}")
            self._on_resumed.tell(transfer)

    def expire(self, age: float) -> None:
        """Give up what waits for longer than so many seconds."""
        before = self._now() - age
        for job in list(self._open.values()):
            if isinstance(job, OutgoingJob) and job.begun_at < before and job.peer.features is None:
                reason = f"it has waited for more than {age:g} s"
                job.end(TransferStep.FAILED, TransferExpired(job.transfer.user_id, job.transfer.name, reason))
        if self._kept is not None:
            self._kept.expire(before)

    def clock_was_set(self, step: float) -> None:
        """The wall clock was set by so many seconds: nothing that waits has grown older by that."""
        for job in self._open.values():
            if isinstance(job, OutgoingJob):
                job.begun_at += step
            if job.record is not None:
                job.record = moved(job.record, step)
        if self._kept is not None:
            self._kept.clock_was_set(step)

    def accept(self, transfer: Transfer, target: Path | BinaryIO, sender: str) -> None:
        """See `Transfer.accept`."""
        job = self._offered(transfer)
        if not isinstance(job, IncomingJob):
            return
        if self._kept is not None and isinstance(target, Path) and job.resumable:
            try:
                record = job.taken(target, sender, self._now())
                self._kept.add(record)
                job.record = record
            except (TooManyTransfers, OSError) as error:
                _log.warning("%s will not go on after a restart: %s", transfer.name, error)
        job.accept(target, sender)

    def decline(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.decline`."""
        job = self._offered(transfer)
        if job is not None:
            job.say(FileDecline(job.id, clean(reason)))
            job.end(TransferStep.DECLINED, in_short("declined", reason))

    def cancel(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.cancel`."""
        job = self._open.get(transfer)
        if job is not None:
            job.give_up(TransferStep.CANCELLED, in_short("cancelled", reason), told=reason)

    def needs_direct(self, transfer: Transfer) -> bool:
        """See `Transfer.needs_direct`."""
        job = self._open.get(transfer)
        return job is not None and job.needs_direct

    def _offered(self, transfer: Transfer) -> Job | None:
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
        return any(job.is_running() or isinstance(job, OutgoingJob) for job in self.of(peer))

    def movable(self, peer: FilePeer) -> bool:
        """Whether something was not offered yet, and is not for exactly this device."""
        return any(_is_movable(job) for job in self.of(peer))

    def moved(self, peer: FilePeer, other: FilePeer) -> None:
        """Offer to the other device what was not offered to this one."""
        for job in [job for job in self.of(peer) if _is_movable(job)]:
            self.remove(job)
            job.peer = other
            self._add(job)
        # Later: it may end a transfer, and no callback may come between what moves with it.
        asyncio.get_running_loop().call_soon(self.announce, other)

    def connected(self, peer: FilePeer) -> None:
        """The peer is connected, now or again, or by another path."""
        self.announce(peer)
        for job in self.announced(peer):
            job.stirred.set()

    def relayed(self, peer: FilePeer) -> None:
        """A session of the relay begins, and carries the messages from now on. Only while no channel is open."""
        self._paces.pop(peer, None)
        for job in self.announced(peer):
            if isinstance(job, OutgoingJob):
                job.relayed()

    def acknowledged(self, peer: FilePeer) -> None:
        """The peer has acknowledged something."""
        for job in self.announced(peer):
            if isinstance(job, OutgoingJob):
                job.acknowledged()

    def no_direct(self, peer: FilePeer, reason: str) -> None:
        """An attempt at a direct path has failed, while the relay carries the messages."""
        for job in self.of(peer):
            if isinstance(job, OutgoingJob):
                job.no_direct(reason)

    def ended(self, peer: FilePeer, error: AldisError, ending: Ending = Ending.FINAL) -> None:
        """What is under way with this user will not get any further now."""
        reason = error.reason if isinstance(error, PeerConnectionFailed) else str(error)
        restarted, left = ending in _RESTARTED, ending is Ending.LEFT
        for job in self.of(peer):
            waits = restarted or (left and job.record is not None)
            resumes = ending is not Ending.REPLACED
            if waits and isinstance(job, OutgoingJob) and (not job.announced or (resumes and job.restarted())):
                if left:
                    self._renew(job)
                continue
            comes_back = ending is Ending.RESTARTED or left
            job.later = ending is Ending.KEPT or (isinstance(job, IncomingJob) and comes_back)
            job.transfer.interrupt()
            job.give_up(TransferStep.FAILED, reason)
        if ending is Ending.REPLACED:
            self.forget_accepted(peer.user_id)

    def forget_accepted(self, user_id: str) -> None:
        """Another key has the name, or we want nothing to do with the user: what was accepted holds no longer."""
        if self._kept is not None:
            self._kept.forget_accepted(user_id)

    def _renew(self, job: Job) -> None:
        """Have it offered with another id."""
        jobs = self._jobs[job.peer]
        del jobs[job.id]
        job.id = new_id(os.urandom(ID_BYTES))
        jobs[job.id] = job

    def received(self, peer: FilePeer, control: ControlMessage) -> None:
        """The peer's store has said something."""
        job = self._jobs.get(peer, {}).get(control.id)
        if isinstance(control, FileOffer):
            if job is None:  # random ids do not meet by chance
                self._offered_by(peer, control)
            return
        if job is None or not job.announced:
            return
        match control, job:
            case FileCancel(), _:
                job.end(TransferStep.CANCELLED, in_short("cancelled by the other side", control.reason))
            case FileDecline(), OutgoingJob():
                job.end(TransferStep.DECLINED, in_short("declined", control.reason))
            case FileAccept(), OutgoingJob():
                job.accepted(control)
            case FileReceived(), OutgoingJob():
                job.confirmed(control.bytes)
            case Piece(), IncomingJob():
                job.arrived(control)
            case FileEnd(), IncomingJob():
                job.all_sent(control)
            case _:
                pass  # said twice, or by the wrong side

    async def close(self) -> None:
        """End everything. Says nothing: the goodbye does."""
        self._closed = True
        for jobs in list(self._jobs.values()):
            for job in list(jobs.values()):
                job.later = True
                job.end(TransferStep.FAILED, "the store was closed")
        await self.tasks.finish(_CLOSE_SECONDS)

    # --- for the jobs -----------------------------------------------------------------------------------------------

    def of(self, peer: FilePeer) -> list[Job]:
        """Those with this peer, in the order in which they were begun."""
        return list(self._jobs.get(peer, {}).values())

    def announced(self, peer: FilePeer) -> list[Job]:
        """See `JobOwner`."""
        return list(self._announced.get(peer, ()))

    def announcement_changed(self, job: Job) -> None:
        """See `JobOwner`."""
        if job.announced:
            self._announced.setdefault(job.peer, {})[job] = None
        else:
            self._take_back(job)

    def _take_back(self, job: Job) -> None:
        """The other side does not know of it any more."""
        jobs = self._announced.get(job.peer, {})
        jobs.pop(job, None)
        if not jobs:
            self._announced.pop(job.peer, None)

    def pace(self, peer: FilePeer) -> Pace:
        """See `JobOwner`."""
        return self._paces[peer]

    def remove(self, job: Job) -> bool:
        """See `JobOwner`."""
        if self._open.pop(job.transfer, None) is None:
            return False
        jobs = self._jobs[job.peer]
        del jobs[job.id]
        self._take_back(job)
        if not jobs:
            del self._jobs[job.peer]
            self._paces.pop(job.peer, None)
        if job.record is not None and job.later and self._kept is not None:
            self._kept.release(job.record)
        return True

    def keep(self, record: Record) -> None:
        """See `JobOwner`."""
        if self._kept is not None:
            self._kept.change(record)

    def forget(self, record: Record) -> None:
        """See `JobOwner`."""
        if self._kept is not None:
            self._kept.forget(record)

    def announce(self, peer: FilePeer) -> None:
        """Offer what waits for that, as far as the other side will take it."""
        features = peer.features
        if features is None:
            return
        announced = sum(isinstance(job, OutgoingJob) for job in self.announced(peer))
        for job in self.of(peer):
            if announced >= MAX_OPEN:
                break
            if isinstance(job, OutgoingJob) and job.is_open() and job.ready and not job.announced:
                if not job.needs_direct:
                    announced += job.announce(tuple(features))
                elif peer.relay_only:
                    job.no_direct("only the relay may be used")

    # --- parts ------------------------------------------------------------------------------------------------------

    def _offered_by(self, peer: FilePeer, offer: FileOffer) -> None:
        name, mime = safe_name(offer.name), safe_mime(offer.mime)
        size = None if offer.stream else offer.size
        first = offer.resumes or offer.id
        listing = offer.manifest
        transfer = Transfer(self, peer.user_id, first, "in", name, size, mime, folder=listing > 0, listing=listing)
        transfer.device = peer.name
        job = IncomingJob(self, peer, transfer, offer)
        before = None
        if self._kept is not None and job.resumable:
            before = self._kept.taken(job.taken())
        problem = self._problem(peer, offer, wanted=before is not None)
        if problem is not None:
            self._decline(peer, offer.id, problem)
            return
        self._add(job)
        if before is None or self._kept is None:
            self._on_file.tell(transfer)
            return
        self._kept.use(before)
        job.accept_again(before)
        if not before.sha256:  # else the application has it already
            self._on_resumed.tell(transfer)

    def _problem(self, peer: FilePeer, offer: FileOffer, *, wanted: bool) -> str | None:
        """Why an offer is declined at once; `wanted`: it was accepted before."""
        if not (self._on_file or wanted):
            return "this program takes no files"
        if sum(isinstance(job, IncomingJob) for job in self.announced(peer)) >= MAX_OPEN:
            return f"{MAX_OPEN} files are on offer or under way already"
        if offer.manifest > min(offer.size, MAX_MANIFEST) or (offer.stream and (offer.size or offer.manifest)):
            return "this is neither a file, nor a folder, nor a stream that can be taken"
        if (offer.stream or offer.manifest) and not offer.version:
            return "a folder or a stream needs a checked transfer"
        return None

    def _decline(self, peer: FilePeer, transfer_id: str, reason: str) -> None:
        with suppress(AldisError):  # there may be no way to them any more
            peer.send_control(encode_control(FileDecline(transfer_id, reason)))

    def _add(self, job: Job) -> None:
        self._open[job.transfer] = self._jobs.setdefault(job.peer, {})[job.id] = job
        if job.announced:
            self.announcement_changed(job)


def _is_movable(job: Job) -> bool:
    return isinstance(job, OutgoingJob) and job.is_open() and not (job.announced or job.addressed)
