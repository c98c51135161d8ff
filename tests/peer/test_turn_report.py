"""What is said of the TURN servers when no path was found."""

from __future__ import annotations

import pytest

from aldis.peer.engine import EngineConfig, RelayWatch, TurnReport
from aldis.protocol.messages import IceServer

HINT = "; or its certificate is of an authority of your own"


def watch(*urls: str, hint: str = HINT) -> RelayWatch:
    return RelayWatch(EngineConfig(ice_servers=(IceServer(list(urls), "u", "c"),)), hint=hint)


@pytest.mark.parametrize("urls", [[], ["stun:a.example"]])
def test_without_a_turn_server_it_says_so(urls: list[str]) -> None:
    assert watch(*urls).report == TurnReport("none", "no TURN server is configured")


def test_a_server_that_relays_was_tried() -> None:
    relays = watch("turn:a.example")
    relays.saw("candidate:1 1 udp 1 192.0.2.1 9 typ relay raddr 0.0.0.0 rport 0")
    assert relays.report == TurnReport("tried", "not through turn:a.example either")


def test_a_refusal_is_quoted() -> None:
    refusing = watch("turns:a.example")
    refusing.refused("turns:a.example", 401, "Unauthorized")
    text = "no relay candidate from turns:a.example: the server refuses the credentials (401 Unauthorized)"
    assert refusing.report == TurnReport("refused", text)


@pytest.mark.parametrize(("url", "hint"), [("turn:a.example", ""), ("turns:a.example", HINT)])
def test_only_of_a_server_with_tls_the_certificate_may_be_to_blame(url: str, hint: str) -> None:
    text = f"no relay candidate from {url}: the server cannot be reached, or refuses the credentials{hint}"
    assert watch(url).report == TurnReport("unreachable", text)
