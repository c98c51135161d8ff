"""Texts of strangers, made safe to show to people.

The reasons that peers give, and the names of their files, get into the texts of errors, onto terminals and onto pages.
This module removes the characters that act there instead of being read: control characters, line ends, and characters
that change the direction of writing.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_REASON: Final = 200  # characters: a line for a person

# Categories C: control characters, characters that change the direction of writing or are invisible, half surrogate
# pairs, private and unassigned ones. Zl and Zp break lines.
_UNSEEN: Final = ("C", "Zl", "Zp")


def clean(text: str, limit: int = MAX_REASON) -> str:
    """A text without invisible characters, cut to `limit` characters."""
    seen = (character for character in text if not unicodedata.category(character).startswith(_UNSEEN))
    return "".join(seen)[:limit]
