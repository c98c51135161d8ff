"""STUN and TURN for the aiortc engine: all servers of the list, while aioice would ask only the first of each kind.

The servers of a kind are tried as RFC 8305 tries addresses: the next one starts when one has failed, or `_STAGGER`
seconds after the one before it, and the first answer ends the race. TURN over UDP comes first, then over TCP, then over
TLS: each costs more than the one before, and passes more firewalls. So behind a firewall that drops UDP, a relay is
found a fraction of a second later, and a server that is dead or refuses the credentials is replaced.

Gathering takes at most `_GATHER_SECONDS`, STUN at most `_STUN_SECONDS`, because aiortc does not trickle and its
description waits for this. Most peers can be reached without STUN, so it gets less time than a relay.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from aioice import ice
from aioice.candidate import Candidate

from aldis.protocol.ice import IceUrl, read_url
from aldis.protocol.messages import IceServer

_log = logging.getLogger(__name__)

_STAGGER: Final = 0.25  # seconds; RFC 8305 section 8
_GATHER_SECONDS: Final = 5.0  # the same as in aioice
_STUN_SECONDS: Final = 2.0  # for a request and two repetitions (RFC 8489 section 6.2.1) and an answer
_MAX_SERVERS: Final = 16  # of each kind; a longer list is a mistake, and each server costs a socket

# By what it costs: see `_cost`.
_PROTOCOLS: Final = ("udp", "tcp", "tls")

_Attempt = Callable[[], Coroutine[Any, Any, None]]


class Servers:
    """The STUN and TURN servers of one connection, in the order in which they are tried."""

    def __init__(self, given: Sequence[IceServer]) -> None:
        self._stun: list[IceUrl] = []
        self._turn: list[tuple[IceUrl, IceServer]] = []
        for server in given:
            for url in map(read_url, server.urls):
                if url.scheme == "stun":
                    self._stun.append(url)
                elif url.scheme == "turn" or (url.scheme == "turns" and url.transport != "udp"):
                    self._turn.append((url, server))
                else:
                    _log.info("%s is left out: aiortc has no TLS for STUN and no DTLS for TURN", url)
        self._turn.sort(key=lambda entry: _cost(entry[0]))
        for kind, urls in (("STUN", self._stun), ("TURN", [url for url, _ in self._turn])):
            if len(urls) > _MAX_SERVERS:
                _log.warning(
                    "of %d %s servers, aiortc asks %d; left out: %s",
                    len(urls),
                    kind,
                    _MAX_SERVERS,
                    ", ".join(map(str, urls[_MAX_SERVERS:])),
                )
        del self._stun[_MAX_SERVERS:], self._turn[_MAX_SERVERS:]
        # Our way to the TURN server, by the address at which it relays for us: `udp`, `tcp` or `tls`.
        self.relay_protocols: dict[tuple[str, int], str] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._stopped = False

    def stop(self) -> None:
        """End `gather` with what it has, because the rest is not needed."""
        self._stopped = True
        for task in self._asking:
            task.cancel()

    async def gather(
        self,
        agent: ice.Connection,
        gather_hosts: Callable[..., Coroutine[Any, Any, list[Candidate]]],
        *,
        component: int,
        addresses: list[str],
        **options: Any,
    ) -> list[Candidate]:
        """Replaces aioice's `get_component_candidates`, which is `gather_hosts` now and does no more."""
        found = await gather_hosts(component=component, addresses=addresses, **options)
        races = [
            _within(_STUN_SECONDS, "STUN", [_reflexive(protocol, url, found) for url in self._stun])
            for protocol in agent._protocols
        ]
        relays = [self._relay(agent, component, url, server, found) for url, server in self._turn]
        races.append(_within(_GATHER_SECONDS, "TURN", relays))
        self._asking = {asyncio.create_task(race) for race in races}
        if self._stopped:
            self.stop()
        await asyncio.wait(self._asking)
        for task in self._asking:
            if not task.cancelled():
                task.result()
        return found

    def _relay(
        self, agent: ice.Connection, component: int, url: IceUrl, server: IceServer, found: list[Candidate]
    ) -> _Attempt:
        async def attempt() -> None:
            candidate, protocol = await ice.relayed_candidate(
                component=component,
                hide_related_address=agent._transport_policy == ice.TransportPolicy.RELAY,
                protocol_factory=lambda: ice.StunProtocol(agent),
                turn_server=url.address,
                turn_username=server.username,
                turn_password=server.credential,
                turn_ssl=url.scheme == "turns",
                turn_transport="udp" if _cost(url) == 0 else "tcp",
            )
            # No await in between: an allocation that no object holds would never be released.
            agent._protocols.append(protocol)
            found.append(candidate)
            self.relay_protocols[candidate.host, candidate.port] = _PROTOCOLS[_cost(url)]

        return _named(attempt, url)


def _cost(url: IceUrl) -> int:
    if url.scheme == "turns":
        return 2
    return 1 if url.transport == "tcp" else 0


def _reflexive(protocol: ice.StunProtocol, url: IceUrl, found: list[Candidate]) -> _Attempt:
    async def attempt() -> None:
        if ipaddress.ip_address(protocol.local_candidate.host).version == 4:  # as in aioice, which asks by IPv4 only
            candidate, _ = await ice.server_reflexive_candidate(protocol, url.address)
            found.append(candidate)

    return _named(attempt, url)


def _named(attempt: _Attempt, url: IceUrl) -> _Attempt:
    async def logged() -> None:
        try:
            await attempt()
        except Exception as error:
            _log.info("%s gives no candidate: %s", url, str(error) or type(error).__name__)
            raise

    return logged


async def _within(seconds: float, kind: str, attempts: Sequence[_Attempt]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await _race(attempts)
    except TimeoutError:
        _log.info("no %s server answered within %g s", kind, seconds)


async def _race(attempts: Sequence[_Attempt]) -> None:
    """Start the attempts one after the other, until one has succeeded; then cancel the others."""
    waiting = deque(attempts)
    running: set[asyncio.Task[None]] = set()
    won = False
    try:
        while not won and (waiting or running):
            if waiting:
                running.add(asyncio.create_task(waiting.popleft()()))
            pause = _STAGGER if waiting else None
            done, running = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            won = any([task.exception() is None for task in done])  # noqa: C419 - each exception has to be retrieved
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
