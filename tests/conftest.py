"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coverage import Coverage
from hypothesis import settings

from support.measured import is_measured

# No deadline for a single example: on a busy machine of two cores it would measure the machine. The rest is as
# Hypothesis has it: random on a developer's machine, the same examples every time where CI is set.
settings.register_profile("aldis", settings.default, deadline=None)
settings.load_profile("aldis")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With `--cov`, stop measuring while a test runs that is not to be measured, its fixtures included."""
    measuring = Coverage.current()
    if measuring is None or is_measured(item.path):
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()
