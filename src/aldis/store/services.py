"""What goes on with peers beyond messages: files.

Calls are in the browser SDK only. Nothing else imports `files`. It does not know what a service does.
"""

from __future__ import annotations

from aldis.errors import AldisError
from aldis.store.files.job import Ending, FilePeer
from aldis.store.files.kept import KeptTransfers
from aldis.store.files.service import FileService
from aldis.store.files.transfer import Transfer
from aldis.store.messages.control import ControlMessage
from aldis.store.subscriptions import Callbacks


class PeerServices:
    """The services of one store."""

    def __init__(
        self,
        on_file: Callbacks[Transfer],
        on_resumed: Callbacks[Transfer] | None = None,
        kept: KeptTransfers | None = None,
    ) -> None:
        """`on_file`: the application's callbacks for files that are offered; `on_resumed`: for those that go on from an
        earlier run, which the journal has `kept`."""
        self.files = FileService(on_file, on_resumed, kept)

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

    def ended(self, peer: FilePeer, error: AldisError, ending: Ending = Ending.FINAL) -> None:
        """What is under way will not get any further now, for `error`."""
        self.files.ended(peer, error, ending)

    def relayed(self, peer: FilePeer) -> None:
        """A session of the relay begins, and carries the messages from now on. Only while no channel is open."""
        self.files.relayed(peer)

    def acknowledged(self, peer: FilePeer) -> None:
        """The peer has acknowledged something."""
        self.files.acknowledged(peer)

    def no_direct(self, peer: FilePeer, reason: str) -> None:
        """An attempt at a direct path has failed, while the relay carries the messages."""
        self.files.no_direct(peer, reason)

    def received(self, peer: FilePeer, control: ControlMessage) -> None:
        """The peer's store has said something."""
        self.files.received(peer, control)

    async def close(self) -> None:
        """End everything."""
        await self.files.close()
