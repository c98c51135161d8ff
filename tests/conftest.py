"""What holds for all tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import settings

from support.fast import TESTS, NoEngines, is_fast
from support.measured import is_measured

# No deadline for a single example: on a busy machine of two cores it would measure the machine. The rest is as
# Hypothesis has it: random on a developer's machine, the same examples every time where CI is set.
settings.register_profile("aldis", settings.default, deadline=None)
settings.register_profile("fast", settings.get_profile("aldis"), max_examples=20)
settings.load_profile("aldis")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`."""
    parser.addoption("--fast", action="store_true", help="leave out what support/fast.py lists")


def pytest_configure(config: pytest.Config) -> None:
    """With `--fast`, let no test load an engine, and try fewer examples of each property."""
    if config.getoption("--fast"):
        settings.load_profile("fast")
        sys.meta_path.insert(0, NoEngines)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--fast`, do not even read the files of the other tests."""
    slow = collection_path.is_relative_to(TESTS) and not is_fast(collection_path)
    return True if slow and config.getoption("--fast") else None


def pytest_collection_finish() -> None:
    """Hide all tests and modules from the garbage collector.

    Some hundred tests collect garbage to see what they have left behind. Each time, that looked through all there is
    in the process: a third of a second.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With `--cov`, stop measuring while a test runs that is not to be measured, its fixtures included."""
    if is_measured(item.path):
        return (yield)
    # A test process of xdist has two: pytest-cov takes it for the one that starts the others at first. When the second
    # stops, the first goes on.
    stopped = []
    while (measuring := Coverage.current()) is not None:
        measuring.stop()
        stopped.append(measuring)
    try:
        return (yield)
    finally:
        for measuring in reversed(stopped):
            measuring.start()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """For texts that are deeper than calls can be: what earlier tests have left is not to be collected at the bottom of
    one, where nothing can be called any more, not even what would free it."""
    gc.disable()
    yield
    gc.enable()
