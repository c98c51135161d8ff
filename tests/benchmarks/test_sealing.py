"""The benchmark of the sealed relay in small: it measures the server, and the clients of both languages."""

from __future__ import annotations

import re

import pytest
from benchmarks.sealing import run as sealing


def test_a_short_run_measures_the_server_and_both_clients(capsys: pytest.CaptureFixture[str]) -> None:
    sealing.main(["--seconds", "0.02"])
    said = capsys.readouterr().out
    assert re.search(r"ratio +[1-9]?\d\.\d\d\n", said)
    for name, _, _ in sealing.CASES:
        ours, theirs = re.search(rf"{name} +(\S+) us +(\S+) us", said).groups()  # type: ignore[union-attr]
        assert float(ours) > 0
        assert float(theirs) > 0
