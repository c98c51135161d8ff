"""`aldis` in surroundings that it was not made in: no home, no letters but ASCII, no streams, no files to open."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.commands import COMMAND, Piped, Typed, aldis, environment
from support.patience import PATIENCE
from support.servers import Server

MEMORY = ("--port", "0", "--admin-port", "none", "--data", ":memory:")
# A locale without letters, and Python told not to know better (PEP 538, PEP 540).
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# A user whom the system does not know, as containers have them: the list of users is empty, and no other is asked.
NAMELESS = "for file in passwd nsswitch.conf; do mount --bind /dev/null /etc/$file || exit; done;"
NOWHERE = "ws://127.0.0.1:9"  # the discard port; nobody listens in the namespace of the tests


def shell(
    script: str, *words: str | Path, env: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own, with `words` as "$@"."""
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, words)],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert "fault in Aldis" not in result.stderr, result.stderr
    return result


def bare(**more: str) -> dict[str, str]:
    """An environment with nothing in it but a path: not even a home."""
    return {"PATH": os.environ["PATH"], **more}


def homeless(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return shell(f'{NAMELESS} exec "$@"', *COMMAND, *words, env=bare())


# --- no home ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--port", "0", "--admin-port", "none"),
        ("chat", "bob", "--as", "alice", "--server", NOWHERE),
        ("chat", "bob", "--as", "alice", "--server", NOWHERE, "--key", "alice.pem"),
        ("doctor", "--server", NOWHERE),
        ("keys", "new", "alice"),
        ("keys", "show"),
        ("keys", "peer", "bob"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_user_without_a_home_is_told_which_option_to_set(words: tuple[str, ...], tmp_path: Path) -> None:
    told = shell(f'{NAMELESS} exec "$@"', *COMMAND, *words, env=bare(), folder=tmp_path)
    assert told.returncode == 2
    assert "this user has no home directory" in told.stderr
    assert "--data" in told.stderr
    assert "ALDIS_DATA" in told.stderr


def test_what_needs_no_home_works_without_one(tmp_path: Path) -> None:
    assert homeless("--version").returncode == 0
    assert homeless("keys", "new", "alice", "--data", tmp_path / "data").returncode == 0
    assert homeless("keys", "new", "--key", tmp_path / "alice.pem").returncode == 0
    assert homeless("keys", "fingerprint", "--key", tmp_path / "alice.pem").returncode == 0
    # These get as far as the server, which is not there.
    for options in (("--data", ":memory:"), ("--data", tmp_path), ("--key", tmp_path / "alice.pem")):
        assert homeless("doctor", "--server", NOWHERE, *options).returncode == 3
    for options in (("--data", ":memory:"), ("--data", tmp_path)):
        assert homeless("chat", "bob", "--as", "alice", "--no-wait", "--server", NOWHERE, *options).returncode == 3


def test_a_tilde_that_stands_for_no_home_is_told(tmp_path: Path) -> None:
    for words in (
        ("serve", "--data", "~/names"),
        ("serve", "--tls-cert", "~nobody-of-this-name/cert.pem"),
        ("serve", "--config", "~/aldis.toml"),
        ("keys", "show", "--data", "~/data"),
        ("doctor", "--ca-file", "~/ca.pem"),
    ):
        told = homeless(*words)
        assert told.returncode == 2
        assert "home directory" in told.stderr


def test_the_library_needs_no_home(tmp_path: Path) -> None:
    program = """
from aldis import NetworkStore, ServerConfig, SignalingServer
from aldis.errors import ConfigError
NetworkStore()
SignalingServer(ServerConfig(data=":memory:"))
try:
    ServerConfig()
except ConfigError as error:
    print(error)
"""
    ran = shell(f'{NAMELESS} exec "$@"', sys.executable, "-c", program, env=bare())
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("data: this user has no home directory; ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("serve", "--port", "0", "--admin-port", "none"), 1),
        (("chat", "bob", "--as", "alice", "--server", NOWHERE), 2),
        (("doctor", "--server", NOWHERE), 2),
        (("keys", "new", "alice"), 2),
        (("keys", "trust", "bob", "--public-key", "A" * 43 + "="), 2),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else None,
)
def test_a_home_that_cannot_be_written_is_told_with_the_way_out(words: tuple[str, ...], code: int) -> None:
    told = shell('exec "$@"', *COMMAND, *words, env=bare(HOME="/dev/null"))
    assert told.returncode == code
    assert "--data" in told.stderr
    # Who has chosen the directory knows how.
    chosen = shell('exec "$@"', *COMMAND, *words, "--data", "/dev/null/data", env=bare())
    assert chosen.returncode == code
    assert "ALDIS_DATA names another" not in chosen.stderr


def test_a_folder_that_is_closed_to_this_user_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    # Without its capabilities root is held to the modes of files like anybody else.
    script = 'exec setpriv --bounding-set -all --inh-caps -all "$@"'
    for words, code in (
        (("keys", "show"), 2),
        (("keys", "new", "alice"), 2),
        (("chat", "bob", "--as", "alice", "--server", NOWHERE), 2),
        (("doctor", "--as", "alice", "--server", NOWHERE), 2),
        (("serve", *MEMORY[:4]), 1),
    ):
        told = shell(script, *COMMAND, *words, "--data", closed, env=bare())
        assert (told.returncode, "Permission denied" in told.stderr or "no key for alice" in told.stderr) == (
            code,
            True,
        )


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    works = shell(script, *COMMAND, "keys", "new", "a", "--data", tmp_path, env=bare(), folder=tmp_path / "gone")
    assert works.returncode == 0
    (tmp_path / "gone").mkdir()
    told = shell(script, *COMMAND, "keys", "new", "a", "--data", "here", env=bare(), folder=tmp_path / "gone")
    assert told.returncode == 2
    assert "No such file or directory" in told.stderr


# --- a disk that takes nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [("size=16k", "(No space left on device|disk is full)"), ("ro", "(Read-only file system|unable to open)")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_is_told(options: str, problem: str, tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o {options} none "$1" && cd "$1" && shift && (cat /dev/zero > fill; true) 2>&- && "$@"'
    for words, code in (
        (("serve", *MEMORY[:4]), 1),
        (("chat", "bob", "--as", "alice", "--server", NOWHERE), 2),
        (("doctor", "--server", NOWHERE), 2),
        (("keys", "new", "alice"), 2),
    ):
        told = shell(script, tmp_path, *COMMAND, *words, "--data", "here", env=bare())
        assert told.returncode == code, told.stderr
        assert re.search(problem, told.stderr)


# --- a locale without letters -----------------------------------------------------------------------------------------


def test_a_name_may_have_letters_that_the_locale_does_not(tmp_path: Path) -> None:
    made = aldis("keys", "new", "jörg", home=tmp_path, extra=ASCII)
    assert made.returncode == 0, made.stderr
    assert "name         j\\xf6rg\n" in made.stdout
    # It is the name that others know.
    assert aldis("keys", "show", home=tmp_path).stdout.startswith("jörg ")
    assert aldis("keys", "show", "jörg", home=tmp_path, extra=ASCII).returncode == 0


def test_an_argument_that_is_no_text_is_told(tmp_path: Path) -> None:
    for extra in ({}, ASCII):
        told = aldis("keys", "new", os.fsdecode(b"j\xf6rg"), home=tmp_path, extra=extra)
        assert told.returncode == 2
        assert "it is not UTF-8" in told.stderr


def test_a_path_may_have_letters_that_the_locale_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "schlüssel"
    assert aldis("keys", "new", "alice", "--data", folder, home=tmp_path, extra=ASCII).returncode == 0
    assert (folder / "keys" / "alice.pem").exists()


async def test_a_setting_may_have_letters_that_the_locale_does_not(tmp_path: Path) -> None:
    words = ("serve", *MEMORY, "--host", "0.0.0.0", "--names", "bücher.example")
    async with Piped(*words, home=tmp_path, extra=ASCII) as server:
        assert "It is dialled as wss://xn--bcher-kva.example," in await server.says("Ctrl-C stops the server")


async def test_two_talk_in_a_locale_without_letters(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        where = ("--server", server.url)
        listen = ("chat", "zoë", "--as", "jörg", "--listen", *where)
        async with (
            Piped(*listen, home=tmp_path / "j", extra=ASCII) as jorg,
            Typed("chat", "jörg", "--as", "zoë", *where, home=tmp_path / "z", extra=ASCII) as zoe,
        ):
            jorg.stdin.close()
            await zoe.shows("direct")
            zoe.type("grüße\r")
            assert await jorg.line() == "zoë: grüße"
            zoe.type(b"half \xff\r")
            assert await jorg.line() == "zoë: half \ufffd"
            await zoe.shows("not UTF-8")
            zoe.type("\x04")
            assert await zoe.end() == 0
            assert await jorg.end() == 0


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_may_be_closed(closed: str, tmp_path: Path) -> None:
    for words, code in (
        ("--help", 0),
        ("--version", 0),
        ("keys", 2),
        ("keys new alice", 0),
        ("serve --help", 0),
        (f"doctor --server {NOWHERE}", 3),
        (f"chat bob --as alice --no-wait --server {NOWHERE}", 3),
    ):
        ended = shell(f'"$@" {words} {closed}', *COMMAND, env=environment(tmp_path, {"HOME": str(tmp_path / words)}))
        assert ended.returncode == code, (words, ended.stderr)


async def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = shlex.join([*COMMAND, "serve", *MEMORY[:4], "--data", str(data), "--log-format", "json"])
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f"exec {command} <&- >&- 2>&-", env=environment(tmp_path)
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not (data / "names.sqlite3").exists():
                assert process.returncode is None
                await asyncio.to_thread(os.sched_yield)
        for number in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == os.devnull
    finally:
        process.terminate()
        assert await process.wait() == 0


def test_help_for_a_stream_that_is_full_keeps_its_code(tmp_path: Path) -> None:
    assert shell('"$@" 2>/dev/full', *COMMAND, "keys", env=environment(tmp_path)).returncode == 2
    for words in ((), ("sevre",), ("serve", "--prt"), ("chat", "bob")):
        assert shell('"$@" 2>/dev/full', *COMMAND, *words, env=environment(tmp_path)).returncode == 2


# --- limits and switches ----------------------------------------------------------------------------------------------


def test_too_few_files_are_told(tmp_path: Path) -> None:
    served = shell('ulimit -n 12; exec "$@"', *COMMAND, "serve", *MEMORY, env=environment(tmp_path))
    assert served.returncode == 2
    assert "this process may open 12 files" in served.stderr
    talked = shell(
        'ulimit -n 5; exec "$@"', *COMMAND, "chat", "bob", "--as", "alice", "--data", ":memory:", env=bare(HOME="/")
    )
    assert talked.returncode == 1
    assert "too many open files" in talked.stderr


@pytest.mark.parametrize(
    "extra",
    [
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONSAFEPATH": "1", "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "default"},
        {"TZ": "Nowhere/At_All", "TERM": "", "COLUMNS": "0", "TMPDIR": "/nonexistent"},
    ],
    ids=["optimized", "strict", "dev", "odd"],
)
async def test_two_talk_whatever_python_was_told(extra: dict[str, str], tmp_path: Path) -> None:
    async with Piped("serve", *MEMORY, home=tmp_path, extra=extra) as server:
        text = await server.says("Ctrl-C stops the server")
        url = next(word for word in text.split() if word.startswith("ws://")).rstrip(",.")
        listen = ("chat", "alice", "--as", "bob", "--listen", "--server", url)
        async with Piped(*listen, home=tmp_path, extra=extra) as bob:
            bob.stdin.close()
            async with Piped("chat", "bob", "--as", "alice", "--server", url, home=tmp_path, extra=extra) as alice:
                await alice.type("hello\n")
                alice.stdin.close()
                assert await bob.line() == "alice: hello"
                assert await alice.end() == 0
            assert await bob.end() == 0


def test_python_dash_m_aldis_is_the_command(tmp_path: Path) -> None:
    installed = Path(sys.executable).with_name("aldis")
    for words in (("--help",), ("serve", "--help"), ("chat",), ("nothing",), ("--version",)):
        by_name, by_module = (
            subprocess.run(
                [*command, *words], env=environment(tmp_path), capture_output=True, timeout=PATIENCE, check=False
            )
            for command in ([installed], [sys.executable, "-m", "aldis"])
        )
        assert (by_name.returncode, by_name.stdout, by_name.stderr) == (
            by_module.returncode,
            by_module.stdout,
            by_module.stderr,
        )
