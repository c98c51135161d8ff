"""What `aldis doctor` says of the ways to peers in other networks."""

from __future__ import annotations

import pytest

from aldis.cli.check import Mark
from aldis.cli.exits import ExitCode
from aldis.cli.ways import RelayFinding, Ways
from aldis.peer.selftest import Nat, NatReport

WORKS, BROKEN = {"turn:t.example": True}, {"turn:t.example": False}


def finding(relay: bool) -> RelayFinding:
    return RelayFinding(offered=relay, works=relay)


def marks(nat: Nat, turn: dict[str, bool], relay: bool) -> tuple[list[Mark], int, bool]:
    """The marks of direct, TURN and relay; the exit code; and whether all is well."""
    checks = list(Ways(NatReport(nat, "192.0.2.1"), turn, finding(relay)).checks())
    assert [check.name for check in checks] == ["direct", "TURN", "relay"]
    code = next((check.code for check in checks if check.code), ExitCode.OK)
    assert all((check.mark is Mark.FAIL) == bool(check.code) for check in checks)
    found = [check.mark for check in checks]
    return found, code, set(found) <= {Mark.OK, Mark.NOTE}


OK, NOTE, WARN, FAIL = Mark.OK, Mark.NOTE, Mark.WARN, Mark.FAIL


@pytest.mark.parametrize(
    ("nat", "turn", "relay", "expected", "code"),
    [
        (Nat.NONE, {}, False, [OK, NOTE, NOTE], 0),
        (Nat.EASY, {}, True, [OK, NOTE, OK], 0),
        (Nat.EASY, {}, False, [OK, NOTE, WARN], 0),
        (Nat.EASY, WORKS, False, [OK, OK, NOTE], 0),
        (Nat.SYMMETRIC, {}, False, [FAIL, NOTE, WARN], 7),
        (Nat.SYMMETRIC, BROKEN, False, [FAIL, WARN, WARN], 7),
        (Nat.SYMMETRIC, {}, True, [NOTE, NOTE, OK], 0),
        (Nat.SYMMETRIC, WORKS, False, [NOTE, OK, NOTE], 0),
        (Nat.SYMMETRIC, WORKS | {"turn:second.example": False}, True, [NOTE, OK, OK], 0),
        (Nat.UNSURE, {}, False, [WARN, NOTE, WARN], 0),
        (Nat.UNSURE, {}, True, [NOTE, NOTE, OK], 0),
        (Nat.BLOCKED, {}, False, [WARN, NOTE, WARN], 0),
        (Nat.BLOCKED, WORKS, False, [NOTE, OK, NOTE], 0),
        (Nat.UNKNOWN, {}, False, [WARN, NOTE, WARN], 0),
        (Nat.UNKNOWN, {}, True, [NOTE, NOTE, OK], 0),
    ],
)
def test_a_way_that_does_not_work_is_a_fault_only_without_another(
    nat: Nat, turn: dict[str, bool], relay: bool, expected: list[Mark], code: int
) -> None:
    found = marks(nat, turn, relay)
    assert found[:2] == (expected, code)


@pytest.mark.parametrize("nat", [Nat.SYMMETRIC, Nat.UNSURE, Nat.BLOCKED, Nat.UNKNOWN])
@pytest.mark.parametrize("turn", [{}, BROKEN])
def test_without_any_way_to_others_it_is_never_said_that_all_is_well(nat: Nat, turn: dict[str, bool]) -> None:
    ways = list(Ways(NatReport(nat), turn, relay=finding(False)).checks())
    assert not marks(nat, turn, relay=False)[2]
    assert "TURN server" in ways[0].advice
    assert "relay" in ways[0].advice


def test_a_relay_that_is_offered_and_does_not_work_is_no_way_to_others() -> None:
    broken = RelayFinding(offered=True, reason="nothing came back in 10 s")
    direct, _, relay = Ways(NatReport(Nat.SYMMETRIC), {}, broken).checks()
    assert direct.mark is Mark.FAIL
    assert relay.mark is Mark.WARN
    assert relay.text == "offered, and does not work: nothing came back in 10 s"
