"""`aldis directory copy` as an operator runs it: real commands, real files, real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from aldis.backends.sqlite import SqliteDirectory
from aldis.backends.sqlite_file import FILE_NAME
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.protocol.privacy import PrivacyChange
from support.commands import COMMAND, Piped, Typed, aldis, environment
from support.directories import content, fill
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.registrations import register
from support.server_process import ServerProcess
from support.settings import UNLIMITED

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
KEY = b"k" * 32


def copied(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return aldis("directory", "copy", *words, home=home)


async def test_a_running_server_moves_without_losing_a_change(tmp_path: Path) -> None:
    """As docs/deploy.md says it: copy, stop, copy again, start with the new one."""
    source, target = tmp_path / "data" / FILE_NAME, tmp_path / "new" / "data" / FILE_NAME
    identities: dict[str, Identity] = {}
    moved = asyncio.Event()

    async with ServerProcess(tmp_path, **UNLIMITED) as server:

        async def load() -> None:
            # Registers new names and hands old ones over, until the first copy is done.
            while not moved.is_set():
                name = f"user{len(identities) % 7}{len(identities)}"
                identities[name] = Identity.generate()
                assert await register(server, name, identities[name]) == "registered"
                await rotate(server, name)

        async def rotate(server: ServerProcess, name: str) -> None:
            async with await RawClient.connect(server.port) as client:
                await client.register(name, identities[name])
                fresh = Identity.generate()
                signature = to_base64(identities[name].sign(proofs.rotation(name, fresh.public_key)))
                reply = await client.request(
                    {"type": "rotate", "newPublicKey": to_base64(fresh.public_key), "signature": signature}
                )
                assert reply["type"] == "rotated", reply
                identities[name] = fresh
                await client.leave()

        loading = asyncio.create_task(load())
        first = await asyncio.to_thread(copied, tmp_path, source, target)
        assert first.returncode in (0, 1), first.stderr  # 1: it had no time without a change
        moved.set()
        await loading
        assert await server.stop() == 0
        server.assert_clean_log()
    before = content(source)
    again = copied(tmp_path, source, target)
    assert again.returncode == 0, again.stderr
    assert content(source) == before
    assert content(target) == before
    assert copied(tmp_path, "--verify", source, target).returncode == 0
    async with ServerProcess(tmp_path / "new", **UNLIMITED) as server:
        for name, identity in identities.items():
            assert await register(server, name, identity) == "registered"
            assert await register(server, name, Identity.generate()) == "key-mismatch"
        assert await server.stop() == 0


async def test_a_copy_says_what_it_did(tmp_path: Path) -> None:
    source, target = await fill(tmp_path / "data" / FILE_NAME, 2500), tmp_path / "copy.sqlite3"
    tried = copied(tmp_path, "--dry-run", source, target)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith("2500 names at FROM, 2500 not at TO, 0 at TO only\n2 names on its list, 2 not at TO")
    assert not target.exists()
    done = copied(tmp_path, source.parent, target)  # a data folder is the file in it
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "2500 names at FROM: 2500 copied, 0 changed\n2 names on its list: 2 copied\n2 passes, "
    )
    assert done.stderr == ""
    assert content(target) == content(source)
    directory = await SqliteDirectory.open(source)
    assert await directory.rotate("user000001", (1).to_bytes(32, "big"), KEY)
    await directory.change_privacy("user000002", (2).to_bytes(32, "big"), PrivacyChange(offers="hidden"))
    await directory.release("user000003")
    await directory.unlist_name("zoë")
    await directory.close()
    differs = copied(tmp_path, "--verify", source, target)
    assert differs.returncode == 1
    assert "0 not at TO, 2 with another key or privacy, 1 at TO only" in differs.stdout
    again = copied(tmp_path, source, target)
    assert again.returncode == 0
    assert "2499 names at FROM: 0 copied, 2 changed\n" in again.stdout
    assert "1 name and 1 of the list at TO only, and kept (--exact removes them)\n" in again.stdout
    assert copied(tmp_path, "--verify", source, target).returncode == 1
    exact = copied(tmp_path, "--exact", source, target)
    assert exact.returncode == 0
    assert "1 name and 1 of the list removed at TO\n" in exact.stdout
    assert copied(tmp_path, "--verify", source, target).returncode == 0
    assert content(target) == content(source)


async def test_the_example_of_the_document_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```console\n(\$ aldis directory copy .*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    directory = await SqliteDirectory.open(tmp_path / "aldis" / FILE_NAME)
    for name in ("alice", "bob", "carol"):
        await directory.claim(name, KEY)
    await directory.list_name("alice")
    await directory.close()
    for step in example.removeprefix("$ ").split("\n$ "):
        line, _, output = step.partition("\n")
        words = line.replace("/var/lib/aldis", str(tmp_path / "aldis")).replace("/srv/aldis", str(tmp_path / "new"))
        done = aldis(*words.split()[1:], home=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.sub(r"\d+\.\d s", "0.1 s", done.stdout).strip() == output.strip()


async def test_what_cannot_be_copied_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    source = await fill(tmp_path / "data" / FILE_NAME, 10)
    link = tmp_path / "link"
    link.symlink_to(source)
    hard = tmp_path / "hard"
    os.link(source, hard)
    (tmp_path / "text").write_text("no directory" * 1000)
    before = content(source)
    for words, said in (
        ((source, source), "the same directory"),
        ((source.parent, source), "the same directory"),
        ((source, link), "the same directory"),
        ((hard, source), "the same directory"),
        ((tmp_path / "none", tmp_path / "new"), "No such file"),
        ((tmp_path / "text", tmp_path / "new"), "not a directory of names"),
        ((":memory:", tmp_path / "new"), ":memory:"),
        ((source, ":memory:"), ":memory:"),
        ((source,), "required: TO"),
        (("--verify", "--exact", source, tmp_path / "new"), "--verify only compares"),
        (("--verify", source, tmp_path / "new"), "No such file"),
        ((source, "redis:/user:pass-word@127.0.0.1"), "begins as a URL does"),
        ((source, "reds://user:pass-word@127.0.0.1"), "TO: reds://127.0.0.1 cannot be used; expected a path"),
        (("redis://user:pass-word@127.0.0.1/x", source), "FROM: redis://127.0.0.1/x cannot be used; expected the num"),
    ):
        done = copied(tmp_path, *words)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
        assert "pass-word" not in done.stderr
    assert content(source) == before
    assert not (tmp_path / "new").exists()
    empty = tmp_path / "empty.sqlite3"
    await (await SqliteDirectory.open(empty)).close()
    turned = copied(tmp_path, "--exact", empty, source)
    assert turned.returncode == 2
    assert "in the right order" in turned.stderr
    assert content(source) == before


async def test_a_file_that_a_server_uses_is_compared_and_not_written(tmp_path: Path) -> None:
    """FROM and TO in the wrong order, or a server that was not stopped: it would not notice what is released."""
    other = await fill(tmp_path / "other" / FILE_NAME, 10)
    async with ServerProcess(tmp_path) as server:
        assert await register(server, "alice", Identity.generate()) == "registered"
        target = tmp_path / "data" / FILE_NAME
        for words in ((other, target), ("--exact", other, target.parent)):
            done = copied(tmp_path, *words)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.startswith(f"aldis: {target} is in use: stop the server first")
        assert copied(tmp_path, "--dry-run", other, target).returncode == 0
        assert copied(tmp_path, "--verify", other, target).returncode == 1
        assert [row[0] for row in content(target)[0]] == ["alice"]
    assert copied(tmp_path, other, target).returncode == 0


def copied_to_a_full_disk(home: Path, source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """A copy by a process that can write no file beyond 400 kB: the disk is as good as full."""

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

    return subprocess.run(
        [*COMMAND, "directory", "copy", source, target],
        env=environment(home),
        preexec_fn=full,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def first_names(target: Path) -> None:
    """Wait until a copy has written the first names."""
    side = target.with_name(f"{target.name}-wal")
    async with asyncio.timeout(PATIENCE):
        while True:
            # Not before it writes: a file that somebody reads looks to it as if a server had it.
            # One look: the file of a connection that closes goes between two.
            with contextlib.suppress(FileNotFoundError):
                if side.stat().st_size:
                    break
            await asyncio.sleep(0)
        observer = sqlite3.connect(f"file:{target}?mode=ro", uri=True)
        while True:
            if observer.execute("SELECT count(*) FROM names").fetchone()[0]:
                break
            await asyncio.sleep(0)
    observer.close()


async def test_a_full_disk_at_to_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    source, target = await fill(tmp_path / "data" / FILE_NAME, 20_000), tmp_path / "copy.sqlite3"
    done = copied_to_a_full_disk(tmp_path, source, target)
    assert done.returncode == 1
    assert "aldis: TO cannot be used: " in done.stderr
    assert "full" in done.stderr
    assert "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
    partly = len(content(target)[0])
    assert 0 < partly < 20_000
    again = copied(tmp_path, source, target)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"20000 names at FROM: {20_000 - partly} copied, 0 changed\n")
    assert content(target) == content(source)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_copy_that_is_broken_off_goes_on_by_the_same_command(tmp_path: Path, number: signal.Signals) -> None:
    source, target = await fill(tmp_path / "data" / FILE_NAME, 30_000), tmp_path / "copy.sqlite3"
    lock = await SqliteDirectory.open(target)
    await lock.close()
    holder = sqlite3.connect(target, isolation_level=None)
    async with Piped("directory", "copy", source, target, home=tmp_path) as command:
        await first_names(target)
        # It is under way for certain while it waits for this lock.
        holder.execute("BEGIN IMMEDIATE")
        command.process.send_signal(number)
        said = await command.says("aldis: broken off\n  What was copied stays; the same command goes on.\n")
        holder.execute("ROLLBACK")
        holder.close()
        assert await command.end() == 128 + number
        assert "Traceback" not in said
    partly = len(content(target)[0])
    assert 0 < partly < 30_000
    again = copied(tmp_path, source, target)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"30000 names at FROM: {30_000 - partly} copied, 0 changed\n")
    assert content(target) == content(source)


async def test_a_directory_that_goes_away_in_the_middle_is_told(tmp_path: Path) -> None:
    source, target = await fill(tmp_path / "data" / FILE_NAME, 30_000), tmp_path / "copy.sqlite3"
    await (await SqliteDirectory.open(target)).close()
    async with Piped("directory", "copy", source, target, home=tmp_path) as command:
        await first_names(target)
        hidden = target.with_name("hidden")
        target.rename(hidden)
        said = await command.says("the same command goes on")
        assert await command.end() == 1
        assert "TO cannot be used: " in said
        assert "removed or replaced" in said
    hidden.rename(target)
    assert copied(tmp_path, source, target).returncode == 0
    assert content(target) == content(source)


async def test_a_terminal_shows_progress_on_one_line(tmp_path: Path) -> None:
    source, target = await fill(tmp_path / "data" / FILE_NAME, 30_000), tmp_path / "copy.sqlite3"
    async with Typed("directory", "copy", source, target, home=tmp_path) as command:
        await command.shows(re.compile(r"aldis: pass 1: \d+ names, \d+ of them differ"))
        await command.shows("30000 names at FROM: 30000 copied, 0 changed")
        assert await command.end() == 0
        assert "differ" not in command.screen, "the line is gone"
