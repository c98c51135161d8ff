"""Host names as browsers read them, so that a Python program and a page use the same name for a server.

The reference is the host parser of the WHATWG URL Standard (section 3.5) for `ws:` and `wss:`: percent-decoding, then
UTS 46 without transitional processing (the package `idna`), then numbers as IPv4 addresses. In addition, both
implementations refuse names that no resolver accepts: empty or long labels, and characters other than letters, digits,
`-` and `_`. Vectors: `tests/vectors/hosts.json`.

Pure: nothing is resolved.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

import idna

_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")  # RFC 1035 section 2.3.4, and `_` as in names of services
_MAX_NAME: Final = 253  # characters, without a dot at the end
_MAX_TEXT: Final = 2048  # characters of input; each may be written as up to twelve (%F0%9F%92%A9)
_PREFIX: Final = "xn--"
_JOINERS: Final = "\u200c\u200d"


def read_host(text: str) -> str:
    """The ASCII form of a host: a name, an IPv4 address in four decimal numbers, or an IPv6 address in brackets.

    `text` is the host as it stands in a URL, IPv6 addresses in brackets. Raises `ValueError` with the problem.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError("the host name is too long")
    if text.startswith("["):
        if not text.endswith("]"):
            raise ValueError("a bracket is not closed")
        return f"[{_ipv6(text[1:-1])}]"
    try:
        name = _ascii(unquote_to_bytes(text).decode())
    except (UnicodeError, idna.IDNAError):
        raise ValueError("the host name is not valid") from None
    if _ends_in_number(name):
        return _ipv4(name)
    bare = name.removesuffix(".")
    if len(bare) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise ValueError("the host name is not valid")
    return name


def _ascii(name: str) -> str:
    """UTS 46 ToASCII: non-transitional, CheckBidi, CheckJoiners, not CheckHyphens, not UseSTD3ASCIIRules."""
    mapped = unicodedata.normalize("NFC", idna.uts46_remap(name, std3_rules=False, transitional=False))
    labels = [_decoded(label) for label in mapped.split(".")]
    bidi = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for label in labels for character in label)
    for label in labels:
        if label:
            _check(label, bidi)
    return ".".join(
        label if label.isascii() else _PREFIX + label.encode("punycode").decode("ascii") for label in labels
    )


def _decoded(label: str) -> str:
    if not label.startswith(_PREFIX):
        return label
    decoded = label.removeprefix(_PREFIX).encode("ascii").decode("punycode")
    # A label in Punycode has to be exactly what our own encoding produces.
    if decoded.isascii() or idna.uts46_remap(decoded, std3_rules=False, transitional=False) != decoded:
        raise UnicodeError
    return decoded


def _check(label: str, bidi: bool) -> None:
    if label.isascii() and not bidi:
        return
    idna.check_initial_combiner(label)
    if bidi:
        idna.check_bidi(label, check_ltr=True)
    for position, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, position):
            raise UnicodeError


# --- addresses --------------------------------------------------------------------------------------------------------


def _ends_in_number(name: str) -> bool:
    last = name.removesuffix(".").rpartition(".")[2]
    return bool(re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last))


def _ipv4(name: str) -> str:
    """Read 127.1, 0x7f.1 and 2130706433 as 127.0.0.1, like every browser (WHATWG URL, "IPv4 parser")."""
    try:
        *first, last = [_number(part) for part in name.removesuffix(".").split(".")]
    except ValueError:
        raise ValueError("the IPv4 address is not valid") from None
    if len(first) > 3 or any(part > 255 for part in first) or last >= 256 ** (4 - len(first)):
        raise ValueError("the IPv4 address is not valid")
    value = last + sum(part * 256 ** (3 - index) for index, part in enumerate(first))
    return str(ipaddress.IPv4Address(value))


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    if not re.fullmatch(r"[0-9]+", part) or len(part) > 16:
        raise ValueError
    return int(part, 8 if part.startswith("0") and len(part) > 1 else 10)


def _ipv6(text: str) -> str:
    """Shortened as in RFC 5952, without the IPv4 notation, which Python 3.13 would write and browsers do not."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise ValueError("the IPv6 address is not valid, or has a zone, which no other machine knows")
    digits = f"{int(address):032x}"
    groups = [f"{int(digits[index : index + 4], 16):x}" for index in range(0, 32, 4)]
    zeros = max(re.finditer("0+", "".join("0" if group == "0" else "x" for group in groups)), key=_length, default=None)
    if zeros is None or _length(zeros) == 1:
        return ":".join(groups)
    return f"{':'.join(groups[: zeros.start()])}::{':'.join(groups[zeros.end() :])}"


def _length(match: re.Match[str]) -> int:
    return match.end() - match.start()


def is_this_machine(host: str) -> bool:
    """Whether a host name or address means this machine. Makes no DNS query."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
