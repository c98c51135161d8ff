"""What nodes tell each other about limits (aldis.hub.usage): when, how much, and what is left out."""

from __future__ import annotations

import pytest

from aldis.cluster.messages import Used, encode_message
from aldis.hub import usage as usage_module
from aldis.hub.usage import TOLD_EVERY, UNTOLD, WHOLE_EVERY, Key, OpenCounts, SharedUsage, Use


class Limits:
    """A usage with one limit of 100 a second; what is told at once, and what others have used of it."""

    def __init__(self, per_second: float = 100.0, burst: float = 1000.0) -> None:
        self.per_second, self.burst = per_second, burst
        self.told: list[Use] = []
        self.usage = SharedUsage(self.told.append)
        self.taken: list[tuple[Key, float, float]] = []
        self.usage.share("rate", lambda key, amount, now: self.taken.append((key, amount, now)), self)


def test_what_was_used_is_told_once_in_sum() -> None:
    usage = Limits().usage
    for _ in range(3):
        usage.count("rate", "alice", 20)
    usage.count("rate", b"net", 50)
    assert usage.is_due(5.0)
    assert usage.due(2, 5.0) == [Use("rate", "alice", 60), Use("rate", b"net", 50)]
    assert not usage.is_due(5.0 + TOLD_EVERY / 2)
    assert usage.is_due(5.0 + TOLD_EVERY)
    assert usage.due(2, 5.0 + TOLD_EVERY) == []


def test_all_nodes_together_leave_only_a_part_of_a_limit_untold() -> None:
    usage = Limits().usage
    usage.due(4, 0.0)
    usage.count("rate", "a little", 100 * UNTOLD / 4)
    usage.count("rate", "more", 100 * UNTOLD / 4 + 1)
    assert [use.key for use in usage.due(4, 1.0)] == ["more"]
    # Two seconds later, twice as much is little.
    usage.count("rate", "a little", 2 * 100 * UNTOLD / 4)
    assert usage.due(4, 3.0) == []


def test_a_part_of_a_burst_is_told_at_once() -> None:
    limits = Limits()
    usage = limits.usage
    usage.due(4, 0.0)
    usage.count("rate", "alice", 249)
    assert limits.told == []
    usage.count("rate", "alice", 2)
    assert limits.told == [Use("rate", "alice", 251)]
    usage.count("rate", "alice", 30)
    assert usage.due(4, 1.0) == [Use("rate", "alice", 30)]
    # Alone, nobody has to be told.
    usage.due(1, 2.0)
    usage.count("rate", "alice", 1000)
    assert len(limits.told) == 1


def test_a_limit_without_a_rate_is_told_in_full_and_what_was_given_back_too() -> None:
    usage = Limits(0.0).usage
    usage.count("rate", b"one", 1)
    usage.count("rate", b"none", 1)
    usage.count("rate", b"none", -1)
    usage.count("rate", b"back", -1)
    assert usage.due(2, 0.0) == [Use("rate", b"one", 1), Use("rate", b"back", -1)]


def test_a_node_alone_tells_nothing_and_keeps_nothing() -> None:
    usage = Limits().usage
    usage.count("rate", "alice", 1000)
    assert usage.due(1, 0.0) == []
    assert len(usage) == 0


def test_what_does_not_fit_is_told_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MAX_TOLD_BYTES", 3 * (usage_module.ENTRY_BYTES + 4))
    monkeypatch.setattr(usage_module, "MAX_WAITING", 5)
    usage = Limits().usage
    for number in range(10):
        usage.count("rate", f"u{number:03}", 100)
    assert [use.key for use in usage.due(2, 0.0)] == ["u000", "u001", "u002"]
    assert len(usage) == 5  # more than so much is not kept
    usage.count("rate", "u003", 1)
    first, *_ = usage.due(2, 1.0)
    assert first == Use("rate", "u003", 101)


def test_what_others_tell_is_taken_but_not_what_makes_no_sense() -> None:
    limits = Limits()
    limits.usage.heard([Use("rate", "alice", 5), Use("new", "alice", 5), Use("rate", "bob", float("nan"))], 7.0)
    assert limits.taken == [("alice", 5, 7.0)]


class Counts:
    def __init__(self) -> None:
        self.asked: list[tuple[int, bool]] = []
        self.counts: list[tuple[bytes, int]] = []

    def changed_counts(self, nodes: int, *, whole: bool) -> list[tuple[bytes, int]]:
        self.asked.append((nodes, whole))
        return self.counts

    def heard_counts(self, node: str, counts: OpenCounts) -> None:
        raise AssertionError

    def lost_node(self, node: str) -> None:
        raise AssertionError


def test_connections_are_told_when_they_change_and_as_a_whole_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MOST_COUNTS", 2)
    usage = Limits().usage
    assert usage.due_counts(2, 0.0) == []
    usage.connections = counts = Counts()
    assert usage.due_counts(2, 0.0) == [OpenCounts(True, ())]
    assert usage.due_counts(2, 1.0) == []
    counts.counts = [(b"a", 1), (b"b", 2), (b"c", 3)]
    assert usage.due_counts(2, 2.0) == [OpenCounts(False, ((b"a", 1), (b"b", 2))), OpenCounts(False, ((b"c", 3),))]
    assert usage.due_counts(2, WHOLE_EVERY)[0].whole
    assert [whole for _, whole in counts.asked] == [True, False, False, True]
    usage.tell_all()
    assert usage.due_counts(2, WHOLE_EVERY + 1.0)[0].whole
    assert usage.due_counts(1, 10 * WHOLE_EVERY) == []
    assert counts.asked[-1] == (1, False)


def test_a_message_has_no_more_bytes_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MAX_TOLD_BYTES", 4000)
    for key in ("\U0001f4f1" * 20, "a" * 100, b"12345678"):
        usage = SharedUsage(lambda use: None)
        usage.share("failed-proofs-per-address", lambda key, amount, now: None, Limits(0.0))
        for number in range(200):
            mine: Key = key + str(number) if isinstance(key, str) else key + b"%d" % number
            usage.count("failed-proofs-per-address", mine, 12345.5)
        told = usage.due(2, 0.0)
        assert len(usage) == 200 - len(told) > 0
        # The last one may go beyond it.
        assert len(encode_message("0123456789ab", Used(tuple(told)))) <= 4000 + 200
