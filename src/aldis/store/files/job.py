"""A transfer that is not over yet: what both directions have in common.

Rules of this module:

* It ends once. The side that ends it early says so (`file-cancel`), also when the other side is believed to be gone;
  so no end waits for one that has given up.
* A peer that breaks the rules of a transfer loses the transfer, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from aldis.errors import AldisError, TransferFailed
from aldis.protocol.texts import clean
from aldis.store.files.kept import Record
from aldis.store.files.pace import Pace
from aldis.store.files.transfer import OPEN, Transfer, TransferState, TransferStep
from aldis.store.messages.control import FileCancel, FileMessage, encode_control
from aldis.store.messages.delivery import Delivery
from aldis.store.tasks import Tasks


class Ending(Enum):
    """How what is under way with a peer comes to an end, which says what may go on later."""

    FINAL = auto()  # nothing goes on
    RESTARTED = auto()  # a new program with the same key: what was not offered yet, and what it can resume
    REPLACED = auto()  # a program with another key: what was not offered yet
    LEFT = auto()  # the other side may come back: what the journal keeps waits for that
    KEPT = auto()  # ours ends: what the journal keeps waits for our next run


class FilePeer(Protocol):
    """A device of a peer, as files need it."""

    user_id: str
    name: str | None  # of the device; None until it is known

    @property
    def features(self) -> Sequence[str] | None:
        """What the peer's program can do; None while it is not connected."""

    @property
    def file_limit(self) -> int | None:
        """The largest file that may go to the peer now, in bytes: through the relay the server limits it. None: any."""

    @property
    def relay_only(self) -> bool:
        """Whether there will never be a direct path."""

    def send_control(self, data: bytes) -> Delivery:
        """Queue a control message. Raises `AldisError` when it cannot be."""

    def take_back(self, deliveries: Iterable[Delivery]) -> None:
        """Control messages that are not acknowledged will not be sent; they may have arrived. Only while no channel is
        open."""

    def call(self) -> None:
        """Have the peer called, from now on for as long as `FileService.busy`. Raises `AldisError` where that is in
        vain."""


class JobOwner(Protocol):
    """All transfers of a store, as one of them needs them."""

    tasks: Tasks
    writing: dict[str, Job]  # what the disk has to do with, by what is received
    clock: Callable[[], float]  # monotonic seconds

    def announced(self, peer: FilePeer) -> list[Job]:
        """Those with this peer that the other side knows of, in the order in which it got to know them: few, however
        many wait."""

    def announcement_changed(self, job: Job) -> None:
        """The other side knows of it from now on, or is to be told anew."""

    def pace(self, peer: FilePeer) -> Pace:
        """How much may be on its way to this peer, directly."""

    def remove(self, job: Job) -> bool:
        """Forget a transfer; False when that was done before."""

    def announce(self, peer: FilePeer) -> None:
        """Offer what waits for that."""

    def keep(self, record: Record) -> None:
        """Have the journal keep this, in place of what it has of the same transfer."""

    def forget(self, record: Record) -> None:
        """The journal need not keep it any more."""


class Job:
    """See the module."""

    def __init__(self, owner: JobOwner, peer: FilePeer, transfer: Transfer, wire_id: str, *, announced: bool) -> None:
        """`wire_id`: its id between the two programs."""
        self.peer = peer
        self.transfer = transfer
        self.id = wire_id
        self.record: Record | None = None  # what the journal keeps of it
        self.later = False  # it ends now, and the journal keeps it
        self.announced = announced  # the offer has gone out, or come in
        self.stirred = asyncio.Event()  # there is something to do, or to end
        self.owner = owner

    @property
    def needs_direct(self) -> bool:
        """Whether it is too large for the path that there is now, or nobody knows how large it is."""
        limit, size = self.peer.file_limit, self.transfer.size
        return limit is not None and (size is None or size > limit)

    def is_open(self) -> bool:
        return self.transfer.state in OPEN

    def is_running(self) -> bool:
        return self.transfer.state is TransferState.RUNNING

    async def stir(self) -> None:
        """Wait until something has changed."""
        await self.stirred.wait()
        self.stirred.clear()

    def say(self, message: FileMessage | bytes) -> AldisError | None:
        """Say something; what keeps it from being said is returned."""
        try:
            self.peer.send_control(message if isinstance(message, bytes) else encode_control(message))
        except AldisError as error:
            return error
        return None

    def tell(self, message: FileMessage | bytes) -> None:
        """Say something without which the transfer cannot go on."""
        error = self.say(message)
        if error is not None:
            self.end(TransferStep.FAILED, str(error))

    def violated(self, reason: str) -> None:
        """The other side has broken the protocol."""
        self.give_up(TransferStep.FAILED, f"the other side breaks the protocol: {reason}")

    def give_up(self, step: TransferStep, reason: str, *, told: str | None = None) -> None:
        """End it from this side, and say so; `told` is what the other side hears instead of `reason`."""
        if self.is_open():
            if self.announced:
                self.say(FileCancel(self.id, clean(reason if told is None else told)))
            self.end(step, reason)

    def end(
        self,
        step: TransferStep,
        why: str | AldisError | None,
        *,
        transferred: int | None = None,
        path: Path | None = None,
    ) -> None:
        """It is over, unless it was already."""
        transfer = self.transfer
        if not self.owner.remove(self):
            return
        kept = self.later and self.record is not None
        error = TransferFailed(transfer.user_id, transfer.name, why, kept=kept) if isinstance(why, str) else why
        if self.record is not None and not kept:
            self.owner.forget(self.record)
        transfer.move(step, transferred=transferred, error=error, path=path)
        self.stirred.set()
        for other in self.owner.announced(self.peer):
            other.stirred.set()  # it may be their turn now
        asyncio.get_running_loop().call_soon(self.owner.announce, self.peer)


def in_short(what: str, reason: str) -> str:
    """What happened, with the other side's reason if there is one."""
    return f"{what}: {clean(reason)}" if clean(reason) else what
