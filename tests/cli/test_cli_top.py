"""The screen of `aldis top`, from what a server tells."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.cli.top import fitted, screen

FOUND: dict[str, Any] = {
    "version": "1",
    "uptime": 61,
    "users": 2,
    "connections": 3,
    "detached": 0,
    "relayed": 20,
    "sealedBytes": 4000,
    "messages": 30,
    "refused": 1,
    "throttled": 0,
    "waiting": 0,
    "bans": 0,
    "memory": None,
    "processorSeconds": 2.0,
    "messagesByType": {"relay": {"ok": 20, "not-online": 1}},
    "limits": [],
    "problems": [],
}


def test_problems_come_first_then_reached_limits_then_what_is_a_matter_of_course() -> None:
    before = {**FOUND, "relayed": 10, "processorSeconds": 1.0}
    quiet = screen(FOUND, before, 2.0, "", 80)
    assert quiet[0] == "Aldis 1, up for 1 m 1 s (q ends)"
    assert any(line.split()[-3:] == ["relayed", "20", "5.0/s"] for line in quiet)
    assert not any("limit" in line for line in quiet)
    limits = [{"limit": "connections_per_address", "effect": "connections refused", "count": 1200}]
    troubled = {**FOUND, "problems": ["The TURN server is down, and is started again."], "limits": limits}
    shown = screen(troubled, before, 2.0, "", 80)
    assert shown[1] == "! The TURN server is down, and is started again."
    limit, users, message = (
        next(number for number, line in enumerate(shown) if line.startswith(name))
        for name in ("connections_per_address  ", "users online", "message ")
    )
    assert shown[limit].split()[:2] == ["connections_per_address", "1,200"]
    assert 1 < limit < users < message
    assert max(map(len, screen(troubled, before, 2.0, "cannot be reached", 30))) <= 30


@pytest.mark.parametrize("nodes", [0, 3])
def test_a_terminal_of_80_by_24_shows_problems_limits_and_figures_however_many_kinds_of_messages(nodes: int) -> None:
    kinds = {f"kind-{number}": {"ok": number, "rate-limited": 1} for number in range(20)}
    limits = [{"limit": f"limit-{number}", "effect": "requests refused", "count": 12 - number} for number in range(12)]
    node: dict[str, Any] = {
        "host": "one.example",
        "users": 2,
        "connections": 3,
        "relayed": 20,
        "memory": 1,
        "processorSeconds": 2.0,
    }
    many = [{**node, "node": f"node-{number}"} for number in range(nodes)]
    problems = ["The TURN server is down, and is started again.", "The certificate expires in 3 days."]
    full: dict[str, Any] = {
        **FOUND,
        "messagesByType": kinds,
        "limits": limits,
        "problems": problems,
        "nodes": many,
        "node": "node-0",
    }
    shown = fitted(screen(full, full, 2.0, "", 80, 24), 24)
    assert len(shown) == 24
    text = "\n".join(shown)
    assert all(f"! {problem}" in text for problem in problems)
    assert "limit-0 " in text
    assert "more limits" in text
    assert "users online" in text
    assert "processor" in text
    assert all(each["node"] in text for each in many)
    tall = "\n".join(fitted(screen(full, full, 2.0, "", 80), 60))
    assert all(f"limit-{number} " in tall for number in range(12))
    assert "kind-19" in tall


def test_the_nodes_of_a_cluster_are_shown_below_their_sum() -> None:
    node = {"node": "0123456789ab", "host": "one.example", "users": 2, "connections": 3, "relayed": 20}
    node |= {"memory": 2**21, "processorSeconds": 2.0}
    other = {**node, "node": "ba9876543210", "host": "two.example", "memory": None, "users": 1}
    now = {**FOUND, "node": "ba9876543210", "nodes": [node, other]}
    before = {**FOUND, "nodes": [{**node, "relayed": 10, "processorSeconds": 1.0}]}
    shown = screen(now, before, 2.0, "", 120)
    (first,) = [line for line in shown if line.startswith("0123456789ab")]
    (second,) = [line for line in shown if line.startswith("ba9876543210")]
    assert first.split() == ["0123456789ab", "one.example", "2", "3", "5.0/s", "2", "MiB", "50%"]
    assert second.split() == ["ba9876543210", "two.example", "1", "3", "-", "unknown", "-", "*"]


def test_a_narrow_terminal_shows_figures_whole_or_not_at_all() -> None:
    many = {**FOUND, "relayed": 123_456_789, "problems": ["The TURN server is down, and is started again."]}
    before = {**many, "relayed": 0}
    wide = screen(many, before, 2.0, "", 80)
    assert any(line.split() == ["relayed", "123,456,789", "61,728,394.5/s"] for line in wide)
    for columns in range(30, 80):
        lines = screen(many, before, 2.0, "", columns)
        assert max(map(len, lines)) <= columns
        (relayed,) = [line.split() for line in lines if line.startswith("relayed")]
        assert relayed in (["relayed", "123,456,789"], ["relayed", "123,456,789", "61,728,394.5/s"])
        assert "The TURN server is down, and is started again." in " ".join(map(str.strip, lines))
    assert len(relayed) == 3


def test_a_low_terminal_says_how_much_it_does_not_show() -> None:
    lines = [str(number) for number in range(12)]
    assert fitted(lines, 12) == lines
    assert fitted(lines, 10) == [*lines[:9], "(3 more lines)"]
