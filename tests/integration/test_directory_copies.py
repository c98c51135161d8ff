"""Backup and restore of a server's names: real servers, real commands, real files."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from aldis.backends.sqlite_file import FILE_NAME
from aldis.hub.bans import Ban
from aldis.identity.keys import Identity
from aldis.protocol.codes import CloseCode
from aldis.server.ban_file import FILE_NAME as BANS
from aldis.server.ban_file import BanFile
from support.commands import COMMAND, aldis, environment
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.registrations import register
from support.server_process import ServerProcess
from support.settings import UNLIMITED


def directory(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`aldis directory ...` for the server in `folder`."""
    return aldis("directory", *words, "--data", folder / "data", home=folder)


def names_in(path: Path) -> dict[str, bytes]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(database.execute("SELECT user_id, public_key FROM names"))
    finally:
        database.close()


async def test_a_backup_of_a_server_that_registers_meanwhile_is_whole_and_can_be_restored(tmp_path: Path) -> None:
    identities = {f"user{number}": Identity.generate() for number in range(300)}
    copies = [tmp_path / f"copy{number}" for number in range(3)]
    async with ServerProcess(tmp_path, **UNLIMITED) as server:
        registered: list[str] = []

        async def load() -> None:
            for name, identity in identities.items():
                assert await register(server, name, identity) == "registered"
                registered.append(name)

        loading = asyncio.create_task(load())
        for copy in copies:
            before = list(registered)
            done = await asyncio.to_thread(directory, tmp_path, "backup", copy)
            assert done.returncode == 0, done.stderr
            found = names_in(copy)
            assert done.stdout.startswith(f"{len(found)} name")
            assert set(before) <= set(found)
            assert all(identities[name].public_key == key for name, key in found.items())
        await loading
        refused = await asyncio.to_thread(directory, tmp_path, "restore", copies[0])
        assert refused.returncode == 2
        assert "is in use by a running server; stop it first" in refused.stderr
        assert await register(server, "late", Identity.generate()) == "registered"
        assert await server.stop() == 0
    restored = directory(tmp_path, "restore", copies[-1])
    assert restored.returncode == 0, restored.stderr
    kept = tmp_path / "data" / f"{FILE_NAME}.before-restore-1"
    assert restored.stdout.endswith(f"the names that were there are kept in {kept}\n")
    assert len(names_in(kept)) == 301
    async with ServerProcess(tmp_path, **UNLIMITED) as again:
        for name in list(names_in(copies[-1]))[:5]:
            assert await register(again, name, Identity.generate()) == "key-mismatch"
            assert await register(again, name, identities[name]) == "registered"
        assert await register(again, "late", Identity.generate()) == "registered", "bound after the backup: free again"
        assert await again.stop() == 0
        again.assert_clean_log()


async def names_of(folder: Path, *names: str) -> None:
    async with ServerProcess(folder) as server:
        for name in names:
            assert await register(server, name, Identity.generate()) == "registered"
        assert await server.stop() == 0


async def test_a_backup_is_one_private_file_and_replaces_none(tmp_path: Path) -> None:
    await names_of(tmp_path, "alice")
    BanFile(tmp_path / "data" / BANS).save([Ban("user", "mallory")])
    copy = tmp_path / "copies" / "names"
    assert directory(tmp_path, "backup", copy).returncode == 0
    assert [file.name for file in copy.parent.iterdir()] == ["names"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    content = copy.read_bytes()
    again = directory(tmp_path, "backup", copy)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert copy.read_bytes() == content
    assert sorted(os.listdir(tmp_path / "data"))[-1] == FILE_NAME


def bans_in(folder: Path) -> list[tuple[str, str]]:
    """Name and reason of the users that the server in `folder` bans."""
    return sorted((ban.value, ban.reason) for ban in BanFile(folder / "data" / BANS).load())


async def test_bans_are_in_the_backup_and_those_given_since_stay(tmp_path: Path) -> None:
    identity, copy = Identity.generate(), tmp_path / "copy"
    async with ServerProcess(tmp_path, admin_port=0) as server:
        assert await register(server, "mallory", identity) == "registered"
        banned = await asyncio.to_thread(admin, server, tmp_path, "ban", "user", "mallory", "--reason", "spam")
        assert banned.returncode == 0, banned.stderr
        done = await asyncio.to_thread(directory, tmp_path, "backup", copy)
        assert done.stdout == f"1 name and the bans copied to {copy}\n", done.stderr
        for words in (("ban", "user", "trudy"), ("ban", "user", "mallory", "--reason", "more spam")):
            assert (await asyncio.to_thread(admin, server, tmp_path, *words)).returncode == 0
        refused = await asyncio.to_thread(directory, tmp_path, "restore", copy)
        assert refused.returncode == 2
        assert await server.stop() == 0
    assert bans_in(tmp_path) == [("mallory", "more spam"), ("trudy", "")], "a refused restore changes nothing"
    done = directory(tmp_path, "restore", copy)
    assert "with those of the backup, the server has 2 bans now\n" in done.stdout, done.stderr
    assert bans_in(tmp_path) == [("mallory", "more spam"), ("trudy", "")]
    assert tables(tmp_path / "data" / FILE_NAME).isdisjoint({"along"})
    assert "along" in tables(copy)
    # On a new machine, whose data folder is not there yet.
    shutil.rmtree(tmp_path / "data")
    assert directory(tmp_path, "restore", copy).returncode == 0
    assert bans_in(tmp_path) == [("mallory", "spam")]
    assert stat.S_IMODE((tmp_path / "data" / BANS).stat().st_mode) == 0o600
    async with ServerProcess(tmp_path) as again, await RawClient.connect(again.port) as mallory:
        key = base64.b64encode(identity.public_key).decode()
        challenge = await mallory.request({"type": "register", "userId": "mallory", "publicKey": key})
        mallory.send({"type": "prove", "signature": mallory.sign(identity, challenge, "mallory")})
        assert await mallory.wait_closed() == (CloseCode.BANNED, "banned: spam")


async def test_a_restore_does_not_touch_the_bans_of_a_server_whose_names_are_elsewhere(tmp_path: Path) -> None:
    await names_of(tmp_path, "alice")
    copy = tmp_path / "copy"
    BanFile(tmp_path / "data" / BANS).save([Ban("user", "mallory")])
    assert directory(tmp_path, "backup", copy).returncode == 0
    (tmp_path / "data" / BANS).unlink()
    async with ServerProcess(tmp_path, directory=str(tmp_path / "names.sqlite3")) as server:
        done = await asyncio.to_thread(directory, tmp_path, "restore", copy)
        assert done.returncode == 2
        assert f"{tmp_path / 'data'} is in use by a running server; stop it first" in done.stderr
        assert await server.stop() == 0
    assert bans_in(tmp_path) == []
    assert not list((tmp_path / "data").glob("*before-restore*"))
    assert directory(tmp_path, "restore", copy).returncode == 0
    assert bans_in(tmp_path) == [("mallory", "")]


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def admin(server: ServerProcess, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`aldis admin ...` for this server."""
    environment = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_DATA": str(folder / "data")}
    return aldis("admin", *words, home=folder, extra=environment)


async def test_a_backup_without_bans_leaves_those_of_the_server_alone(tmp_path: Path) -> None:
    """One of an earlier release, or what `aldis directory copy` makes."""
    await names_of(tmp_path, "alice")
    assert directory(tmp_path, "backup", tmp_path / "copy").returncode == 0
    BanFile(tmp_path / "data" / BANS).save([Ban("user", "mallory")])
    done = directory(tmp_path, "restore", tmp_path / "copy")
    assert (done.returncode, "with those of the backup" in done.stdout) == (0, False)
    assert bans_in(tmp_path) == [("mallory", "")]


async def test_bans_that_cannot_be_used_stop_a_restore_before_it_changes_anything(tmp_path: Path) -> None:
    await names_of(tmp_path, "alice")
    BanFile(tmp_path / "data" / BANS).save([Ban("user", "mallory")])
    assert directory(tmp_path, "backup", tmp_path / "copy").returncode == 0
    (tmp_path / "data" / BANS).write_text("no bans")
    done = directory(tmp_path, "restore", tmp_path / "copy")
    assert done.returncode == 2
    assert f"{tmp_path / 'data' / BANS} is no list of bans" in done.stderr
    assert not list((tmp_path / "data").glob("*before-restore*"))
    (tmp_path / "data" / BANS).unlink()
    with closing(sqlite3.connect(tmp_path / "copy")) as database:
        database.execute("UPDATE along SET content = ?", (b"[]",))
        database.commit()
    done = directory(tmp_path, "restore", tmp_path / "copy")
    assert done.returncode == 2
    assert f"{BANS} in {tmp_path / 'copy'} is no list of bans" in done.stderr
    assert os.listdir(tmp_path / "data") == [FILE_NAME]


async def test_a_damaged_directory_is_replaced_and_kept(tmp_path: Path) -> None:
    await names_of(tmp_path, "alice", "bob")
    copy = tmp_path / "copy"
    assert directory(tmp_path, "backup", copy).returncode == 0
    path = tmp_path / "data" / FILE_NAME
    path.write_bytes(b"damaged" * 1000)
    path.with_name(FILE_NAME + "-wal").write_bytes(b"stale")
    done = directory(tmp_path, "restore", copy)
    assert done.returncode == 0, done.stderr
    assert set(names_in(path)) == {"alice", "bob"}
    assert path.with_name(FILE_NAME + ".before-restore-1").read_bytes() == b"damaged" * 1000
    # It may have the last names, for a program that mends the kept file.
    assert path.with_name(FILE_NAME + ".before-restore-1-wal").read_bytes() == b"stale"
    assert not path.with_name(FILE_NAME + "-wal").exists()
    assert directory(tmp_path, "restore", copy).returncode == 0
    assert path.with_name(FILE_NAME + ".before-restore-2").exists()
    assert not path.with_name(FILE_NAME + ".before-restore-2-wal").exists()


async def test_a_backup_moves_to_a_new_machine(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    await names_of(tmp_path / "old", "alice")
    assert directory(tmp_path / "old", "backup", tmp_path / "copy").returncode == 0
    done = directory(tmp_path, "restore", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"1 name restored to {tmp_path / 'data' / FILE_NAME}\n"
    async with ServerProcess(tmp_path) as server:
        assert await register(server, "alice", Identity.generate()) == "key-mismatch"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("fresh", [True, False], ids=["new-machine", "names-there"])
async def test_what_root_restores_belongs_to_the_user_of_the_server(tmp_path: Path, *, fresh: bool) -> None:
    (tmp_path / "old").mkdir()
    await names_of(tmp_path / "old", "alice")
    BanFile(tmp_path / "old" / "data" / BANS).save([Ban("user", "mallory")])
    assert directory(tmp_path / "old", "backup", tmp_path / "copy").returncode == 0
    data = tmp_path / "data"
    if fresh:
        data.mkdir()
        os.chown(data, 4321, 4322)
    else:
        await names_of(tmp_path, "bob")
        os.chown(data, 4321, 4322)
        os.chown(data / FILE_NAME, 4321, 4322)
    assert directory(tmp_path, "restore", tmp_path / "copy").returncode == 0
    for restored in ((data / FILE_NAME).stat(), (data / BANS).stat()):
        assert (restored.st_uid, restored.st_gid) == (4321, 4322)


@pytest.mark.parametrize("kind", ["missing", "text", "other", "newer", "empty", "half"])
async def test_what_is_no_backup_is_refused_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    await names_of(tmp_path, "alice", *(f"user{number:03}" for number in range(100)))
    path, copy = tmp_path / "data" / FILE_NAME, tmp_path / "copy"
    before = names_in(path)
    if kind in ("newer", "half"):
        assert directory(tmp_path, "backup", copy).returncode == 0
    if kind == "half":
        whole = copy.read_bytes()
        copy.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        copy.write_text("no directory" * 1000)
    elif kind == "empty":
        copy.touch()
    elif kind in ("other", "newer"):
        database = sqlite3.connect(copy)
        database.execute("PRAGMA user_version=99" if kind == "newer" else "CREATE TABLE names (recipe TEXT)")
        database.close()
    done = directory(tmp_path, "restore", copy)
    assert done.returncode in (1, 2)
    assert str(copy) in done.stderr
    assert names_in(path) == before
    assert [name for name in os.listdir(path.parent) if "restore" in name or name.startswith(".")] == []


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_names_are_got_from_a_disk_that_became_read_only(tmp_path: Path, *, killed: bool) -> None:
    """As the kernel makes it after an error: no server starts there, and the names are wanted elsewhere."""
    async with ServerProcess(tmp_path) as server:
        assert await register(server, "alice", Identity.generate()) == "registered"
        if not killed:
            await server.stop()
    data = tmp_path / "data"
    assert (data / f"{FILE_NAME}-wal").exists() == killed
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'

    def on_it(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = ("unshare", "--map-root-user", "--mount", "sh", "-c", read_only, data, *COMMAND, "directory", *words)
        return subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    done = on_it("backup", tmp_path / "copy", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    done = on_it("copy", data, tmp_path / "moved")
    assert (done.returncode, done.stderr) == (0, "")
    for made in ("copy", "moved"):
        assert set(names_in(tmp_path / made)) == {"alice"}


async def test_what_is_damaged_inside_is_called_by_its_own_name(tmp_path: Path) -> None:
    """Its first page is whole: it opens, and its names cannot be read."""
    await names_of(tmp_path, "alice", *(f"user{number:03}" for number in range(100)))
    path, copy = tmp_path / "data" / FILE_NAME, tmp_path / "copy"
    assert directory(tmp_path, "backup", copy).returncode == 0
    before = names_in(path)
    for file in (copy, path):
        with file.open("r+b") as opened:
            opened.seek(4096)
            opened.write(b"damaged" * 1000)
        done = directory(tmp_path, *(("restore", copy) if file == copy else ("backup", tmp_path / "another")))
        assert done.returncode == 2
        assert done.stderr.startswith(f"aldis: {file} is damaged (")
        if file == copy:
            assert names_in(path) == before
    assert sorted(os.listdir(tmp_path)) == ["copy", "data"]
    assert [name for name in os.listdir(path.parent) if "restore" in name or name.startswith(".")] == []


async def test_the_commands_are_for_the_directory_that_the_server_has(tmp_path: Path) -> None:
    """And not for a file in --data that is left from before the server was moved."""
    await names_of(tmp_path, "alice")
    moved = tmp_path / "moved.sqlite3"
    assert aldis("directory", "copy", tmp_path / "data", moved, home=tmp_path).returncode == 0
    (tmp_path / "aldis.toml").write_text(f'data = "{tmp_path / "data"}"\ndirectory = "{moved}"\n')
    listed = aldis("directory", "names", "add", "bob", "--config", tmp_path / "aldis.toml", home=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert directory(tmp_path, "names", "list").stdout == "the list is empty\n"
    assert directory(tmp_path, "names", "list", "--directory", moved).stdout == "bob\n"
    copy = tmp_path / "copy"
    done = aldis("directory", "backup", copy, "--config", tmp_path / "aldis.toml", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert aldis("directory", "names", "list", "--directory", copy, home=tmp_path).stdout == "bob\n"
    url = "redis://user:pass-word@127.0.0.1:1"
    for command in ("backup", "restore"):
        refused = aldis("directory", command, copy, home=tmp_path, extra={"ALDIS_DIRECTORY": url})
        assert refused.returncode == 2
        assert "the names are at redis://127.0.0.1:1, which has backups of its own" in refused.stderr
        assert "pass-word" not in refused.stderr


async def test_a_backup_of_nothing_says_where_it_looked(tmp_path: Path) -> None:
    done = directory(tmp_path, "backup", tmp_path / "copy")
    assert done.returncode == 2
    assert str(tmp_path / "data" / FILE_NAME) in done.stderr
    assert not (tmp_path / "copy").exists()
    done = aldis("directory", "backup", tmp_path / "copy", "--data", ":memory:", home=tmp_path)
    assert done.returncode == 2
    assert "keeps no names" in done.stderr
