"""Which device of a user gets what is sent to the user.

Rules: the device heard from last, as long as it is there; else the one that registered last. A device is gone when it
is not connected with us and the server does not list it any more: it has unregistered, or lost its resume window.

Pure: no I/O, no clock. It does not know what is sent, nor how a device is reached.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def gone(device: str, listed: Sequence[str] | None, connected: Collection[str]) -> bool:
    """Whether a device is gone. `listed`: the devices that the server says are online, the one that registered last
    first; None while that is not known. `connected`: the devices that we are connected with now."""
    return listed is not None and device not in listed and device not in connected


def choose(
    heard: Sequence[str], listed: Sequence[str] | None, connected: Collection[str], current: str | None
) -> str | None:
    """The device for what is sent to the user; None when none is known.

    `heard`: the devices that we have heard from, the last one first. `current`: the one that was chosen before, which
    stays while no other is there.
    """
    for device in heard:
        if not gone(device, listed, connected):
            return device
    return listed[0] if listed else current
