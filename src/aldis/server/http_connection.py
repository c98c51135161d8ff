"""An HTTP connection, until it becomes a WebSocket or ends.

picows closes a connection after a plain reply. A new TLS connection costs a browser three round trips before the first
byte, so a page of many files would be slow on a long line. So this module answers plain GET requests
(`server.http.read_plain`), one after the other. It hands everything else to picows, with the connection and all bytes
as they came: picows makes a WebSocket of it, or refuses it and closes.

Rules:

* In doubt, picows gets the request. A connection never comes back from there.
* Stop reading a client that has `MAX_WAITING` bytes of unsent replies.
* Close a connection that is idle for `Tuning.keep_alive`, or has no complete request after `handshake_timeout`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableSet
from typing import Final, cast

from aldis.server.http import END_OF_HEAD, OLD_HTTP, HttpReply, PlainRequest, is_old, read_plain, write
from aldis.server.names import Arrival
from aldis.server.tuning import Tuning

# Bytes of a request that this module reads. Browsers send less than 1 KB, apart from cookies of the same host.
MAX_HEAD: Final = 4096
# Bytes of replies: a page's files but for the largest fit in. TLS lets as much again wait, and more, beneath it.
MAX_WAITING: Final = 16 * 1024

# For a connection without a local address; no host fits it.
_NOWHERE: Final = Arrival("", 0)


class HttpConnection(asyncio.BufferedProtocol):
    """One connection. `opened` holds all that are open.

    `answer` gives the reply to a plain request, with whether the connection may be kept, or None to leave the request
    to picows. `picows` makes what takes a connection over from here.
    """

    def __init__(
        self,
        opened: MutableSet[HttpConnection],
        answer: Callable[[HttpConnection, PlainRequest], tuple[HttpReply, bool] | None],
        picows: Callable[[Arrival], asyncio.BufferedProtocol],
        tuning: Tuning,
    ) -> None:
        self._tuning = tuning
        self._opened = opened
        self._answer = answer
        self._picows = picows
        # Where the connection has arrived; from `connection_made` on.
        self.arrival = _NOWHERE
        self._buffer = bytearray(MAX_HEAD)
        # How much of the buffer is filled with what has not been answered.
        self._filled = 0
        # Whether there has been a reply.
        self._answered = False
        # Whether too much of the replies is left for the kernel to take.
        self._stuck = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Take no more requests: close when the client has read its replies."""
        if self._transport is not None:
            self._transport.close()

    def leave_unless_new(self) -> None:
        """The server stops: end, unless the first request is still to come, which gets a reply that says so."""
        if self._answered:
            self.end()

    # --- what the event loop calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened.add(self)
        sockname = self._transport.get_extra_info("sockname")
        if sockname:  # nothing for a client that is gone already
            self.arrival = Arrival(*sockname[:2])
        self._transport.set_write_buffer_limits(high=MAX_WAITING)
        self._wait(self._tuning.handshake_timeout)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def get_buffer(self, size: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, size: int) -> None:
        self._filled += size
        self._go_on()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def pause_writing(self) -> None:
        self._stuck = True
        self._stop_waiting()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stuck = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._wait(self._tuning.keep_alive)
            self._go_on()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Answer the complete requests in the buffer."""
        while self._transport is not None and not self._transport.is_closing() and not self._stuck:
            head, end, rest = bytes(self._buffer[: self._filled]).partition(END_OF_HEAD)
            if not end and self._filled < MAX_HEAD:
                return
            request = read_plain(head) if end else None
            answered = self._answer(self, request) if request else None
            if end and is_old(head):
                answered = OLD_HTTP, False
            if answered is None:
                self._hand_over(self._transport)
                return
            self._buffer[: len(rest)] = rest
            self._filled = len(rest)
            self._answered = True
            reply, keep = answered
            keep = keep and request is not None and not request.last
            self._wait(self._tuning.keep_alive)
            self._transport.write(write(reply, self._tuning.keep_alive if keep else None))
            if not keep:
                self._transport.close()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        """Give the connection to picows, with all bytes that have come."""
        came = memoryview(self._buffer)[: self._filled]
        self._leave()
        transport.set_write_buffer_limits()
        protocol = self._picows(self.arrival)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        while came and not transport.is_closing():
            room = cast(memoryview, protocol.get_buffer(len(came)))
            size = min(len(room), len(came))
            room[:size] = came[:size]
            protocol.buffer_updated(size)
            came = came[size:]

    def _leave(self) -> None:
        self._transport = None
        self._opened.discard(self)
        self._stop_waiting()

    # --- time -------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
