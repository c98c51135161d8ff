"""Addresses: `userId` or `userId/device`.

Rules: a user id has 1 to 128 characters, without control characters, white space and `/`; a device name has 1 to 64
of `A-Z a-z 0-9 . _ -` and is `main` when it is not given. Comparison is by code points: nothing is folded or
normalised, because two names that look alike are still bound to two keys.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from aldis.errors import InvalidAddress

MAX_USER_ID: Final = 128  # enough for an e-mail address (RFC 5321: 254 at most, in practice far less)
MAX_DEVICE: Final = 64
DEFAULT_DEVICE: Final = "main"

# Certainly valid names. Others are checked character by character, to say what is wrong.
_NAME = r"[^\s/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}"
_USER_ID = re.compile(_NAME)
_USER_IDS = re.compile(f"{_NAME}(?:/{_NAME})*")
# The ASCII characters that no name has.
_NO_NAME = bytes((*range(0x21), ord("/"), 0x7F))
_DEVICE = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Cc: control characters; Cs: lone surrogates, which UTF-8 cannot carry.
_FORBIDDEN_CATEGORIES = ("Cc", "Cs")


def user_id_problem(user_id: object) -> str | None:
    """What is wrong with a user id, in words; None when it is valid."""
    if not isinstance(user_id, str):
        return "a name is a str"
    if _USER_ID.fullmatch(user_id):
        return None
    if not user_id:
        return "it is empty"
    if len(user_id) > MAX_USER_ID:
        return f"it has more than {MAX_USER_ID} characters"
    for character in user_id:
        if character == "/":
            return "it contains '/'"
        if character.isspace():
            return "it contains white space"
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
            return "it contains a control character"
    return None


def are_user_ids(user_ids: Collection[str]) -> bool:
    """Whether all are certainly valid user ids: in a fifth of the time of `user_id_problem` for each."""
    joined = "/".join(user_ids)
    if not joined.isascii():
        return _USER_IDS.fullmatch(joined) is not None and joined.count("/") == len(user_ids) - 1
    if not user_ids:
        return True
    names = joined.encode().translate(None, _NO_NAME)
    separators = len(user_ids) - 1
    return len(joined) - len(names) == separators and all(user_ids) and max(map(len, user_ids)) <= MAX_USER_ID


def user_ids_problem(user_ids: Collection[str]) -> str | None:
    """What is wrong with one of these user ids, in words; None when all are valid."""
    return None if are_user_ids(user_ids) else next(filter(None, map(user_id_problem, user_ids)), None)


def device_problem(device: object) -> str | None:
    """What is wrong with a device name, in words; None when it is valid."""
    if isinstance(device, str) and _DEVICE.fullmatch(device):
        return None
    return f"a device name has 1 to {MAX_DEVICE} of A-Z a-z 0-9 . _ -"


def check_user_id(user_id: str) -> str:
    """Return `user_id`; raise `InvalidAddress` when it is not valid."""
    problem = user_id_problem(user_id)
    if problem:
        raise InvalidAddress(user_id, problem)
    return user_id


def check_device(device: str) -> str:
    """Return `device`; raise `InvalidAddress` when it is not valid."""
    problem = device_problem(device)
    if problem:
        raise InvalidAddress(device, problem)
    return device


def split(address: str) -> tuple[str, str | None]:
    """Split an address into user id and device. The device is None for a bare user id. Does not validate."""
    user_id, slash, device = address.partition("/")
    return user_id, (device if slash else None)


def parse(address: object) -> tuple[str, str | None]:
    """Split an address that an application gives; the device is None for a bare user id. Raises `InvalidAddress`."""
    if not isinstance(address, str):
        raise InvalidAddress(repr(address), "an address is a str")
    return _parse(address)


@lru_cache(maxsize=256)  # a program writes to the same few addresses, with each message anew
def _parse(address: str) -> tuple[str, str | None]:
    user_id, device = split(address)
    return check_user_id(user_id), None if device is None else check_device(device)


def join(user_id: str, device: str) -> str:
    """The address of one device as the server writes it into `from`: without the default device."""
    return user_id if device == DEFAULT_DEVICE else f"{user_id}/{device}"
