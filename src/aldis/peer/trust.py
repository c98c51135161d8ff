"""Signs and checks offers and answers."""

from __future__ import annotations

from aldis.identity.keys import Identity
from aldis.identity.pins import Pins


class Trust:
    """Signs our offers and answers, checks those of others."""

    def __init__(self, identity: Identity, user_id: str, server: str, pins: Pins) -> None:
        raise NotImplementedError
