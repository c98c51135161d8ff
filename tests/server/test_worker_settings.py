"""What a worker gets of the settings, and how they get to it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import msgpack

from aldis.errors import ConfigError
from aldis.server.config import SETTINGS, ServerConfig
from aldis.server.machine import default_budget
from aldis.server.turn_folder import turn_settings
from aldis.server.worker_link import from_plain, to_plain
from aldis.server.worker_settings import FIXED, SHARED_OUT, changed_ports, for_worker
from support.settings import config

REDIS = "redis://:s3cret@10.0.0.1"


def several(**settings: Any) -> ServerConfig:
    return ServerConfig(**{"redis": REDIS, "workers": 4, **settings})


def share(settings: ServerConfig) -> ServerConfig:
    return for_worker(settings, turn=None, secret="", stun=True)


def test_limits_of_the_machine_are_shared_out_and_those_of_a_client_are_not() -> None:
    whole = several(max_connections=10, memory_budget=4_000_000, connections_per_address=100)
    one = share(whole)
    assert one.workers == 1
    assert (one.max_connections, one.memory_budget, one.connections_per_address) == (3, 1_000_000, 100)
    assert share(several()).memory_budget == -(-default_budget() // 4)
    smallest = share(several(max_connections=1, watches_bytes=64 * 1024, detached_bytes=70_000))
    assert (smallest.max_connections, smallest.watches_bytes, smallest.detached_bytes) == (1, 64 * 1024, 64 * 1024)
    assert set(SHARED_OUT) <= set(SETTINGS)
    opening = share(several(tls_handshakes=1000, partial_requests_bytes=1_000_000, stun_per_address=7))
    assert (opening.tls_handshakes, opening.partial_requests_bytes, opening.stun_per_address) == (250, 250_000, 7)
    assert share(several(**{name: lowest for name, lowest in SHARED_OUT.items() if lowest > 1})).tls_handshakes == 10


def test_a_worker_opens_no_port_and_runs_no_turn_server() -> None:
    whole = several(
        admin_port=9080,
        host="10.0.0.2",
        turn_server=True,
        turn_port=3500,
        turn=("turn:other.example",),
        turn_secret="shared",
        redirect_port=80,
        tls_cert=Path("c.pem"),
        tls_key=Path("k.pem"),
    )
    one = for_worker(whole, turn=turn_settings(whole), secret="shared", stun=False)
    assert (one.admin_port, one.redirect_port, one.stun_port, one.turn_server) == (0, None, 0, False)
    assert one.turn == (
        "turn:10.0.0.2:3500?transport=udp",
        "turn:10.0.0.2:3500?transport=tcp",
        "turns:10.0.0.2:5349?transport=tcp",
        "turn:other.example",
    )
    assert (one.turn_secret, one.stun) == ("shared", ("stun:10.0.0.2:3500",))
    assert one.turn_check == ("turn:10.0.0.2:3500",)
    assert share(several(admin_port=None)).admin_port is None


def test_settings_get_to_a_worker_as_they_are() -> None:
    for whole in (
        ServerConfig(),
        several(),
        config(
            jwks="keys.json",
            auth="token",
            names=("a.example", "b.example:8443"),
            trusted_proxies=("10.0.0.0/8",),
            turn_relay_ports=(50000, 50100),
            tls_cert=Path("c.pem"),
            tls_key=Path(os.fsdecode(b"not-utf-8-\xff")),
            admin_port=None,
            web=False,
            token_leeway=1.5,
        ),
    ):
        plain = msgpack.decode(msgpack.encode(to_plain(whole)))
        assert from_plain(plain) == whole
    assert "port" not in to_plain(ServerConfig())  # a newer release may have another default


def test_a_setting_that_a_worker_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigError, match="is no setting of this release"):
        from_plain({"unheard_of": 1})


def test_a_hang_up_changes_all_but_ports_and_the_turn_server() -> None:
    before, after = several(port=1, web=True, drain_seconds=1), several(port=2, web=False, drain_seconds=2, workers=2)
    taken, fixed = changed_ports(before, after)
    assert fixed == ["port"]
    assert (taken.port, taken.web, taken.drain_seconds, taken.workers) == (1, False, 2, 2)
    assert changed_ports(before, before) == (before, [])
    assert set(SETTINGS) >= FIXED
    secure: dict[str, Any] = {"tls_cert": Path("c.pem"), "tls_key": Path("k.pem"), "redirect_port": 80}
    with pytest.raises(ConfigError, match="redirect_port: needs"):
        changed_ports(several(**secure), several())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"redis": ""}, "workers: more than one need redis: they share nothing else"),
        ({"acme_domain": ("a.example",), "acme_agree_tos": True}, "workers: more than one and acme_domain"),
        ({"admin_port": 65533}, "admin_port: each worker has its own, from this one on"),
        ({"port": 9083, "admin_port": 9080}, "admin_port: 9083 is the public port already"),
        ({"workers": 0}, "workers: 0 cannot be used; expected a whole number from 1 to 128"),
    ],
)
def test_workers_that_cannot_be_are_refused_in_a_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        several(**settings)


def test_one_worker_needs_no_redis_and_windows_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerConfig(workers=1).workers == 1
    assert several(port=9084, admin_port=9080).workers == 4
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="workers: more than one cannot share a port on Windows"):
        several()
