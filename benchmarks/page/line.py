"""A slow line for real TCP: whoever connects to `FAR` reaches a server on this machine, but over a distance.

The kernel routes `FAR` into a TUN device, whose other end is this module. It swaps the two addresses of each packet and
gives it back after the time that the line takes: so the packet comes in again, for `NEAR`, which is this machine. Both
ends are the kernel's own TCP, with handshakes, slow start and all; swapping addresses changes no checksum.

Rules: it is for a network namespace of its own (tools/netns.sh), and needs /dev/net/tun. Packets stay in order, none
is lost, and each direction has a rate of its own.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
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
# Seconds after which it looks whether it is over.
_PATIENCE: Final = 0.1
# Slow start as most servers have it; and no connection learns from another one: each visit is somebody's first.
_KERNEL: Final = {"tcp_congestion_control": "reno", "tcp_no_metrics_save": "1"}


@dataclass(frozen=True, slots=True)
class Line:
    """What a line is like: the time there and back in ms, and the bits a second from the server and to it."""

    name: str
    round_trip: float
    down: float
    up: float


class Way:
    """One direction of a line. Packets that come at a time leave it at another, in their order."""

    def __init__(self, delay: float, rate: float) -> None:
        self._delay = delay
        self._rate = rate
        # When all that was given so far has been sent.
        self._free = 0.0
        self._packets: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float:
        """When the next packet leaves; infinity when there is none."""
        return self._packets[0][0] if self._packets else math.inf

    def send(self, packet: bytes, now: float) -> None:
        self._free = max(self._free, now) + len(packet) * 8 / self._rate
        self._packets.append((self._free + self._delay, packet))

    def arrived(self, now: float) -> Iterator[bytes]:
        while self.due <= now:
            yield self._packets.popleft()[1]


def turned(packet: bytes) -> bytes:
    """An IPv4 packet with its two addresses swapped."""
    near, far = packet[12:16], packet[16:20]
    return packet[:12] + far + near + packet[20:]


def source_port(packet: bytes) -> int:
    """Of a TCP packet."""
    start = (packet[0] & 15) * 4
    return int.from_bytes(packet[start : start + 2], "big")


class SlowLine:
    """`with SlowLine(line, ports):` - servers that listen on all addresses, at these ports, are at `FAR`."""

    def __init__(self, line: Line, ports: Iterable[int]) -> None:
        self._up = Way(line.round_trip / 2000, line.up)
        self._down = Way(line.round_trip / 2000, line.down)
        self._ports = frozenset(ports)
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
            for way in (self._up, self._down):
                for packet in way.arrived(now):
                    os.write(self._device, packet)
            due = min(self._up.due, self._down.due, now + _PATIENCE)
            if select.select([self._device], [], [], max(0.0, due - now))[0]:
                packet = os.read(self._device, 2 * _MTU)
                if packet[0] >> 4 == 4:  # the kernel says something in IPv6, too
                    way = self._down if source_port(packet) in self._ports else self._up
                    way.send(turned(packet), time.monotonic())
