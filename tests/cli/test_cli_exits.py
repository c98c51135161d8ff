"""Exit codes: what each error becomes, and that the documentation says the same."""

import re
from pathlib import Path

import pytest

from aldis import errors
from aldis.backends.base import DatabaseUnavailable, PostgresUnavailable
from aldis.cli.exits import MEANINGS, ExitCode, exit_code_of, explain
from support.commands import Typed

KEY = bytes(32)
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("port", "is wrong"), 2),
        (errors.IdentityError("no such file"), 2),
        (errors.ServerUnreachable("ws://x", "refused"), 3),
        (errors.ReconnectGaveUp(3, "refused"), 3),
        (errors.RequestTimeout("register", 10), 3),
        (errors.ConnectionLost("lost"), 3),
        (errors.RequestFailed("key-mismatch", "the name belongs to another key"), 4),
        (errors.ConnectionClosed(4503, "banned"), 4),
        (errors.PeerOffline("bob"), 5),
        (errors.PeerUnknown("bob"), 5),
        (errors.PeerKeyChanged("bob", KEY, KEY), 6),
        (errors.ProofInvalid("bob", "forged"), 6),
        (errors.PeerConnectionFailed("bob", "ICE"), 7),
        (errors.DeliveryFailed("bob", 1, "gone"), 8),
        (errors.JournalInUse("j", "is in use"), 2),
        (errors.JournalDiskFull("j", "cannot grow"), 2),
        (errors.ProtocolViolation("nonsense"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_exit_code(error: errors.AldisError, code: int) -> None:
    assert exit_code_of(error) == code


def test_the_documentation_has_the_same_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == {int(code): text for code, text in MEANINGS.items()}
    assert set(MEANINGS) == set(ExitCode)


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in explain(errors.RequestFailed("x\x1b[2J", "no\x1b[2J\nway"))
    assert explain(errors.RequestFailed("forbidden", "no\nway")) == "no\\nway (forbidden)"


def test_what_can_be_done_is_said() -> None:
    assert "--as" in explain(errors.RequestFailed("key-mismatch", "no"))
    assert "--device" in explain(errors.ConnectionClosed(4001, "replaced"))
    assert "7 s" in explain(errors.RequestFailed("rate-limited", "slow down", temporary=True, retry_after=7.0))
    full = errors.RequestFailed("over-capacity", "16 devices are online", temporary=True, retry_after=30.0)
    assert "End one of them, or try again in 30 s" in explain(full)
    assert "send to a name" in explain(errors.RequestFailed("token-invalid", "the token is for another user"))
    no_memory = errors.RequestFailed(
        "over-capacity", "this server has no memory left", temporary=True, retry_after=30.0
    )
    assert explain(no_memory).endswith("\n  Try again in 30 s.")
    assert "aldis doctor" in explain(errors.ServerUnreachable("ws://x", "refused"))
    # Servers of a cluster name theirs with --redis.
    assert "--redis or --directory" in explain(DatabaseUnavailable("Redis at x cannot be reached"))
    # Names in a PostgreSQL have one option, also in a cluster.
    hint = explain(PostgresUnavailable("the PostgreSQL database x cannot be reached"))
    assert "--directory (ALDIS_DIRECTORY)" in hint
    assert "redis" not in hint.lower()


async def test_an_error_on_a_narrow_terminal_has_whole_words(tmp_path: Path) -> None:
    async with Typed("receive", "42-acidd-acorn", home=tmp_path, columns=30) as screen:
        assert await screen.end() == 2
    assert screen.seen.split() == [
        "aldis:",
        "'acidd'",
        "is",
        "no",
        "word",
        "of",
        "a",
        "code;",
        "did",
        "you",
        "mean",
        "'acid'?",
    ]
    assert max(map(len, screen.seen.splitlines())) <= 30
