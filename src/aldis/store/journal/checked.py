"""The rows of a journal's file, checked: a damaged file may say anything.

Raises `msgspec.ValidationError` for what no journal has written. It does not know where rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from aldis.protocol.channel import Content
from aldis.store.journal.rows import MAX_NUMBER, MAX_QUEUE, NUMBER_BITS, ArrivedRow, DeviceRow, PositionRow, QueuedRow

_Number: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Flag: TypeAlias = Annotated[int, Meta(ge=0, le=1)]
_Time: TypeAlias = Annotated[float, Meta(ge=-(2**53), le=2**53)]

_Queue: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_QUEUE)]
_Device: TypeAlias = tuple[_Count, str, str | None, _Queue, str, _Number, _Number | None, _Number]
_Queued: TypeAlias = tuple[_Count, Content, bytes, _Time, _Flag]
_Position: TypeAlias = tuple[_Count, str, _Count, _Count]
_Arrived: TypeAlias = tuple[_Count, str, str, str, _Count, Content, bytes, _Flag]


def _checked(rows: Iterable[Any], kind: Any) -> Any:
    return msgspec.convert(list(rows), list[kind], builtin_types=(bytes,))


def devices(rows: Iterable[Any]) -> dict[int, DeviceRow]:
    """By number."""
    return {row[0]: DeviceRow(*row) for row in _checked(rows, _Device)}


def queued(rows: Iterable[Any]) -> dict[tuple[int, int], QueuedRow]:
    """By queue and number."""
    found = {}
    for at, content, data, queued_at, movable in _checked(rows, _Queued):
        key = at >> NUMBER_BITS, at & MAX_NUMBER
        found[key] = QueuedRow(*key, content, data, queued_at, bool(movable))
    return found


def positions(rows: Iterable[Any]) -> dict[tuple[int, str], PositionRow]:
    """By device and stream."""
    return {(row[0], row[1]): PositionRow(*row) for row in _checked(rows, _Position)}


def arrived(rows: Iterable[Any]) -> tuple[dict[int, ArrivedRow], set[int]]:
    """By place; and the places of those that say `redelivered`."""
    found = _checked(rows, _Arrived)
    return {row[0]: ArrivedRow(*row[:7]) for row in found}, {row[0] for row in found if row[7]}


def texts(rows: Iterable[Any]) -> dict[str, str]:
    """Facts by name."""
    return dict(_checked(rows, tuple[str, str]))


def files(rows: Iterable[Any]) -> dict[str, bytes]:
    """Records by name."""
    return dict(_checked(rows, tuple[str, bytes]))
