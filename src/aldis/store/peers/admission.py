"""Who is let in: what happens to an offer before a peer comes of it.

Rules: the application is asked once for each key with which somebody calls, and not at all for those whom it wants
itself. The key is the one that the offer claims; that the offer was made with it is checked by the connection
afterwards, so a claim alone opens nothing. Who is not let in is told so, since waiting would not help: once for each
offer, at most `MAX_REFUSALS` at a time and `REFUSALS_PER_SECOND` after that, so that a flood of offers does not become
one of refusals. The others wait: one of each sender, the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from time import monotonic
from typing import Final, Protocol, TypeAlias

from aldis.client.client import SignalingClient
from aldis.client.events import OfferReceived
from aldis.errors import SignalingError, StateError, TooManyPeers, UsageError
from aldis.peer.trust import PROOF_PAUSE
from aldis.protocol.codes import RefusalCode
from aldis.store.peers.peer import Peer
from aldis.store.peers.pinning import claimed_key

Accept: TypeAlias = Callable[[str, bytes], bool]

_log = logging.getLogger(__name__)


MAX_REFUSALS: Final = 64
# A server reads 200 messages of a client in a second, and what the user has to say must not stand behind refusals.
REFUSALS_PER_SECOND: Final = 40.0
# Refusals that wait. Each is a few hundred bytes; all callers of a popular program may come at once, after a restart.
MAX_WAITING: Final = 1024
_PEERS_PAUSE: Final = 30.0  # seconds until there may be room for another peer


class Call(Protocol):
    """Something that can be refused: an offer, an answer, a sealed handshake."""

    @property
    def sender(self) -> str:
        """The address of who has sent it."""

    @property
    def connection(self) -> str | None:
        """What it is about."""


class Admission:
    """Decides about callers."""

    def __init__(
        self,
        client: SignalingClient,
        accept: Accept | None,
        make: Callable[[str], Peer],
        spawn: Callable[[Coroutine[object, object, None], str], asyncio.Task[None]],
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`accept(user_id, public_key)`: whether to let somebody in; everybody when None. `make` returns the peer of a
        user who calls, a new one if need be. `clock` and `sleep` are in seconds."""
        self._client = client
        self._accept = accept
        self._make = make
        self._spawn = spawn
        self._clock = clock
        self._sleep = sleep
        self._refusing = 0  # how many refusals are on their way
        self._turn = -inf  # when the last of them goes out, if they had always been as many as there may be
        self._waiting: dict[str, Callable[[], Coroutine[object, object, None]]] = {}  # by sender, the oldest first

    def admit(self, offer: OfferReceived, user_id: str, peer: Peer | None) -> Peer | None:
        """The peer of a user who calls, who may be known as `peer`; None when they are not let in."""
        return self.admit_key(offer, claimed_key(offer.proof), user_id, peer)

    def admit_key(self, offer: Call, key: bytes | None, user_id: str, peer: Peer | None) -> Peer | None:
        """The same for who shows this key, in an offer or in a sealed handshake."""
        if key is None or user_id == self._client.user_id:
            if peer is None:
                self.refuse(offer, "it carries no proof of a key", RefusalCode.BAD_PROOF, PROOF_PAUSE)
            return peer  # without one, or from ourselves, it will not pass the check
        if peer is not None and (peer.wanted or peer.admitted == key):
            return peer
        if not self._accepted(user_id, key):
            self.refuse(offer, "not accepted", RefusalCode.NOT_ACCEPTED)
            return None
        try:
            peer = self._make(user_id)
        except TooManyPeers as error:
            _log.warning("a call from %s is refused: %s", user_id, error)
            self.refuse_for_room(offer)
            return None
        except UsageError as error:  # a name that breaks the rules: no honest server has admitted it
            _log.warning("a call is refused: %s", error)
            self.refuse(offer, "the name breaks the rules", RefusalCode.NOT_ACCEPTED)
            return None
        peer.admitted = key
        return peer

    def _accepted(self, user_id: str, key: bytes) -> bool:
        if self._accept is None:
            return True
        try:
            # Not what counts as true: a coroutine does, and whoever writes `async` by mistake would let everybody in.
            answer: object = self._accept(user_id, key)
            if not isinstance(answer, bool):
                _log.error("the accept callback said %r to %s: nobody is let in by anything but True", answer, user_id)
            return answer is True
        except Exception:  # noqa: BLE001 - whatever an application's callback raises is its own fault: nobody gets in
            _log.exception("the accept callback raised on %s", user_id)
            return False

    def refuse_for_room(self, offer: Call) -> None:
        """Tell a caller that there are too many peers, or too many devices of the user."""
        self.refuse(offer, "too many peers", RefusalCode.TOO_MANY_PEERS, _PEERS_PAUSE)

    def refuse(
        self,
        offer: Call,
        reason: str,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Tell who has made an offer, or an answer, that it is not taken: why, and in how many seconds another offer
        may be."""
        sender, connection = offer.sender, offer.connection  # not the offer: it may be large
        if sender not in self._waiting and len(self._waiting) >= MAX_WAITING:
            _log.warning("an offer of %r is dropped: too many refusals wait", sender)
            return
        self._waiting[sender] = lambda: self._client.send_bye(
            sender, connection=connection, reason=reason, code=code, retry_after=retry_after
        )
        if self._refusing < MAX_REFUSALS:
            self._refusing += 1
            self._spawn(self._send_byes(), "refuse offers")

    async def _send_byes(self) -> None:
        try:
            while self._waiting:
                await self._take_turn()
                sender = next(iter(self._waiting), None)
                if sender is None:
                    return
                try:
                    await self._waiting.pop(sender)()
                except (SignalingError, UsageError, StateError) as error:
                    _log.debug("a refusal was not delivered to %r: %s", sender, error)
        finally:
            self._refusing -= 1

    async def _take_turn(self) -> None:
        """Return when one more refusal may go out."""
        now = self._clock()
        self._turn = max(self._turn, now - MAX_REFUSALS / REFUSALS_PER_SECOND) + 1 / REFUSALS_PER_SECOND
        if self._turn > now:
            await self._sleep(self._turn - now)
