"""What requests cost beyond being a message, in units of one relayed message: measured, and rounded up.

A transport takes it off what the client may say (`Session.charged`), so a client cannot have much done by little.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, Struct

from aldis.protocol import messages as m

# Checking an Ed25519 signature takes as long as relaying so many messages.
SIGNATURE_COST: Final = 20
# To find out what is wrong with a message.
UNREADABLE_COST: Final = 4
# A write to the disk, which others share. What it makes the server tell is charged besides.
PRIVACY_COST: Final = 20
# A message for which there is no room at its recipient. It costs about 1, but whoever goes on sending those is to be
# read no faster than four times a second: hundreds who do it in the same moment would delay all others.
NO_ROOM_PENALTY: Final = 50
# A message that is sent although its sender was told to wait.
PAUSED_PENALTY: Final = 20
# A question for a user by a classic client without a name: no budget of a user counts it, and nobody is to read out the
# names of all who are online.
NAMELESS_PENALTY: Final = 20
# Names that are watched, or not watched any more, for one unit.
NAMES_PER_UNIT: Final = 10

_FIXED: Final[dict[type[Struct], int]] = {
    m.Prove: SIGNATURE_COST,
    m.Rotate: SIGNATURE_COST,
    m.SealKeyRequest: SIGNATURE_COST,
    m.Discover: 1,
    m.IceServersRequest: 1,
}


def cost_of(message: Struct) -> int:
    """The cost of a request that is no relayed message."""
    if isinstance(message, m.Watch | m.Unwatch):
        return len(message.user_ids) // NAMES_PER_UNIT
    if isinstance(message, m.PrivacyRequest):
        return PRIVACY_COST
    if isinstance(message, m.Register):
        return SIGNATURE_COST * ((message.seal_key is not UNSET) + (message.token is not UNSET))
    return _FIXED.get(type(message), 0)
