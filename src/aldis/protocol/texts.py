"""What strangers have written, made fit to be shown to people.

The reasons that peers give, and the names of their files, end up in the texts of errors, on terminals and on pages.
What acts there instead of being read is taken out: control characters, line ends, what turns the direction of writing
around.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_REASON: Final = 200  # characters: a line for a person

# Categories C: control characters, those that turn the direction of writing around or are not seen, half surrogate
# pairs, private and unassigned ones. Zl and Zp break lines.
_UNSEEN: Final = ("C", "Zl", "Zp")


def clean(text: str, limit: int = MAX_REASON) -> str:
    """A text without what is not seen, cut to `limit` characters."""
    seen = (character for character in text if not unicodedata.category(character).startswith(_UNSEEN))
    return "".join(seen)[:limit]
