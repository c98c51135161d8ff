"""Sends the signaling messages of one peer connection to the other side.

Rules:

* Each message has its own task. One after the other, each would wait for the server's answer to the one before.
* A description that does not reach the other side is reported (`failed`). The loss of other messages does no harm.
* `finish` waits for all of them.

It does not check messages; that has been done before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from aldis.errors import AldisError
from aldis.peer.listener import SignalSender
from aldis.peer.transport import Signed
from aldis.protocol.messages import Candidate, Capabilities

_log = logging.getLogger(__name__)

_SEND_SECONDS: Final = 1.0  # how long closing waits for the last messages to reach the server


class Signaling:
    """See the module."""

    def __init__(
        self, sender: SignalSender, capabilities: Capabilities, failed: Callable[[str, int, AldisError], None]
    ) -> None:
        """`failed(name, serial, error)` is called when the description of that serial did not reach the other side."""
        self._sender = sender
        self._capabilities = capabilities
        self._failed = failed
        self._sends: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()

    def send_offer(self, to: str, name: str, offer: Signed, serial: int) -> None:
        """Send an offer with its proof."""
        sending = self._sender.send_offer(
            to, offer.sdp, connection=name, proof=offer.proof, capabilities=self._capabilities
        )
        self._send(sending, name, serial)

    def send_answer(self, to: str, name: str, answer: Signed, serial: int) -> None:
        """Send an answer with its proof."""
        sending = self._sender.send_answer(
            to, answer.sdp, connection=name, proof=answer.proof, capabilities=self._capabilities
        )
        self._send(sending, name, serial)

    def send_candidate(self, to: str, name: str, candidate: Candidate | None) -> None:
        """Send a candidate."""
        self._send(self._sender.send_ice_candidate(to, candidate, connection=name), name, None)

    def send_bye(
        self, to: str, name: str, reason: str | None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        """End a connection, or refuse an offer."""
        bye = self._sender.send_bye(to, connection=name, reason=reason or None, code=code, retry_after=retry_after)
        self._send(bye, name, None)

    def close_soon(self, closing: Coroutine[object, object, None], name: str) -> None:
        """Close a connection in a task that `finish` waits for."""
        self._own(self._closings, closing, f"aldis peer {name} close")

    async def finish(self) -> None:
        """Wait for everything that was started; for messages to the server not for long."""
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=_SEND_SECONDS)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._sends, *self._closings, return_exceptions=True)

    def _send(self, sending: Coroutine[object, object, None], name: str, serial: int | None) -> None:
        self._own(self._sends, self._deliver(sending, name, serial), f"aldis peer {name} send")

    async def _deliver(self, sending: Coroutine[object, object, None], name: str, serial: int | None) -> None:
        try:
            await sending
        except AldisError as error:
            if serial is None:
                _log.debug("a message about %s was not delivered: %s", name, error)
            else:
                self._failed(name, serial, error)

    def _own(self, tasks: set[asyncio.Task[None]], work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(lambda done: _finished(tasks, done))


def _finished(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": f"in {task.get_name()}", "exception": error, "task": task})
