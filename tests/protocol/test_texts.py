"""What strangers have written is fit to be shown."""

from __future__ import annotations

from aldis.protocol.texts import MAX_REASON, clean


def test_a_reason_is_a_line_that_shows_what_it_says() -> None:
    assert clean("no\nroom \u202eleft") == "noroom left"
    assert clean("\x1b[2Jgone\u2028\ud800") == "[2Jgone"
    assert len(clean("🌍" * 300)) == MAX_REASON
