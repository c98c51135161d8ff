"""`aldis directory`: backup, restore and copy of the names that a server keeps."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.backends.base import DatabaseUnavailable, DirectoryTooNew, DirectoryUnavailable
from aldis.cli.exits import ExitCode, complain, explain
from aldis.cli.options import check_names, existing_file, names_action, user_name, utf8
from aldis.cli.parser import Parser, run_command
from aldis.cli.text import safe_line
from aldis.errors import UsageError

if TYPE_CHECKING:
    from aldis.server.ban_file import BanFile
    from aldis.server.config import ServerConfig

_HELP: Final = """\
Usage: aldis directory COMMAND [options]

Back up, restore and move the names of a server, and the keys that they are
bound to.

Commands
  backup       Copy names and bans to a new file, also while the server runs.
  restore      Put a backup in their place, while the server is stopped.
  copy         Copy the names to another directory, also while the server runs.
  names        List, add and remove names that may register.

Options
  -h, --help   Show this text; `aldis directory COMMAND --help` tells more.

Examples
  aldis directory backup /var/backups/names-$(date +%F).sqlite3
  aldis directory restore /var/backups/names-2026-11-28.sqlite3
  aldis directory copy /var/lib/aldis redis://10.0.0.5/0

Exit codes
  0    all went well
  1    something else failed
  2    wrong usage, or a file that cannot be used
"""
_CODES: Final = (ExitCode.OK, ExitCode.FAULT, ExitCode.USAGE)


_STOP_FIRST: Final = "a running server; stop it first, and start it again afterwards"
# What says where the names are; other settings of the server may need secrets that are not here.
_SETTINGS: Final = ("data", "directory", "redis", "redis_prefix", "redis_password_file")
# Names that are read at a time.
_PAGE: Final = 1000


class Arguments(Namespace):
    """The arguments of these commands."""

    file: Path
    action: str
    name: str | None
    data: str | None
    directory: str | None
    config: Path | None


def run(arguments: Sequence[str]) -> int:
    """Run `aldis directory` with these arguments and return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "backup": _backup,
        "restore": _restore,
        "copy": _copy,
        "names": _names,
    }
    try:
        return run_command("aldis directory", _HELP, commands, arguments)
    except (DatabaseUnavailable, DirectoryTooNew):
        raise
    except DirectoryUnavailable as error:
        complain(safe_line(str(error)))  # without the advice for a server, to use another folder
        return ExitCode.FAULT


def _backup(words: Sequence[str]) -> int:
    from aldis.backends.sqlite_copies import backup
    from aldis.server.ban_file import FILE_NAME

    text = (
        "Copy the names, their keys and the bans to a new file, which only you may read.\n"
        "The server may run meanwhile: the copy is whole, and of one moment. Never\n"
        "replaces a file."
    )
    file, directory, bans = _parsed("backup", text, "  aldis directory backup names-$(date +%F).sqlite3", words)
    content = None if bans is None else bans.content()
    try:
        names = backup(directory, file, {} if content is None else {FILE_NAME: content})
    except DirectoryTooNew as error:
        complain(explain(error))
        return ExitCode.USAGE
    what = _counted(names, "name") if content is None else f"{_counted(names, 'name')} and the bans"
    print(f"{what} copied to {safe_line(str(file))}")
    return ExitCode.OK


def _restore(words: Sequence[str]) -> int:
    from aldis.backends.sqlite_copies import restore

    text = (
        "Put a backup in the place of the names that the server keeps. Stop the server\n"
        "first: this refuses while it runs. The names that were there are kept beside.\n\n"
        "Names that were bound after the backup are free again, and belong to the first\n"
        "who registers them. Keys that were rotated since are the old ones again. Bans of\n"
        "the backup are added to those that the server has."
    )
    file, directory, bans = _parsed("restore", text, "  aldis directory restore names-2026-11-28.sqlite3", words)

    from aldis.server.ban_file import FILE_NAME, read_bans
    from aldis.server.data_folder import held_folder

    banned: list[int] = []

    def put(along: Mapping[str, bytes]) -> None:
        if bans is not None and FILE_NAME in along:
            banned.append(bans.add(read_bans(along[FILE_NAME], f"{FILE_NAME} in {file}")))

    # The bans are in the data folder, and a server that runs there would write its own over them. Its names may be in
    # another folder, so that nothing else tells of it.
    with nullcontext() if bans is None or bans.folder is None else held_folder(bans.folder, _STOP_FIRST):
        names, kept = restore(directory, file, put)
    print(f"{_counted(names, 'name')} restored to {safe_line(str(directory))}")
    if banned:
        print(f"with those of the backup, the server has {_counted(banned[0], 'ban')} now")
    if kept is not None:
        print(f"the names that were there are kept in {safe_line(str(kept))}")
    return ExitCode.OK


def _copy(words: Sequence[str]) -> int:
    text = (
        "Copy all names, keys, privacies and the list of names that may register, from\n"
        "one directory to another. FROM is only read, and its server may run: the copy\n"
        "goes over it again until nothing differs. A copy that was broken off goes on by\n"
        "the same command.\n\n"
        "To move a server: copy, stop the server, copy again, start it with the new one."
    )
    examples = (
        "  aldis directory copy /var/lib/aldis redis://10.0.0.5/0\n"
        "  aldis directory copy --verify /var/lib/aldis redis://10.0.0.5/0"
    )
    parser = Parser("aldis directory copy", "FROM TO [options]", text, examples=examples, codes=_CODES)
    parser.argument("from", "The directory that is read: a file, a data folder, or a URL.", convert=utf8)
    parser.argument("to", "The directory that is written.", convert=utf8)
    add = parser.options.add_argument
    add("--exact", action="store_true", help="Also release at TO what FROM does not have.")
    add("--dry-run", action="store_true", help="Say what a copy would do, and write nothing.")
    add("--verify", action="store_true", help="Compare only; exit code 1 when the two differ.")
    add("--redis-prefix", metavar="TEXT", default="aldis:", help="What each key in a Redis begins with [aldis:].")
    add(
        "--redis-password-file",
        metavar="FILE",
        type=existing_file,
        help="The password of the Redis in FROM or TO, which others cannot read in the list of processes.",
    )
    parser.add_help_option()
    given = vars(parser.parse_args(words))

    from aldis.backends.directory_url import DirectoryOptions
    from aldis.cli.directory_copy import CopyOptions, run

    redis = DirectoryOptions(given["redis_prefix"], given["redis_password_file"])
    options = CopyOptions(redis, exact=given["exact"], dry_run=given["dry_run"], verify=given["verify"])
    return run(given["from"], given["to"], options)


def _names(words: Sequence[str]) -> int:
    import asyncio

    text = (
        "The names that may register on a server with --name-policy closed, which may run\n"
        "or not. `remove` ends no session: `aldis admin names remove` does."
    )
    parser = Parser("aldis directory names", "(list | add NAME | remove NAME) [options]", text, codes=_CODES)
    parser.argument("action", "list, add or remove.", convert=names_action)
    parser.argument("name", "The name.", convert=user_name, optional=True)
    arguments, config = _located(parser, words)
    check_names(parser, arguments.action, arguments.name)
    for line in asyncio.run(_changed(config, arguments.action, arguments.name or "")):
        print(safe_line(line))
    return ExitCode.OK


async def _changed(config: ServerConfig, action: str, name: str) -> list[str]:
    """Do what is asked for; what there is to say."""
    from aldis.backends.opening import open_directory

    directory = await open_directory(config.directory_url, config.directory_options)
    try:
        match action:
            case "add":
                said = "may register now" if await directory.list_name(name) else "was on the list already"
                return [f"{name} {said}"]
            case "remove":
                said = "may not register any more" if await directory.unlist_name(name) else "was not on the list"
                return [f"{name} {said}"]
        names: list[str] = []
        while page := await directory.listed_names(names[-1] if names else "", _PAGE):
            names += page
        return names or ["the list is empty"]
    finally:
        await directory.close()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _parsed(command: str, text: str, examples: str, words: Sequence[str]) -> tuple[Path, Path, BanFile | None]:
    """The backup, the file of the server's directory, and that of its bans."""
    parser = Parser(f"aldis directory {command}", "FILE [options]", text, examples=examples, codes=_CODES)
    parser.argument("file", "The backup.", convert=str)
    arguments, config = _located(parser, words)

    from aldis.backends.directory_url import MEMORY, sqlite_path, without_password
    from aldis.server.ban_file import FILE_NAME, BanFile

    path = sqlite_path(config.directory_url)
    if path is None:
        raise UsageError(
            f"the names are at {without_password(config.directory_url)}, which has backups of its own:"
            " this command is for files, and `aldis directory copy` makes one of any directory"
        )
    bans = None if config.data == MEMORY else BanFile(Path(config.data) / FILE_NAME)
    return Path(arguments.file), path, bans


def _located(parser: Parser, words: Sequence[str]) -> tuple[Arguments, ServerConfig]:
    """The arguments, and the server's settings, which name its directory."""
    parser.options.add_argument(
        "--data", metavar="DIR", help="The server's data directory [$ALDIS_DATA or your data directory]."
    )
    parser.options.add_argument(
        "--directory", metavar="URL", help="The server's directory, where it is not in --data [$ALDIS_DIRECTORY]."
    )
    parser.options.add_argument(
        "--config",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CONFIG") or None,
        help="The server's settings file, which may name the directory [$ALDIS_CONFIG].",
    )
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())

    from aldis.backends.directory_url import MEMORY
    from aldis.server.config import load_config

    given = {"data": arguments.data, "directory": arguments.directory}
    config = load_config(given, os.environ, arguments.config, only=_SETTINGS)
    if config.directory_url == MEMORY:
        raise UsageError(f"a server with --data {MEMORY} keeps no names")
    return arguments, config
