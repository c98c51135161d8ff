"""`aldis top` at a terminal: a real server with users, a real pseudo-terminal, keys pressed, the screen read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.commands import Piped, Typed
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.server_process import ServerProcess

USERS = re.compile(r"^users online +(\d+)\b", re.MULTILINE)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        yield server


def words(server: ServerProcess, *more: str) -> tuple[str, ...]:
    return ("top", "--admin", f"http://127.0.0.1:{server.admin_port}", "--data", server.settings["data"], *more)


def sit(server: ServerProcess, home: Path, *more: str, columns: int = 80, rows: int = 24) -> Typed:
    return Typed(*words(server, *more), home=home, columns=columns, rows=rows)


def rows_of(terminal: Typed) -> list[str]:
    return [line.rstrip() for line in terminal.screen.split("\n")]


async def is_as_before(terminal: Typed, *, times: int = 1) -> bool:
    """Whether it has given the terminal back, so many times."""
    await terminal.writes("\x1b[?1049l", times)
    return terminal.modes == terminal.modes_before and terminal.has_cursor and not terminal.on_alternate_screen


async def shows_users(terminal: Typed, count: int) -> None:
    await terminal.shows(re.compile(rf"^users online +{count}\b", re.MULTILINE))


async def test_the_screen_shows_who_is_there_and_follows_them(server: ServerProcess, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for number in range(3):
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            await client.register(f"user{number}")
        async with sit(server, tmp_path, "--every", "0.1") as top:
            await shows_users(top, 3)
            assert (top.on_alternate_screen, top.has_cursor, top.echoes()) == (True, False, False)
            assert rows_of(top)[0].startswith("Aldis ")
            assert any(re.fullmatch(r"connections +3\b.*", line) for line in rows_of(top))
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            await client.register("user3")
            await top.shows(re.compile(r"^connections +4\b", re.MULTILINE))
            await shows_users(top, 4)
            top.type("q")
            assert await top.end() == 0
            assert await is_as_before(top)


ENDS = {"q": "q", "Ctrl-C": "\x03", "Ctrl-D": "\x04"}


@pytest.mark.parametrize("key", ENDS.values(), ids=list(ENDS))
async def test_a_key_ends_it_at_once_and_leaves_the_terminal_as_it_was(
    server: ServerProcess, tmp_path: Path, key: str
) -> None:
    async with sit(server, tmp_path, "--every", "3600") as top:
        await shows_users(top, 0)
        top.type(key)
        assert await top.end() == 0
        assert await is_as_before(top)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_the_terminal_as_it_was(
    server: ServerProcess, tmp_path: Path, number: signal.Signals
) -> None:
    async with sit(server, tmp_path, "--every", "3600") as top:
        await shows_users(top, 0)
        os.kill(top.process.pid, number)
        assert await top.end() == 128 + number
        assert await is_as_before(top)


async def test_it_is_drawn_anew_when_the_window_changes(server: ServerProcess, tmp_path: Path) -> None:
    async with sit(server, tmp_path, "--every", "3600") as top:
        await shows_users(top, 0)
        await top.shows("message")
        top.resize(40, 10)
        await top.shows(re.compile(r"^\(\d+ more lines\) *$", re.MULTILINE))
        assert rows_of(top)[0].startswith("Aldis ")
        assert len(rows_of(top)) == 10
        await shows_users(top, 0)
        top.resize(100, 50)
        await top.shows(re.compile(r"^processor +- *$", re.MULTILINE))
        await top.shows(re.compile(r"^message +ok +refused *$", re.MULTILINE))
        assert "more lines" not in top.screen
        assert sum(bool(USERS.match(line)) for line in rows_of(top)) == 1
        top.type("q")
        assert await top.end() == 0


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (20, 4), (1, 1)])
async def test_a_small_terminal_does_not_break_it(
    server: ServerProcess, tmp_path: Path, columns: int, rows: int
) -> None:
    async with sit(server, tmp_path, "--every", "0.1", "--times", "4", columns=columns, rows=rows) as top:
        assert await top.end() == 0
        # The terminal of this test has no second screen, so the last picture is still there.
        await top.shows(re.compile(rf"^{'Aldis'[:columns]}"))  # nothing has scrolled
        assert rows_of(top)[0].startswith("Aldis"[:columns])
        assert await is_as_before(top)
        assert top.raw.count("\x1b[1;1H") == 4


async def test_it_is_stopped_and_goes_on(server: ServerProcess, tmp_path: Path) -> None:
    async with sit(server, tmp_path, "--every", "3600") as top:
        await shows_users(top, 0)
        os.kill(top.process.pid, signal.SIGTSTP)  # what Ctrl-Z sends; an orphaned group would ignore it
        stopped = await asyncio.to_thread(os.waitid, os.P_PID, top.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert stopped is not None
        assert await is_as_before(top)
        os.kill(top.process.pid, signal.SIGCONT)
        await top.writes("users online", 2)
        assert not top.echoes()
        top.type("q")
        assert await top.end() == 0
        assert await is_as_before(top, times=2)


async def test_a_server_that_goes_is_told_and_the_last_figures_stay(server: ServerProcess, tmp_path: Path) -> None:
    async with sit(server, tmp_path, "--every", "0.1") as top:
        await shows_users(top, 0)
        assert await server.stop() == 0
        await top.shows("Connection refused")
        await shows_users(top, 0)
        top.type("q")
        assert await top.end() == 0
        assert await is_as_before(top)


async def test_into_a_pipe_each_look_is_one_line_of_json(server: ServerProcess, tmp_path: Path) -> None:
    async with Piped(*words(server, "--every", "0.1", "--times", "2"), home=tmp_path) as top:
        looks = [json.loads(line) for line in (await top.rest()).splitlines()]
        assert [look["users"] for look in looks] == [0, 0]
        assert await top.end() == 0
        assert top.errors == ""


async def test_a_reader_of_the_pipe_that_has_enough_ends_it_in_silence(server: ServerProcess, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with Piped(*words(server, "--every", "0.1"), home=tmp_path, output=writing) as top:
        os.close(writing)
        async with asyncio.timeout(PATIENCE):
            assert (await asyncio.to_thread(os.read, reading, 65536)).startswith(b"{")
        os.close(reading)
        assert await top.end() == 141
        assert top.errors == ""


async def test_without_a_server_nothing_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("a token\n")
    command = ("top", "--admin", "http://127.0.0.1:9", "--data", str(tmp_path))
    async with Typed(*command, home=tmp_path) as top:
        assert await top.end() == 3
        await top.shows("cannot reach http://127.0.0.1:9")
        assert "\x1b[?1049h" not in top.raw
        assert (top.modes, top.has_cursor) == (top.modes_before, True)
