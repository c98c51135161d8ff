"""`aldis receive`: what `aldis send` sends, from a name or by a code of words."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.cli.exchange import ExchangeArguments, add_exchange, check_code, code_store, named_store
from aldis.cli.exits import MEANINGS, ExitCode
from aldis.cli.options import user_name, utf8
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line

if TYPE_CHECKING:
    from aldis.cli.pipes import PipeTarget
    from aldis.cli.progress import Screen
    from aldis.store.files.transfer import Transfer
    from aldis.store.state import StoreState
    from aldis.store.store import NetworkStore

_TEXT: Final = """\
Receive files and folders from `aldis send`, into DIR or the current directory.
DIR `-` is standard output, for one file.

With --as ME --from NAME, it waits for files from NAME. Without --from, it asks
about each file; --yes takes all, from everybody who knows your name.

With a CODE, it receives what `aldis send` has printed that code for.

No file is ever overwritten. If the transfer is interrupted, by either side, run
the same command again: what has arrived is kept in DIR as `.NAME.….part`, and
is not sent again."""

_EXAMPLES: Final = """\
  aldis receive 42-acorn-tulip
  aldis receive --as bob --from alice ~/Downloads
  aldis receive --as bob --from alice - | tar xz"""

_CODE: Final = re.compile(r"[0-9]+[- _][A-Za-z]+[- _][A-Za-z]+")
_LINGER: Final = 2.0  # seconds for the sender to offer more, or to leave
_ASKED: Final = "Take it? [y/N] "


class Arguments(ExchangeArguments):
    """The arguments of `aldis receive`."""

    code: list[str]
    sender: str | None
    yes: bool


def run(words: Sequence[str]) -> int:
    """Run `aldis receive` with these arguments and return the exit code."""
    parser = Parser(
        "aldis receive",
        "[CODE | --as ME [--from NAME]] [DIR] [options]",
        _TEXT,
        examples=_EXAMPLES,
        codes=list(MEANINGS),
    )
    parser.argument("code", "The CODE, if there is one, and DIR [.].", convert=utf8, optional=True, many=True)
    add = parser.options.add_argument
    add("--from", dest="sender", metavar="NAME", type=user_name, help="Take files from NAME only, without asking.")
    add("-y", "--yes", action="store_true", help="Take all files, without asking.")
    add_exchange(parser, "How long to wait for the sender; 0 means no limit [0; 60 with a code].")
    arguments = parser.parse_intermixed_args(words, Arguments())
    code, given = None, arguments.code
    if arguments.me is None:
        code, given = _code_of(given)
        if code is None:
            parser.error("give the CODE that `aldis send` has printed, or your name with --as ME")
        if arguments.sender is not None:
            parser.error("--from goes with --as ME; with a CODE there is one sender")
        check_code(parser, arguments)
        if arguments.timeout is None:
            arguments.timeout = 60.0
    elif arguments.sender is None and not arguments.yes and (sys.stdin is None or not sys.stdin.isatty()):
        parser.error("without a terminal nobody can be asked: give --from NAME, or --yes")
    if len(given) > 1:
        parser.error(f"one DIR, not {len(given)}" + ("; a CODE goes without --as" if arguments.me else ""))
    target = given[0] if given else "."
    if target == "-" and sys.stdout.isatty():
        parser.error("standard output is a terminal; `-` is for a pipe")
    if target != "-" and not Path(target).is_dir():
        parser.error(f"there is no directory {target!r}")
    from aldis.cli.logs import log_to_stderr  # --help needs none of these
    from aldis.cli.signals import until_signal

    log_to_stderr(verbose=arguments.verbose)
    work = _by_name(arguments, target) if code is None else _by_code(arguments, code, target)
    return asyncio.run(until_signal(work))


def _code_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The code that these words begin with, and the others. A code may be typed as it is spoken: `42 acorn tulip`."""
    for count in range(1, 4):
        text = " ".join(words[:count])
        if _CODE.fullmatch(text):
            return text, words[count:]
    return None, words


async def _by_name(arguments: Arguments, target: str) -> ExitCode:
    from aldis.cli.progress import Screen

    sender = arguments.sender
    screen = Screen(quiet=arguments.quiet)
    try:
        async with named_store(arguments, sender, lambda user_id, _: sender is None or user_id == sender) as (
            store,
            first,
        ):
            receiving = Receiving(store, screen, target)
            receiving.admit(sender, ask=sender is None and not arguments.yes)
            if sender is not None and first:
                receiving.tell_fingerprint(sender)
            screen.tell(f"waiting for files from {'anybody' if sender is None else safe_line(sender)}")
            return await receiving.run(arguments.timeout or None)
    finally:
        screen.close()


async def _by_code(arguments: Arguments, text: str, target: str) -> ExitCode:
    import time

    from aldis.cli import codes
    from aldis.cli.handshake import confirm_sender, find_sender
    from aldis.cli.progress import Screen

    code = codes.read_code(text)
    screen = Screen(quiet=arguments.quiet)
    names = codes.sender_names(code, time.time())
    store = await code_store(arguments, codes.recipient_name(), lambda user_id, _: user_id in names)
    try:
        async with store:
            receiving = Receiving(store, screen, target)
            try:
                peer = await find_sender(store, code, arguments.timeout or None)
                if peer is None:
                    screen.say("nobody waits with this code. Is it right, and is the sender still there?")
                    return ExitCode.PEER_OFFLINE
                right = await confirm_sender(store, code, peer)
            except TimeoutError:
                screen.say("the sender does not answer; ask for a new code")
                return ExitCode.PEER_OFFLINE
            if not right:
                screen.say("the code is wrong, or was used already. It is used up now: ask for a new one")
                return ExitCode.WRONG_CODE
            receiving.admit(peer, known_as=codes.KNOWN_AS)
            return await receiving.run(arguments.timeout or None)
    finally:
        screen.close()


class Receiving:
    """The files of one command."""

    def __init__(self, store: NetworkStore, screen: Screen, target: str) -> None:
        """Offers wait until `admit` says whose are taken."""
        from aldis.cli.pipes import PipeTarget

        self._tell_fingerprint_of: str | None = None
        self._store = store
        self._screen = screen
        self._target: Path | PipeTarget
        self._target = PipeTarget(sys.stdout.fileno(), "w", closefd=False) if target == "-" else Path(target)
        self._admitted = False
        self._sender: str | None = None
        self._ask = False
        self._known_as: str | None = None
        self._waiting: list[Transfer] = []
        self._transfers: list[Transfer] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        store.on_file(self._offered)
        store.subscribe(self._noted)

    def admit(self, sender: str | None, *, ask: bool = False, known_as: str | None = None) -> None:
        """Take files from this user, or from everybody. `known_as`: see `sender` of `Transfer.accept`."""
        self._admitted, self._sender, self._ask, self._known_as = True, sender, ask, known_as
        waiting, self._waiting = self._waiting, []
        for transfer in waiting:
            self._offered(transfer)

    def tell_fingerprint(self, user_id: str) -> None:
        """Tell the fingerprint of this user once it is known: perhaps now, since a sender who waits comes at once."""
        self._tell_fingerprint_of = user_id
        self._noted(self._store.state)

    # --- events -------------------------------------------------------------------------------------------------------

    def _noted(self, state: StoreState) -> None:
        view = state.peers.get(self._tell_fingerprint_of or "")
        if view is not None and view.fingerprint is not None:
            name = safe_line(view.user_id)
            self._screen.tell(
                f"first contact with {name}; the key is remembered. Its fingerprint:\n  {view.fingerprint}"
            )
            self._tell_fingerprint_of = None
        self._changed.set()

    def _offered(self, transfer: Transfer) -> None:
        if not self._admitted:
            self._waiting.append(transfer)
        elif self._sender is not None and transfer.user_id != self._sender:
            transfer.decline("files of somebody else are wanted")
        elif self._ask:
            task = asyncio.ensure_future(self._question(transfer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._take(transfer)

    async def _question(self, transfer: Transfer) -> None:
        from aldis.cli.progress import amount, shown_name

        async with self._asking:
            size = "unknown size" if transfer.size is None else amount(transfer.size - transfer.listing)
            what = f"{'the folder ' if transfer.folder else ''}{shown_name(transfer.name)} ({size})"
            self._screen.say(f"{safe_line(transfer.user_id)} offers {what}")
            answer = await asyncio.to_thread(_read_answer)
        if answer.strip().lower() in ("y", "yes"):
            self._take(transfer)
        else:
            transfer.decline("it is not wanted")

    def _take(self, transfer: Transfer) -> None:
        if not isinstance(self._target, Path) and (transfer.folder or self._transfers):
            transfer.decline("one file is wanted, for a pipe")
            return
        self._transfers.append(transfer)
        transfer.accept(self._target, sender=self._known_as)
        self._screen.follow(transfer)
        transfer.subscribe(lambda _: self._changed.set())

    # --- until the end ------------------------------------------------------------------------------------------------

    async def run(self, limit: float | None) -> ExitCode:
        """Wait until everything has come. `limit`: seconds without anything under way."""
        from aldis.client.events import SignalingState
        from aldis.errors import PeerOffline

        now = asyncio.get_running_loop().time
        told: set[Transfer] = set()
        cut_off: float | None = None  # since when what is under way has no connection
        while True:
            self._changed.clear()
            state = self._store.state
            if state.signaling is SignalingState.DISCONNECTED and state.signaling_error is not None:
                raise state.signaling_error
            final = self._tell_failures(told)
            if final is not None:
                return final
            busy = any(not _is_over(each) for each in self._transfers) or self._tasks
            ended = [each for each in self._transfers if _is_over(each) and not each.interrupted]
            rest = [each for each in self._transfers if each.interrupted and not self._has_come(each)]
            code = ExitCode.OK if all(each.error is None for each in ended) else ExitCode.NOT_DELIVERED
            if ended and not busy and not rest and self._have_left(state, ended):
                return code
            lingering = bool(ended and not busy and not rest)
            was_cut_off, cut_off = cut_off, self._cut_off_since(state, cut_off)
            if cut_off is not None and was_cut_off is None:
                self._screen.tell(f"the connection to {self._name} is interrupted; waiting")
            patience = None if busy else _LINGER if lingering else limit
            if cut_off is not None and limit is not None:
                patience = max(0.0, cut_off + limit - now())
            try:
                async with asyncio.timeout(patience):
                    await self._changed.wait()
            except TimeoutError:
                if lingering:
                    return code
                if rest or cut_off is not None:
                    self._screen.say(f"{self._name} has not come back; {self._goes_on}")
                    return ExitCode.NOT_DELIVERED
                raise PeerOffline(self._sender or "the sender") from None

    @property
    def _name(self) -> str:
        return "the sender" if self._sender is None or self._known_as is not None else safe_line(self._sender)

    @property
    def _goes_on(self) -> str:
        if not isinstance(self._target, Path):
            return "what goes into a pipe cannot be resumed"
        return f"{'the same command' if self._known_as is None else 'the next code'} goes on with the rest"

    def _cut_off_since(self, state: StoreState, since: float | None) -> float | None:
        """Since when nothing that is under way has a connection; None while something has, or nothing is."""
        from aldis.peer.connection import PeerState

        under_way = {each.user_id for each in self._transfers if not _is_over(each)}
        views = [view for view in map(state.peers.get, under_way) if view is not None]
        if self._tasks or not views or any(view.state is PeerState.CONNECTED for view in views):
            return None
        return asyncio.get_running_loop().time() if since is None else since

    def _tell_failures(self, told: set[Transfer]) -> ExitCode | None:
        """Tell what has failed; return a code when that ends the command: others go on into a directory."""
        for transfer in self._transfers:
            if transfer.error is None or transfer in told:
                continue
            told.add(transfer)
            if not transfer.interrupted:
                self._screen.say(safe_line(str(transfer.error)))
                if isinstance(self._target, Path):
                    continue
                return ExitCode.BROKEN_PIPE if self._target.reader_is_gone else ExitCode.NOT_DELIVERED
            if not isinstance(self._target, Path):
                self._screen.say("the sender has left in the middle of the file")
                return ExitCode.NOT_DELIVERED
            self._screen.tell(
                f"{safe_line(transfer.user_id)} has left before {safe_line(transfer.name)} was there; waiting"
            )
        return None

    def _has_come(self, transfer: Transfer) -> bool:
        """Whether what was interrupted was offered once more."""
        later = self._transfers[self._transfers.index(transfer) + 1 :]
        return any((each.user_id, each.name) == (transfer.user_id, transfer.name) for each in later)

    def _have_left(self, state: StoreState, ended: list[Transfer]) -> bool:
        from aldis.peer.connection import PeerState

        views = [state.peers.get(each.user_id) for each in ended]
        return all(view is None or view.state is PeerState.CLOSED for view in views)


def _is_over(transfer: Transfer) -> bool:
    from aldis.store.files.transfer import OPEN

    return transfer.state not in OPEN


def _read_answer() -> str:
    sys.stderr.write(_ASKED)
    sys.stderr.flush()
    return os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
