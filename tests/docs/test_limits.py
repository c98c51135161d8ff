"""The page about limits names every limit, with its default, and every metric of one."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from aldis.cli.serve import _LAYOUT
from aldis.hub.stats import LIMITS
from aldis.server import metrics
from aldis.server.admission import HEADS, LATE, OPENING, SILENT, UNTOLD
from aldis.server.config import ServerConfig
from aldis.server.refusals import Refusal

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
# Limits that are counted in bytes, or that are worked out from the machine.
UNITS = {
    "bytes_per_second": "256 KiB",
    "user_bytes_per_second": "1 MiB",
    "user_relayed_bytes_per_second": "1 MiB",
    "user_sealed_bytes_per_second": "256 KiB",
    "pair_sealed_bytes_per_second": "128 KiB",
    "max_relay_file_bytes": "1 MiB",
    "max_message_bytes": "64 KiB",
    "detached_bytes": "64 MiB",
    "watches_bytes": "256 MiB",
    "privacy_bytes": "256 MiB",
    "memory_budget": "half of",
}
# In the same section of the help, but times that a client is given, and no limits.
TIMES = {"resume_window", "ping_interval", "drain_seconds"}


def default(name: str) -> str:
    value = getattr(ServerConfig(), name)
    return UNITS.get(name) or (f"{value:,}" if isinstance(value, int) else f"{value:g}")


@pytest.mark.parametrize("name", sorted(set(_LAYOUT["Limits"]) - TIMES))
def test_every_setting_is_there_with_its_default(name: str) -> None:
    row = re.search(rf"^\|[^|]*`{name}`[^|]*\|([^|]*)\|", PAGE, re.MULTILINE)
    assert row is not None
    assert row[1].strip().startswith(default(name))


def test_every_metric_is_one_of_the_server() -> None:
    source = inspect.getsource(metrics)
    names = {name.removesuffix("_total") for name in re.findall(r"`(aldis_[a-z_]+)", PAGE)}
    assert names
    assert {name for name in names if f'"{name}"' not in source} == set()


@pytest.mark.parametrize("reason", [*Refusal, SILENT, LATE, HEADS, OPENING, UNTOLD])
def test_every_reason_of_a_refused_connection_is_there(reason: str) -> None:
    assert f"`{reason}`" in PAGE or f'reason="{reason}"' in PAGE


@pytest.mark.parametrize("limit", LIMITS)
def test_every_limit_that_is_counted_is_there(limit: str) -> None:
    assert f'limit="{limit}"' in PAGE or f"`{limit}`" in PAGE
