"""The reference of the Python API lists what programs get from a store."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from aldis.store import state

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "state.md"


def test_the_reference_lists_all_that_a_state_is_made_of() -> None:
    made = {
        name
        for name, value in inspect.getmembers(state, dataclasses.is_dataclass)
        if inspect.getmodule(value) is state and not name.startswith("_")
    }
    listed = re.search(
        r"::: aldis\.store\.state\n.*?members: \[([^\]]*)\]", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert listed is not None
    assert set(listed[1].split(", ")) == made
