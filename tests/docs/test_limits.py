"""The page about limits names every limit, with its default, a reason, and a metric that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from aldis.cli.serve import _LAYOUT
from aldis.hub.stats import LIMITS
from aldis.server import metrics
from aldis.server.admission import HEADS, LATE, NO_HEADER, OPENING, SILENT, UNTOLD
from aldis.server.config import LIMITS as LIMIT_SETTINGS
from aldis.server.config import RELOADABLE, SETTINGS, ServerConfig
from aldis.server.refusals import Refusal

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
# Limits that are counted in bytes or hours, or that are worked out from the machine.
UNITS = {
    "bytes_per_second": "256 KiB",
    "user_bytes_per_second": "1 MiB",
    "user_relayed_bytes_per_second": "1 MiB",
    "user_sealed_bytes_per_second": "256 KiB",
    "pair_sealed_bytes_per_second": "128 KiB",
    "max_relay_file_bytes": "1 MiB",
    "max_message_bytes": "64 KiB",
    "partial_requests_bytes": "8 MiB",
    "detached_bytes": "64 MiB",
    "detached_bytes_per_user": "2 MiB",
    "outgoing_queue_bytes": "1 MiB",
    "watches_bytes": "256 MiB",
    "privacy_bytes": "256 MiB",
    "memory_budget": "half of",
    "turn_credential_lifetime": "4 h",
}
# In the same section of the help, but times that a client is given, and no limits.
TIMES = {"resume_window", "ping_interval", "drain_seconds"}
REASONS = {*Refusal, SILENT, LATE, HEADS, OPENING, UNTOLD, NO_HEADER}


class Row(NamedTuple):
    """A row of a table: its cells, with the heading of the first and of the last column."""

    first: str
    last: str
    cells: list[str]

    @property
    def setting(self) -> str:
        """The setting that it is about."""
        found = re.fullmatch(r"`([a-z_]+)`", self.cells[0])
        assert found is not None, f"no setting: {self.cells[0]}"
        return found[1]


def rows() -> list[Row]:
    found: list[Row] = []
    heading: list[str] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            heading = []
        elif not heading:
            heading = cells
        elif not re.fullmatch(r"-+", cells[0]):
            assert len(cells) == len(heading)
            found.append(Row(heading[0], heading[-1], cells))
    return found


ROWS = rows()
SET = [row for row in ROWS if row.first == "setting"]
UNSET = [row for row in ROWS if row.first == "limit"]
SOURCE = inspect.getsource(metrics)


def default(name: str) -> str:
    value = getattr(ServerConfig(), name)
    return UNITS.get(name) or (f"{value:,}" if isinstance(value, int) else f"{value:g}")


def metric_problem(text: str) -> str:
    """What is wrong with a metric as the page has it; an empty text if nothing is."""
    found = re.fullmatch(r'(aldis_[a-z_]+?)(?:_total)?(?:\{([a-z]+)="([^"]+)"\})?', text)
    if found is None:
        return f"no metric: {text}"
    name, label, value = found.groups()
    if f'"{name}"' not in SOURCE:
        return f"no metric of the server: {name}"
    known: dict[tuple[str, str], set[str]] = {
        ("aldis_limited", "limit"): set(LIMITS),
        ("aldis_connections_refused", "reason"): set(map(str, REASONS)),
    }
    return "" if value in known.get((name, label), {value}) else f"{name} has no {label} {value}"


def test_the_page_has_tables_of_settings_and_one_of_the_other_limits() -> None:
    assert {row.first for row in ROWS} == {"setting", "limit"}
    assert len(SET) > 40
    assert UNSET


@pytest.mark.parametrize("row", SET, ids=lambda row: row.cells[0])
def test_every_row_of_a_table_of_settings_has_a_setting_its_default_and_a_reason(row: Row) -> None:
    assert row.setting in SETTINGS
    assert row.cells[1].startswith(default(row.setting))
    assert row.cells[2]


@pytest.mark.parametrize("row", UNSET, ids=lambda row: row.cells[0])
def test_every_limit_without_a_setting_says_why_there_is_the_limit_and_why_there_is_no_setting(row: Row) -> None:
    assert not re.match(r"`[a-z_]+`", row.cells[0])
    assert all(row.cells)
    for name in re.findall(r"`([a-z_]+)`", row.cells[2]):
        assert name in SETTINGS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.cells[0])
def test_every_row_has_a_metric_that_there_is(row: Row) -> None:
    named = re.findall(r"`([^`]+)`", row.cells[-1])
    assert named
    known = {"`reason`": set(map(str, REASONS)), "`limit` of `aldis_limited_total`": set(LIMITS)}.get(row.last, set())
    for one in named:
        if one in known or one.startswith("reason="):
            continue
        assert metric_problem(one) == ""


def test_every_setting_that_limits_clients_is_there_once() -> None:
    assert sorted(row.setting for row in SET) == sorted({row.setting for row in SET})
    assert set(_LAYOUT["Limits"]) == LIMIT_SETTINGS
    assert {row.setting for row in SET} >= LIMIT_SETTINGS - TIMES


def test_the_settings_that_a_hang_up_does_not_change_are_those_that_the_page_excepts() -> None:
    found = re.search(
        r"SIGHUP takes\s+over a new value of each one in these tables, except (.*?)\. `aldis", PAGE, re.DOTALL
    )
    assert found is not None
    named = re.findall(r"`([a-z_]+)`", found[1])
    in_tables = {name for row in SET for name in re.findall(r"`([a-z_]+)`", " ".join(row.cells[:2]))}
    assert set(named) == {name for name in in_tables | {"resume_window"} if name in SETTINGS and name not in RELOADABLE}


def test_every_metric_is_one_of_the_server() -> None:
    names = {name.removesuffix("_total") for name in re.findall(r"`(aldis_[a-z_]+)", PAGE)}
    assert names
    assert {name for name in names if f'"{name}"' not in SOURCE} == set()


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_of_a_refused_connection_is_there(reason: str) -> None:
    assert f"`{reason}`" in PAGE or f'reason="{reason}"' in PAGE


@pytest.mark.parametrize("limit", LIMITS)
def test_every_limit_that_is_counted_is_there(limit: str) -> None:
    assert f'limit="{limit}"' in PAGE or f"`{limit}`" in PAGE
