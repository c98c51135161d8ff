"""What one part of a store knows of the network is told to the others."""

from __future__ import annotations

from typing import Any, cast

import pytest

from aldis.client.client import SignalingClient
from aldis.store.peers.recovery import Recovery


class Told:
    """Takes any call, and notes it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def __getattr__(self, call: str) -> Any:
        return lambda: self._calls.append(f"{self._name}.{call}")


class Device:
    def __init__(self, calls: list[str], *, connected: bool) -> None:
        self.dialer: Any = Told("dialer", calls)
        self.path: Any = type("Path", (), {"connection": Told("connection", calls) if connected else None})


@pytest.mark.parametrize(
    ("input_", "expected"),
    [
        ("need_server", ["client.hurry"]),
        ("path_lost", ["client.suspect"]),
        ("path_found", ["client.network_changed"]),
        ("signaling_lost", ["dialer.signaling_lost", "dialer.signaling_lost"]),
        ("_network_changed", ["client.network_changed", "connection.network_changed", *["dialer.network_changed"] * 2]),
        ("_woke", ["client.network_changed", "connection.suspect", *["dialer.network_changed"] * 2]),
    ],
)
def test_each_hears_what_concerns_it(input_: str, expected: list[str]) -> None:
    calls: list[str] = []
    client = cast(SignalingClient, Told("client", calls))
    devices = [Device(calls, connected=True), Device(calls, connected=False)]
    getattr(Recovery(lambda: client, lambda: devices), input_)()
    assert calls == expected


def test_without_a_client_there_is_nobody_to_tell() -> None:
    recovery = Recovery(lambda: None, list)
    for call in (recovery.need_server, recovery.path_lost, recovery.path_found):
        call()


async def test_it_listens_until_it_is_closed() -> None:
    recovery = Recovery(lambda: None, list)
    recovery.start()
    recovery.close()
    recovery.close()
