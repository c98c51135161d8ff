"""Frames that are sent together."""

from __future__ import annotations

import pytest

from aldis.hub.sessions import HEADROOM, TEXT
from aldis.server.corked_frames import MOST, CorkedFrames


def frame_of(payload: bytes) -> bytearray:
    return bytearray(HEADROOM) + payload


def test_what_is_written_goes_as_one_piece_when_it_is_flushed_and_once() -> None:
    sent: list[bytes] = []
    corked = CorkedFrames(sent.append)
    buffer = frame_of(b"one")
    corked.write(TEXT, buffer, HEADROOM)
    buffer[HEADROOM:] = b"overwritten"  # the hub uses it again
    corked.write(TEXT, frame_of(b""), HEADROOM)
    assert sent == []
    corked.flush()
    corked.flush()
    assert sent == [b"\x81\x03one\x81\x00"]


@pytest.mark.parametrize("size", [1000, MOST, 5 * MOST])
def test_no_more_waits_than_one_frame_above_the_most(size: int) -> None:
    sent: list[bytes] = []
    corked = CorkedFrames(sent.append)
    written = 0
    for _ in range(100):
        corked.write(TEXT, frame_of(b"x" * size), HEADROOM)
        written += size + 4 if size < 1 << 16 else size + 10
        assert written - sum(map(len, sent)) < MOST
    corked.flush()
    assert sum(map(len, sent)) == written
    assert max(map(len, sent)) < MOST + size + 10
