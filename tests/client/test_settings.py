"""What a program sets is checked where it is set: a wrong value is a `ConfigError` that names it, and never something
that comes out later as the fault of a peer or of the network."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aldis.client.address import ServerAddress
from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.errors import AldisError, ConfigError, InvalidAddress, UsageError
from aldis.identity.keys import Identity, check_fingerprint
from aldis.identity.pins import FilePins, MemoryPins
from aldis.protocol.addresses import check_device, check_user_id
from aldis.settings import check_methods

NAN, INFINITY = float("nan"), float("inf")
NOT_NUMBERS: tuple[Any, ...] = (True, "5", [], b"5", object(), NAN)
NOT_SECONDS: tuple[Any, ...] = (*NOT_NUMBERS, -1, INFINITY, 1e10, 10**400)
NOT_COUNTS: tuple[Any, ...] = (*NOT_NUMBERS, -1, INFINITY, 1.5, 10**400)
NOT_PATHS: tuple[Any, ...] = (None, 5, True, b"/tmp", "a\0b", "\ud800")


class Silent:
    """Its text cannot be had."""

    def __repr__(self) -> str:
        raise RuntimeError


def refused(make: Callable[[], object], setting: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.setting == setting
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("name", ["request_timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [*NOT_SECONDS, 0, None, Silent(), "x" * 1000])
def test_a_time_out_that_is_no_time_is_told_at_once(name: str, value: Any) -> None:
    refused(lambda: SignalingClient("ws://a.example", "alice", **{name: value}), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("url", value) for value in (None, 5, b"ws://a.example", Path("a.example"))],
        *[("token", value) for value in (5, True, b"secret", "\ud800")],
        *[("ssl_context", value) for value in ("x", True, ssl.SSLContext)],
        *[("ca_file", value) for value in NOT_PATHS[1:]],
        *[("backoff", value) for value in (5, "", 0, {}, Backoff)],
    ],
)
def test_what_a_client_cannot_use_is_told_at_once(name: str, value: Any) -> None:
    problem = refused(lambda: SignalingClient(**{"url": "ws://a.example", "user_id": "alice", name: value}), name)
    assert "secret" not in problem


@pytest.mark.parametrize("value", [None, 5, True, b"alice", ["alice"]])
def test_a_name_that_is_no_text_is_no_name(value: Any) -> None:
    for check in (check_user_id, check_device):
        with pytest.raises(InvalidAddress):
            check(value)
    with pytest.raises(UsageError):
        check_fingerprint(value)
    refused(lambda: ServerAddress.parse(value), "url")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("first", NOT_SECONDS),
        ("factor", (*NOT_NUMBERS, 0, 0.5, INFINITY, 10**400)),
        ("most", (*NOT_SECONDS, 0.1)),
        ("attempts", NOT_COUNTS),
        ("settled", NOT_SECONDS),
    ],
)
def test_a_backoff_takes_numbers_alone(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        refused(lambda value=value: Backoff(**{name: value}), f"backoff.{name}")


@pytest.mark.parametrize("value", [*NOT_COUNTS, 0, None])
def test_a_limit_of_pins_is_an_integer(value: Any) -> None:
    refused(lambda: MemoryPins(limit=value), "limit")


@pytest.mark.parametrize("value", NOT_PATHS)
def test_what_is_no_path_is_told_as_that(value: Any) -> None:
    refused(lambda: FilePins(value), "path")
    refused(lambda: Identity.load(value), "path")
    refused(lambda: Identity.load_or_create(value), "path")
    refused(lambda: Identity.generate().save(value), "path")


def test_a_folder_in_place_of_a_file_is_told_with_its_path(tmp_path: Path) -> None:
    for use in (FilePins, Identity.load, Identity.load_or_create):
        with pytest.raises(AldisError, match=tmp_path.name):
            use(tmp_path)


def test_a_class_in_place_of_an_object_is_a_slip() -> None:
    check_methods("pins", MemoryPins(), ("find",), "Pins")
    refused(lambda: check_methods("pins", MemoryPins, ("find",), "Pins"), "pins")


def test_what_makes_sense_is_taken() -> None:
    client = SignalingClient(
        "ws://a.example", "alice", request_timeout=1, connect_timeout=0.5, backoff=Backoff(first=0, attempts=0)
    )
    assert client.user_id == "alice"
    assert Backoff(factor=1, most=1e9).ceiling(3) == 0.5
