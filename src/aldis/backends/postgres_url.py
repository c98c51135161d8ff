"""Which URLs may be one of PostgreSQL, checked without its library.

Pure. libpq reads the URL when the directory is opened, and knows its parameters.
"""

from __future__ import annotations

import re
from typing import Final

SCHEMES: Final = ("postgresql", "postgres")

_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_postgres_url(url: str) -> None:
    """Raise ValueError with what is expected.

    Refused is also what libpq would take apart at another place: it would tell a part of the password as a host name.
    """
    user, _, _ = url.partition("://")[2].rpartition("@")
    if _BARE_PERCENT.search(url) or not set("@/?#").isdisjoint(user):
        raise ValueError("a URL in which a password has %25 for %, %40 for @, %2F for /, %3F for ? and %23 for #")
