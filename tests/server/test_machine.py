"""How much memory a server may use when nobody says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aldis.server import machine

HALF = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@pytest.mark.parametrize(
    ("limit", "budget"), [("max\n", HALF), ("400000000\n", 200_000_000), (f"{10 * HALF}\n", HALF), (None, HALF)]
)
def test_it_is_half_of_what_the_machine_has_and_of_what_a_container_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, budget: int
) -> None:
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    monkeypatch.setattr(machine, "_LIMITS", (str(file),))
    assert abs(machine.default_budget() - budget) <= 1
