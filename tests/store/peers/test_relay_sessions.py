"""Sessions of the sealed relay between two programs, at a time that the test moves."""

from __future__ import annotations

import pytest

from support.relay_world import Wire


async def test_one_that_begins_twice_with_a_stale_key_hears_so_of_both_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire(monkeypatch)
    wire.alice.publish_another_key()
    await wire.pass_time(61)  # the key that bob knows opens nothing any more
    wire.bob.send("from bob")
    wire.alice.send("from alice")
    await wire.calm()
    assert wire.byes == ["seal-unknown"] * 2  # of bob's first session, and of the one after the crossing
    await wire.pass_time(2.5)
    assert (wire.alice.got, wire.bob.got) == (["from bob"], ["from alice"])
