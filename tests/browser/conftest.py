"""What tests in a browser share: one Chromium for each test process, a server and people for each test.

Playwright belongs to the event loop that started it. So these tests, and their fixtures, run on one loop that lives as
long as the test process; all others have a loop each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error

from support.browser import Arrive, Person, running_chromium
from support.server_process import ServerProcess

_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with running_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server as `aldis serve` runs it, on a port of its own; its log is clean at the end."""
    async with ServerProcess(tmp_path) as server:
        yield server
        if server.process.returncode is None:
            assert await server.stop() == 0
        server.assert_clean_log()


@pytest_asyncio.fixture(loop_scope="session")
async def arrive(
    request: pytest.FixtureRequest, chromium: Browser, server: ServerProcess, tmp_path: Path
) -> AsyncIterator[Arrive]:
    """`person = await arrive()`: somebody with a browser of their own and an empty window.

    At the end they leave, before the server does. Complaints of any of them fail the test, and a test that fails has
    screenshots in its folder and the consoles in its output.
    """
    people: list[Person] = []

    async def arrive() -> Person:
        people.append(await Person.arrive(chromium, f"http://localhost:{server.port}"))
        return people[-1]

    yield arrive
    complaints = [f"{number}: {text}" for number, person in enumerate(people) for text in person.complaints]
    failed = request.node.stash.get(_FAILED, False) or bool(complaints)
    for number, person in enumerate(people):
        if failed:
            print(f"--- the console of person {number} ---", *person.said, sep="\n")
            try:
                print(*await person.screenshots(tmp_path, f"person-{number}"), sep="\n")
            except Error as error:
                print(f"no screenshot: {error}")
        await person.leave()
    assert not complaints, "\n".join(complaints)
