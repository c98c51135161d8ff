"""What tests of several programs share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.server_forks import ServerTemplate
from support.servers import QuickServer


@pytest.fixture(scope="session")
def template() -> Iterator[ServerTemplate]:
    with ServerTemplate() as template:
        yield template


@pytest.fixture
async def quick_server(tmp_path: Path, template: ServerTemplate) -> AsyncIterator[QuickServer]:
    """For tests that look at its clients."""
    async with QuickServer(tmp_path, template) as running:
        yield running
