"""The checks of `aldis doctor`, in the order in which a connection needs them.

Rules: one check is one fact, in words for users; a failed check says what to do. A check that makes no sense after an
earlier failure is left out. The checks contact only hosts that the server named. `Examination` keeps the findings that
later steps need; it returns checks and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aldis.cli.check import Check as Check
from aldis.cli.check import Mark as Mark
from aldis.cli.exits import ExitCode, exit_code_of, explain
from aldis.cli.text import safe_line
from aldis.cli.ways import RelayFinding, Ways
from aldis.client.address import ServerAddress
from aldis.client.client import SignalingClient
from aldis.client.events import RelayReceived, SignalingEvent
from aldis.client.probe import Probe
from aldis.client.tokens import TokenProvider
from aldis.errors import AldisError, ConfigError, EngineMissing, ServerUnreachable
from aldis.identity.keys import Identity
from aldis.peer.engine import Engine, EngineConfig, EngineRefused
from aldis.peer.engines.catalog import ENGINES, load_engine
from aldis.peer.selftest import Gathered, ask_stun, gather, look_at_nat, loop_back
from aldis.protocol.hosts import is_this_machine
from aldis.protocol.ice import read_url
from aldis.protocol.messages import IceServer
from aldis.protocol.names import PROTOCOL
from aldis.server.tls import expires_soon

_MAX_SKEW: Final = 30.0  # seconds; time-limited TURN credentials and certificates go wrong beyond some minutes
_STUN_URL = re.compile(r"stun:(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:?\[\]]+))(?::(?P<port>\d+))?$")  # RFC 7064
_STUN_PORT: Final = 3478
# For one step of an engine: aioice alone waits 5 s for a silent STUN server.
_ENGINE_SECONDS: Final = 15.0
# Of a message that is sent through the relay: as much as a small frame of a store.
_SEALED_BYTES: Final = 200
_DEVICE: Final = "doctor"  # a separate device, so that a chat of the same name is not replaced


def _failed(name: str, error: AldisError, advice: str = "") -> Check:
    text, _, hint = explain(error).partition("\n  ")
    if isinstance(error, ServerUnreachable):
        text, hint = safe_line(error.reason), ""
    return Check(name, Mark.FAIL, text, advice or " ".join(hint.split()), exit_code_of(error))


@dataclass(frozen=True, slots=True)
class Patient:
    """What to examine, and as which user."""

    server: ServerAddress
    user_id: str
    identity: Identity
    ca_file: Path | None
    timeout: float  # seconds for each step
    token: str | TokenProvider | None = field(default=None, repr=False)


class Examination:
    """One examination of a server and of this machine, in steps: `server`, `stun`, `engines`, `turn`, `ways`."""

    def __init__(self, patient: Patient) -> None:
        """Contacts nothing yet."""
        self._patient = patient
        self._ice_servers: tuple[IceServer, ...] = ()  # those of the server, without silent ones
        self._named: tuple[IceServer, ...] = ()  # all of them
        self._registered = False
        self._engines: dict[str, Engine] = {}
        self._ways = Ways()

    async def server(self) -> AsyncIterator[Check]:
        """Reach the server, register, and get its ICE servers."""
        patient = self._patient
        probe = Probe(patient.server, ssl_context=_tls(patient.ca_file), timeout=patient.timeout)
        try:
            async for check in _reach(probe):
                yield check
                if check.mark is Mark.FAIL:
                    return
        finally:
            await probe.close()
        client = SignalingClient(
            patient.server.url,
            patient.user_id,
            device=_DEVICE,
            token=patient.token,
            ca_file=patient.ca_file,
            connect_timeout=patient.timeout,
        )
        try:
            start = time.perf_counter()
            await client.connect()
            registration = await client.register(patient.identity)
            self._registered = True
            offered = registration.limits is not None and registration.limits.relay
            took = (time.perf_counter() - start) * 1000
            yield Check(
                "registration", Mark.OK, f"as {safe_line(patient.user_id)}, with proof of the key, in {took:.0f} ms"
            )
            if offered:
                self._ways.relay = await _relays_sealed(client, f"{patient.user_id}/{_DEVICE}", patient.timeout)
            self._ice_servers = self._named = tuple((await client.ice_servers()).ice_servers)
            yield _named(self._ice_servers, patient.server)
        except AldisError as error:
            yield _failed("registration", error)
        finally:
            await client.close()

    async def stun(self) -> AsyncIterator[Check]:
        """For each STUN server: whether it answers, and the address that it sees."""
        for url in _stun_urls(self._ice_servers):
            match = _STUN_URL.match(url)
            if match is None:
                yield Check("STUN", Mark.FAIL, f"{safe_line(url)} is no STUN address", "Tell the operator.")
                continue
            try:
                seen = await ask_stun(
                    match["six"] or match["host"], int(match["port"] or _STUN_PORT), within=self._patient.timeout
                )
            except TimeoutError:
                reason = "no answer"
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            else:
                yield Check("STUN", Mark.OK, f"{safe_line(url)} sees this machine as {seen}")
                continue
            # An engine would only wait for it.
            self._ice_servers = _without(url, self._ice_servers)
            yield Check(
                "STUN",
                Mark.WARN,
                f"{safe_line(url)}: {reason}",
                "UDP may be blocked here, or the STUN server is down. Then peers in other networks need a TURN server.",
            )

    async def engines(self) -> AsyncIterator[Check]:
        """For each WebRTC engine: what it gathers, and whether it opens a data channel to itself."""
        servers = self._ice_servers
        # As in `aldis chat`: with a server on this machine, the peers are here too.
        config = EngineConfig(ice_servers=servers, allow_loopback=is_this_machine(self._patient.server.host))
        found: dict[str, Engine | EngineMissing] = {}
        for name in ENGINES:
            try:
                found[name] = await asyncio.to_thread(load_engine, name)
            except EngineMissing as error:
                found[name] = error
        usable = sum(not isinstance(engine, EngineMissing) for engine in found.values())
        for name, engine in found.items():
            if isinstance(engine, EngineMissing):
                yield _missing(engine, usable)
                continue
            self._engines[name] = engine
            try:
                yield _candidates(name, await gather(engine, config, within=_ENGINE_SECONDS), servers)
            except AldisError as error:
                yield Check(f"{name} candidates", Mark.FAIL, explain(error), code=ExitCode.CONNECTION_FAILED)
            yield await _data_channel(name, engine, config)

    async def turn(self) -> AsyncIterator[Check]:
        """For each TURN server: whether it relays, and for which engines. Call it after `engines`."""
        urls = [(url, server) for server in self._named for url in server.urls if url.startswith("turn")]
        loopback = is_this_machine(self._patient.server.host)
        relays: dict[str, bool] = {}
        for url, server in urls:
            config = EngineConfig((IceServer([url], server.username, server.credential),), allow_loopback=loopback)
            asked = [_relays(engine, config, self._patient.timeout) for engine in self._engines.values()]
            works = dict(zip(self._engines, await asyncio.gather(*asked), strict=True))
            relays[url] = any(works.values())
            if works:
                yield _turn_server(url, works)
        self._ways.turn = relays

    async def ways(self) -> AsyncIterator[Check]:
        """By which ways peers in other networks are reached. Call it last."""
        if not self._registered or is_this_machine(self._patient.server.host):
            return
        # TURN servers answer STUN too, so they are second opinions.
        endpoints = [endpoint for server in self._named for url in server.urls if (endpoint := _endpoint(url))]
        self._ways.nat = await look_at_nat(endpoints, within=self._patient.timeout)
        for check in self._ways.checks():
            yield check


async def _relays_sealed(client: SignalingClient, own: str, seconds: float) -> RelayFinding:
    """Whether a sealed message comes back that this client sends to its own address."""
    sent, came = os.urandom(_SEALED_BYTES), asyncio.Event()

    def heard(event: SignalingEvent) -> None:
        if isinstance(event, RelayReceived) and event.sealed == sent:
            came.set()

    stop = client.subscribe(heard)
    try:
        async with asyncio.timeout(seconds):
            await client.relay(own, sent)
            await came.wait()
    except TimeoutError:
        return RelayFinding(offered=True, reason=f"a message to this machine itself did not come back in {seconds:g} s")
    except AldisError as error:
        return RelayFinding(offered=True, reason=safe_line(explain(error).partition("\n")[0]))
    finally:
        stop()
    return RelayFinding(offered=True, works=True)


async def _relays(engine: Engine, config: EngineConfig, seconds: float) -> bool:
    try:
        return "relay" in (await gather(engine, config, within=seconds)).by_kind
    except AldisError:
        return False


def _turn_server(url: str, works: dict[str, bool]) -> Check:
    yes, no = ([name for name, relays in works.items() if relays is wanted] for wanted in (True, False))
    shown = safe_line(url)
    if not no:
        return Check("TURN server", Mark.OK, f"{shown} relays")
    if not yes:
        advice = "It cannot be reached from here, or refuses the credentials. Tell the operator of the server."
        return Check("TURN server", Mark.WARN, f"{shown} does not relay", advice)
    advice = (
        "wrtc trusts the public authorities alone. With a certificate of an authority of your own, use --engine aiortc."
        if url.startswith("turns:")
        else ""
    )
    return Check("TURN server", Mark.WARN, f"{shown} relays for {', '.join(yes)}, not for {', '.join(no)}", advice)


def _endpoint(url: str) -> tuple[str, int] | None:
    """Where a server takes STUN over UDP."""
    try:
        read = read_url(url)
    except ValueError:
        return None
    return None if read.scheme.endswith("s") or read.transport == "tcp" else read.address


def _missing(error: EngineMissing, usable: int) -> Check:
    """An engine that is not installed. One engine is necessary; the first one is the default."""
    text, _, advice = error.hint.partition("; ")
    text = text.removeprefix("it is ")
    if usable and error.engine != ENGINES[0]:
        return Check(error.engine, Mark.NOTE, text)
    if usable:
        return Check(error.engine, Mark.WARN, text, advice)
    return Check(error.engine, Mark.FAIL, text, advice, ExitCode.CONNECTION_FAILED)


def _tls(ca_file: Path | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # includes ssl.SSLError
        raise ConfigError("ca_file", f"{ca_file} holds no certificates in PEM: {error.strerror or error}") from None


async def _reach(probe: Probe) -> AsyncIterator[Check]:
    step = "address"
    try:
        addresses = await probe.resolve()
        yield Check(step, Mark.OK, _resolved(probe.server.host, addresses))
        step = "port"
        start = time.perf_counter()
        address = await probe.connect()
        took = (time.perf_counter() - start) * 1000
        yield Check(step, Mark.OK, f"{address} takes connections on port {probe.server.port}, in {took:.1f} ms")
        step = "TLS"
        yield (_trusted(await probe.secure(), probe.validity) if probe.server.secure else _plain(probe))
        step = "WebSocket"
        upgrade = await probe.upgrade()
    except ServerUnreachable as error:
        yield _failed(step, error, _advice(step, probe))
        return
    if upgrade.subprotocol != PROTOCOL:
        yield Check(
            step,
            Mark.FAIL,
            f"upgraded, but the server does not speak {PROTOCOL}",
            "This is another kind of WebSocket server, or a much older one. Check host, port and path.",
            ExitCode.SERVER_UNREACHABLE,
        )
        return
    yield Check(step, Mark.OK, f"upgraded, speaks {PROTOCOL}")
    if upgrade.date is not None:
        yield _clock(upgrade.date - time.time())


def _resolved(host: str, addresses: list[str]) -> str:
    return host if addresses == [host] else f"{host} is {', '.join(addresses)}"


_ADVICE: Final = {
    "address": "Check the spelling, and that this machine has a name server.",
    "port": "Check that the server runs, listens on that address (--host) and port, and that no firewall is between.",
    "TLS": "Check that the port is one for wss://. "
    "A server that waits for its first certificate (acme_domain) refuses TLS: its log says what keeps it.",
    "WebSocket": "Check host, port and path; a proxy in between must pass the Host header and WebSocket upgrades on.",
}

_BEHIND_A_PROXY: Final = "Tell the operator: the proxy is there, and the server behind it does not answer it."
# By the status with which the server, or a proxy in front of it, refuses the upgrade.
_BY_STATUS: Final = {
    **dict.fromkeys((301, 302, 307, 308), "Give that address, if you trust it."),
    403: "The server, or a proxy in front of it, does not admit this address. Tell the operator.",
    421: "Give the name that the operator has told you.",
    429: "Close what else is connected from this address, or wait a minute. "
    "The operator can let more in (--connections-per-address), or has to trust the proxy in front (--trusted-proxies).",
    502: _BEHIND_A_PROXY,
    503: "Try again in a minute. If it stays so, tell the operator: the log says what is full, or why it is down.",
    504: _BEHIND_A_PROXY,
}

_TLS_PORT: Final = " If the port is one for TLS, the address has to begin with wss://."

_UNTRUSTED: Final = (
    "No authority that this machine trusts has signed it. For a certificate of your own, give its authority with "
    "--ca-file. For one of a public authority, the server's file has to hold the whole chain."
)
_OTHER_NAME: Final = "Use a name that is in the certificate. The operator can order one that has this name, too."
# By the code of OpenSSL (x509_vfy.h).
_BY_DISTRUST: Final = {
    9: "Is the clock of this machine right? If it is, the certificate is valid only later: tell the operator.",
    10: "The operator has to renew it; on the server, `aldis admin certificate` shows why that has not been done. "
    "Where a proxy does TLS, it has to be reloaded with the new one. "
    "If it should be valid, look at the clock of this machine.",
    **dict.fromkeys((62, 64), _OTHER_NAME),  # a host name, an address
}


def _advice(step: str, probe: Probe) -> str:
    if probe.distrust is not None:
        return _BY_DISTRUST.get(probe.distrust, _UNTRUSTED)
    if probe.refused in _BY_STATUS:
        return _BY_STATUS[probe.refused]
    # A port for TLS answers 400, or hangs up, where plain HTTP comes.
    return _ADVICE[step] + (_TLS_PORT if step == "WebSocket" and not probe.server.secure else "")


def _trusted(version: str, validity: tuple[float, float] | None) -> Check:
    text = f"{version}, certificate trusted"
    if validity is None:
        return Check("TLS", Mark.OK, text)
    now = time.time()
    days = int((validity[1] - now) // 86_400)
    if not expires_soon(*validity, now):
        return Check("TLS", Mark.OK, f"{text}, for {days} days more")
    advice = "On the server, `aldis admin certificate` shows why it is not renewed, unless a proxy has the certificate."
    return Check("TLS", Mark.WARN, f"{text}, for {days} days more only", advice)


def _plain(probe: Probe) -> Check:
    if is_this_machine(probe.server.host):
        return Check("TLS", Mark.NOTE, "not used; not needed on one machine")
    return Check(
        "TLS",
        Mark.WARN,
        "not used: the network can see which users talk to each other (not what they say)",
        "Put the server behind TLS and use wss://.",
    )


def _clock(skew: float) -> Check:
    if abs(skew) <= _MAX_SKEW:
        return Check("clock", Mark.OK, "agrees with the server's")
    way = "ahead of" if skew < 0 else "behind"
    return Check(
        "clock",
        Mark.WARN,
        f"{abs(skew):.0f} s {way} the server's",
        "Set it (NTP): TURN credentials expire.",
    )


def _named(servers: tuple[IceServer, ...], server: ServerAddress) -> Check:
    urls = [safe_line(url) for server in servers for url in server.urls]
    if urls:
        return Check("ICE servers", Mark.OK, ", ".join(urls))
    if is_this_machine(server.host):
        return Check("ICE servers", Mark.NOTE, "the server names none; not needed on one machine")
    return Check(
        "ICE servers",
        Mark.WARN,
        "the server names none: peers in one network reach each other, peers in two networks hardly",
        "The operator of the server can name STUN and TURN servers: `aldis serve --help`.",
    )


def _stun_urls(servers: tuple[IceServer, ...]) -> list[str]:
    """The STUN URLs without duplicates, in the server's order."""
    return list(dict.fromkeys(url for server in servers for url in server.urls if url.startswith("stun:")))


def _without(silent: str, servers: tuple[IceServer, ...]) -> tuple[IceServer, ...]:
    """The servers without one URL; a server that has no other URL is left out."""
    heard = ([url for url in server.urls if url != silent] for server in servers)
    return tuple(
        IceServer(urls, server.username, server.credential) for server, urls in zip(servers, heard, strict=True) if urls
    )


def _candidates(name: str, gathered: Gathered, servers: tuple[IceServer, ...]) -> Check:
    title = f"{name} candidates"
    found = "; ".join(f"{kind} {', '.join(places)}" for kind, places in gathered.by_kind.items())
    urls = [url for server in servers for url in server.urls]
    if not found:
        why = "the engine sees no network it could use" if gathered.finished else "the engine did not finish in time"
        return Check(
            title,
            Mark.FAIL,
            f"none: {why}",
            "Connect this machine to a network.",
            ExitCode.CONNECTION_FAILED,
        )
    if any(url.startswith("turn") for url in urls) and "relay" not in gathered.by_kind:
        advice = "The TURN server cannot be reached or refuses the credentials; tell the operator."
        return Check(title, Mark.WARN, f"{found}; no relay", advice)
    if any(url.startswith("stun") for url in urls) and "srflx" not in gathered.by_kind:
        return Check(title, Mark.NOTE, f"{found}; no srflx, as without a NAT, or when STUN does not answer")
    return Check(title, Mark.OK, found)


async def _data_channel(name: str, engine: Engine, config: EngineConfig) -> Check:
    title = f"{name} channel"
    # Without ICE servers: two ends on one machine need none, and a silent one would only delay.
    own = EngineConfig(allow_loopback=config.allow_loopback)
    try:
        result = await loop_back(engine, own, within=_ENGINE_SECONDS)
    except (TimeoutError, EngineRefused) as error:
        reason = str(error) or f"did not open within {_ENGINE_SECONDS:g} s"
        return Check(
            title,
            Mark.FAIL,
            f"a data channel from this machine to itself: {safe_line(reason)}",
            "The usual cause is a firewall on this machine that blocks UDP to itself, or no network.",
            ExitCode.CONNECTION_FAILED,
        )
    opened, round_trip = result.open_seconds * 1000, result.round_trip * 1000
    return Check(title, Mark.OK, f"opened to itself in {opened:.0f} ms, 1 KB there and back in {round_trip:.1f} ms")
