"""A frame on its way through the server, from picows' call to picows' call: what the connection and the hub add.

picows, uvloop and the kernel are left out; a stand-in gives the frame and takes what is sent. So the figure stands
still where that of a whole server moves by 5 % with what else the machine does.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final, cast

from picows import WSMsgType

from aldis.server.connections import AT_ONCE, Connections
from aldis.server.routes import UpgradeRequest
from aldis.server.websocket import ClientConnection
from benchmarks.load.dialects import Aldis
from benchmarks.micro.hub import Bench
from benchmarks.micro.timing import Case, time_all

# Who say something in turns, as in a server with many clients.
SENDERS: Final = 20


class Frame:
    """A whole text message."""

    msg_type = WSMsgType.TEXT
    fin = True
    rsv1 = rsv2 = rsv3 = False

    def __init__(self, text: str) -> None:
        self._text = text
        self.payload_size = len(text)

    def get_payload_as_utf8_text(self) -> str:
        return self._text


class Transport:
    """It takes what is sent, and keeps nothing."""

    is_close_frame_sent = False

    def send_reuse_external_bytearray(self, kind: object, frame: bytearray, headroom: int) -> None:
        pass


def measure(seconds: float) -> list[Case]:
    """Time one offer from frame to frame: among the first of a turn of the loop, and behind `AT_ONCE` others."""
    bench = Bench()
    alice, bob = Aldis("alice@example.com"), Aldis("bob@example.com")
    sender, recipient = bench.register(alice), bench.register(bob)
    connections = Connections(
        bench.hub,
        max_message_bytes=64 * 1024,
        fault=_fail,
        close_timeout=5,
        messages_per_second=10**9,
        bytes_per_second=10**12,
        closing_bytes=10**9,
        outgoing_queue_bytes=10**9,
        tls=False,
    )
    connections.turn = lambda: 1
    transport = Transport()
    opened = []
    for session in (*[sender] * SENDERS, recipient):
        connection = ClientConnection(connections, cast(UpgradeRequest, None))
        told = cast(Any, connection)
        told.write = transport.send_reuse_external_bytearray
        told._transport, told._session, told._left, told._left_at = transport, session, connections.burst, monotonic()
        session.connection = connection
        opened.append(connection)
    frame = Frame(alice.offer(bob.user).decode())
    heard = [connection.on_ws_frame for connection in opened[:-1]]

    def some(left: int) -> None:
        connections.goes_now("")  # this turn of the loop is known
        connections.at_once = left
        for on_ws_frame in heard:
            on_ws_frame(cast(Any, transport), cast(Any, frame))
        assert recipient.replay is not None
        recipient.replay.confirm(recipient.replay.count)

    some(AT_ONCE)
    cases = {
        f"{SENDERS} offers, each from frame to frame": lambda: some(AT_ONCE),
        f"{SENDERS} offers behind others of their turn": lambda: some(0),
    }
    return time_all(cases, seconds)


def _fail(error: Exception) -> None:
    raise error
