"""What becomes of one message: the sender may ask, now or later, or not at all.

Not an asyncio future, since one that fails and is never asked complains in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from aldis.errors import DeliveryFailed


class Delivery:
    """The delivery of one message. `await` it: it returns when the peer has acknowledged the message, and raises
    `DeliveryFailed` when that will not happen any more. Cancelling the wait cancels nothing else.

    `user_id` and `device` say to whom the message was sent; the device is None when it was sent to the user. `sequence`
    is its number among the messages to the device that it goes to. It changes when the message moves to another one.
    """

    __slots__ = ("_done", "_reason", "_waiters", "device", "sequence", "user_id")

    def __init__(self, user_id: str, sequence: int, device: str | None = None) -> None:
        self.user_id = user_id
        self.device = device
        self.sequence = sequence
        self._done = False
        self._reason: str | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._done

    @property
    def delivered(self) -> bool:
        """Whether the peer has acknowledged the message."""
        return self._done and self._reason is None

    def succeed(self) -> None:
        """The peer has acknowledged it."""
        self._end(None)

    def fail(self, reason: str) -> None:
        """It will not be delivered any more."""
        self._end(reason)

    def _end(self, reason: str | None) -> None:
        self._done, self._reason = True, reason
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = []

    def __await__(self) -> Generator[object, None, None]:
        if not self._done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self._reason is not None:
            raise DeliveryFailed(self.user_id, self.sequence, self._reason)

    def __repr__(self) -> str:
        outcome = "delivered" if self.delivered else "failed" if self._done else "pending"
        return f"<Delivery {self.sequence} to {self.user_id}: {outcome}>"
