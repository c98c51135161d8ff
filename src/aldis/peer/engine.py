"""The seam between Aldis and a WebRTC engine: the part of W3C WebRTC that a data channel needs, and nothing else.

Rules:

* An engine knows nothing of signaling, users, proofs or Aldis's frames. It turns descriptions and candidates into an
  open channel.
* All calls are made on one running asyncio loop, and all callbacks arrive on that loop, each as a call of its own:
  never from within a call of the owner's.
* After `close()` has been called no callback arrives any more.
* No engine uses a STUN or TURN server that it was not given.
* Descriptions and candidates from outside are hostile until proven otherwise. Whatever the engine below does with
  them, the caller sees `EngineRefused` and can close the connection.

The W3C text is https://www.w3.org/TR/webrtc/; sections are cited where the engines differ.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from aldis.errors import ProtocolViolation
from aldis.protocol.ice import read_servers
from aldis.protocol.messages import Candidate, Capabilities, IceServer

_log = logging.getLogger(__name__)

# An SDP of one data channel has 0.5 KiB, one of a whole conference some 60 KiB (the most that a signaling frame can
# carry). Parsers are written for neither gigabytes nor deep nesting.
MAX_SDP: Final = 64 * 1024
# Without the one there is no channel, without the other nobody knows whom it leads to. aiortc would take both.
_NEEDED: Final = ("m=application ", "a=fingerprint:")
MAX_CANDIDATE: Final = 1024  # characters; RFC 8839 section 5.1 leads to some 200


class EngineRefused(ProtocolViolation):
    """The engine could not make use of a description or candidate, or could not make one of its own."""


class EngineState(Enum):
    """How a connection stands (W3C `RTCPeerConnectionState`)."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # may come back by itself; aiortc has no such state
    FAILED = "failed"  # will not come back without an ICE restart
    CLOSED = "closed"  # by the other side


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What a connection is made with.

    `ice_servers`: the STUN and TURN servers to use, none by default. `allow_loopback`: also use 127.0.0.1, for two
    programs on one machine without a network; off, because a candidate on it is worthless to all others.
    """

    ice_servers: tuple[IceServer, ...] = ()
    allow_loopback: bool = False


@dataclass(frozen=True, slots=True)
class PathEnd:
    """One end of the path that ICE has chosen.

    `kind` is `host`, `srflx`, `prflx` or `relay` (RFC 8445 section 4); `protocol` is `udp` or `tcp`. An address that
    the engine hides (mDNS names, RFC 8828) is empty.
    """

    kind: str
    protocol: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine tells of a connection; None where it does not know. Bytes are those of the channel's messages
    with their transport overhead, or without it, as the engine counts them."""

    local: PathEnd | None = None
    remote: PathEnd | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None

    @property
    def relayed(self) -> bool:
        """Whether the path leads through a TURN server on either side."""
        return any(end is not None and end.kind == "relay" for end in (self.local, self.remote))


class ChannelListener(Protocol):
    """What the owner of a channel is told."""

    def message_received(self, data: bytes | str) -> None:
        """One whole message, binary or text."""

    def buffer_drained(self) -> None:
        """`buffered_amount` has fallen to the low threshold; told once for each time."""

    def channel_closed(self) -> None:
        """The channel is closed: by the other side, or because the connection is over. Told at most once."""


class EngineChannel(Protocol):
    """One open data channel: reliable and ordered."""

    @property
    def label(self) -> str:
        """The name that its maker gave it."""

    @property
    def buffered_amount(self) -> int:
        """Bytes handed to `send` that are not on the wire yet."""

    def listen(self, listener: ChannelListener, low_threshold: int) -> None:
        """Set who is told, and at how many bytes `buffer_drained` is due.

        To be called within `EngineListener.channel_opened`; nothing is lost then.
        """

    def send(self, data: bytes) -> None:
        """Queue one binary message. Raises `StateError` when the channel is not open, or cannot take it."""

    def close(self) -> None:
        """Start closing; what was queued is still sent. Idempotent."""


class EngineListener(Protocol):
    """What the owner of a connection is told."""

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        """A candidate to pass on to the other side; None when there will be no more.

        An engine that does not trickle writes its candidates into the description, and never calls this.
        """

    def state_changed(self, state: EngineState) -> None:
        """The state of the connection has changed. `CLOSED` is told for the other side's doing only."""

    def alive(self) -> None:
        """The other side's engine has just shown that it is there and reachable (RFC 7675), at least every 3.5 s while
        both are idle. An engine that cannot tell never calls this."""

    def channel_opened(self, channel: EngineChannel) -> None:
        """A channel is open, made by either side: call its `listen` now."""


class EngineConnection(Protocol):
    """One connection. Its coroutines are called one at a time; `close` may come during any of them, which then raises
    `EngineRefused` or `CancelledError`, and takes effect at once."""

    def open_channel(self, label: str) -> None:
        """Make a data channel; to be called before the first `offer`. `channel_opened` follows when it is open."""

    def renew(self, config: EngineConfig) -> None:
        """Use these ICE servers for whatever is gathered from now on: credentials of TURN servers run out.

        Raises `ConfigError` for a server that cannot be used, and goes on with those of before. An engine that gathers
        only once, since it cannot restart ICE, need not do anything.
        """

    async def offer(self, *, restart_ice: bool = False) -> str:
        """Make an offer, apply it locally, return its SDP. Raises `EngineRefused`.

        `restart_ice` makes the engine gather anew (RFC 8445 section 9); only with `capabilities.restart`.
        """

    async def answer(self, offer_sdp: str) -> str:
        """Apply the other side's offer, make an answer, apply it locally, return its SDP. Raises `EngineRefused`.

        An engine with `capabilities.restart` takes an offer also while one of its own is pending, which is then
        rolled back (W3C section 4.4.1.5).
        """

    async def accept(self, answer_sdp: str) -> None:
        """Apply the other side's answer to the pending offer. Raises `EngineRefused`."""

    async def add_candidate(self, candidate: Candidate | None) -> None:
        """Add a candidate of the other side, or the end of them. Raises `EngineRefused` for an unusable one.

        Only after a description of the other side has been applied: aiortc would drop it, the others raise.
        """

    async def stats(self) -> EngineStats:
        """What is known about the path and the traffic."""

    @property
    def relay_missing(self) -> str:
        """That no TURN server has given a relay candidate so far, as `RelayWatch.missing`; empty when one has."""

    async def close(self) -> None:
        """End the connection and release its sockets, tasks and threads. Idempotent."""


class Engine(Protocol):
    """A WebRTC implementation."""

    @property
    def name(self) -> str:
        """The name by which `load_engine` knows it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; sent with offers and answers."""

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        """Make a connection, on the running loop. Raises `ConfigError` for an ICE server that cannot be used."""


class RelayWatch:
    """Notices that a TURN server was given and no relay candidate came of it.

    Neither engine tells of wrong TURN credentials or of a TURN server that cannot be reached: there is only a kind of
    candidate missing at the end, and nobody finds out why the connection fails later.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._turn = [
            url for server in config.ice_servers for url in server.urls if url.lower().startswith(("turn:", "turns:"))
        ]
        self._seen = False
        self._said = False

    def saw(self, text: str) -> None:
        """Take in a gathered candidate, or a whole description with candidates in it."""
        self._seen = self._seen or " typ relay" in text

    def gathered(self) -> None:
        """Gathering has ended: log it when there should have been a relay candidate and was none."""
        if self.missing and not self._said:
            self._said = True
            _log.warning("%s", self.missing)

    @property
    def missing(self) -> str:
        """What to say when the connection has failed: that there is no relay candidate. Empty when there is one, or no
        TURN server was given."""
        if self._seen or not self._turn:
            return ""
        servers = ", ".join(self._turn)
        return f"no relay candidate from {servers}: the server cannot be reached, or refuses the credentials"


def check_servers(config: EngineConfig) -> tuple[IceServer, ...]:
    """The ICE servers as every engine takes them; raises `ConfigError` in the same words whatever the engine."""
    return read_servers(config.ice_servers)


def check_sdp(sdp: str) -> None:
    """Raise `EngineRefused` for a description that no engine should be asked to parse."""
    if len(sdp) > MAX_SDP:
        raise EngineRefused(f"a session description of {len(sdp)} characters; the limit is {MAX_SDP}")
    if "\x00" in sdp:
        raise EngineRefused("a session description with a zero byte")
    for part in _NEEDED:
        if part not in sdp:
            raise EngineRefused(f"a session description without {part!r}")


def check_candidate(candidate: Candidate) -> None:
    """Raise `EngineRefused` for a candidate that no engine should be asked to parse."""
    if len(candidate.candidate) > MAX_CANDIDATE:
        raise EngineRefused(f"an ICE candidate of {len(candidate.candidate)} characters; the limit is {MAX_CANDIDATE}")
    if candidate.sdp_mid is None and candidate.sdp_m_line_index is None:
        raise EngineRefused("an ICE candidate that names no media section")  # W3C section 4.4.1.4
