"""The ports on which servers of tests listen."""

from __future__ import annotations

import pytest

from support.ports import free_port, ports_of

# https://fetch.spec.whatwg.org/#port-blocking, those that need no privilege.
REFUSED_BY_BROWSERS = {
    *(1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)
}


@pytest.mark.parametrize("worker", ["gw0", "gw1", "gw2", "gw15"])
def test_no_server_listens_where_a_browser_would_not_go(worker: str) -> None:
    assert not REFUSED_BY_BROWSERS & set(ports_of(worker))


def test_processes_share_no_ports() -> None:
    assert not set(ports_of("gw0")) & set(ports_of("gw1"))


def test_each_port_is_another_one() -> None:
    assert len({free_port() for _ in range(20)}) == 20
