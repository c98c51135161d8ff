"""What the tests of the vectors share: names in Python's spelling and in that of JSON."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """`sdpMid` as `sdp_mid`."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def camel(name: str) -> str:
    """`sdp_mid` as `sdpMid`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
