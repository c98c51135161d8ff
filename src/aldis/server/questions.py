"""The questions of the hub that take time: the directory of names answers them, and the operator's application.

Each question of the hub gets one answer, also when what answers it fails. The directory writes many names at once, so
many answers come together. A turn of the loop handles some of them, and the next ones the others: so nobody waits for
all of them. It knows no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Final

from aldis.backends.base import Directory, DirectoryUnavailable, Question, answer
from aldis.hub.accounts import AccountQuestion, Rejected
from aldis.hub.hub import Hub
from aldis.protocol.codes import ErrorCode
from aldis.server.accounts import TRY_AGAIN, Accounts
from aldis.server.in_turn import InTurn
from aldis.server.logs import OUTAGE_SECONDS, FaultLog, Log, OutageLog
from aldis.server.metrics import DirectoryStats

# Seconds after which a readiness probe reports the directory as stuck. Probes themselves give up after a few seconds.
READY_TIMEOUT: Final = 2.0


class Questions:
    """Asks and answers for one hub. Set `directory` before clients come.

    `away`: whether it is known already that the directory does not answer.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        accounts: Accounts,
        faults: FaultLog,
        log: Log,
        *,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._away = away
        self.directory: Directory | None = None
        self.stats = DirectoryStats()
        self._hub = hub
        self._accounts = accounts
        self._faults = faults
        self._outage = OutageLog(log, "the directory of names", OUTAGE_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_answered = asyncio.Event()
        self._turns = InTurn(faults)

    def ask(self, question: Question) -> None:
        """Ask the directory."""
        self._start(self._answer(question))

    def ask_account(self, question: AccountQuestion) -> None:
        """Ask the operator's application."""
        self._start(self._check_account(question))

    def in_turn(self, answer: Callable[[], None]) -> None:
        """Handle an answer to the hub when it is its turn. The order stays."""
        self._turns(partial(self._handle, answer))

    async def answered(self) -> None:
        """Return when the hub waits for no answer."""
        while self._hub().pending:
            self._all_answered.clear()
            await self._all_answered.wait()

    async def not_ready(self) -> str | None:
        """Why the directory cannot be used; None when it can."""
        assert self.directory is not None  # noqa: S101 - the caller has set it
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self.directory.check()
        except DirectoryUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"the directory of names does not answer within {READY_TIMEOUT:g} s"
        return None

    async def close(self) -> None:
        """Give up the questions that have no answer yet."""
        self._turns.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- internal ---------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check_account(self, question: AccountQuestion) -> None:
        try:
            # To check a token takes half a millisecond.
            await self._turns.turn()
            verdict = await self._accounts.check(question)
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and admits nobody
            self._faults(error)
            verdict = Rejected(ErrorCode.INTERNAL, "something failed in the server", retry_after=TRY_AGAIN)
        self._bring(partial(self._hub().account_checked, question, verdict))

    async def _answer(self, question: Question) -> None:
        kind = question.kind
        recalled = self._hub().recall(question) if self._away() else None
        if recalled is not None:
            self._bring(partial(self._hub().answered, question, recalled))
            return
        began = monotonic()
        assert self.directory is not None  # noqa: S101 - clients come after it
        bring: Callable[[float], None]
        try:
            found = await answer(self.directory, question)
        except Exception as error:  # noqa: BLE001 - anything but DirectoryUnavailable is a bug, and logged as one
            if isinstance(error, DirectoryUnavailable):
                self._outage.failed(error)
            else:
                self._faults(error)
            self.stats.failures[kind] += 1
            recalled = self._hub().recall(question)
            bring = partial(self._hub().failed, question)
            if recalled is not None:
                bring = partial(self._hub().answered, question, recalled)
        else:
            self.stats.seconds[kind].observe(monotonic() - began)
            if self.directory.healthy:  # reading may work while writing fails
                self._outage.works()
            bring = partial(self._hub().answered, question, found)
        self._bring(bring)

    def _bring(self, bring: Callable[[float], None]) -> None:
        self.in_turn(lambda: bring(monotonic()))

    def _handle(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        finally:
            if not self._hub().pending:
                self._all_answered.set()
