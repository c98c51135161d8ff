"""What becomes of one message: the sender may ask, now or later, or not at all.

Not an asyncio future, since one that fails and is never asked complains in the log.

A program that sends much has thousands of them. So they are no objects that Python's collector of garbage looks at:
with 4,096 in a queue, a sixth of the time went into that. A task that waits for a delivery refers to it, and it to
the task; the outcome ends that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from enum import IntEnum

import msgspec

from aldis.errors import DeliveryExpired, DeliveryFailed


class _Stage(IntEnum):
    QUEUED = 0
    STORED = 1
    SENT = 2
    DONE = 3


# An attribute of an enum's class takes three times as long to find as a name of the module.
_QUEUED, _STORED, _SENT, _DONE = _Stage


class Delivery(msgspec.Struct, gc=False, eq=False):
    """The delivery of one message. `await` it: it returns when the peer has acknowledged the message, and raises
    `DeliveryFailed` when that will not happen any more, `DeliveryExpired` when the message was too old. Cancelling the
    wait cancels nothing else. `when_stored()` and `when_sent()` wait for less, in the same way.

    `user_id` and `device` say to whom the message was sent; the device is None when it was sent to the user. `sequence`
    is its number among the messages to the device that it goes to. It changes when the message moves to another one.
    `queued_at` is when it was sent by the program, in seconds since 1970.
    """

    user_id: str
    sequence: int
    device: str | None = None
    queued_at: float = 0.0
    _stage: _Stage = _QUEUED
    _failure: tuple[str, bool, bool] | None = None  # why, whether it expired, whether the journal keeps it
    _waiters: list[tuple[_Stage, asyncio.Future[None]]] | None = None  # most deliveries have none

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._stage is _DONE

    @property
    def stored(self) -> bool:
        """Whether the journal has taken the message. Without a journal that is so from the start."""
        return self._stage is not _QUEUED and (self._failure is None or self._failure[2])

    @property
    def sent(self) -> bool:
        """Whether the whole message was given to a path at least once."""
        return self._stage is _SENT or self.delivered

    @property
    def delivered(self) -> bool:
        """Whether the peer has acknowledged the message."""
        return self.done and self._failure is None

    @property
    def expired(self) -> bool:
        """Whether it was given up for its age (`StoreLimits.queue_age`)."""
        return self._failure is not None and self._failure[1]

    # --- for the store --------------------------------------------------------------------------------------------

    @classmethod
    def made(cls, user_id: str, device: str | None, queued_at: float, *, stored: bool) -> Delivery:
        """A new one, without a number yet."""
        return cls(user_id, 0, device, queued_at, _STORED if stored else _QUEUED)

    def reached_journal(self) -> None:
        """The journal has taken it."""
        self._reach(_STORED)

    def reached_path(self) -> None:
        """It was sent."""
        if self._stage < _SENT:
            self._reach(_SENT)

    def succeed(self) -> None:
        """The peer has acknowledged it."""
        self._reach(_DONE)

    def fail(self, reason: str, *, kept: bool = False) -> None:
        """It will not be delivered any more; with `kept` not by this store: the journal has it for the next one."""
        self._failure = (reason, False, kept)
        self._reach(_DONE)

    def expire(self, reason: str) -> None:
        """It has waited for too long."""
        self._failure = (reason, True, False)
        self._reach(_DONE)

    def _reach(self, stage: _Stage) -> None:
        if stage <= self._stage:
            return
        self._stage = stage
        if not self._waiters:
            return
        for wanted, waiter in self._waiters:
            if wanted <= stage and not waiter.done():
                waiter.set_result(None)
        self._waiters = [each for each in self._waiters if each[0] > stage]

    async def _reached(self, stage: _Stage) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = [*(self._waiters or ()), (stage, waiter)]
        try:
            await waiter
        except asyncio.CancelledError:  # a program may look again each second, for a month
            self._waiters = [each for each in self._waiters if each[1] is not waiter]
            raise

    # --- waiting --------------------------------------------------------------------------------------------------

    async def when_stored(self) -> None:
        """Return when the journal has the message: it survives the end of this program. Raises `DeliveryFailed`."""
        await self._wait(_STORED)

    async def when_sent(self) -> None:
        """Return when the message was sent once. Raises `DeliveryFailed`."""
        await self._wait(_SENT)

    async def _wait(self, stage: _Stage) -> None:
        if self._stage < stage:
            await self._reached(stage)
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            reason, expired, kept = self._failure
            kind = DeliveryExpired if expired else DeliveryFailed
            raise kind(self.user_id, self.sequence, reason, kept=kept)

    def __await__(self) -> Generator[object, None, None]:
        if not self.done:
            yield from self._reached(_DONE).__await__()
        self._raise()

    def __repr__(self) -> str:
        outcome = "delivered" if self.delivered else "failed" if self.done else "pending"
        return f"<Delivery {self.sequence} to {self.user_id}: {outcome}>"
