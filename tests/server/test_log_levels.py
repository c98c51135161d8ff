"""How much is logged, in all and by area."""

from __future__ import annotations

import json
import logging

import pytest

from aldis.errors import UsageError
from aldis.server.log_levels import AREAS, apply_levels, current_levels, read_levels
from aldis.server.logs import configure, get_logger

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("info", "info"),
        ("INFO , TLS = debug", "info,tls=debug"),
        ("turn=error,hub=debug", "hub=debug,turn=error"),
        ("hub=debug,warning", "warning,hub=debug"),
    ],
)
def test_levels_are_read_and_shown(text: str, shown: str) -> None:
    assert str(read_levels(text)) == shown
    assert read_levels(shown) == read_levels(text)


@pytest.mark.parametrize("text", ["", "loud", "info,warning", "tls=loud", "hub", "moon=debug", "hub=info,hub=info"])
def test_levels_that_cannot_be_read_say_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError, match="one of debug, info, warning, error"):
        read_levels(text)


def test_an_area_has_its_own_level_until_all_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "warning,hub=debug")

    def heard() -> list[str]:
        for area in AREAS:
            get_logger(f"aldis.{area}").info("told")
        logging.getLogger("library").info("told")
        return [json.loads(line)["area"] for line in capsys.readouterr().err.splitlines()]

    assert heard() == ["hub"]
    apply_levels(read_levels("tls=info"))  # the others stay
    assert heard() == ["hub", "tls"]
    assert str(current_levels()) == "warning,hub=debug,tls=info"
    apply_levels(read_levels("error,turn=info"))
    assert heard() == ["turn"]
    assert str(current_levels()) == "error,turn=info"
    apply_levels(read_levels("error"))
    assert heard() == []
