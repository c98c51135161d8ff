"""Codes of words, with which two people who share no names send each other files.

A code is a number and two words, such as `4821-acorn-tulip`. The number is public: it leads to the name that the sender
has on the server. The words are a password for SPAKE2 (RFC 9382), a password-authenticated key exchange.

Rules of this module:

* Both sides register fresh names with fresh keys, and forget them. The name of the sender has the number and the day in
  it, that of the recipient is random.
* The exchange is bound to both identity keys: they are the two parties of SPAKE2. A server that sits in between has
  other keys, so its words do not fit, even when it passes on every message.
* One guess for each code. Whoever sends the first message of the exchange has it. The sender shows that it knows the
  words only after the recipient has. Whatever the outcome, the code is used up.
* The messages go through the sealed relay where the server has one, so that a guess learns no address.

It does not know files.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from importlib.resources import files
from typing import Final

from spake2 import SPAKE2_A, SPAKE2_B

from aldis.errors import UsageError
from aldis.protocol.codec import from_base64, to_base64

_CODE: Final = re.compile(r"([1-9][0-9]{0,8})-([a-z]+)-([a-z]+)")
_DAY: Final = 86_400  # seconds
_RANGES: Final = (999, 9_999, 99_999, 999_999)  # of the number: short, unless short ones are taken
_PAKE_BYTES: Final = 33
_MAC_BYTES: Final = 32
RECIPIENT: Final = "code-r-"
"""How the names of recipients begin."""
KNOWN_AS: Final = "code"
"""The sender of files that come by a code, where its random name would be another one each time."""


def words() -> list[str]:
    """The words of codes."""
    text = files("aldis.cli").joinpath("words.txt").read_text(encoding="ascii")
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def new_code(attempt: int) -> str:
    """A fresh code; later attempts take longer numbers."""
    number = 1 + secrets.randbelow(_RANGES[min(attempt, len(_RANGES) - 1)])
    known = words()
    return f"{number}-{secrets.choice(known)}-{secrets.choice(known)}"


def read_code(text: str) -> str:
    """A code as a person types it. Raises `UsageError`."""
    code = re.sub(r"[\s_-]+", "-", text.strip().lower())
    found = _CODE.fullmatch(code)
    if found is None:
        raise UsageError(f"{text!r} is no code: a code is a number and two words, such as 42-acorn-tulip")
    known = set(words())
    for word in (found[2], found[3]):
        if word not in known:
            import difflib

            close = difflib.get_close_matches(word, known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            # Said before anything is sent, so a slip costs no guess.
            raise UsageError(f"{word!r} is no word of a code{guess}")
    return code


def sender_name(code: str, now: float) -> str:
    """The name of the sender on the server; `now` in seconds since 1970."""
    return f"code-{int(now // _DAY)}-{code.partition('-')[0]}"


def sender_names(code: str, now: float) -> list[str]:
    """The names that the sender may have: the clocks of the two may differ, and a day may just have begun."""
    return [sender_name(code, now + shift) for shift in (0, -_DAY, _DAY)]


def recipient_name() -> str:
    """A random name for the recipient."""
    return RECIPIENT + secrets.token_hex(8)


class Exchange:
    """One run of SPAKE2. Both sides send `message`, give what they get to `received`, and then compare proofs: that of
    the recipient goes first."""

    def __init__(self, code: str, sender_key: bytes, recipient_key: bytes, *, sending: bool) -> None:
        """The keys: the public identity keys of the two, as this side sees them."""
        side = SPAKE2_A if sending else SPAKE2_B
        self._spake = side(code.encode(), idA=sender_key, idB=recipient_key)
        self._sending = sending
        self._key = b""
        self.message: Final[bytes] = self._spake.start()

    def received(self, message: bytes) -> bool:
        """The other side's message; False for one that cannot be any."""
        try:
            self._key = self._spake.finish(message)
        except Exception:  # noqa: BLE001 - a stranger's bytes; the library raises whatever comes first
            return False
        return True

    @property
    def proof(self) -> bytes:
        """What shows that this side knows the code."""
        return self._proof(self._sending)

    def check(self, proof: bytes) -> bool:
        """Whether the other side knows the code."""
        return bool(self._key) and hmac.compare_digest(proof, self._proof(not self._sending))

    def _proof(self, sending: bool) -> bytes:
        role = b"aldis code sender" if sending else b"aldis code recipient"
        return hmac.new(self._key, role, hashlib.sha256).digest()


def write(**parts: bytes) -> dict[str, str]:
    """A message of the exchange."""
    return {"aldis": "code", **{name: to_base64(value) for name, value in parts.items()}}


def read(content: object, name: str) -> bytes | None:
    """A part of a message of the exchange; None when it is not there."""
    if not isinstance(content, dict) or content.get("aldis") != "code":
        return None
    value = content.get(name)
    try:
        return from_base64(value, _PAKE_BYTES if name == "pake" else _MAC_BYTES) if isinstance(value, str) else None
    except ValueError:
        return None
