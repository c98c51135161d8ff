"""What an application is told of the path of a connection."""

from __future__ import annotations

import pytest

from aldis.peer.engine import EngineStats, PathEnd
from aldis.store.state import peer_stats

HOST = PathEnd("host", "udp", "192.0.2.1", 7)


@pytest.mark.parametrize("found", [EngineStats(), EngineStats(local=HOST), EngineStats(remote=HOST, bytes_sent=1)])
def test_without_a_path_nothing_is_told(found: EngineStats) -> None:
    assert peer_stats(found, 0.1) is None


@pytest.mark.parametrize(
    ("local", "remote", "path", "protocol"),
    [
        (HOST, HOST, "direct", "udp"),
        (PathEnd("srflx", "tcp", "", 0), PathEnd("prflx", "tcp", "", 0), "direct", "tcp"),
        (PathEnd("relay", "udp", "", 0, "tls"), HOST, "turn", "tls"),
        (PathEnd("prflx", "udp", "", 0, "tcp"), HOST, "turn", "tcp"),  # found over our TURN server
        (HOST, PathEnd("relay", "udp", "", 0), "turn", "udp"),
    ],
)
def test_a_path_over_turn_tells_our_way_to_the_server(
    local: PathEnd, remote: PathEnd, path: str, protocol: str
) -> None:
    stats = peer_stats(EngineStats(local, remote, 1, 2), 0.1)
    assert stats is not None
    assert (stats.path, stats.protocol, stats.local, stats.remote) == (path, protocol, local.kind, remote.kind)
