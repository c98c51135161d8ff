"""Who is let in: what happens to an offer before a peer comes of it.

Rules: the application is asked once for each key with which somebody calls, and not at all for those whom it wants
itself. The key is the one that the offer claims; that the offer was made with it is checked by the connection
afterwards, so a claim alone opens nothing. Who is not let in is told so, since waiting would not help.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeAlias

from aldis.client.client import SignalingClient
from aldis.client.events import OfferReceived
from aldis.errors import SignalingError, StateError, TooManyPeers, UsageError
from aldis.store.keys import claimed_key
from aldis.store.link import Link

Accept: TypeAlias = Callable[[str, bytes], bool]

_log = logging.getLogger(__name__)


class Reception:
    """Decides about callers."""

    def __init__(
        self,
        client: SignalingClient,
        accept: Accept | None,
        spawn: Callable[[Coroutine[object, object, None], str], asyncio.Task[None]],
    ) -> None:
        """`accept(user_id, public_key)`: whether to let somebody in; everybody when None."""
        self._client = client
        self._accept = accept
        self._spawn = spawn

    def admit(self, offer: OfferReceived, user_id: str, link: Link | None, make: Callable[[str], Link]) -> Link | None:
        """The link of a user who calls, made by `make` for a new one; None when they are not let in."""
        key = claimed_key(offer.proof)
        if key is None or user_id == self._client.user_id:
            return link  # without one, or from ourselves, it will not pass the check
        if link is not None and (link.wanted or link.admitted == key):
            return link
        if not self._accepted(user_id, key):
            self._refuse(offer, "not accepted")
            return None
        try:
            link = make(user_id)
        except TooManyPeers as error:
            _log.warning("a call from %s is refused: %s", user_id, error)
            self._refuse(offer, "too many peers")
            return None
        except UsageError as error:  # a name that breaks the rules: no honest server has admitted it
            _log.warning("a call is ignored: %s", error)
            return None
        link.admitted = key
        return link

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

    def _refuse(self, offer: OfferReceived, reason: str) -> None:
        self._spawn(self._send_bye(offer, reason), f"refuse {offer.sender}")

    async def _send_bye(self, offer: OfferReceived, reason: str) -> None:
        try:
            await self._client.send_bye(offer.sender, connection=offer.connection, reason=reason)
        except (SignalingError, StateError) as error:
            _log.debug("a refusal was not delivered to %r: %s", offer.sender, error)
