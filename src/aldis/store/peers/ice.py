"""Which STUN and TURN servers to use: those that were given, else those that the signaling server names.

The credentials of TURN servers run out, so they are asked for anew in time. Until the first answer is known, what
others say through the server is held back: an answer made without TURN servers may never lead to a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from aldis.client.client import SignalingClient
from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import RequestFailed, SignalingError, StateError
from aldis.peer.engine import EngineConfig
from aldis.protocol.ice import usable_servers
from aldis.protocol.messages import IceServer

PeerEvent: TypeAlias = OfferReceived | AnswerReceived | CandidateReceived | ByeReceived

_log = logging.getLogger(__name__)

_RENEW_AT: Final = 0.75  # of their life: an attempt that begins now must end with credentials that still hold
_RETRY_SECONDS: Final = 30.0
_SHORTEST_SECONDS: Final = 10.0  # whatever the server says, it is not asked more often
_LONGEST_SECONDS: Final = 24 * 3600.0
_MAX_HELD_BACK: Final = 256  # messages; one dialer with a dozen candidates sends some 15


class IceServerCache:
    """Keeps the configuration of peer connections up to date."""

    def __init__(self, client: SignalingClient, given: Sequence[IceServer] | None, *, loopback: bool) -> None:
        self._client = client
        self._given = given is not None
        self._loopback = loopback
        self._answered = asyncio.Event()
        self._held_back: list[PeerEvent] | None = []
        self.config = self._config(given or ())

    def _config(self, servers: Sequence[IceServer]) -> EngineConfig:
        return EngineConfig(ice_servers=tuple(servers), allow_loopback=self._loopback)

    async def keep(self) -> None:
        """Ask, and ask again in time, until cancelled; returns at once when servers were given."""
        while not self._given:
            pause = await self._ask()
            self._answered.set()
            await asyncio.sleep(pause)
        self._answered.set()

    async def _ask(self) -> float:
        """Ask once; return in how many seconds to ask again."""
        try:
            found = await self._client.ice_servers()
        except (SignalingError, StateError) as error:
            _log.debug("the ICE servers cannot be had: %s", error)
            limited = error.retry_after if isinstance(error, RequestFailed) else None
            return max(_RETRY_SECONDS, min(limited or 0.0, _LONGEST_SECONDS))
        # A bad one is left out: an engine would refuse every connection because of it.
        servers, problems = usable_servers(found.ice_servers)
        for problem in problems:
            _log.warning("an ICE server that the signaling server names is left out: %s", problem)
        self.config = self._config(servers)
        # The limit comes first: a whole number of JSON may be too large for a float.
        return max(min(found.ttl, _LONGEST_SECONDS) * _RENEW_AT, _SHORTEST_SECONDS)

    def close(self) -> None:
        """Nobody will ask any more: who waits for the first answer need not."""
        self._answered.set()

    def hold_back(self, event: PeerEvent, refuse: Callable[[OfferReceived], None]) -> bool:
        """Keep an event for later; False when it is time to act on it. `refuse` is called with an offer for which there
        is no room; for what else is dropped nobody waits."""
        if self._held_back is None:
            return False
        if len(self._held_back) < _MAX_HELD_BACK:
            self._held_back.append(event)
        elif isinstance(event, OfferReceived):
            refuse(event)
        return True

    async def known(self) -> list[PeerEvent]:
        """Wait until the server has been asked once; return what was held back. To be called once."""
        await self._answered.wait()
        held_back, self._held_back = self._held_back, None
        return held_back or []
