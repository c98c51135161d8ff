"""Refuses offers that failed the check, after a delay.

Not at once: a server may have sent a forged copy ahead of the true offer, and a refusal of the copy would end the
attempt. After the delay the true offer has a connection here, and then `Negotiation.refuse` refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aldis.errors import IdentityError, PeerError
from aldis.peer.commands import Command
from aldis.peer.negotiation import MAX_OFFERS, Negotiation
from aldis.peer.transport import Timer, Timers
from aldis.peer.trust import refusal_of

DELAY: Final = 1.0  # seconds


class LateRefusals:
    """The refusals that one peer has not got yet."""

    def __init__(self, machine: Negotiation, timers: Timers, tell: Callable[[list[Command], str], None]) -> None:
        """`tell` carries out commands, addressed to the sender of an offer."""
        self._machine = machine
        self._timers = timers
        self._tell = tell
        self._waiting: set[Timer] = set()

    def add(self, name: str, sender: str, error: PeerError | IdentityError) -> None:
        """Refuse this offer later. Keeps no more refusals than will ever be sent."""

        def due() -> None:
            self._waiting.discard(timer)
            self._tell(self._machine.refuse(name, *refusal_of(error), self._timers.time()), sender)

        if len(self._waiting) < MAX_OFFERS:
            timer = self._timers.call_later(DELAY, due)
            self._waiting.add(timer)

    def cancel(self) -> None:
        """Cancel all refusals."""
        for timer in self._waiting:
            timer.cancel()
        self._waiting.clear()
