"""What a `connection.PeerConnection` needs: a listener for its events, and a sender for its messages."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from aldis.errors import IdentityError, PeerError
from aldis.peer.negotiation import PeerState
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.messages import Candidate, Capabilities, Proof

# The reasons of a failure: a fault of the peer or of the path, or pins that cannot be read or written.
Failure: TypeAlias = PeerError | IdentityError


class PeerListener(Protocol):
    """Receives the events of a `PeerConnection`, on the loop, and never from within its calls, except `close`.

    `channel_opened` and `channel_closed` alternate, starting with `channel_opened`. `frame_received` comes only between
    the two. `state_changed(CONNECTED)` follows `channel_opened`.
    """

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        """The state has changed. `error` is the reason for FAILED. For DISCONNECTED it is why an attempt to replace the
        lost connection has failed, if there was one. For all other states it is None."""

    def channel_opened(self, hello: Hello) -> None:
        """A channel is open; `hello` is the other side's. Frames can be sent from now on."""

    def frame_received(self, frame: Chunk | Ack) -> None:
        """A piece of a message, or an acknowledgement, has arrived."""

    def channel_closed(self) -> None:
        """The channel is gone; what was sent on it may or may not have arrived."""

    def path_found(self) -> None:
        """The engine has a path again after the loss of one. Nothing has arrived on it yet, which may take seconds."""

    def writable(self) -> None:
        """The open channel has room again, after `send_frame` has returned False."""

    def refused(self, error: Failure) -> None:
        """An offer or answer in the peer's name failed the check, and has changed nothing.

        Either the message is forged (`ProofInvalid`), or the peer has a new key, which a person may accept
        (`PeerKeyChanged`), or not the expected key (`FingerprintMismatch`). With `IdentityError`, the pinned keys
        cannot be read or written, so nothing can be checked: a fault on our side, and no forgery.
        """


class SignalSender(Protocol):
    """Sends messages to the other side: the `send_*` methods of `SignalingClient`.

    Each raises `SignalingError` when the message did not reach the other side's connection. They are started in the
    order in which the messages should arrive; another order does no harm.
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
