"""Servers of a cluster fail while clients exchange numbers: a short run, and what fails one."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from benchmarks.cluster.events import EVENTS, OF_PACKETS, OF_WORKERS
from benchmarks.cluster.gate import Gate
from benchmarks.cluster.ledger import ACK, UNREAD, Arrived, LostSession, Sent, judge, longest_gap, slowest

from support.benchmark_runs import ROOT, passes
from support.patience import PATIENCE
from support.ports import free_port


def sent(number: int, begun: float, outcome: str = ACK, attempt: int = 1) -> Sent:
    return Sent(1, 2, number, attempt, begun, begun + 0.1, outcome, 1)


def arrived(number: int, at: float, attempt: int = 1, session: int = 1) -> Arrived:
    return Arrived(2, 1, number, attempt, at, session)


def test_what_was_acknowledged_has_to_arrive_once_and_in_order() -> None:
    good = judge([sent(1, 10), sent(2, 11)], [arrived(1, 10.1), arrived(2, 11.1)], [])
    assert (good.faults, good.absent) == ([], [])
    lost = judge([sent(1, 10), sent(2, 11)], [arrived(2, 11.1)], [])
    assert (lost.lost, lost.absent) == (1, [(1, 2, 1)])
    assert "message 1 of 1 to 2 (attempt 1) was acknowledged" in lost.faults[0]
    doubled = judge([sent(1, 10)], [arrived(1, 10.1), arrived(1, 10.2)], [])
    assert (doubled.doubled, doubled.absent) == (1, [])
    strange = judge([sent(1, 10)], [arrived(1, 10.1), arrived(7, 10.2)], [])
    assert "never sent" in strange.faults[0]
    late = judge([sent(1, 10), sent(2, 11)], [arrived(2, 11.1), arrived(1, 11.2)], [])
    assert late.disordered == 1
    assert not judge([sent(1, 10), sent(2, 11)], [arrived(2, 11.1), arrived(1, 11.2, session=2)], []).faults


def test_what_was_sent_again_after_an_unknown_outcome_may_come_by_both_attempts() -> None:
    attempts = [sent(1, 10, "ConnectionLost"), sent(1, 12, attempt=2)]
    for came in ([arrived(1, 12.1, 2)], [arrived(1, 10.1), arrived(1, 12.1, 2)]):
        assert not judge(attempts, came, []).faults
    assert judge(attempts, [arrived(1, 10.1)], []).lost == 1
    assert judge(attempts, [arrived(1, 10.1)], []).absent == [], "a store needs one of them"


def test_what_was_handed_to_a_connection_that_broke_may_be_unread() -> None:
    excused = judge([sent(1, 10)], [], [LostSession(2, 10.5)])
    assert (excused.faults, excused.excused, excused.absent) == ([], 1, [(1, 2, 1)])
    for lost in (LostSession(2, 10 + UNREAD + 1), LostSession(2, 5), LostSession(3, 10.5)):
        assert judge([sent(1, 10)], [], [lost]).lost == 1
    # Who left when no server could hear it may come back until its resume window is over.
    assert judge([sent(1, 10)], [], [LostSession(2, 5, 30)]).excused == 1


def test_the_longest_gap_and_the_slowest_message_are_told() -> None:
    assert longest_gap([arrived(1, 11), arrived(2, 14), arrived(3, 99)], 10, 15) == 3
    attempts = [sent(1, 10, "over-capacity"), sent(1, 12, attempt=2)]
    assert slowest([*attempts, sent(2, 11)], [arrived(1, 12.5, 2), arrived(2, 11.1)]) == (2.5, attempts)
    assert slowest([], []) == (0.0, [])


def test_each_event_is_there_to_be_chosen() -> None:
    servers = {"kill", "stop", "freeze", "rolling", "two", "clients"}
    ways = {"partition-5", "partition-60", "reset", "slow", "slow-2"}
    redis = {"master", "pause", "flush", "memory", "disk", "rights", "login"}
    assert set(EVENTS) == {*servers, *ways, *redis, "no-answers", "no-questions", "loss", *OF_WORKERS}
    assert set(EVENTS) > OF_PACKETS | OF_WORKERS


async def test_a_closed_gate_forwards_nothing_until_it_is_open_and_a_cut_resets() -> None:
    echoes: list[asyncio.Task[None] | None] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoes.append(asyncio.current_task())
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    gate = Gate(free_port(), target, {b"6379": b"9736"})
    await gate.open()
    async with server, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"port 6379")
        assert await reader.readexactly(9) == b"port 9736"
        gate.block()
        writer.write(b"held")
        new, asking = await asyncio.open_connection("127.0.0.1", gate.port)
        asking.write(b"new")
        waiting = [asyncio.ensure_future(reader.readexactly(4)), asyncio.ensure_future(new.readexactly(3))]
        other, there = await asyncio.open_connection("127.0.0.1", target)  # time enough for an echo
        there.write(b"x")
        assert await other.readexactly(1) == b"x"
        assert not any(each.done() for each in waiting)
        gate.release()
        assert await asyncio.gather(*waiting) == [b"held", b"new"]
        gate.late = 0.05
        began = asyncio.get_running_loop().time()
        writer.write(b"late")
        assert await reader.readexactly(4) == b"late"
        assert asyncio.get_running_loop().time() - began >= 0.1  # there and back
        gate.cut()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        await gate.close()
        there.close()
        await asyncio.gather(*filter(None, echoes))


@pytest.mark.timeout(6 * PATIENCE)
@pytest.mark.parametrize(
    ("kind", "events"), [([], ["kill", "pause", "flush", "rolling"]), (["--cluster"], ["master", "pause"])], ids=str
)
async def test_no_message_is_lost_and_presence_is_right_while_servers_and_redis_fail(
    tmp_path: Path, kind: list[str], events: list[str]
) -> None:
    figures = tmp_path / "figures.json"
    # Ten seconds are promised; a machine that runs tests beside this one may be busy for longer.
    words = ["--clients", "60", "--rate", "60", "--hold", "2", "--patience", str(PATIENCE), "--json", str(figures)]
    for event in events:
        words += ["--event", event]
    await passes("benchmarks.cluster.chaos", *kind, *words)
    outcomes = json.loads(figures.read_text())
    assert [each["event"] for each in outcomes] == events
    for each in outcomes:
        assert each["messages"] > 60
        assert each["outcomes"][ACK] >= each["messages"]
        assert each["right"] <= PATIENCE


@pytest.mark.timeout(6 * PATIENCE)
async def test_a_cluster_is_upgraded_while_clients_exchange_numbers(tmp_path: Path) -> None:
    """From a copy of this build: a plain copy of the project has no other one."""
    figures, packages = tmp_path / "figures.json", tmp_path / "packages"
    shutil.copytree(ROOT / "src" / "aldis", packages / "aldis", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["--clients", "60", "--rate", "60", "--hold", "2", "--patience", str(PATIENCE), "--json", str(figures)]
    await passes("benchmarks.cluster.upgrade", "--packages", str(packages), "--steps", "2", *words)
    outcomes = json.loads(figures.read_text())
    assert [each["event"] for each in outcomes] == ["first-new", "side-by-side"]
    assert all(each["messages"] > 60 for each in outcomes)
