"""Starting `aldis`: help for every command, quickly, and nothing that a person should not see."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import aldis, environment

HEAVY = ("webrtc", "wrtc", "aiortc", "aiohttp", "prompt_toolkit", "rich", "picows", "uvloop", "asyncio", "av")
COMMANDS = [
    (),
    ("serve",),
    ("chat",),
    ("doctor",),
    ("keys",),
    ("keys", "new"),
    ("keys", "show"),
    ("keys", "fingerprint"),
    ("keys", "peer"),
    ("keys", "trust"),
    ("directory",),
    ("directory", "backup"),
    ("directory", "restore"),
    ("directory", "copy"),
]


def loaded_by(code: str, home: Path) -> set[str]:
    """The modules that are loaded after `code` has run in a new interpreter."""
    text = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", text], env=environment(home), capture_output=True, check=True, timeout=30
    )
    modules: list[str] = json.loads(result.stderr.splitlines()[-1])
    return set(modules)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_is_no_error(command: tuple[str, ...], tmp_path: Path) -> None:
    shown = aldis(*command, "--help", home=tmp_path)
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert shown.stdout.startswith(f"Usage: aldis{''.join(f' {word}' for word in command)} ")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if len(command) == 1], ids=" ".join)
def test_help_teaches_with_examples_and_exit_codes(command: tuple[str, ...], tmp_path: Path) -> None:
    shown = aldis(*command, "--help", home=tmp_path).stdout
    assert "\nExamples\n  aldis " in shown
    assert "\nExit codes\n  0    all went well\n" in shown


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], *([name, "--help"] for name in ("serve", "chat", "doctor")), ["keys", "show"]]
)
def test_small_commands_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    modules = loaded_by(f"from aldis.cli.main import run\ntry: run({words!r})\nexcept SystemExit: pass", tmp_path)
    assert "aldis.cli.main" in modules
    assert modules.isdisjoint(HEAVY)


def test_no_command_is_answered_with_the_help(tmp_path: Path) -> None:
    shown = aldis(home=tmp_path)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith("Usage: aldis COMMAND")


def test_the_version_is_told(tmp_path: Path) -> None:
    assert aldis("--version", home=tmp_path).stdout.startswith("aldis ")


def test_an_unknown_command_is_told_with_a_guess(tmp_path: Path) -> None:
    guess = aldis("sevre", home=tmp_path)
    assert guess.returncode == 2
    assert guess.stderr == "aldis: there is no command `aldis sevre`. Did you mean `aldis serve`?\n" + (
        "  `aldis --help` lists them.\n"
    )


def test_output_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "aldis.cli.main", "--help"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "aldis.cli.main", "--help"],
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == b"aldis: cannot write the output: No space left on device\n"


def test_a_name_that_the_terminal_cannot_show_is_no_fault(tmp_path: Path) -> None:
    shown = aldis("keys", "new", "j\xf6rg", home=tmp_path, extra={"PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 0
    assert "j\\xf6rg" in shown.stdout
