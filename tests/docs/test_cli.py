"""What docs/cli.md lists is what there is: commands, areas, variables, settings. So are the metrics of all pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aldis.cli.main import _COMMANDS
from aldis.server.config import RELOADABLE, SETTINGS
from aldis.server.log_levels import AREAS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SOURCES = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "src" / "aldis").rglob("*.py")))
# What Prometheus adds to the name of a counter, and to that of a histogram.
_COUNTER, _HISTOGRAM = "_total", ("_bucket", "_sum", "_count")
# The package, and what a program of somebody else makes in an example.
NO_METRICS = {"aldis_server", "aldis_store_peer_round_trip_seconds"}


def metrics() -> dict[str, bool]:
    """The metrics that the code names; whether each is a counter, whose name gets `_total`."""
    found = re.findall(r'(\w*)\(\s*"(aldis_[a-z_]+)"', SOURCES)
    return {name: maker in ("CounterMetricFamily", "_counter") for maker, name in found}


METRICS = metrics()


def is_metric(name: str) -> bool:
    if name in METRICS:
        return not METRICS[name]
    if name.endswith(_COUNTER):
        return METRICS.get(name.removesuffix(_COUNTER), False)
    return any(name.endswith(ending) and name.removesuffix(ending) in METRICS for ending in _HISTOGRAM)


def section(title: str) -> str:
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def test_the_list_of_commands_is_that_of_the_command() -> None:
    listed = re.findall(r"^    aldis ([a-z-]+)  +\S", PAGE.partition("\n## ")[0], re.MULTILINE)
    assert sorted(listed) == sorted(_COMMANDS)


def test_the_areas_of_the_log_are_all_there() -> None:
    found = re.search(r"Each line names its area: (.*?)\. Change", section("The log"), re.DOTALL)
    assert found is not None
    assert re.findall(r"`([a-z]+)`", found[1]) == list(AREAS)


def test_each_variable_that_a_command_reads_is_in_the_table_of_variables() -> None:
    read = set(re.findall(r'environ(?:\.get\(|\[)"(ALDIS_[A-Z_]+)"', SOURCES))
    listed = set(re.findall(r"^\| `(ALDIS_[A-Z_]+)` \|", section("Environment"), re.MULTILINE))
    assert len(read) > 5
    assert read - listed == set()


@pytest.mark.parametrize(("variable", "option"), [("ALDIS_SERVER", "add_server"), ("ALDIS_TOKEN", "add_token")])
def test_the_table_of_variables_names_the_commands_that_send_files(variable: str, option: str) -> None:
    assert f"{option}(parser)" in (ROOT / "src" / "aldis" / "cli" / "exchange.py").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{variable}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert "`send`, `receive`" in row


def test_the_settings_that_wait_for_a_restart_do() -> None:
    found = re.search(
        r"These wait for a restart:\n(.*?)\n\n`aldis", section("New settings without a restart"), re.DOTALL
    )
    assert found is not None
    for name in re.findall(r"`([a-z-]+?)(?:-\.\.\.)?`", found[1]):
        prefix = name.replace("-", "_")
        assert (meant := [each for each in SETTINGS if each == prefix or each.startswith(f"{prefix}_")]), name
        if f"`{name}-...`" in found[1]:
            assert RELOADABLE.isdisjoint(meant), name
        else:
            assert prefix not in RELOADABLE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_metric_that_a_page_names_is_one_of_ours(page: Path) -> None:
    named = set(re.findall(r"(?<![\w/.-])aldis_[a-z_]+(?![\w*]|\.\w)", page.read_text(encoding="utf-8")))
    assert sorted(name for name in named - NO_METRICS if not is_metric(name)) == []


def test_a_metric_that_there_is_not_is_found() -> None:
    assert is_metric("aldis_connections")
    assert is_metric("aldis_turn_restarts_total")
    assert is_metric("aldis_hook_seconds_bucket")
    assert not is_metric("aldis_turn_restarts")
    assert not is_metric("aldis_connections_total")
    assert not is_metric("aldis_nothing")
