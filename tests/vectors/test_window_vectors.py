"""The arithmetic of files against window.json, which the browser's must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import ProtocolViolation
from aldis.store.files.window import AT_ONCE, CONFIRM, MAX_OPEN, WINDOW, ReceiveWindow, SendWindow, share
from aldis.store.messages.control import MAX_PIECE

VECTORS = json.loads((Path(__file__).parent / "window.json").read_text(encoding="utf-8"))


def scripts(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("script", [pytest.param(each, id=each["name"]) for each in VECTORS[kind]])


def test_the_numbers_that_both_sides_count_on() -> None:
    expected = [VECTORS[name] for name in ("window", "confirm", "at_once", "max_open", "piece")]
    assert expected == [WINDOW, CONFIRM, AT_ONCE, MAX_OPEN, MAX_PIECE]


def test_files_that_run_share_the_window() -> None:
    for position, running, size in VECTORS["share"]:
        assert share(position, running) == size


@scripts("outgoing")
def test_a_file_that_is_sent(script: dict[str, Any]) -> None:
    file = SendWindow(script["size"], script.get("start", 0))
    for step in script["steps"]:
        match step:
            case {"room": window, "is": room}:
                assert file.room(window) == room, step
            case {"sent": size}:
                file.sent += size
            case {"received": count, "whole": whole}:
                assert file.received(count) is whole, step
            case {"received": count, "violates": True}:
                with pytest.raises(ProtocolViolation):
                    file.received(count)
            case _:
                pytest.fail(f"an unknown step: {step}")


@scripts("incoming")
def test_a_file_that_is_received(script: dict[str, Any]) -> None:
    file = ReceiveWindow(script["size"], script.get("start", 0))
    for step in script["steps"]:
        match step:
            case {"arrive": [offset, size], "violates": True}:
                with pytest.raises(ProtocolViolation):
                    file.arrive(offset, size)
            case {"arrive": [offset, size]}:
                assert file.arrive(offset, size) is not step.get("skipped", False), step
                assert file.restarted is step.get("restarted", False), step
                file.restarted = False
            case {"ends": size}:
                file.ends(size)
            case {"wrote": size, "confirm": due}:
                assert file.wrote(size) == due, step
            case _:
                pytest.fail(f"an unknown step: {step}")
