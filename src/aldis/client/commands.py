"""The requests of a client that only need a registration: each makes a message and returns the number of the request.

Pure. A command raises a `UsageError` when its arguments make no sense, and then changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from aldis.client.outbound import privacy_request
from aldis.client.requests import Request, RequestBook
from aldis.protocol import messages as m
from aldis.protocol.addresses import check_user_id, parse
from aldis.protocol.privacy import PrivacyChange


class Commands(ABC):
    """The part of `machine.ClientMachine` that makes requests."""

    _requests: RequestBook

    @abstractmethod
    def _ask(self, message: Request, now: float) -> int:
        """Make a request, and hold it until there is a registration."""

    def discover(self, user_id: str, now: float) -> int:
        """Ask the server about a user; the result is a `Discovery`."""
        return self._ask(m.Discover(check_user_id(user_id)), now)

    def watch(self, user_ids: Iterable[str], now: float) -> list[int]:
        """Watch users: their presence comes now and at each change. Returns the requests, which have no result."""
        chunks = list(self._requests.chunks(map(check_user_id, user_ids)))
        return [self._ask(m.Watch(chunk), now) for chunk in chunks]

    def unwatch(self, user_ids: Iterable[str], now: float) -> list[int]:
        """End watches. Returns the requests for it."""
        chunks = list(self._requests.chunks(map(check_user_id, user_ids)))
        return [self._ask(m.Unwatch(chunk), now) for chunk in chunks]

    def relay(self, message: m.Relayed, now: float) -> int:
        """Send a message to another user; it is completed when the server has handed it over."""
        parse(message.to)
        return self._ask(message, now)

    def publish_seal_key(self, seal_key: m.SealKey, now: float) -> int:
        """Show others another sealing key, which is signed, instead of the one of the registration."""
        return self._ask(m.SealKeyRequest(seal_key), now)

    def ice_servers(self, now: float) -> int:
        """Ask for STUN and TURN servers; the result is an `IceServers`."""
        return self._ask(m.IceServersRequest(), now)

    def change_privacy(self, change: PrivacyChange, now: float) -> int:
        """Change who may see our user, and who may call; the result is the whole `Privacy`."""
        return self._ask(privacy_request(change), now)

    def unregister(self, now: float) -> int:
        """Give the name up; the connection stays."""
        return self._ask(m.Unregister(), now)
