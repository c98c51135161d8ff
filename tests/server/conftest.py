"""Fixtures of these tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from aldis.server.log_levels import AREAS


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """What a test configures ends with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for area in AREAS:
        logging.getLogger(f"aldis.{area}").setLevel(logging.NOTSET)
