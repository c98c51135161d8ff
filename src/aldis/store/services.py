"""What goes on with peers beyond messages: files.

Calls are in the browser SDK only. Nothing else imports `files`. It does not know what a service does.
"""

from __future__ import annotations

from aldis.errors import AldisError
from aldis.store.files.service import FilePeer, FileService
from aldis.store.files.transfer import Transfer
from aldis.store.messages.control import ControlMessage
from aldis.store.subscriptions import Callbacks


class PeerServices:
    """The services of one store."""

    def __init__(self, on_file: Callbacks[Transfer]) -> None:
        """`on_file`: the application's callbacks for files that are offered."""
        self.files = FileService(on_file)

    def busy(self, peer: FilePeer) -> bool:
        """Whether something is under way that needs a connection."""
        return self.files.busy(peer)

    def movable(self, peer: FilePeer) -> bool:
        """Whether something waits that could as well be said to another device of the user."""
        return self.files.movable(peer)

    def moved(self, peer: FilePeer, other: FilePeer) -> None:
        """A device is gone, and another one there: what could be said to any device is for the other one now."""
        self.files.moved(peer, other)

    def connected(self, peer: FilePeer) -> None:
        """What is sent gets through, now or again."""
        self.files.connected(peer)

    def ended(self, peer: FilePeer, error: AldisError, *, restarted: bool = False) -> None:
        """What is under way will not get any further, for `error`. With `restarted` a new program has taken the
        other's place: what it was not told yet it can be told."""
        self.files.ended(peer, error, restarted=restarted)

    def received(self, peer: FilePeer, control: ControlMessage) -> None:
        """The peer's store has said something."""
        self.files.received(peer, control)

    async def close(self) -> None:
        """End everything."""
        await self.files.close()
