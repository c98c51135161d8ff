"""The log: one line an event, whatever is in it; faults are told once a second, and all counted."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable

import pytest

from aldis.server.logs import RECOVERIES, FaultLog, OutageLog, configure, get_logger, moment

log = get_logger("aldis.test")
NASTY = 'x\n{"event":"forged"}\r\x1b[2J\u2028\u202e\ud800'


pytestmark = pytest.mark.usefixtures("restored_logging")


def test_a_moment_is_written_as_the_time_of_a_line_is() -> None:
    assert moment(1_795_908_979.5) == "2026-11-28T23:36:19Z"
    assert moment(None) is None


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    log.info("served", port=8080, text=NASTY)
    log.debug("not of interest")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["port"]) == ("served", "info", 8080)
    assert "\n" not in entry["text"]
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_from_outside_begins_a_new_line_or_steers_a_terminal(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure(log_format, "debug")  # type: ignore[arg-type]
    log.warning("refused", text=NASTY)
    logging.getLogger("other").warning("text: %s", NASTY)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_shown_with_where_it_comes_from(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure(log_format, "info")  # type: ignore[arg-type]

    def broken(turn_secret: str) -> None:
        raise ValueError("broken")

    try:
        broken("s3" + "cret")
    except ValueError as error:
        FaultLog(log)(error)
    text = capsys.readouterr().err
    assert "test_logs.py" in text
    assert "broken" in text
    assert "s3cret" not in text


def test_warnings_of_python_are_lines_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning" in json.loads(capsys.readouterr().err.splitlines()[0])["event"]


def test_faults_are_told_once_a_second_and_all_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    faults = FaultLog(log, clock=lambda: now)
    for _ in range(5):
        faults(RuntimeError("broken"))
    now = 101.5
    faults(RuntimeError("broken"))
    assert faults.count == 6
    assert [record.unlogged_before for record in caplog.records] == [0, 4]  # type: ignore[attr-defined]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The last word of each line that the log has got since this was last asked."""
    caplog.set_level(logging.INFO)

    def words() -> list[str]:
        found = [record.getMessage().rpartition(" ")[2] for record in caplog.records]
        caplog.clear()
        return found

    return words


def test_an_outage_that_lasts_is_told_once_in_a_while_with_the_number_of_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    outage = OutageLog(log, "the disk", 60.0, clock=lambda: now)
    for moment_of_failure in (100.0, 101.0, 159.0, 161.0, 162.0):
        now = moment_of_failure
        outage.failed(OSError("full"))
    assert [record.getMessage() for record in caplog.records] == ["the disk fails"] * 2
    assert caplog.records[-1].failures_before == 2  # type: ignore[attr-defined]


def test_a_new_outage_is_told_at_once_however_short_ago_the_last_one_was(told: Callable[[], list[str]]) -> None:
    now = 100.0
    outage = OutageLog(log, "the disk", 60.0, clock=lambda: now)
    outage.failed(OSError("full"))
    outage.works()
    outage.works()
    assert told() == ["fails", "again"]
    now = 101.0
    outage.failed(OSError("full"))
    outage.failed(OSError("full"))
    assert told() == ["fails"]


def test_of_what_comes_and_goes_the_last_word_is_that_it_fails_until_it_works_for_a_while(
    told: Callable[[], list[str]],
) -> None:
    now = 100.0
    outage = OutageLog(log, "the disk", 60.0, clock=lambda: now)
    for _ in range(100):
        outage.failed(OSError("full"))
        outage.works()
    assert told() == ["fails", "again"] * RECOVERIES + ["fails"]
    now = 159.0
    outage.works()
    assert told() == []
    now = 161.0
    outage.works()
    assert told() == ["again"]
    for _ in range(3600):
        now += 1.0
        outage.failed(OSError("full"))
        outage.works()
    assert len(told()) <= 3 * 60
