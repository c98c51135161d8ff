"""The seam between Aldis and a WebRTC engine: the part of W3C WebRTC that a data channel needs, and nothing else.

Rules:

* An engine knows nothing of signaling, users, proofs or Aldis's frames. It turns descriptions and candidates into an
  open channel.
* All calls are made on one running asyncio loop. All callbacks arrive on that loop, each as a separate call, never from
  within a call of the owner.
* After the call of `close()` no callback arrives.
* An engine uses only the STUN and TURN servers that it was given.
* Descriptions and candidates from outside are hostile until proven otherwise. Whatever the WebRTC library does with
  them, the caller gets `EngineRefused` and can close the connection.

The W3C text is https://www.w3.org/TR/webrtc/; sections are cited where the engines differ.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from aldis.errors import ProtocolViolation
from aldis.protocol.ice import read_servers
from aldis.protocol.messages import Candidate, Capabilities, IceServer
from aldis.protocol.texts import clean

_log = logging.getLogger(__name__)

# An SDP of one data channel has 0.5 KiB, one of a whole conference some 60 KiB (the most that a signaling frame can
# carry). SDP parsers are made neither for gigabytes nor for deep nesting.
MAX_SDP: Final = 64 * 1024
# The first is necessary for a channel, the second for the peer's identity. aiortc would accept a description without
# them.
_NEEDED: Final = ("m=application ", "a=fingerprint:")
MAX_CANDIDATE: Final = 1024  # characters; RFC 8839 section 5.1 leads to some 200


class EngineRefused(ProtocolViolation):
    """The engine refused a description or candidate, or could not make its own."""


class EngineState(Enum):
    """The state of a connection (W3C `RTCPeerConnectionState`)."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # may recover by itself; aiortc has no such state
    FAILED = "failed"  # does not recover without an ICE restart
    CLOSED = "closed"  # by the other side


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration of a connection.

    `ice_servers`: the STUN and TURN servers, none by default. `allow_loopback`: also use 127.0.0.1, for two programs on
    one machine without a network. Off by default, because such a candidate is useless on any other machine.
    `relay_only`: tell the other side no address but those of TURN servers, and use no other path (W3C
    `iceTransportPolicy`).
    """

    ice_servers: tuple[IceServer, ...] = ()
    allow_loopback: bool = False
    relay_only: bool = False


@dataclass(frozen=True, slots=True)
class PathEnd:
    """One end of the path that ICE has chosen.

    `kind` is `host`, `srflx`, `prflx` or `relay` (RFC 8445 section 4); `protocol` is `udp` or `tcp`. The address is
    empty when the engine hides it (mDNS names, RFC 8828). `relay_protocol` is our way to our TURN server: `udp`, `tcp`
    or `tls`; empty for an end without one, and for the other side's.
    """

    kind: str
    protocol: str
    address: str
    port: int
    relay_protocol: str = ""

    @property
    def relayed(self) -> bool:
        """Whether a TURN server is between. A peer-reflexive candidate may have been found over one."""
        return self.kind == "relay" or bool(self.relay_protocol)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's statistics of a connection; None if unknown. Bytes are those of the channel's messages, with or
    without transport overhead, as the engine counts them."""

    local: PathEnd | None = None
    remote: PathEnd | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    # Seconds since anything has come from the other side, be it only an acknowledgement of SCTP.
    quiet: float | None = None

    @property
    def relayed(self) -> bool:
        """Whether the path leads through a TURN server on either side."""
        return any(end is not None and end.relayed for end in (self.local, self.remote))


class ChannelListener(Protocol):
    """Receives the events of a channel."""

    def message_received(self, data: bytes | str) -> None:
        """One whole message, binary or text."""

    def buffer_drained(self) -> None:
        """`buffered_amount` has fallen to the low threshold; called once for each time."""

    def channel_closed(self) -> None:
        """The channel is closed, by the other side or with the connection. Called at most once."""


class EngineChannel(Protocol):
    """One open data channel: reliable and ordered."""

    @property
    def label(self) -> str:
        """The label from its creation."""

    @property
    def buffered_amount(self) -> int:
        """Bytes given to `send` that are not on the wire yet."""

    def listen(self, listener: ChannelListener, low_threshold: int) -> None:
        """Set the listener, and at how many bytes `buffer_drained` is called.

        Call it within `EngineListener.channel_opened`; then nothing is lost.
        """

    def send(self, data: bytes) -> None:
        """Queue one binary message. Raises `StateError` when the channel is not open or cannot take it."""

    def close(self) -> None:
        """Start closing; queued messages are still sent. Idempotent."""


class EngineListener(Protocol):
    """Receives the events of a connection."""

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        """A candidate for the other side; None means that there are no more.

        An engine without trickle ICE writes its candidates into the description, and never calls this.
        """

    def state_changed(self, state: EngineState) -> None:
        """The state of the connection has changed. `CLOSED` means that the other side has closed it."""

    def alive(self) -> None:
        """The other side's engine has just shown that it is reachable (RFC 7675), at least every 3.5 s while both are
        idle. An engine that cannot report this never calls it."""

    def channel_opened(self, channel: EngineChannel) -> None:
        """A channel of either side is open: call its `listen` now."""


@dataclass(frozen=True, slots=True)
class TurnReport:
    """What became of the TURN servers of a connection: a word as in `PeerConnectionFailed.turn`, and a text."""

    state: str = ""
    text: str = ""


class EngineConnection(Protocol):
    """One connection. Call its coroutines one at a time. `close` may be called during any of them; it takes effect at
    once, and the other call raises `EngineRefused` or `CancelledError`."""

    def open_channel(self, label: str) -> None:
        """Make a data channel; call it before the first `offer`. `channel_opened` follows when it is open."""

    def renew(self, config: EngineConfig) -> None:
        """Use these ICE servers for all later gathering, because TURN credentials expire.

        Raises `ConfigError` for a server that cannot be used, and keeps the earlier ones. An engine that cannot restart
        ICE gathers only once, and may do nothing.
        """

    async def offer(self, *, restart_ice: bool = False) -> str:
        """Make an offer, apply it locally, return its SDP. Raises `EngineRefused`.

        `restart_ice` makes the engine gather anew (RFC 8445 section 9); only with `capabilities.restart`.
        """

    async def answer(self, offer_sdp: str) -> str:
        """Apply the other side's offer, make an answer, apply it locally, return its SDP. Raises `EngineRefused`.

        An engine with `capabilities.restart` takes an offer also while its own is pending, and rolls its own back
        (W3C section 4.4.1.5).
        """

    async def accept(self, answer_sdp: str) -> None:
        """Apply the other side's answer to the pending offer. Raises `EngineRefused`."""

    async def add_candidate(self, candidate: Candidate | None) -> None:
        """Add a candidate of the other side, or None for the end of them. Raises `EngineRefused` for an unusable one.

        Call it only after a description of the other side has been applied: aiortc would drop it, the others raise.
        """

    async def stats(self) -> EngineStats:
        """The path and the traffic, as far as the engine knows them."""

    @property
    def turn(self) -> TurnReport:
        """What became of the TURN servers."""

    async def close(self) -> None:
        """End the connection and release its sockets, tasks and threads. Idempotent."""


class Engine(Protocol):
    """A WebRTC implementation."""

    @property
    def name(self) -> str:
        """The name for `load_engine`."""

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do; sent with offers and answers."""

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        """Make a connection, on the running loop. Raises `ConfigError` for an ICE server that cannot be used."""


@runtime_checkable
class PreparingEngine(Protocol):
    """An engine whose connections take long to make."""

    def prepare(self, config: EngineConfig) -> None:
        """Make now what the next `create` with this configuration needs, unless that is there already. It sends
        nothing, and is given up when no `create` follows soon. Never raises: `create` will."""


_STUN_ERRORS: Final = (300, 699)
_UNAUTHORIZED: Final = 401


class RelayWatch:
    """Notices when there is a TURN server but no relay candidate.

    An engine does not fail for a TURN server that refuses it or cannot be reached. There is only a kind of candidate
    missing at the end, and without this the later failure would have no explanation.
    """

    def __init__(self, config: EngineConfig, *, hint: str = "") -> None:
        """`hint`: what else may be wrong with a `turns:` server that cannot be reached."""
        self._turn = [
            url for server in config.ice_servers for url in server.urls if url.lower().startswith(("turn:", "turns:"))
        ]
        self._hint = hint if any(url.lower().startswith("turns:") for url in self._turn) else ""
        self._seen = False
        self._said = False
        self._refusal = ""

    def saw(self, text: str) -> None:
        """Note a gathered candidate, or a whole description with candidates in it."""
        self._seen = self._seen or " typ relay" in text

    def refused(self, url: str, code: int, text: str) -> None:
        """A TURN server has answered with a STUN error (RFC 8489 section 14.8). Others (701) only say that an address
        of ours does not reach the server (W3C WebRTC section 4.8.2.1)."""
        if url.lower().startswith("turn") and _STUN_ERRORS[0] <= code <= _STUN_ERRORS[1]:
            what = "the credentials " if code == _UNAUTHORIZED else ""
            self._refusal = f"the server refuses {what}({code} {clean(text).rstrip('.')})"

    def gathered(self, *, cut_short: bool = False) -> None:
        """Gathering has ended: log it when a relay candidate was expected and none came. `cut_short`: perhaps because a
        path was found first. Then a server that has not answered yet is not to blame."""
        if self.missing and not self._said and (self._refusal or not cut_short):
            self._said = True
            _log.warning("%s", self.missing)

    @property
    def missing(self) -> str:
        """The explanation for a failed connection: no relay candidate. Empty when there is one, or when no TURN server
        was given."""
        if self._seen or not self._turn:
            return ""
        servers = ", ".join(self._turn)
        reason = self._refusal or f"the server cannot be reached, or refuses the credentials{self._hint}"
        return f"no relay candidate from {servers}: {reason}"

    @property
    def report(self) -> TurnReport:
        """What to say of the TURN servers when no path was found."""
        if not self._turn:
            return TurnReport("none", "no TURN server is configured")
        if self._seen:
            return TurnReport("tried", f"not through {', '.join(self._turn)} either")
        return TurnReport("refused" if self._refusal else "unreachable", self.missing)


def check_servers(config: EngineConfig) -> tuple[IceServer, ...]:
    """The ICE servers in the form for every engine. Raises `ConfigError` with the same text for every engine."""
    return read_servers(config.ice_servers)


def check_sdp(sdp: str) -> None:
    """Raise `EngineRefused` for a description that should not get to an engine's parser."""
    if len(sdp) > MAX_SDP:
        raise EngineRefused(f"a session description of {len(sdp)} characters; the limit is {MAX_SDP}")
    if "\x00" in sdp:
        raise EngineRefused("a session description with a zero byte")
    for part in _NEEDED:
        if part not in sdp:
            raise EngineRefused(f"a session description without {part!r}")


def check_candidate(candidate: Candidate) -> None:
    """Raise `EngineRefused` for a candidate that should not get to an engine's parser."""
    if len(candidate.candidate) > MAX_CANDIDATE:
        raise EngineRefused(f"an ICE candidate of {len(candidate.candidate)} characters; the limit is {MAX_CANDIDATE}")
    if candidate.sdp_mid is None and candidate.sdp_m_line_index is None:
        raise EngineRefused("an ICE candidate that names no media section")  # W3C section 4.4.1.4
