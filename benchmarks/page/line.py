"""A slow line for real TCP: whoever connects to `FAR` reaches a server on this machine, but over a distance.

The kernel routes `FAR` into a TUN device, whose other end is this module. It swaps the two addresses of each packet and
gives it back after the time that the line takes: so the packet comes in again, for `NEAR`, which is this machine. Both
ends are the kernel's own TCP, with handshakes, slow start and all; swapping addresses changes no checksum.

Rules: it is for a network namespace of its own (tools/netns.sh), and needs /dev/net/tun. Packets stay in order, none
is lost, and each direction has a rate of its own.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

NEAR: Final = "10.88.0.1"
FAR: Final = "10.88.0.2"

_DEVICE: Final = "slow0"
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_MTU: Final = 1500
# In an IPv4 header (RFC 791 section 3.1).
_ADDRESSES: Final = slice(12, 20)
# Slow start as most servers have it; and no connection learns from another one: each visit is somebody's first.
_KERNEL: Final = {"tcp_congestion_control": "reno", "tcp_no_metrics_save": "1"}


@dataclass(frozen=True, slots=True)
class Line:
    """What a line is like: the time there and back in ms, and the bits a second from the server and to it."""

    name: str
    round_trip: float
    down: float
    up: float


class SlowLine:
    """`with SlowLine(line, ports):` - servers that listen on all addresses, at these ports, are at `FAR`."""

    def __init__(self, line: Line, ports: Iterable[int]) -> None:
        self._delay = line.round_trip / 2000
        self._rates = (line.up, line.down)
        self._ports = frozenset(struct.pack("!H", port) for port in ports)
        # What is on its way, in both directions: when it arrives, and the packet.
        self._ways: tuple[deque[tuple[float, bytes]], ...] = (deque(), deque())
        # When each direction has sent all that it was given.
        self._free = [0.0, 0.0]
        self._over = threading.Event()
        self._carrying = threading.Thread(target=self._carry, name="slow line", daemon=True)

    def __enter__(self) -> SlowLine:
        self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._device, _TUNSETIFF, struct.pack("16sH", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        for words in (f"address add {NEAR} peer {FAR} dev {_DEVICE}", f"link set {_DEVICE} mtu {_MTU} up"):
            subprocess.run(["ip", *words.split()], check=True)
        for name, value in _KERNEL.items():
            (Path("/proc/sys/net/ipv4") / name).write_text(value)
        self._carrying.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._carrying.join()
        os.close(self._device)  # which removes it

    def _carry(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            for way in self._ways:
                while way and way[0][0] <= now:
                    os.write(self._device, way.popleft()[1])
            due = min((way[0][0] for way in self._ways if way), default=now + 0.1)
            if select.select([self._device], [], [], max(0.0, due - now))[0]:
                self._take(os.read(self._device, 2 * _MTU))

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return
        start = (packet[0] & 15) * 4
        down = packet[start : start + 2] in self._ports
        near, far = packet[12:16], packet[16:20]
        swapped = packet[: _ADDRESSES.start] + far + near + packet[_ADDRESSES.stop :]
        self._free[down] = max(self._free[down], time.monotonic()) + len(packet) * 8 / self._rates[down]
        self._ways[down].append((self._free[down] + self._delay, swapped))
