"""The exit codes of `aldis`, and how an exception becomes a text for people and a code for scripts.

Rules: a code never changes its meaning, because scripts depend on it. docs/cli.md has the same table, and a test
compares the two. Every text that may come from outside is made safe before it is printed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from enum import IntEnum
from typing import Final

from aldis.backends.base import DatabaseUnavailable, DirectoryTooNew, DirectoryUnavailable, PostgresUnavailable
from aldis.cli.text import safe_line, wrapped
from aldis.errors import (
    AldisError,
    ConnectionClosed,
    ConnectionLost,
    DeliveryFailed,
    JournalError,
    JournalInUse,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerUnknown,
    ProofInvalid,
    ReconnectGaveUp,
    RequestFailed,
    RequestTimeout,
    ServerUnreachable,
    TokenUnavailable,
    TransferFailed,
    UsageError,
)
from aldis.protocol.codes import CloseCode, ErrorCode

# Columns of a terminal: the texts have lines for the usual ones. On one that is narrower still, words are broken.
_USUAL: Final = 80
_NARROW: Final = 20


class AdminUnreachable(ServerUnreachable):
    """The admin port of a server cannot be reached. It is another one than that of clients."""


class ExitCode(IntEnum):
    """The exit codes; 128 and above follow the shell's rule, 128 plus the number of the signal."""

    OK = 0
    FAULT = 1
    USAGE = 2
    SERVER_UNREACHABLE = 3
    REFUSED = 4
    PEER_OFFLINE = 5
    KEY_CHANGED = 6
    CONNECTION_FAILED = 7
    NOT_DELIVERED = 8
    WRONG_CODE = 9
    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "all went well",
    ExitCode.FAULT: "something else failed",
    ExitCode.USAGE: "wrong usage, or a file that cannot be used",
    ExitCode.SERVER_UNREACHABLE: "the server cannot be reached",
    ExitCode.REFUSED: "the server refused, mostly because the name belongs to another key",
    ExitCode.PEER_OFFLINE: "the peer is unknown, or did not come online in time",
    ExitCode.KEY_CHANGED: "the peer's key has changed, or a proof was forged",
    ExitCode.CONNECTION_FAILED: "no direct connection to the peer could be made",
    ExitCode.NOT_DELIVERED: "the peer did not confirm every message in time, or a file did not arrive",
    ExitCode.WRONG_CODE: "the code was wrong, or was used up",
    ExitCode.HANGUP: "ended by SIGHUP",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C, SIGINT)",
    ExitCode.BROKEN_PIPE: "the reader of the output is gone",
    ExitCode.TERMINATED: "ended by SIGTERM",
}


def exit_code_of(error: AldisError) -> ExitCode:
    """The exit code for an exception."""
    match error:
        case PeerOffline() | PeerUnknown():
            return ExitCode.PEER_OFFLINE
        case PeerKeyChanged() | ProofInvalid():
            return ExitCode.KEY_CHANGED
        case PeerConnectionFailed():
            return ExitCode.CONNECTION_FAILED
        case DeliveryFailed() | TransferFailed():
            return ExitCode.NOT_DELIVERED
        case ServerUnreachable() | ConnectionLost() | ReconnectGaveUp() | RequestTimeout():
            return ExitCode.SERVER_UNREACHABLE
        case RequestFailed() | ConnectionClosed():
            return ExitCode.REFUSED
        case UsageError() | TokenUnavailable() | JournalError():
            return ExitCode.USAGE
        case _:
            return ExitCode.FAULT


def explain(error: AldisError) -> str:
    """What went wrong and, if possible, what to do: one to three lines, safe to print."""
    text = safe_line(str(error))
    hint = _hint(error)
    return f"{text}\n  {hint}" if hint else text


def _hint(error: AldisError) -> str | None:
    match error:
        case RequestFailed(code=ErrorCode.KEY_MISMATCH):
            return (
                "On this server the name belongs to another key: another user has it, or your key file has changed.\n"
                "  Take another name with --as, or give the key that first used the name with --key."
            )
        case RequestFailed(code=ErrorCode.BAD_SIGNATURE):
            return (
                "If there is a proxy in front of the server, it has to pass the Host header on, and the server's\n"
                "  --names have to include the name that you dial."
            )
        case RequestFailed(code=ErrorCode.TOKEN_REQUIRED | ErrorCode.TOKEN_INVALID | ErrorCode.TOKEN_EXPIRED):
            return (
                "The operator of the server gives out tokens, mostly by a page or program where you log in.\n"
                "  Give yours with --token-file or ALDIS_TOKEN; it has to be for the name in --as.\n"
                "  A code of `aldis send` has names of its own: where each token is for one name, send to a name."
            )
        # The code is the same for what one user has, and for what the server has for all.
        case RequestFailed(code=ErrorCode.OVER_CAPACITY, message=text, retry_after=float() as seconds) if (
            "device" in text
        ):
            return f"End one of them, or try again in {seconds:.0f} s: lost connections have ended by then."
        case RequestFailed(code=ErrorCode.RATE_LIMITED | ErrorCode.OVER_CAPACITY, retry_after=float() as seconds):
            return f"Try again in {seconds:.0f} s."
        case ConnectionClosed(code=CloseCode.REPLACED):
            return (
                "The same name has connected again, with the same key, from another place.\n"
                "  Give one of them another --device, and both can be online."
            )
        case DirectoryTooNew():
            return (
                "Use that release again. Or go back to the names as they were before the upgrade: restore the backup\n"
                "  that you made then, with `aldis directory restore` (of a PostgreSQL with its own tools)."
            )
        case PostgresUnavailable():
            return "Does the database run, and is the URL in --directory (ALDIS_DIRECTORY) right? Its log says more."
        case DatabaseUnavailable():
            return (
                "Does the database run, and is the URL in --redis or --directory (ALDIS_REDIS, ALDIS_DIRECTORY)\n"
                "  right? Its log says more."
            )
        case DirectoryUnavailable():
            return "--data (or ALDIS_DATA) names another directory; `--data :memory:` keeps nothing."
        case JournalInUse():
            return "End the other command, or give this one another --device, or another file with --journal."
        case JournalError():
            return "--journal names another file; `--journal :memory:` keeps nothing."
        case AdminUnreachable():
            return (
                "Does the server run, and is this its admin port? Mostly only its own machine can reach that.\n"
                "  --admin names another address, --config the server's settings file, which has it."
            )
        case ServerUnreachable():
            return "Is the server running, and is the address right? `aldis doctor --server URL` finds out more."
        case _:
            return None


def complain(text: str) -> None:
    """Print a diagnostic on stderr. If that fails, the text is lost, because there is no other place for it."""
    if sys.stderr is None:  # the parent process has closed it; print would use standard output
        return
    with suppress(OSError):
        print(fitting(f"aldis: {text}"), file=sys.stderr, flush=True)


def fitting(text: str) -> str:
    """The text for standard error: as it is for programs, in lines of whole words for a narrow terminal."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # no terminal
        return text
    return wrapped(text, max(columns, _NARROW)) if 0 < columns < _USUAL else text


def report(error: AldisError) -> ExitCode:
    """Report an error on stderr, and return its exit code."""
    complain(explain(error))
    return exit_code_of(error)
