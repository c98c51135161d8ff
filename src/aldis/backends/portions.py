"""Much that is at hand at once, of which each turn of the event loop handles a portion.

Answers of a database come in batches. Whoever handles all of a batch in one turn keeps every client waiting meanwhile:
fifty rows with long privacy lists take 10 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

# Bytes of one turn. To read so many, as lists of names, takes a quarter of a millisecond.
BYTES: Final = 64 * 1024
# What something counts in any case: its caller has to be woken, which takes as long as to read these.
LEAST: Final = 2048


async def in_portions(items: Iterable[T], size: Callable[[T], int] = lambda item: 0) -> AsyncIterator[T]:
    """The items in order; others have a turn behind each `BYTES` of them. `size`: the bytes of an item."""
    spent = 0
    for item in items:
        if spent >= BYTES:
            spent = 0
            await asyncio.sleep(0)
        spent += LEAST + size(item)
        yield item


def bytes_of(answer: Any) -> int:
    """The bytes of an answer of Redis: lists, in lists, of bytes and numbers."""
    if isinstance(answer, bytes):
        return len(answer)
    return sum(map(bytes_of, answer)) if isinstance(answer, list) else 0
