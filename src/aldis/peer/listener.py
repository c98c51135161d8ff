"""What a `connection.PeerConnection` works with: who is told what happens, and who sends what it says."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from aldis.errors import IdentityError, PeerError
from aldis.peer.negotiation import PeerState
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.messages import Candidate, Capabilities, Proof

# Why there is no connection: what the peer or the path to it is to blame for, or pins that cannot be read or written.
Failure: TypeAlias = PeerError | IdentityError


class PeerListener(Protocol):
    """What the owner of a `PeerConnection` is told, on the loop, never from within one of its own calls but `close`.

    `channel_opened` and `channel_closed` alternate, beginning with `channel_opened`; `frame_received` comes between
    the two only. `state_changed(CONNECTED)` follows `channel_opened`.
    """

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        """The state has changed. `error` says why for FAILED, and for DISCONNECTED why an attempt to replace the lost
        connection has failed, if there was one. It is None for all others."""

    def channel_opened(self, hello: Hello) -> None:
        """A channel is open; `hello` is the other side's. Frames can be sent from now on."""

    def frame_received(self, frame: Chunk | Ack) -> None:
        """A piece of a message, or an acknowledgement, has arrived."""

    def channel_closed(self) -> None:
        """The channel is gone; what was sent on it may or may not have arrived."""

    def writable(self) -> None:
        """After `send_frame` has returned False: the buffer of the open channel has room again."""

    def refused(self, error: Failure) -> None:
        """An offer or answer in the peer's name did not pass the check, and has changed nothing.

        Either somebody forges messages (`ProofInvalid`), or the peer has a new key, which a person may accept
        (`PeerKeyChanged`), or not the one that was asked for (`FingerprintMismatch`); or the pinned keys cannot be read
        or written, so that nothing can be checked (`IdentityError`): a fault of ours, and nobody's forgery.
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

    async def send_bye(
        self,
        to: str,
        *,
        connection: str | None = None,
        reason: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None: ...
