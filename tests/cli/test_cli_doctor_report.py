"""The report of `aldis doctor`: what its last line says."""

from __future__ import annotations

import pytest

from aldis.cli.check import Check, Mark
from aldis.cli.doctor import PlainReport

OK = Check("address", Mark.OK, "127.0.0.1")
NO_ADVICE = Check("registration", Mark.FAIL, "the server refuses the name: banned")
ADVISED = Check("port", Mark.FAIL, "connection refused", "Check that the server runs.")
WARNING = Check("wrtc candidates", Mark.WARN, "no relay")


@pytest.mark.parametrize(
    ("checks", "last"),
    [
        ([OK], "All is well."),
        ([OK, WARNING], "It works, but not as well as it could."),
        ([OK, NO_ADVICE], "It does not work: registration failed."),
        ([OK, WARNING, NO_ADVICE], "It does not work: registration failed."),
        ([ADVISED], "It does not work: port failed. One thing to look at, marked with an arrow."),
        ([ADVISED, NO_ADVICE, NO_ADVICE], "It does not work: port and registration failed. One thing to look at, "
         "marked with an arrow."),
    ],
)  # fmt: skip
def test_the_last_line_says_what_failed(checks: list[Check], last: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainReport("ws://localhost:8080/ws")
    for check in checks:
        report.add("Server", check)
    report.end()
    *_, summary = capsys.readouterr().out.split("\n\n")
    assert " ".join(summary.split()) == last
    assert max(map(len, summary.splitlines())) <= 80


def test_a_narrow_terminal_has_lines_of_whole_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    report = PlainReport("ws://localhost:8080/ws")
    text = "these are the words of a finding, which are more than there is room for on a line"
    report.add("Server", Check("wrtc candidates", Mark.FAIL, text, text))
    report.end()
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 40
    assert " ".join(shown.replace("-> ", "").split()).count(text) == 2
