"""The outbox and the inbox against outbox.json and inbox.json, which the browser's must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import UsageError
from aldis.protocol.channel import Content, StreamPosition
from aldis.store.messages.inbox import Inbox, InboxSnapshot
from aldis.store.messages.outbox import Outbox, OutboxSnapshot
from support.queue_scripts import run_inbox, run_outbox


def scripts(name: str) -> pytest.MarkDecorator:
    read = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return pytest.mark.parametrize("script", [pytest.param(each, id=each["name"]) for each in read["scripts"]])


@scripts("outbox")
def test_what_is_on_its_way_to_a_peer(script: dict[str, Any]) -> None:
    outbox = Outbox("ours")
    for step, expected in script["steps"]:
        outbox, came = run_outbox(outbox, step)
        assert came == expected, step


@scripts("inbox")
def test_what_comes_from_a_peer(script: dict[str, Any]) -> None:
    inbox = Inbox()
    for step, expected in script["steps"]:
        inbox, came = run_inbox(inbox, step)
        assert came == expected, step


@pytest.mark.parametrize(("acknowledged", "sent"), [(-1, 0), (3, 2), (3, 5)])
def test_a_snapshot_of_an_outbox_that_cannot_be_is_refused(acknowledged: int, sent: int) -> None:
    with pytest.raises(UsageError):
        Outbox.restore(OutboxSnapshot("s", acknowledged, sent, ((Content.TEXT, b"a"),)))


@pytest.mark.parametrize("streams", [[("s", 1), ("s", 2)], [("s", -1)], [("", 1)], [(str(n), 1) for n in range(17)]])
def test_a_snapshot_of_an_inbox_that_cannot_be_is_refused(streams: list[tuple[str, int]]) -> None:
    with pytest.raises(UsageError):
        Inbox.restore(InboxSnapshot(tuple(StreamPosition(*each) for each in streams)))
