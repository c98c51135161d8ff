"""What the server says of a user: answers, and changes that are told meanwhile."""

from __future__ import annotations

from aldis.client.events import Discovery, PresenceChanged
from aldis.store.peers.presence import PeerPresence

KEY = bytes(32)


class LateDirectory:
    """A server whose first answer is read together with the change that follows it."""

    def __init__(self) -> None:
        self.presence = PeerPresence("bob")
        self.asked = 0

    async def watch(self, user_id: str) -> None:
        self.presence.changed(PresenceChanged(user_id, False, None, (), initial=True))

    async def discover(self, user_id: str) -> Discovery:
        self.asked += 1
        if self.asked == 1:
            self.presence.changed(PresenceChanged(user_id, True, KEY, ("main",), initial=False))
            return Discovery(user_id, False, None, ())
        return Discovery(user_id, True, KEY, ("main",))

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return public_key


async def test_an_answer_does_not_undo_a_change_that_came_after_it() -> None:
    directory = LateDirectory()
    await directory.presence.find(directory)
    assert (directory.presence.online, directory.presence.devices) == (True, ("main",))
    assert directory.asked == 2
    await directory.presence.find(directory)
    assert directory.asked == 3
