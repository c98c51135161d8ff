"""Who has answered a question to all nodes, and who is not waited for (aldis.cluster.questions)."""

from __future__ import annotations

import asyncio

import pytest

from aldis.cluster import questions
from aldis.cluster.questions import NodeAnswers, Questions

ONE, TWO = {"sessions": 1}, {"sessions": 2}


async def test_all_answers_are_waited_for() -> None:
    asked = Questions()
    with asked.asking() as asking:
        asked.answered("n1", asking.number, ONE)  # before it is known who is asked
        asking.expect(frozenset({"n1", "n2"}))
        answers = asyncio.ensure_future(asking.answers())
        await asyncio.sleep(0)
        assert not answers.done()
        asked.answered("n2", asking.number, TWO)
        assert await answers == NodeAnswers({"n1": ONE, "n2": TWO})


async def test_a_second_answer_and_one_that_is_late_change_nothing() -> None:
    asked = Questions()
    with asked.asking() as asking:
        asking.expect(frozenset({"n1"}))
        asked.answered("n1", asking.number, ONE)
        asked.answered("n1", asking.number, TWO)
        asked.answered("n1", asking.number + 1, TWO)
        assert await asking.answers() == NodeAnswers({"n1": ONE})
    asked.answered("n1", asking.number, TWO)


async def test_a_node_that_joins_meanwhile_is_heard_if_it_answers() -> None:
    asked = Questions()
    with asked.asking() as asking:
        asking.expect(frozenset({"n1"}))
        asked.answered("new", asking.number, TWO)
        asked.answered("n1", asking.number, ONE)
        assert (await asking.answers()).answers == {"new": TWO, "n1": ONE}


async def test_a_node_that_is_lost_meanwhile_is_not_waited_for() -> None:
    asked = Questions()
    with asked.asking() as asking:
        asking.expect(frozenset({"n1", "n2"}))
        asked.answered("n1", asking.number, ONE)
        answers = asyncio.ensure_future(asking.answers())
        await asyncio.sleep(0)
        asked.lost("n2")
        assert await answers == NodeAnswers({"n1": ONE})


async def test_nodes_that_do_not_answer_in_time_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 0.01)
    asked = Questions()
    with asked.asking() as asking:
        asking.expect(frozenset({"n3", "n1", "n2"}))
        asked.answered("n1", asking.number, ONE)
        assert await asking.answers() == NodeAnswers({"n1": ONE}, ("n2", "n3"))
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 1e9)
    with asked.asking() as asking:
        asking.expect(frozenset({"n1"}))
        assert await asking.answers(wait=False) == NodeAnswers({}, ("n1",))
