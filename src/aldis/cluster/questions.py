"""Questions of one node to all, and their answers.

Rules:

* A question has an answer of each node that is alive, or names the nodes that have not answered in `ANSWER_SECONDS`:
  those that hang, are cut off, or are of a release that does not know the question.
* An answer that comes later, or twice, changes nothing. A node that is lost meanwhile is not waited for.

It knows no Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeAlias

from aldis.cluster.messages import Content

# Far longer than an answer takes; an operator waits for it.
ANSWER_SECONDS: Final = 2.0

Responder: TypeAlias = Callable[[str, Content], Content | None]
"""Answers a question about a subject; None when it does not know the subject, and then no answer goes out."""


class NodeAnswers(NamedTuple):
    """The answers by node, the nodes that have not answered, and the id under which this one has answered."""

    answers: dict[str, Content]
    silent: tuple[str, ...] = ()
    here: str = ""


class Asking:
    """One question that is open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._here = ""
        self._answers: dict[str, Content] = {}
        self._missing: set[str] | None = None
        self._changed = asyncio.Event()

    def expect(self, nodes: frozenset[str]) -> None:
        """These nodes have been asked."""
        self._missing = set(nodes - self._answers.keys())

    def answered_here(self, node: str, content: Content) -> None:
        """This node has answered. It may have another id when the others have."""
        self._here = node
        self.answered(node, content)

    def answered(self, node: str, content: Content) -> None:
        """A node has answered."""
        if node not in self._answers:
            self._answers[node] = content
            self.lost(node)

    def lost(self, node: str) -> None:
        """A node is no more, or has answered: do not wait for it."""
        if self._missing is not None:
            self._missing.discard(node)
        self._changed.set()

    async def answers(self, *, wait: bool = True) -> NodeAnswers:
        """The answers of those that were asked: all, unless a node is too slow; without `wait` those that are there."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS if wait else 0):
                while self._missing:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return NodeAnswers(dict(self._answers), tuple(sorted(self._missing or ())), self._here)


class Questions:
    """The open questions of one node."""

    def __init__(self) -> None:
        self._open: dict[int, Asking] = {}
        self._number = 0

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        """A question that is open until the end of this block."""
        self._number += 1
        asking = self._open[self._number] = Asking(self._number)
        try:
            yield asking
        finally:
            del self._open[asking.number]

    def answered(self, node: str, number: int, content: Content) -> None:
        """A node has answered."""
        asking = self._open.get(number)
        if asking is not None:
            asking.answered(node, content)

    def lost(self, node: str) -> None:
        """A node is no more."""
        for asking in self._open.values():
            asking.lost(node)
