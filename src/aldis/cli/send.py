"""`aldis send`: files, folders or standard input, to a name or by a code of words."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.cli.exchange import ExchangeArguments, add_exchange, check_code, code_store, named_store, plan
from aldis.cli.exits import MEANINGS, ExitCode, complain
from aldis.cli.options import DEFAULT_SERVER, user_name, utf8
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line
from aldis.protocol.hosts import is_this_machine

if TYPE_CHECKING:
    from aldis.cli.ledger import Ledger
    from aldis.cli.pipes import PipeSource
    from aldis.cli.progress import Screen
    from aldis.cli.talk import Talk
    from aldis.client.address import ServerAddress
    from aldis.store.files.transfer import Transfer
    from aldis.store.peers.admission import Accept
    from aldis.store.store import NetworkStore

_TEXT: Final = """\
Send files and folders, directly and privately. `-` is standard input.

With --as ME, the last word is the NAME of the recipient, who runs
`aldis receive --as NAME --from ME`. Either of you may start first.

Without --as, the command prints a code of words. Tell it to the other person,
who runs `aldis receive CODE`. Nobody needs a name, and nobody else can guess
the code: one try, right or wrong, uses it up.

If the transfer is interrupted, by either side, run the same command again: it
goes on where it stopped. A checksum covers everything."""

_EXAMPLES: Final = """\
  aldis send holiday.jpg
      prints a code, for `aldis receive CODE` on the other machine
  aldis send film.mkv notes/ bob --as alice
  tar cz project | aldis send - bob --as alice --name project.tar.gz"""

_CODES: Final = [code for code in MEANINGS if code is not ExitCode.BROKEN_PIPE]
_WAIT: Final = 60.0  # seconds: time to walk over to the other machine
_NEW_CODES: Final = 8  # codes that are tried when their names are taken


class Arguments(ExchangeArguments):
    """The arguments of `aldis send`."""

    file: list[str]
    name: str | None
    wait: bool


def run(words: Sequence[str]) -> int:
    """Run `aldis send` with these arguments and return the exit code."""
    parser = Parser("aldis send", "FILE... [NAME --as ME] [options]", _TEXT, examples=_EXAMPLES, codes=_CODES)
    parser.argument("file", "Files or folders to send, `-` for standard input; then NAME.", convert=utf8, many=True)
    parser.options.add_argument("--name", metavar="FILE", help="The name that the recipient sees, for one FILE.")
    parser.options.add_argument(
        "--no-wait", dest="wait", action="store_false", help="Fail at once when NAME is not online."
    )
    add_exchange(
        parser,
        "How long to wait until the other side comes, or comes back; 0 means no limit [60 with a NAME, 0 with a code].",
    )
    arguments = parser.parse_intermixed_args(words, Arguments())
    paths, peer = arguments.file, None
    if arguments.me is not None:
        if len(paths) < 2:
            parser.error("with --as, the last word is the NAME of the recipient; leave --as out for a code")
        *paths, peer = paths
        try:
            user_name(peer)
        except Exception as error:  # noqa: BLE001 - ArgumentTypeError, which argparse catches in its own place
            parser.error(str(error))
        if peer == arguments.me:
            parser.error(f"NAME and --as are both {peer!r}: take another name for yourself")
        if arguments.timeout is None:
            arguments.timeout = _WAIT
    elif len(paths) > 1 and paths[-1] != "-" and not Path(paths[-1]).exists():
        parser.error(f"there is no file {paths[-1]!r}; if that is a person's name, add your own: --as ME")
    else:
        check_code(parser, arguments)
    if arguments.name is not None and len(paths) != 1:
        parser.error("--name is for one FILE")
    if paths.count("-") > 1:
        parser.error("standard input can be sent once")
    if "-" in paths and (sys.stdin is None or sys.stdin.isatty()):
        parser.error(f"standard input is {'closed' if sys.stdin is None else 'a terminal'}; `-` is for a pipe")
    import asyncio

    from aldis.cli.logs import log_to_stderr  # --help needs none of these
    from aldis.cli.signals import until_signal

    log_to_stderr(verbose=arguments.verbose)
    work = _by_code(arguments, paths) if peer is None else _by_name(arguments, paths, peer)
    return asyncio.run(until_signal(work))


async def _by_name(arguments: Arguments, paths: list[str], peer: str) -> ExitCode:
    from aldis.cli.progress import Screen
    from aldis.cli.talk import Talk

    _check(paths)
    screen = Screen(quiet=arguments.quiet)
    try:
        async with named_store(arguments, peer, lambda user_id, _: user_id == peer) as (store, first):
            how = plan(arguments, arguments.me or "", peer, first_contact=first, wait=arguments.wait)
            talk = Talk(store, how, screen.tell, chatty=False, files=True)
            return await Sending(store, talk, screen, peer, arguments).run(paths)
    finally:
        screen.close()


def _where(server: ServerAddress) -> str:
    """What the recipient has to type besides the code, to come to the same server."""
    url = server.url.removesuffix("/")
    return "" if url == DEFAULT_SERVER else f" --server {shlex.quote(url)}"


async def _by_code(arguments: Arguments, paths: list[str]) -> ExitCode:
    from aldis.cli.codes import RECIPIENT
    from aldis.cli.handshake import confirm_recipient
    from aldis.cli.progress import Screen
    from aldis.cli.talk import Talk

    _check(paths)
    store, code = await _offer_code(arguments, lambda user_id, _: user_id.startswith(RECIPIENT))
    async with store:
        # A server at a loopback address is reached from no other machine.
        here = is_this_machine(arguments.server.host)
        who = "In another terminal here" if here else "On the other machine"
        print(f"{who}: aldis receive {code}{_where(arguments.server)}", flush=True)
        if here and not arguments.quiet:
            complain(
                "only this machine reaches this server; for another one, name a server that both reach with --server"
            )
        if not arguments.quiet:
            complain("waiting for the recipient; Ctrl-C ends it, and the code with it")
        peer = await confirm_recipient(store, code, arguments.timeout or None)
        if peer is None:
            complain("somebody has tried a wrong code. This code is used up; run the command again for a new one")
            return ExitCode.WRONG_CODE
        screen = Screen(quiet=arguments.quiet)
        try:
            talk = Talk(store, plan(arguments, "", peer, first_contact=False), screen.tell, chatty=False, files=True)
            return await Sending(store, talk, screen, peer, arguments).run(paths)
        finally:
            screen.close()


async def _offer_code(arguments: Arguments, accept: Accept) -> tuple[NetworkStore, str]:
    """Register under a fresh code."""
    import time

    from aldis.cli.codes import new_code, sender_name
    from aldis.errors import RequestFailed
    from aldis.protocol.codes import ErrorCode

    attempt = 0
    while True:
        code = new_code(attempt)
        try:
            return await code_store(arguments, sender_name(code, time.time()), accept), code
        except RequestFailed as error:
            attempt += 1
            if error.code != ErrorCode.KEY_MISMATCH or attempt == _NEW_CODES:
                raise


def _check(paths: list[str]) -> None:
    """Raise `UsageError` for what cannot be sent, before anybody is called."""
    from aldis.store.files import disk

    for path in paths:
        if path != "-":
            disk.look(Path(path))


def _name_of(path: str) -> str:
    """The name that the recipient sees, also for `.` and `folder/`."""
    return os.path.basename(os.path.abspath(path))


class Sending:
    """The files of one command, on their way to one peer."""

    def __init__(self, store: NetworkStore, talk: Talk, screen: Screen, peer: str, arguments: Arguments) -> None:
        self._store = store
        self._talk = talk
        self._screen = screen
        self._peer = peer
        self._arguments = arguments
        self._pipe: PipeSource | None = None
        self._offered: list[Transfer] = []

    async def run(self, paths: list[str]) -> ExitCode:
        """Send all, again and again while the other side comes back."""
        from aldis.cli.talk import alongside

        try:
            return await alongside(self._send(paths), self._talk.refused_for_good(), self._wait_for_direct_paths())
        finally:
            self._talk.close()
            if self._pipe is not None:
                self._pipe.close()  # or its thread would keep the process from ending

    async def _send(self, paths: list[str]) -> ExitCode:
        limit = self._arguments.timeout or None
        await self._talk.meet(limit)
        ledger = self._ledger(paths)
        left, failed = list(paths), False
        while True:
            offered = [(path, await self._offer(path, ledger)) for path in left]
            left = []
            for path, transfer in offered:
                if transfer is None:
                    continue
                if not await self._is_over(transfer):
                    left.append(path)
                failed = failed or (transfer.error is not None and path not in left)
            if not left:
                if failed:
                    return ExitCode.NOT_DELIVERED
                ledger.done()
                return ExitCode.OK
            if not await self._is_back(limit):
                self._screen.say(f"{safe_line(self._peer)} has not come back; the same command goes on with the rest")
                return ExitCode.NOT_DELIVERED

    async def _wait_for_direct_paths(self) -> None:
        """Tell when what has begun waits for a direct path. Raises `TransferFailed` when none comes in time."""
        import asyncio

        from aldis.errors import TransferFailed
        from aldis.store.files.transfer import OPEN

        def waiting() -> list[Transfer]:
            return [one for one in self._offered if one.state in OPEN and one.transferred and one.needs_direct]

        name, limit = safe_line(self._peer), self._arguments.timeout or None
        while True:
            await self._talk.until(lambda: bool(waiting()))
            self._screen.tell(f"there is no direct connection to {name} now; the rest waits for one")
            try:
                async with asyncio.timeout(limit):
                    await self._talk.until(lambda: not waiting())
            except TimeoutError:
                reason = "no direct connection has come back; the same command goes on with the rest"
                raise TransferFailed(self._peer, waiting()[0].name, reason) from None

    def _ledger(self, paths: list[str]) -> Ledger:
        from aldis.cli.home import Home
        from aldis.cli.ledger import Ledger

        arguments = self._arguments
        peer = self._peer if arguments.me is not None else ""  # the names behind a code are others each time
        where = [arguments.server.server, arguments.me or "", peer, arguments.name or ""]
        return Ledger(Home(arguments.data).sending, [*where, *(os.path.abspath(path) for path in paths)])

    async def _offer(self, path: str, ledger: Ledger) -> Transfer | None:
        """Offer a file; None when it has arrived already."""
        import asyncio

        from aldis.store.files import disk
        from aldis.store.files.transfer import TransferState

        name = self._arguments.name
        if path == "-":
            from aldis.cli.pipes import PipeSource

            self._pipe = PipeSource(sys.stdin.fileno())
            transfer = await self._store.send_file(self._peer, self._pipe, name=name or "stdin")
        else:
            source = Path(path)
            version = await asyncio.to_thread(lambda: disk.look(source).version)
            if ledger.has(path, version):
                self._screen.tell(f"{safe_line(path)} has arrived already")
                return None
            transfer = await self._store.send_file(self._peer, source, name=name or _name_of(path))
            transfer.subscribe(lambda it: ledger.add(path, version) if it.state is TransferState.DONE else None)
        self._screen.follow(transfer)
        self._offered.append(transfer)
        return transfer

    async def _is_over(self, transfer: Transfer) -> bool:
        """Wait for the end; False when it can go on later."""
        from aldis.errors import AldisError

        try:
            await transfer
        except AldisError as error:
            if transfer.interrupted and transfer.size is not None:
                return False
            self._screen.say(safe_line(str(error)))
        return True

    async def _is_back(self, limit: float | None) -> bool:
        from aldis.errors import PeerError, PeerKeyChanged

        # The talk tells that they have left, or that the line is dead.
        self._screen.tell(f"not everything had arrived; waiting for {safe_line(self._peer)} to come back")
        try:
            await self._talk.meet(limit)
        except PeerKeyChanged:
            raise
        except PeerError:
            return False
        return True
