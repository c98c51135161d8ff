"""Standard input and output, with real pipes and files."""

import asyncio
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aldis.cli.pipes import LineReader, LineWriter, PipeSource
from aldis.errors import MessageTooLarge
from aldis.protocol.channel import MAX_MESSAGE
from support.patience import PATIENCE


def readers_end() -> None:
    """Wait for the readers' threads, whose input has ended.

    Before its descriptor is closed: else a thread would read on from the same number when the next test opens a pipe,
    and take what is in it.
    """
    for thread in threading.enumerate():
        if thread.name == "aldis-stdin":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    inside, outside = os.pipe()
    yield inside, outside
    with suppress(OSError):  # the test has closed it
        os.close(outside)
    readers_end()
    with suppress(OSError):
        os.close(inside)


async def test_each_line_is_given_once_it_is_whole(pipe: tuple[int, int]) -> None:
    lines = LineReader(pipe[0])
    os.write(pipe[1], b"one\ntw")
    assert await anext(lines) == "one"
    os.write(pipe[1], b"o\r\n\nlast")
    assert await anext(lines) == "two"
    assert await anext(lines) == ""
    os.close(pipe[1])
    assert [line async for line in lines] == ["last"]


async def test_a_file_is_read_like_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("".join(f"line {number}\n" for number in range(50_000)))
    with (tmp_path / "lines").open("rb") as file:
        lines = [line async for line in LineReader(file.fileno())]
    assert lines == [f"line {number}" for number in range(50_000)]


async def test_a_character_may_be_cut_by_the_pipe(pipe: tuple[int, int]) -> None:
    lines = LineReader(pipe[0])
    os.write(pipe[1], "ü".encode()[:1])
    os.write(pipe[1], "ü".encode()[1:] + b"\n")
    assert await anext(lines) == "ü"
    assert not lines.replaced


async def test_bytes_that_are_no_text_are_replaced_and_that_is_told(pipe: tuple[int, int]) -> None:
    lines = LineReader(pipe[0])
    os.write(pipe[1], b"\xff\n")
    assert await anext(lines) == "\ufffd"
    assert lines.replaced


async def test_a_line_that_no_message_can_hold_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "line").write_bytes(bytes(MAX_MESSAGE + 1))
    with (tmp_path / "line").open("rb") as file:
        with pytest.raises(MessageTooLarge):
            await anext(LineReader(file.fileno()))
        readers_end()


async def test_a_pipe_that_was_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    fcntl.fcntl(pipe[0], fcntl.F_SETFL, os.O_NONBLOCK)
    lines = LineReader(pipe[0])
    waiting = asyncio.ensure_future(anext(lines))
    os.write(pipe[1], b"there\n")
    assert await waiting == "there"


async def test_input_that_nobody_takes_is_held_back(pipe: tuple[int, int]) -> None:
    lines = LineReader(pipe[0])
    total = 4 * 1024 * 1024
    written = threading.Event()

    def fill() -> None:
        os.write(pipe[1], b"x" * 1023 + b"\n")
        for _ in range(total // 1024 - 1):
            os.write(pipe[1], b"x" * 1023 + b"\n")
        written.set()
        os.close(pipe[1])

    threading.Thread(target=fill).start()
    await anext(lines)
    assert not written.is_set()
    assert len([line async for line in lines]) == total // 1024 - 1
    assert written.is_set()


async def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    output = LineWriter(pipe[1])
    await output.write("bob: hü")
    assert os.read(pipe[0], 100) == "bob: hü\n".encode()


async def test_a_reader_that_is_slow_does_not_hold_up_the_loop(pipe: tuple[int, int]) -> None:
    output = LineWriter(pipe[1])
    writing = asyncio.ensure_future(output.write("x" * 1_000_000))
    done, _ = await asyncio.wait([writing], timeout=0)
    assert not done
    with os.fdopen(pipe[0], "rb", closefd=False) as reader:
        assert len(await asyncio.to_thread(reader.read, 1_000_001)) == 1_000_001
    await writing


async def test_a_reader_that_is_gone_is_told(pipe: tuple[int, int]) -> None:
    output = LineWriter(pipe[1])
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        await output.write("to nobody")


def test_an_input_that_cannot_be_read_on_is_no_end(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            PipeSource(folder).read(1)
    finally:
        os.close(folder)
