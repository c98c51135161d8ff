"""One file on its way, as the application sees it.

Rules: what it tells is what the service (`transfers`) has last said of it; what is asked of it is passed on to the
service. An application need not ask what becomes of it, and a failure that nobody asks for complains nowhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from aldis.errors import AldisError, TransferExpired, UsageError
from aldis.store.subscriptions import Callbacks, call


class Service(Protocol):
    """What a transfer asks of `transfers.FileService`."""

    def accept(self, transfer: Transfer, target: Path | BinaryIO, sender: str) -> None:
        """See `Transfer.accept`."""

    def decline(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.decline`."""

    def cancel(self, transfer: Transfer, reason: str) -> None:
        """See `Transfer.cancel`."""

    def needs_direct(self, transfer: Transfer) -> bool:
        """See `Transfer.needs_direct`."""


class TransferState(Enum):
    """How a transfer stands."""

    OFFERED = "offered"
    RUNNING = "running"
    DONE = "done"
    DECLINED = "declined"  # by the recipient
    CANCELLED = "cancelled"  # by either side, on purpose, or because something failed at the other side
    FAILED = "failed"  # something failed here, or the other side is gone


class TransferStep(Enum):
    """What moves a transfer on."""

    ACCEPTED = "accepted"
    COMPLETED = "completed"  # the recipient has the file, whole and with its name
    DECLINED = "declined"
    CANCELLED = "cancelled"
    FAILED = "failed"
    RESTARTED = "restarted"  # the recipient's program was started anew, or has left: the file is offered to it again


# docs/architecture.md draws it.
TABLE: Final[dict[TransferState, dict[TransferStep, TransferState]]] = {
    TransferState.OFFERED: {
        TransferStep.ACCEPTED: TransferState.RUNNING,
        TransferStep.DECLINED: TransferState.DECLINED,
        TransferStep.CANCELLED: TransferState.CANCELLED,
        TransferStep.FAILED: TransferState.FAILED,
    },
    TransferState.RUNNING: {
        TransferStep.RESTARTED: TransferState.OFFERED,
        TransferStep.COMPLETED: TransferState.DONE,
        TransferStep.DECLINED: TransferState.DECLINED,  # a recipient may think better of it
        TransferStep.CANCELLED: TransferState.CANCELLED,
        TransferStep.FAILED: TransferState.FAILED,
    },
    TransferState.DONE: {},
    TransferState.DECLINED: {},
    TransferState.CANCELLED: {},
    TransferState.FAILED: {},
}
OPEN: Final = frozenset(state for state, steps in TABLE.items() if steps)


class Transfer:
    """A file on its way to or from another user.

    `await` it: it returns when the file is there, whole and written at the recipient, and raises `TransferFailed` (or
    `FeatureMissing`) when it will not be. Cancelling the wait cancels nothing else; not awaiting is fine.

    `id`: its name, which stays the same when the journal has it go on after a restart. `user_id`: the other user,
    `device`: their device, None before the file was offered to one. `direction`: `out` or `in`. `name`: that of the
    file, safe to be used in a folder. `size` in bytes; None for a stream until it has ended. `mime`: the type of the
    content, as the sender says. `folder`: it is a folder, and `size` includes the list of its files, `listing` bytes of
    it. `left_out`: links and special files of a folder that are not sent.
    """

    def __init__(
        self,
        service: Service,
        user_id: str,
        transfer_id: str,
        direction: str,
        name: str,
        size: int | None,
        mime: str,
        *,
        folder: bool = False,
        listing: int = 0,
        left_out: int = 0,
    ) -> None:
        self.id = transfer_id
        self.user_id = user_id
        self.device: str | None = None
        self.direction = direction
        self.name = name
        self.size = size
        self.mime = mime
        self.folder = folder
        self.listing = listing
        self.left_out = left_out
        self._service = service
        self._state = TransferState.OFFERED
        self._transferred = 0
        self._resumed = 0
        self._interrupted = False
        self._error: AldisError | None = None
        self._path: Path | None = None
        self._callbacks: Callbacks[Transfer] = Callbacks()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def state(self) -> TransferState:
        """How it stands."""
        return self._state

    @property
    def transferred(self) -> int:
        """How many bytes the recipient has written."""
        return self._transferred

    @property
    def interrupted(self) -> bool:
        """Whether it failed because the other side has left. Offered again, it goes on where it stopped."""
        return self._interrupted

    @property
    def expired(self) -> bool:
        """Whether it was given up because it has waited for longer than `StoreLimits.queue_age`."""
        return isinstance(self._error, TransferExpired)

    @property
    def resumed(self) -> int:
        """How many bytes the recipient had from an earlier transfer."""
        return self._resumed

    @property
    def needs_direct(self) -> bool:
        """Whether it waits for a direct path: it is too large for the relay, which is all that there is now. It changes
        with `PeerView.path`, of which the state of the store tells."""
        return self._service.needs_direct(self)

    @property
    def error(self) -> AldisError | None:
        """Why the file does not arrive; None as long as it may, and when it has."""
        return self._error

    @property
    def path(self) -> Path | None:
        """The file on this machine: that which is sent, or, once it is done, the one that was made."""
        return self._path

    def accept(self, target: Path | str | os.PathLike[str] | BinaryIO, *, sender: str | None = None) -> None:
        """Take the file: `target` is the path of what is to be made, which must not exist yet, or an existing folder,
        in which it gets its own name, with a number where that is taken (`path` tells when it is done); or a binary
        stream, into which the content is written in a thread, and which stays open.

        What an earlier transfer of the same file from the same user has left in the same place is not sent again.
        `sender`: the name to know the sender by, where the user id is different each time.

        What goes wrong on the disk ends the transfer, at both ends. Nothing happens when the transfer is over already.
        Raises `StateError` for a file of our own, or one that was accepted before; `UsageError` for a folder that is to
        go into a stream.
        """
        if isinstance(target, (str, os.PathLike)):
            self._service.accept(self, Path(target), sender or self.user_id)
        elif self.folder:
            raise UsageError("a folder cannot go into a stream")
        else:
            self._service.accept(self, target, sender or self.user_id)

    def decline(self, reason: str = "") -> None:
        """Refuse the file; the sender is told the reason. Nothing happens when the transfer is over already.

        Raises `StateError` for a file of our own, or one that was accepted before: `cancel` it.
        """
        self._service.decline(self, reason)

    def cancel(self, reason: str = "") -> None:
        """Give up, as sender or as recipient; the other side is told the reason. Nothing happens when the transfer is
        over already."""
        self._service.cancel(self, reason)

    def subscribe(self, callback: Callable[[Transfer], None]) -> Callable[[], None]:
        """Have `callback` called now, and at each change. Returns what ends it. What it raises is logged."""
        unsubscribe = self._callbacks.add(callback)
        call(callback, self)
        return unsubscribe

    def __await__(self) -> Generator[object, None, None]:
        if self._state in OPEN:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)  # whoever waited has given up
        if self._error is not None:
            raise self._error

    def __repr__(self) -> str:
        way = "to" if self.direction == "out" else "from"
        progress = f"{self._transferred} of {'?' if self.size is None else self.size} bytes"
        return f"<Transfer of {self.name!r} {way} {self.user_id}: {self._state.value}, {progress}>"

    # --- for the service --------------------------------------------------------------------------------------------

    def offered(self, path: Path | None) -> None:
        """The file is our own."""
        self._path = path

    def interrupt(self) -> None:
        """The other side has left; the transfer fails next."""
        self._interrupted = True

    def started(self, resumed: int) -> None:
        """The recipient has so many bytes already."""
        self._resumed = resumed
        self.progressed(resumed)

    def progressed(self, transferred: int) -> None:
        """So many bytes are at the recipient."""
        self._transferred = transferred
        self._callbacks.tell(self)

    def move(
        self,
        step: TransferStep,
        *,
        transferred: int | None = None,
        error: AldisError | None = None,
        path: Path | None = None,
    ) -> None:
        """Go on to the next state. Raises `KeyError` for a step that the table does not have."""
        self._state, self._error = TABLE[self._state][step], error
        if path is not None:
            self._path = path
        if transferred is not None:
            self._transferred = transferred
        if self._state not in OPEN:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self._callbacks.tell(self)
