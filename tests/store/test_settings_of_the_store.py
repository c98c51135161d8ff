"""A store refuses at once what it could not work with later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aldis.client.backoff import Backoff
from aldis.errors import ConfigError, UsageError
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.connection import PeerTiming
from aldis.protocol.channel import MAX_MESSAGE
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore


def refused(make: Callable[[], object], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("identity", ("alice.pem", 5, b"key", True, {}, Identity)),
        ("pins", ("pins.sqlite", 5, {}, MemoryPins)),
        ("engine", (None, 5, "chrome", "", b"wrtc", object(), True)),
        ("ice_servers", ("stun:a.example", 5, {})),
        ("allow_loopback", ("yes", 1, 0, [])),
        ("accept", ("x", True, 5)),
        ("limits", (5, 0, {"peers": 3}, StoreLimits)),
        ("backoff", (5, 0, {"first": 1}, Backoff)),
        ("timing", (5, 0, {"attempt": 1}, PeerTiming)),
    ],
)
def test_an_option_of_a_wrong_kind_is_told_by_its_name(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        refused(lambda value=value: NetworkStore(**{name: value}), name)


@pytest.mark.parametrize("name", PeerTiming.__slots__)
def test_times_of_peer_connections_are_seconds(name: str) -> None:
    for value in (float("nan"), float("inf"), 0, -1, True, "5", None, 1e10, 10**400):
        refused(lambda value=value: PeerTiming(**{name: value}), f"timing.{name}")


@pytest.mark.parametrize("name", StoreLimits.__slots__)
def test_limits_are_integers(name: str) -> None:
    for value in (float("nan"), float("inf"), 0, -1, True, "5", None, 1.5, 10**400):
        refused(lambda value=value: StoreLimits(**{name: value}), f"limits.{name}")


def test_there_is_room_for_the_largest_message_while_it_arrives() -> None:
    refused(lambda: StoreLimits(arriving_size=MAX_MESSAGE - 1), "limits.arriving_size")
    assert StoreLimits(arriving_size=MAX_MESSAGE).arriving_size == MAX_MESSAGE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, "5", 1e10])
async def test_a_time_out_that_is_none_is_told_before_anybody_is_called(value: Any) -> None:
    async with NetworkStore() as store:
        for call in (store.connect_to_peer("bob", timeout=value), store.drain(timeout=value)):
            with pytest.raises(ConfigError, match="timeout"):
                await call


async def test_what_is_asked_of_a_peer_is_checked_too() -> None:
    async with NetworkStore() as store:
        with pytest.raises(UsageError, match="no fingerprint"):
            await store.connect_to_peer("bob", fingerprint=5)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="name is a str"):
            await store.drain(5)  # type: ignore[arg-type]
