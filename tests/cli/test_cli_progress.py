"""How transfers are shown, without a terminal; tests/integration/test_cli_transfers.py has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from aldis.cli.ledger import Ledger
from aldis.cli.progress import amount, shown_name


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_440, "99.4 kB"),
        (99_500, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2_097_152_000, "2.1 GB"),
        (9e18, "9000 PB"),
    ],
)
def test_an_amount_is_short(size: float, text: str) -> None:
    assert amount(size) == text


def test_a_name_on_a_line_is_safe_and_not_too_long() -> None:
    assert shown_name("a\x1b[2J.txt") == "a\\x1b[2J.txt"
    assert shown_name("x" * 40) == "x" * 40
    assert shown_name("a" * 30 + "b" * 30) == "a" * 19 + "…" + "b" * 20


def test_a_ledger_remembers_what_has_arrived_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "sending"
    ledger = Ledger(folder, ["alice", "bob", "/a"])
    ledger.add("a", "v1")
    assert Ledger(folder, ["alice", "bob", "/a"]).has("a", "v1")
    assert not Ledger(folder, ["alice", "bob", "/a"]).has("a", "v2")
    assert not Ledger(folder, ["alice", "carol", "/a"]).has("a", "v1")
    (kept,) = folder.iterdir()
    kept.write_text("broken", encoding="utf-8")
    assert not Ledger(folder, ["alice", "bob", "/a"]).has("a", "v1")
    ledger.done()
    ledger.done()
    assert list(folder.iterdir()) == []
    nowhere = Ledger(None, [])
    nowhere.add("a", "v")
    nowhere.done()
    assert nowhere.has("a", "v")
