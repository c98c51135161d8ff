"""What `aldis chat` says of the quality of the connection."""

from __future__ import annotations

import pytest

from aldis.cli.typed import in_words
from aldis.store.quality import Grade, PeerQuality


@pytest.mark.parametrize(
    ("grade", "reason", "words"),
    [
        (Grade.GOOD, "", ""),
        (Grade.FAIR, "round-trip-time", ", fair: slow"),
        (Grade.POOR, "jitter", ", poor: unsteady"),
        (Grade.POOR, "heartbeats", ", poor: answers are late"),
        (Grade.LOST, "no-path", ""),  # the state says it
    ],
)
def test_only_what_is_not_good_is_said(grade: Grade, reason: str, words: str) -> None:
    assert in_words(PeerQuality(grade, reason)) == words
