"""The backlog: a queue that costs the bytes that are in it."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.backlog import Backlog


@given(st.lists(st.one_of(st.none(), st.text(max_size=20), st.just("x" * 70_000)), max_size=60))
def test_texts_come_out_as_they_went_in(steps: list[str | None]) -> None:
    backlog, model = Backlog(), deque[str]()
    for step in steps:
        if step is None:
            assert backlog.pop() == (model.popleft() if model else None)
        else:
            backlog.append(step)
            model.append(step)
        assert len(backlog) == len(model)
        assert backlog.size == sum(4 + len(text.encode()) for text in model)
        assert len(backlog._buffer) <= 2 * backlog.size, "what is over is let go of"
    while model:
        assert backlog.pop() == model.popleft()
    assert backlog.pop() is None
    assert not backlog._buffer
