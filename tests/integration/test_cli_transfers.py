"""`aldis send` and `aldis receive`: real processes, a real server, real data channels."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.store.files.transfer import Transfer
from aldis.store.store import NetworkStore
from support.commands import COMMAND, Piped, Typed, aldis, environment
from support.patience import PATIENCE
from support.peers import Signal
from support.servers import QuickServer

MEGABYTE = 1024 * 1024
# Of a file that is interrupted. One side is the test, and the other is never ahead of it by more than a megabyte.
SIZE = 60 * MEGABYTE


@pytest.fixture
def server(quick_server: QuickServer) -> QuickServer:
    return quick_server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where files are sent from and received into."""
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    return tmp_path


def a_file(here: Path, size: int, name: str = "a.bin") -> Path:
    path = here / "from" / name
    path.write_bytes(os.urandom(size))
    return path


def send(server: QuickServer, *words: str | Path) -> Piped:
    return Piped("send", *words, "--as", "alice", "--server", server.url, home=server.home, forked=True)


def receive(server: QuickServer, *words: str | Path, output: int | None = None) -> Piped:
    return Piped(
        *("receive", "--as", "bob", "--from", "alice", "--server", server.url),
        *words,
        home=server.home,
        output=output,
        forked=True,
    )


@asynccontextmanager
async def a_store(server: QuickServer, name: str) -> AsyncIterator[NetworkStore]:
    """The other side, where the test looks at each step."""
    async with NetworkStore() as store:
        await store.connect_to_signaling(server.url, name)
        yield store


class Watched:
    """All files that are offered to a store, and taken into a folder."""

    def __init__(self, store: NetworkStore, folder: Path) -> None:
        self.files: list[Transfer] = []
        self._folder = folder
        self._signal = Signal()
        store.on_file(self._take)

    def _take(self, transfer: Transfer) -> None:
        self.files.append(transfer)
        transfer.accept(self._folder)
        transfer.subscribe(lambda _: self._signal.changed())

    async def until(self, count: int, size: int) -> None:
        """Until so many files were offered, and so much of the last one is written."""
        await self._signal.until(
            lambda: len(self.files) == count and self.files[-1].transferred >= size, "progress", PATIENCE
        )


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["send", "receive"])
async def test_a_file_arrives_whoever_starts_first(server: QuickServer, here: Path, first: str) -> None:
    path = a_file(here, 3 * MEGABYTE + 7)
    if first == "receive":
        async with receive(server, here / "to") as bob:
            await bob.says("waiting for files from alice")
            async with send(server, path, "bob") as alice:
                assert await alice.end() == 0
            assert await bob.end() == 0
    else:
        async with send(server, path, "bob") as alice:
            await alice.says("waiting")
            async with receive(server, here / "to") as bob:
                assert await bob.end() == 0
            assert await alice.end() == 0
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()
    assert os.listdir(here / "to") == ["a.bin"]
    assert "sent a.bin: 3.1 MB" in alice.errors
    assert f"received a.bin in {here / 'to'}: 3.1 MB" in bob.errors
    assert "first contact with alice" in bob.errors


@pytest.mark.parametrize(("path", "goes"), [("relay", "relay"), ("direct", "direct")])
async def test_a_sender_chooses_the_path(server: QuickServer, here: Path, path: str, goes: str) -> None:
    async with a_store(server, "bob") as bob:
        watched = Watched(bob, here / "to")
        async with send(server, a_file(here, 100_000), "bob", "--path", path):
            await watched.until(1, 100_000)
            assert bob.state.peers["alice"].path == goes


@pytest.mark.parametrize(("path", "goes"), [("relay", "relay"), ("direct", "direct")])
async def test_a_recipient_chooses_the_path(server: QuickServer, here: Path, path: str, goes: str) -> None:
    async with a_store(server, "alice") as alice, receive(server, here / "to", "--path", path) as bob:
        await bob.says("waiting for files from alice")
        transfer = await alice.send_file("bob", a_file(here, 100_000))
        await transfer
        assert alice.state.peers["bob"].path == goes


async def test_a_file_that_is_too_large_for_the_only_path_fails(server: QuickServer, here: Path) -> None:
    async with receive(server, here / "to") as bob:
        await bob.says("waiting for files from alice")
        async with send(server, a_file(here, 2 * MEGABYTE), "bob", "--path", "relay", "--timeout", "2") as alice:
            assert await alice.end() != 0
    assert os.listdir(here / "to") == []


async def test_several_files_and_a_folder_arrive(server: QuickServer, here: Path) -> None:
    tree = here / "from" / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "b").write_bytes(b"b")
    (tree / "link").symlink_to("/etc/passwd")
    paths = [tree, a_file(here, 5, "one"), a_file(here, 0, "two")]
    async with receive(server, here / "to") as bob, send(server, *paths, "bob") as alice:
        assert await alice.end() == 0
        assert await bob.end() == 0
    assert re.search(r"sent tree: 1 byte(, .*)?; 1 link or special file left out", alice.errors)
    assert re.search(rf"received tree in {here / 'to'}: 1 byte\b", bob.errors)
    assert sorted(os.listdir(here / "to")) == ["one", "tree", "two"]
    assert (here / "to" / "tree" / "deep" / "b").read_bytes() == b"b"
    assert not (here / "to" / "tree" / "link").exists()


async def test_a_pipe_goes_into_a_pipe(server: QuickServer, here: Path) -> None:
    data = os.urandom(2 * MEGABYTE)
    reader, writer = os.pipe()
    async with receive(server, "-", output=writer) as bob, send(server, "-", "bob") as alice:
        os.close(writer)
        with os.fdopen(reader, "rb") as heard:
            reading = asyncio.create_task(asyncio.to_thread(heard.read))
            alice.stdin.write(data)
            alice.stdin.close()
            assert await alice.end() == 0
            assert await bob.end() == 0
            assert await reading == data
    assert "sent stdin: 2.1 MB" in alice.errors


async def test_a_program_that_is_killed_goes_on_with_the_same_command(server: QuickServer, here: Path) -> None:
    path = a_file(here, SIZE)
    async with a_store(server, "alice") as alice:
        transfer = await alice.send_file("bob", path)
        moved = Signal()
        transfer.subscribe(lambda _: moved.changed())
        wanted = 0
        for _ in range(2):
            wanted += 10 * MEGABYTE
            async with receive(server, here / "to"):
                await moved.until(lambda: transfer.transferred >= wanted, "progress", PATIENCE)  # noqa: B023
                # leaving kills it, as `kill -9` does
        async with receive(server, here / "to") as bob:
            await bob.says("a.bin: going on behind")
            async with asyncio.timeout(PATIENCE):
                await transfer
            assert await bob.end() == 0
    assert transfer.resumed >= 18 * MEGABYTE
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()
    assert os.listdir(here / "to") == ["a.bin"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_sender_that_ends_in_the_middle_goes_on_with_the_same_command(
    server: QuickServer, here: Path, how: int
) -> None:
    small, path = a_file(here, 5, "small"), a_file(here, SIZE)
    async with a_store(server, "bob") as bob:
        files = Watched(bob, here / "to")
        async with send(server, small, path, "bob") as alice:
            await files.until(2, 10 * MEGABYTE)
            alice.process.send_signal(how)
            assert await alice.end() == (-9 if how == signal.SIGKILL else 130)
        (kept,) = (server.home / ".local" / "share" / "aldis" / "sending").iterdir()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        async with send(server, small, path, "bob") as alice:
            assert await alice.end() == 0
        assert "small has arrived already" in alice.errors
        assert "a.bin: going on behind" in alice.errors
        assert files.files[-1].resumed >= 9 * MEGABYTE
        assert not kept.exists()
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(here / "to")) == ["a.bin", "small"]


async def test_a_recipient_waits_until_the_sender_comes_back(server: QuickServer, here: Path) -> None:
    path = a_file(here, SIZE)
    async with receive(server, here / "to") as bob:
        async with a_store(server, "alice") as alice:
            transfer = await alice.send_file("bob", path)
            signal_ = Signal()
            transfer.subscribe(lambda _: signal_.changed())
            await signal_.until(lambda: transfer.transferred >= 10 * MEGABYTE, "progress", PATIENCE)
            identity = alice.identity
        await bob.says("alice has left before a.bin was there; waiting")
        async with NetworkStore(identity) as alice:
            await alice.connect_to_signaling(server.url, "alice")
            async with asyncio.timeout(PATIENCE):
                await (await alice.send_file("bob", path))
        assert await bob.end() == 0
    assert "a.bin: going on behind" in bob.errors
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()


async def test_a_sender_tells_once_that_the_recipient_has_left(server: QuickServer, here: Path) -> None:
    async with send(server, a_file(here, SIZE), "bob") as alice:
        async with a_store(server, "bob") as bob:
            await Watched(bob, here / "to").until(1, 10 * MEGABYTE)
        await alice.says("not everything had arrived; waiting for bob to come back")
        assert (await alice.says("bob has left")).count("has left") == 1


async def test_a_full_disk_at_the_recipient_is_told_at_both_ends(server: QuickServer, here: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with receive(server, "-", output=full) as bob:
        os.close(full)
        await bob.says("waiting for files from alice")
        async with send(server, a_file(here, MEGABYTE), "bob") as alice:
            assert await alice.end() == 8
            assert await bob.end() == 8
    words = "the recipient cannot write it: no space left on device"
    assert words in bob.errors
    assert f"cancelled by the other side: {words}" in alice.errors


async def test_a_reader_that_has_gone_is_told_at_both_ends(server: QuickServer, here: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with receive(server, "-", output=writer) as bob:
        os.close(writer)
        await bob.says("waiting for files from alice")
        async with send(server, a_file(here, MEGABYTE), "bob") as alice:
            assert await alice.end() == 8
            assert await bob.end() == 141
    assert "cancelled by the other side: the recipient cannot write it: broken pipe" in alice.errors


async def test_a_file_that_changes_at_the_sender_is_told_at_both_ends(server: QuickServer, here: Path) -> None:
    path = a_file(here, SIZE)
    async with a_store(server, "bob") as bob:
        files = Watched(bob, here / "to")
        async with send(server, path, "bob") as alice:
            await files.until(1, MEGABYTE)
            with path.open("ab") as file:
                file.write(b"more")
            assert await alice.end() == 8
    assert "the file has changed since it was offered" in alice.errors
    assert os.listdir(here / "to") == []


async def test_a_file_of_somebody_else_is_not_taken(server: QuickServer, here: Path) -> None:
    async with receive(server, here / "to") as bob:
        await bob.says("waiting")
        words = ("send", a_file(here, 5), "bob", "--as", "carol", "--server", server.url, "--timeout", "10")
        carol = await asyncio.to_thread(lambda: aldis(*words, home=server.home))
        assert carol.returncode == 7
    assert os.listdir(here / "to") == []


async def test_a_person_is_asked_about_files_of_anybody(server: QuickServer, here: Path) -> None:
    words = ("receive", "--as", "bob", "--server", server.url, here / "to")
    async with Typed(*words, home=server.home, forked=True) as bob:
        await bob.shows("waiting for files from anybody")
        async with send(server, a_file(here, 5, "no"), a_file(here, 6, "yes"), "bob") as alice:
            await bob.shows("alice offers no (5 bytes)")
            bob.type("n\n")
            await bob.shows("alice offers yes (6 bytes)")
            bob.type("y\n")
            assert await alice.end() == 8
        assert await bob.end() == 0
    assert os.listdir(here / "to") == ["yes"]
    assert "it is not wanted" in alice.errors


# --- codes ------------------------------------------------------------------------------------------------------------


def send_by_code(server: QuickServer, *words: str | Path) -> Piped:
    return Piped("send", *words, "--server", server.url, home=server.home, forked=True)


def receive_by_code(server: QuickServer, code: str, *words: str | Path) -> Piped:
    return Piped("receive", code, *words, "--server", server.url, home=server.home, forked=True)


async def code_of(alice: Piped) -> str:
    found = re.fullmatch(
        r"In another terminal here: aldis receive (\d+-[a-z]+-[a-z]+) --server ws://\S+\d", await alice.line()
    )
    assert found is not None
    return found[1]


async def test_two_people_without_names_use_a_code(server: QuickServer, here: Path) -> None:
    path = a_file(here, 3 * MEGABYTE)
    async with send_by_code(server, path) as alice:
        code = await code_of(alice)
        await alice.says("only this machine reaches this server")
        # As somebody types it who has heard it.
        async with receive_by_code(server, *code.upper().split("-"), here / "to") as bob:
            assert await bob.end() == 0
        assert await alice.end() == 0
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()


async def test_a_wrong_code_uses_the_code_up_and_both_are_told(server: QuickServer, here: Path) -> None:
    async with send_by_code(server, a_file(here, 5)) as alice:
        number, one, other = (await code_of(alice)).split("-")
        wrong = f"{number}-{one}-{'acid' if other != 'acid' else 'acorn'}"
        async with receive_by_code(server, wrong, here / "to") as bob:
            assert await bob.end() == 9
        assert await alice.end() == 9
        async with receive_by_code(server, f"{number}-{one}-{other}", here / "to", "--timeout", "1") as bob:
            assert await bob.end() == 5
    assert "the code is wrong" in alice.errors or "tried a wrong code" in alice.errors
    assert "nobody waits with this code" in bob.errors
    assert os.listdir(here / "to") == []


async def test_what_a_code_had_begun_goes_on_with_the_next_code(server: QuickServer, here: Path) -> None:
    path = a_file(here, 200 * MEGABYTE)
    async with send_by_code(server, path) as alice:
        code = await code_of(alice)
        async with Typed("receive", code, here / "to", "--server", server.url, home=server.home, forked=True) as screen:
            await screen.shows(re.compile(r"a\.bin .* [3-9]\d\.\d/\d+\.\d MB +\d+\.\d MB/s +00:\d\d"))
            alice.process.kill()
            # leaving kills the other one too
    async with send_by_code(server, path) as alice:
        async with receive_by_code(server, await code_of(alice), here / "to") as bob:
            assert await bob.end() == 0
        assert await alice.end() == 0
    assert "a.bin: going on behind" in bob.errors
    assert (here / "to" / "a.bin").read_bytes() == path.read_bytes()


async def test_a_recipient_does_not_wait_for_ever_for_a_sender_that_was_killed(server: QuickServer, here: Path) -> None:
    async with (
        send_by_code(server, "-") as alice,
        receive_by_code(server, await code_of(alice), "-", "--timeout", "1") as bob,
    ):
        await alice.type("the first line\n" * 100_000)
        assert await bob.line() == "the first line"
        alice.process.kill()
        await bob.says("the connection to the sender is interrupted; waiting")
        assert await bob.end() == 8
    assert "the sender has not come back; what goes into a pipe cannot be resumed" in bob.errors


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["send"], "the following arguments are required: FILE"),
        (["send", "none"], "cannot be sent: no such file or directory"),
        (["send", "here", "bob"], "there is no file 'bob'; if that is a person's name, add your own: --as ME"),
        (["send", "here", "--as", "alice"], "the last word is the NAME of the recipient"),
        (["send", "here", "alice", "--as", "alice"], "take another name for yourself"),
        (["send", "here", "b ob", "--as", "alice"], "cannot be a name"),
        (["send", "here", "here", "bob", "--as", "alice", "--name", "x"], "--name is for one FILE"),
        (["send", "-", "-", "bob", "--as", "alice"], "standard input can be sent once"),
        (["send", "here", "bob", "--as", "alice", "--no-wait"], "bob"),
        (["send", "here", "--path", "relay"], "--path goes with --as ME"),
        (["send", "here", "bob", "--as", "alice", "--path", "carrier"], "invalid choice: 'carrier'"),
        (["receive", "42-acid-acorn", "--path", "relay"], "--path goes with --as ME"),
        (["receive"], "give the CODE"),
        (["receive", "42-acidd-acorn"], "'acidd' is no word of a code; did you mean 'acid'?"),
        (["receive", "42", "Acidd", "acorn"], "'acidd' is no word of a code; did you mean 'acid'?"),
        (["receive", "42-acidd", "acorn"], "'acidd' is no word of a code; did you mean 'acid'?"),
        (["receive", "42", "acid", "acorn", "none"], "there is no directory 'none'"),
        (["receive", "42", "acid"], "give the CODE"),
        (["receive", "42-acid-acorn", "--from", "alice"], "--from goes with --as ME"),
        (["receive", "--as", "bob"], "nobody can be asked: give --from NAME, or --yes"),
        (["receive", "--as", "bob", "--yes", "a", "b"], "one DIR, not 2"),
        (["receive", "--as", "bob", "--yes", "none"], "there is no directory 'none'"),
    ],
)
async def test_what_cannot_work_is_said_at_once(
    server: QuickServer, here: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], problem: str
) -> None:
    (here / "here").write_bytes(b"")
    monkeypatch.chdir(here)
    result = aldis(*words, "--server", server.url, home=server.home)
    assert result.returncode == (5 if "--no-wait" in words else 2)
    assert problem in result.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["send", "-", "bob", "--as", "alice"], "standard input is closed; `-` is for a pipe"),
        (["receive", "--as", "bob"], "nobody can be asked: give --from NAME, or --yes"),
    ],
)
def test_a_program_that_was_started_without_an_input_says_so(tmp_path: Path, words: list[str], problem: str) -> None:
    """As by a service manager that closes it."""
    result = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 0<&-', "sh", *COMMAND, *words],
        capture_output=True,
        env=environment(tmp_path),
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    assert problem in result.stderr
    assert result.returncode == 2
