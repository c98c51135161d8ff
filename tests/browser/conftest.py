"""What tests in a browser share: one browser of each kind for each test process, a server and people for each test.

Playwright belongs to the event loop that started it. So these tests, and their fixtures, run on one loop that lives as
long as the test process; all others have a loop each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error

from support.browser import BROWSERS, Arrive, Browsers, Person
from support.server_process import ServerProcess

# A test of everything that is not the same in every browser. The rest runs in Chromium alone, which has better tools.
IN_BOTH = pytest.mark.parametrize("arrive", BROWSERS, indirect=True)
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    async with Browsers(tmp_path_factory.mktemp("downloads")) as browsers:
        yield browsers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(browsers: Browsers) -> Browser:
    return await browsers.get("chromium")


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
    request: pytest.FixtureRequest, browsers: Browsers, server: ServerProcess, tmp_path: Path
) -> AsyncIterator[Arrive]:
    """`person = await arrive()`: somebody with a browser of their own and an empty window.

    The browser is the one that is asked for; else that of the test's parameter, where `arrive` has one (`IN_BOTH`);
    else Chromium.

    At the end they leave, before the server does. Complaints of any of them fail the test, and a test that fails has
    screenshots in its folder and the consoles in its output.
    """
    people: list[Person] = []
    usual = getattr(request, "param", "chromium")

    async def arrive(browser: str | None = None) -> Person:
        there = await browsers.get(browser or usual)
        base = f"http://localhost:{server.port}"
        people.append(await Person.arrive(there, base, downloads=browsers.downloads))
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
