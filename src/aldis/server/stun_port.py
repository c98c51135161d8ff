"""The UDP port of the STUN server: it reads datagrams, and sends the answers of `server.stun`.

Rules:

* An answer leaves from the address at which its request arrived. A machine may have several, and a NAT, like the client
  itself, drops what comes from another one. So this uses `recvmsg` with the packet's destination (RFC 3542 section 6.2,
  ip(7)), which asyncio's datagrams do not have.
* It reads a bounded number of datagrams in one turn of the event loop, so a flood cannot hold signaling up; and in each
  second (`server.stun_flood`), so a flood does not use a core. The kernel drops what its buffer does not hold.
* On Linux the kernel drops what gets no answer anyway (`server.stun_filter`). Elsewhere, and where it takes no such
  program, all is read. Workers share the sockets: each puts its own program there, and the last one counts.
* An answer that cannot be sent is lost, like any datagram.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypeAlias

from aldis.hub.networks import read_address
from aldis.protocol.hosts import is_this_machine
from aldis.server.config import ServerConfig
from aldis.server.stun import MAX_REQUEST, StunAnswers
from aldis.server.stun_filter import SIZE, program

# Datagrams read in one turn of the loop. Each takes 15 microseconds, so all take an eighth of a millisecond.
EACH_TURN: Final = 8
# Seconds without reading in a flood, and between two looks at who floods.
PAUSE: Final = 0.005
LOOK: Final = 0.05
# asm-generic/socket.h, linux/sock_diag.h: the number of datagrams that the kernel has dropped is the ninth there.
_SO_ATTACH_FILTER: Final = 26
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
# linux/in.h; Python names it from 3.14 on. Elsewhere the kernel chooses the address of an answer.
_IP_PKTINFO: Final = 8 if sys.platform == "linux" else None
_IPV6_RECVPKTINFO: Final[int | None] = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO: Final[int | None] = getattr(socket, "IPV6_PKTINFO", None)
# struct in_pktinfo: the interface, our address (in an answer: from which it leaves), the destination in the header.
_PACKET4: Final = struct.Struct("=I4s4s")
# struct in6_pktinfo: our address, the interface.
_PACKET6: Final = struct.Struct("=16sI")
_ANCILLARY: Final = 128  # bytes; both of these with their headers take less

Ancillary: TypeAlias = list[tuple[int, int, bytes]]


def stun_host(config: ServerConfig, host: str) -> str | None:
    """The host on which to answer STUN; None when other servers do, or nobody would ask. `host`: where clients arrive,
    by the settings or by a socket that was given."""
    if not config.stun_port or config.stun or config.turn_server:
        return None
    if not is_this_machine(host):
        return host
    # A proxy brings the clients, but no UDP: they come to all addresses, if the settings say by which.
    return _everywhere() if config.stun_address else None


def _everywhere() -> str:
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - clients come from everywhere


class StunPort:
    """The open port. `await listen()` opens it, and `close()` ends it."""

    def __init__(self, answers: StunAnswers, *, clock: Callable[[], float], fault: Callable[[Exception], None]) -> None:
        """`fault` is called with an unexpected exception, a bug."""
        self.answers: Final = answers
        self._clock = clock
        self._fault = fault
        self._sockets: list[socket.socket] = []
        self.wanted = False
        """Whether it should be open, by the settings."""
        self._paused = False
        self._looking: asyncio.TimerHandle | None = None
        # What the kernel had dropped when it was asked last, by the socket.
        self._dropped: dict[socket.socket, int] = {}

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return int(self._sockets[0].getsockname()[1]) if self._sockets else 0

    async def listen(self, host: str, port: int, given: Sequence[socket.socket] = ()) -> None:
        """Listen on all addresses of `host`, on IPv4 as well as IPv6 when it is `::`. With `given` sockets of
        `stun_sockets`, `host` and `port` are not used. Raises `OSError` or `ValueError`."""
        self._sockets = list(given) or await stun_sockets(host, port)
        self._dropped = {each: _dropped(each) for each in self._sockets}
        self._filter()
        self._go_on()

    def close(self) -> None:
        """Answer nothing more."""
        loop = asyncio.get_running_loop()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
            self._filter(nobody=True)  # somebody else may have the socket
        self.count()
        opened, self._sockets = self._sockets, []
        for each in opened:
            loop.remove_reader(each)
            each.close()

    def count(self) -> None:
        """Count what the kernel has dropped since this was last called. Each worker of a server counts all of it."""
        for each in self._sockets:
            dropped = _dropped(each)
            self.answers.outcomes["dropped"] += (dropped - self._dropped[each]) & 0xFFFFFFFF
            self._dropped[each] = dropped

    def _go_on(self) -> None:
        self._paused = False
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.add_reader(each, self._read, each)

    def _pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.remove_reader(each)
        loop.call_later(PAUSE, self._go_on)
        if self._looking is None:
            self._looking = loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        """See who floods, and go on looking until nobody is left out any more."""
        flood = self.answers.flood
        if flood.look(self._clock()):
            self._filter()
        self._looking = asyncio.get_running_loop().call_later(LOOK, self._look) if flood.left_out else None

    def _filter(self, *, nobody: bool = False) -> None:
        if sys.platform != "linux":
            return
        made = array("B", program(() if nobody else self.answers.flood.left_out))
        # struct sock_fprog: how many instructions, and where they are.
        where = struct.pack("@HP", len(made) // SIZE, made.buffer_info()[0])
        for each in self._sockets:
            with suppress(OSError):  # a kernel without it, or without the memory for it
                each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)

    def _read(self, port: socket.socket) -> None:
        try:
            for _ in range(EACH_TURN):
                if not self.answers.flood.may_read(self._clock()):
                    self._pause()
                    return
                try:
                    # One byte more than is read, to tell what is too long.
                    data, ancillary, _, source = port.recvmsg(MAX_REQUEST + 1, _ANCILLARY)
                except BlockingIOError:
                    return
                except OSError:
                    continue  # an ICMP error of an earlier answer
                self._answer(port, data, ancillary, source)
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and must not end the port
            self._fault(error)

    def _answer(self, port: socket.socket, data: bytes, ancillary: Ancillary, source: Any) -> None:
        address: IPv4Address | IPv6Address | None = read_address(source[0])
        if address is None:
            return
        answer = self.answers.answer(data, address, source[1], self._clock())
        if answer is not None:
            try:
                port.sendmsg([answer], _from_there(ancillary), 0, source)
            except OSError:
                return  # the buffer is full, or there is no way back


async def stun_sockets(host: str, port: int) -> list[socket.socket]:
    """The sockets of a STUN port. Raises `OSError` or `ValueError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            made.append(_open(socket.AddressFamily(family), address, dual=host == "::"))
    except BaseException:
        for each in made:
            each.close()
        raise
    return made


def _open(family: socket.AddressFamily, address: Any, *, dual: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
            if _IPV6_RECVPKTINFO is not None:
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        elif _IP_PKTINFO is not None:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _dropped(port: socket.socket) -> int:
    """How many datagrams the kernel has dropped here; 0 where it does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        return int(_MEMINFO.unpack(port.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1])
    except (OSError, struct.error):
        return 0


def _from_there(ancillary: Ancillary) -> Ancillary:
    """What makes an answer leave from the address at which its request arrived."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(value) >= _PACKET4.size:
            _, ours, _ = _PACKET4.unpack_from(value)
            return [(level, kind, _PACKET4.pack(0, ours, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and len(value) >= _PACKET6.size:
            ours, interface = _PACKET6.unpack_from(value)
            # Only a link-local address needs its interface; otherwise the route decides.
            link_local = IPv6Address(ours).is_link_local
            return [(level, kind, _PACKET6.pack(ours, interface if link_local else 0))]
    return []
