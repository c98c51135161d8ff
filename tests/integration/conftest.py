"""What tests of several programs share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.servers import QuickServer


@pytest.fixture
async def quick_server(tmp_path: Path) -> AsyncIterator[QuickServer]:
    """For tests that look at its clients."""
    async with QuickServer(tmp_path) as running:
        yield running
