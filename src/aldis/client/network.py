"""Tells when the addresses of this machine change (Linux only, by netlink).

One socket for each event loop, open while somebody listens (`NetworkWatch.of(loop).subscribe`). Linux sends a message
for each address that comes or goes (rtnetlink(7)). It also repeats addresses of IPv6 whenever a router renews their
lifetime, so the watch keeps the set of addresses and tells only when that is another one. Addresses that reach no other
machine do not count: loopback, link-local, and those that are still checked for duplicates.

Where there is no netlink (other systems, a sandbox that forbids it), nothing is told, and nothing fails.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final
from weakref import WeakKeyDictionary, ref

_logger = logging.getLogger(__name__)

# linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
NEWADDR: Final = 20
DELADDR: Final = 21
_GETADDR: Final = 22
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_GROUPS: Final = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
_TENTATIVE: Final = 0x40
_SCOPE_LINK: Final = 253  # and 254 is this machine
_ALIGN: Final = 4
_BUFFER: Final = 64 * 1024
# Seconds. What belongs together (an address goes, another one comes) is told once; a machine that changes its addresses
# all the time makes its programs work once a second at most.
TOGETHER: Final = 0.1
PAUSE: Final = 1.0

Address = tuple[int, bytes]  # the interface, and 4 or 16 bytes


def changes(data: bytes) -> Iterator[tuple[int, Address]]:
    """The addresses in a datagram of netlink, each with `NEWADDR` or `DELADDR`. Stops at what it cannot read."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        if kind in (NEWADDR, DELADDR) and length >= _HEADER.size + _ADDRESS.size:
            _, _, flags, scope, interface = _ADDRESS.unpack_from(data, at + _HEADER.size)
            found = dict(_attributes(data[at + _HEADER.size + _ADDRESS.size : at + length]))
            wide = found.get(_IFA_FLAGS, b"")
            flags |= int.from_bytes(wide, "little" if struct.pack("=H", 1)[0] else "big")
            address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
            if address is not None and scope < _SCOPE_LINK and not (kind == NEWADDR and flags & _TENTATIVE):
                yield kind, (interface, address)
        at += -(-length // _ALIGN) * _ALIGN


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += -(-length // _ALIGN) * _ALIGN


class NetworkWatch:
    """The watch of one event loop, see the module. Get it with `NetworkWatch.of(loop)`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_ref = ref(loop)  # weak, or the table of watches would keep the loop
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._socket: socket.socket | None = None
        self._addresses: set[Address] = set()
        self._known = False  # the addresses that there are have been read
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = 0.0

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> NetworkWatch:
        """The watch of this loop, made at the first call."""
        watch = _watches.get(loop)
        if watch is None:
            watch = _watches[loop] = cls(loop)
        return watch

    @property
    def watching(self) -> bool:
        """Whether changes will be told."""
        return self._socket is not None

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the addresses have changed, until the returned function is called."""
        key = object()
        self._callbacks[key] = callback
        if self._socket is None:
            self._open()

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)
            if not self._callbacks:
                self._close()

        return unsubscribe

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop_ref()
        assert loop is not None  # this runs on a loop  # noqa: S101
        return loop

    def _open(self) -> None:
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            return
        self._addresses.clear()
        self._known = False
        try:
            self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
            self._socket.bind((0, _GROUPS))
            self._ask()
            self._read()  # the kernel has answered already
            self._loop.add_reader(self._socket.fileno(), self._read)
        except (OSError, NotImplementedError) as error:
            _logger.debug("changes of the network are not noticed: %s", error)
            self._close()

    def _ask(self) -> None:
        """Have all addresses told."""
        assert self._socket is not None  # it was opened  # noqa: S101
        request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        self._socket.send(_HEADER.pack(_HEADER.size + len(request), _GETADDR, _DUMP, 1, 0) + request)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None  # it is read  # noqa: S101
        before = frozenset(self._addresses)
        first = not self._known
        while True:
            try:
                data, (sender, _) = self._socket.recvfrom(_BUFFER)
            except BlockingIOError:
                break
            except OSError as error:  # ENOBUFS: more has come than there was room for
                _logger.debug("changes of the network were lost: %s", error)
                self._addresses.clear()
                self._known = False
                self._ask()
                self._soon()
                return
            if sender != 0:
                continue  # not from the kernel
            for kind, address in changes(data):
                (self._addresses.add if kind == NEWADDR else self._addresses.discard)(address)
        self._known = True
        if not first and before != self._addresses:
            self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            loop = self._loop
            self._timer = loop.call_at(max(loop.time() + TOGETHER, self._told_at + PAUSE), self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._told_at = self._loop.time()
        for key, callback in list(self._callbacks.items()):
            if key in self._callbacks:
                try:
                    callback()
                except Exception:
                    _logger.exception("a listener raised on a change of the network")


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, NetworkWatch] = WeakKeyDictionary()
