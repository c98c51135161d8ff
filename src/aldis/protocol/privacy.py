"""Who may see a user, and who may call: the privacy of a name.

Rules: a `Privacy` is a value; a change makes another one. Changes are small (one name more, one less), so two devices
of a user that change it at the same time do not undo each other's change, and a repeated change does no harm. A name
that is blocked is blocked, whatever else stands here.

It does not know who is online, or how any of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Visibility: TypeAlias = Literal["public", "contacts", "hidden"]
"""For everybody, for the user's contacts, or for nobody; the user's own devices always count as admitted."""

PUBLIC: Final = "public"
CONTACTS: Final = "contacts"
VISIBILITIES: Final = (PUBLIC, CONTACTS, "hidden")

# Of each list, unless the server has another limit. An address book has some hundreds of names.
MAX_PRIVACY_NAMES: Final = 1000
# Bytes of all names of both lists as JSON, with their quotes and commas. A reply with all of them stays below 64 KiB,
# which every client can read.
MAX_PRIVACY_BYTES: Final = 48 * 1024
_QUOTES_AND_COMMA: Final = 3


@dataclass(frozen=True, slots=True)
class PrivacyChange:
    """What to change: None and empty lists leave things as they are. No name is both added and removed.

    `most_names`: how many names each list may have after that, by the settings of the server.
    """

    presence: Visibility | None = None
    offers: Visibility | None = None
    add_contacts: frozenset[str] = frozenset()
    remove_contacts: frozenset[str] = frozenset()
    block: frozenset[str] = frozenset()
    unblock: frozenset[str] = frozenset()
    most_names: int = field(default=MAX_PRIVACY_NAMES, kw_only=True)


# Whoever reads the same lists again and again keeps track of those that are in memory already (`cluster.states`).
@dataclass(frozen=True, slots=True, weakref_slot=True)
class Privacy:
    """`presence`: who sees that the user is online, and on which devices. `offers`: whose relayed messages the server
    passes on. Both without those that are blocked."""

    presence: Visibility = PUBLIC
    offers: Visibility = PUBLIC
    contacts: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()

    def changed(self, change: PrivacyChange) -> Privacy | None:
        """The privacy after a change; None when the change adds names beyond the limits."""
        privacy = Privacy(
            change.presence or self.presence,
            change.offers or self.offers,
            _changed(self.contacts, change.add_contacts, change.remove_contacts),
            _changed(self.blocked, change.block, change.unblock),
        )
        return privacy if privacy.fits(change.most_names) or not (change.add_contacts or change.block) else None

    def fits(self, most_names: int) -> bool:
        """Whether it is within the limits: so many names in each list, and the bytes of all of them."""
        if len(self.contacts) > most_names or len(self.blocked) > most_names:
            return False
        return _json_bytes(self.contacts) + _json_bytes(self.blocked) <= MAX_PRIVACY_BYTES


DEFAULT_PRIVACY: Final = Privacy()
"""Everybody sees the user and may call."""


def _changed(names: frozenset[str], more: frozenset[str], fewer: frozenset[str]) -> frozenset[str]:
    # A set of 1,000 names has 64 KB: no copy of it without need.
    left = names - fewer if fewer else names
    return left | more if left and more else left or more


def _json_bytes(names: frozenset[str]) -> int:
    # One text: 15 times quicker than name by name, and the event loop waits for it.
    text = "".join(names)
    return len(text.encode()) + text.count('"') + text.count("\\") + _QUOTES_AND_COMMA * len(names)
