"""All that is direct between this user and one other user.

Owns the negotiation machine, the engine connections that it asks for, the data channel, the exchange of HELLOs and the
heartbeat. Above it the store sees one thing per peer: a state, frames in, frames out.

Rules: offers and answers are checked (`trust`) before the machine sees them; one that does not pass changes nothing.
Everything happens on the loop on which the object was made. It does not know what the frames of messages mean, nor
when another attempt is due: that is the store's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import PeerError, PeerKeyChanged, ProofInvalid
from aldis.peer.engine import Engine, EngineConfig, EngineStats
from aldis.peer.trust import Trust
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.messages import Candidate, Capabilities, Proof


class PeerState(Enum):
    """How this user stands with one other user.

    NEW           nothing has been tried yet
    CONNECTING    an attempt is under way, ours or the other side's
    CONNECTED     the channel is open and HELLOs have been exchanged
    DISCONNECTED  was connected, and nothing comes through any more. Both sides try to heal it where their engines
                  can; otherwise it waits for the path to come back. `connect()` replaces it by a new connection.
                  Ends in CONNECTED, FAILED or CLOSED.
    FAILED        this attempt, or this connection, is given up; the error says why. `connect()` makes another attempt,
                  and an offer of the other side is answered.
    CLOSED        ended on purpose. By the other side: `connect()` and its offers work as after FAILED. By our own
                  `close()`: for good.
    """

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    FAILED = "failed"
    CLOSED = "closed"


class PeerListener(Protocol):
    """What the owner of a `PeerConnection` is told, on the loop, never from within one of its own calls but `close`.

    `channel_opened` and `channel_closed` alternate, beginning with `channel_opened`; `frame_received` comes between
    the two only. `state_changed(CONNECTED)` follows `channel_opened`.
    """

    def state_changed(self, state: PeerState, error: PeerError | None) -> None:
        """The state has changed. `error` says why for FAILED, and is None for all others."""

    def channel_opened(self, hello: Hello) -> None:
        """A channel is open; `hello` is the other side's. Frames can be sent from now on."""

    def frame_received(self, frame: Chunk | Ack) -> None:
        """A piece of a message, or an acknowledgement, has arrived."""

    def channel_closed(self) -> None:
        """The channel is gone; what was sent on it may or may not have arrived."""

    def writable(self) -> None:
        """After `send_frame` has returned False: the buffer of the open channel has room again."""

    def refused(self, error: ProofInvalid | PeerKeyChanged) -> None:
        """An offer or answer in the peer's name did not pass the check, and has changed nothing.

        Either somebody forges messages, or (`PeerKeyChanged`) the peer has a new key, which a person may accept.
        """


class SignalSender(Protocol):
    """How messages reach the other side: the `send_*` of `SignalingClient`.

    Each raises `SignalingError` when the message did not reach the other side's connection. They are started in the
    order in which the messages should arrive; nothing breaks when they do not.
    """

    async def send_offer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: Proof | None = None,
        capabilities: Capabilities | None = None,
    ) -> None: ...

    async def send_answer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: Proof | None = None,
        capabilities: Capabilities | None = None,
    ) -> None: ...

    async def send_ice_candidate(
        self, to: str, candidate: Candidate | None, *, connection: str | None = None
    ) -> None: ...

    async def send_bye(self, to: str, *, connection: str | None = None, reason: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class PeerTiming:
    """How long things may take, all in seconds.

    `attempt`: from the offer to HELLOs exchanged. `heal`: from the loss of an established path to its return, be it
    by itself or by an ICE restart. `heartbeat`: between PINGs. `silence`: without any frame, after which the path
    counts as lost; three PINGs that all got lost are no accident. `probe`: how soon something has to arrive after a
    `bye` that came through the server, which may be lying.
    """

    attempt: float = 30.0
    heal: float = 15.0
    heartbeat: float = 1.5
    silence: float = 5.0
    probe: float = 1.5


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Time: an asyncio loop is one, a test's fake clock is another."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` in `delay` seconds."""


class PeerConnection:
    """The direct connection between `local` and `remote`, both user ids without device.

    Make it within a running loop; feed it what signaling brings from that user (`receive`); start with `connect()` or
    wait for the other side's offer. `config` is public: what is assigned is used for the next attempt (TURN
    credentials expire). End it with `await close()`.
    """

    config: EngineConfig

    def __init__(
        self,
        *,
        local: str,
        remote: str,
        engine: Engine,
        config: EngineConfig,
        trust: Trust,
        signaling: SignalSender,
        listener: PeerListener,
        hello: Callable[[], Hello],
        timing: PeerTiming | None = None,
        timers: Timers | None = None,
    ) -> None:
        """`hello` is called once for each channel, when it has opened and the one before is gone; what it returns is
        sent as our first frame. `timers` is the running loop unless a test brings its own."""
        raise NotImplementedError

    @property
    def state(self) -> PeerState:
        """How things stand now."""
        raise NotImplementedError

    @property
    def round_trip_time(self) -> float | None:
        """Seconds from a PING to its PONG, smoothed (RFC 6298 section 2); None before the first one."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The address of the device that the current connection is with, or the bare user id when there is none."""
        raise NotImplementedError

    def connect(self) -> None:
        """Start an attempt, unless one is under way or the peer is connected. The outcome is told to the listener.

        While DISCONNECTED it makes a new connection beside the old one, unless a restart is under way. Raises
        `StateError` after `close()`.
        """
        raise NotImplementedError

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> None:
        """Take in a message from the peer; never raises for what it says. Ignored after `close()`."""
        raise NotImplementedError

    def send_frame(self, frame: bytes) -> bool:
        """Send one frame on the open channel. False when there is none, or no room: then `writable()` follows."""
        raise NotImplementedError

    async def stats(self) -> EngineStats | None:
        """The path and the traffic of the current connection; None when there is none."""
        raise NotImplementedError

    async def close(self, reason: str = "") -> None:
        """Say goodbye and release everything: sockets, tasks, timers. Idempotent.

        Returns when it is done; `channel_closed` and `state_changed(CLOSED)` are told before it first waits.
        """
        raise NotImplementedError
