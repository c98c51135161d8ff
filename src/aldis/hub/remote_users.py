"""The users of which a node knows where else in the cluster they are.

The state of a user is known from the first question about it until it is forgotten. Meanwhile each change is heard, so
what is known is true, and no message to a known user needs a look-up. Users that nobody here watches or is are kept as
long as there is room: those that were used last.

It asks nothing and tells nobody: `hub.cluster_router` does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aldis.hub.cluster import RemoteDevice, UserState
from aldis.hub.privacy import UserPrivacy
from aldis.hub.use import texts_bytes
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

# Users that are known beyond those that somebody here is or watches: 20 MB of those that are offline.
MOST_KNOWN: Final = 50_000
# And bytes: as many users with a few devices, or 800 with a thousand names in their lists.
MOST_BYTES: Final = 128 * 1024 * 1024
# Bytes of a user and of a device, with their places in tables, without their texts. Measured, rounded up.
USER_BYTES: Final = 400
DEVICE_BYTES: Final = 500
# Bytes of a name in a privacy list.
NAME_BYTES: Final = 160


class RemoteUsers:
    """What a node knows of users elsewhere. `is_needed`: whether somebody here is or watches a user."""

    def __init__(self, is_needed: Callable[[str], bool]) -> None:
        self._is_needed = is_needed
        self._known: OrderedDict[str, UserState] = OrderedDict()
        self._privacies: dict[str, UserPrivacy] = {}
        # Of each node its users: most that are known are online nowhere, and there may be a million.
        self._at: dict[str, dict[str, None]] = {}
        self.bytes = 0
        """What all of them cost."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._known

    def find(self, user_id: str) -> UserState | None:
        """What is known of a user, without this node's own devices; None: not known, ask."""
        return self._known.get(user_id)

    def devices(self, user_id: str) -> tuple[RemoteDevice, ...]:
        """The devices of a user at other nodes, newest first."""
        state = self._known.get(user_id)
        return () if state is None else state.devices

    def shared(self, users: Iterable[str]) -> dict[tuple[str, ...], int]:
        """How many of the users have devices at other nodes, too, by those nodes in order."""
        known = self._known
        return Counter(
            tuple(sorted({each.node for each in state.devices}))
            for user_id in users
            if (state := known.get(user_id)) is not None and state.devices
        )

    def nodes_of(self, user_id: str) -> int:
        """At how many nodes a user has devices that has one here."""
        return 1 + len({each.node for each in self.devices(user_id)})

    def privacy(self, user_id: str) -> UserPrivacy | None:
        """The privacy of a user that is online elsewhere; None is the default."""
        return self._privacies.get(user_id)

    def unknown(self, user_ids: Sequence[str]) -> list[str]:
        """Those of the users that are not known. Somebody has to do with the others: keep them longer."""
        known = self._known
        unknown = [user_id for user_id in user_ids if user_id not in known]
        if len(unknown) < len(user_ids):
            for user_id in user_ids:
                if user_id in known:
                    known.move_to_end(user_id)
        return unknown

    def is_late(self, state: UserState) -> bool:
        """Whether something newer is known already."""
        known = self._known.get(state.user_id)
        return known is not None and known.version > state.version

    def learn(self, state: UserState) -> None:
        """Note a state, without this node's devices."""
        user_id = state.user_id
        before = self._known.get(user_id)
        if before is not None:
            self.bytes -= _size(before)
            self._leave_nodes(before)
        for device in state.devices:
            self._at.setdefault(device.node, {})[user_id] = None
        self._known[user_id] = state
        self._known.move_to_end(user_id)
        self.bytes += _size(state)
        if not state.devices or state.privacy == DEFAULT_PRIVACY:
            self._privacies.pop(user_id, None)
        else:
            self._privacies[user_id] = UserPrivacy(user_id, state.privacy)

    def at(self, node: str) -> list[str]:
        """The users with a device at a node."""
        return list(self._at.get(node, ()))

    def all(self) -> list[str]:
        """All users that are known."""
        return list(self._known)

    @property
    def too_many(self) -> bool:
        """Whether more is known than there may be; some of it may be needed."""
        return len(self._known) > MOST_KNOWN or self.bytes > MOST_BYTES

    def forget_some(self, look_at: int) -> list[str]:
        """Look at so many users, and forget those that nobody needs while there are too many. Returns them."""
        forgotten: list[str] = []
        for _ in range(look_at):
            if not self.too_many:
                break
            user_id = next(iter(self._known))
            if self._is_needed(user_id):
                self._known.move_to_end(user_id)
                continue
            self._forget(user_id)
            forgotten.append(user_id)
        return forgotten

    def _forget(self, user_id: str) -> None:
        state = self._known.pop(user_id)
        self.bytes -= _size(state)
        self._leave_nodes(state)
        self._privacies.pop(user_id, None)

    def _leave_nodes(self, state: UserState) -> None:
        for device in state.devices:
            users = self._at.get(device.node)
            if users is not None:
                users.pop(state.user_id, None)
                if not users:
                    del self._at[device.node]


def _size(state: UserState) -> int:
    # Without a device elsewhere, the user is online here or nowhere, and its lists count here (`hub.privacy_policies`).
    if not state.devices:
        return USER_BYTES
    texts = sum(len(each.key) + len(each.device) + len(each.session) for each in state.devices)
    return USER_BYTES + DEVICE_BYTES * len(state.devices) + texts + _size_of_lists(state.privacy)


def _size_of_lists(privacy: Privacy) -> int:
    names = [*privacy.contacts, *privacy.blocked]
    return NAME_BYTES * len(names) + texts_bytes(names)
