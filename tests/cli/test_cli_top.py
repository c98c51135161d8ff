"""The screen of `aldis top`, from what a server tells."""

from __future__ import annotations

from typing import Any

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


def test_problems_come_first_and_reached_limits_last() -> None:
    before = {**FOUND, "relayed": 10, "processorSeconds": 1.0}
    quiet = screen(FOUND, before, 2.0, "", 80)
    assert quiet[0] == "Aldis 1, up for 1 m 1 s (q ends)"
    assert any(line.startswith("relayed") and line.endswith("5.0/s") for line in quiet)
    assert not any("limit" in line for line in quiet)
    limits = [{"limit": "connections_per_address", "effect": "connections refused", "count": 1200}]
    troubled = {**FOUND, "problems": ["The TURN server is down, and is started again."], "limits": limits}
    shown = screen(troubled, before, 2.0, "", 80)
    assert shown[1] == "! The TURN server is down, and is started again."
    assert shown[-1].split()[:2] == ["connections_per_address", "1,200"]
    assert max(map(len, screen(troubled, before, 2.0, "cannot be reached", 30))) <= 30


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
