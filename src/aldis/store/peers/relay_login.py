"""The sealed relay of one login: takes apart what the server brings, and seals and sends what sessions say.

Rules:

* Only what opens has an effect: a handshake that its sender has not sealed and signed for this device changes nothing.
* Admission, pins and blocks are those of offers. A handshake costs more than an offer's check, so its sender is limited
  before it is opened (`peer.relay_guard`).
* What cannot be opened is answered with `seal-unknown`, so that the sender begins anew.
* Before `started`, messages wait. One for which there is no room (`peer.relay_guard`) is answered in the same way.

It does not know the state of sessions, nor when there should be one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aldis.client.client import SignalingClient
from aldis.client.events import RelayReceived
from aldis.errors import AldisError, FingerprintMismatch, IdentityError, PeerKeyChanged, RequestFailed
from aldis.identity.keys import Identity
from aldis.peer import sealing
from aldis.peer.connection import Failure
from aldis.peer.relay import Verdict
from aldis.peer.relay_guard import RelayGuard
from aldis.peer.sealing import Handshake, Opened, Parties, Sealed, SessionKeys, Unknown, Unopened
from aldis.peer.trust import PROOF_PAUSE, Trust, refusal_of
from aldis.protocol.addresses import DEFAULT_DEVICE, split
from aldis.protocol.channel import LARGEST_SENT
from aldis.protocol.codec import to_base64url
from aldis.protocol.codes import ErrorCode, RefusalCode
from aldis.protocol.messages import Limits

_log = logging.getLogger(__name__)

# Seconds for the server to take a message; then it is asked whether it is there. It answers at once, also what it
# refuses.
TAKEN: Final = 2.0

# Bytes of a `relay` message beside `sealed`: its names, and the address of 193 characters at most, escaped.
_ENVELOPE: Final = 1024
_LARGEST_FRAME: Final = sealing.FRAME_OVERHEAD + LARGEST_SENT


@dataclass(frozen=True, slots=True)
class Began:
    """A device has begun a session, by a handshake that opened."""

    session: bytes
    opened: Opened


class RelayedDevice(Protocol):
    """What is relayed from a device goes there: `relay.RelayPath`."""

    def received(self, sealed: Sealed) -> Verdict:
        """A message of a session has come."""

    def began(self, began: Began) -> None:
        """The device has begun a session."""

    def untrusted(self, error: Failure) -> None:
        """A handshake in the device's name was made with another key."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who begins a session: as an offer names its sender and its connection."""

    sender: str
    connection: str


class RelayOwner(Protocol):
    """The login."""

    def relays(self, user_id: str) -> bool:
        """Whether our program uses the relay with a user."""

    def relayed_device(self, user_id: str, device: str) -> RelayedDevice | None:
        """A device that is known."""

    def admit_call(self, call: Call, user_id: str, device: str, public_key: bytes) -> RelayedDevice | None:
        """The device that begins a session with a proven key; None when it is not let in, which it is told."""

    def refuse(self, call: Call, reason: str, code: str | None = None, retry_after: float | None = None) -> None:
        """Tell who begins a session, or goes on with one, that it is not taken."""


class RelayLogin:
    """See the module."""

    def __init__(
        self,
        client: SignalingClient,
        identity: Identity,
        trust: Trust,
        owner: RelayOwner,
        spawn: Callable[[Coroutine[object, object, None], str], asyncio.Task[None]],
    ) -> None:
        self._client = client
        self._identity = identity
        self._trust = trust
        self._owner = owner
        self._spawn = spawn
        self._guard = RelayGuard()
        self._disabled = False
        self._limits: Limits | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._early: list[RelayReceived] | None = []  # what has come before `started`

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the server relays sealed messages, of which each can carry the largest frame."""
        limits = self._limits
        return not self._disabled and limits is not None and limits.relay and self.room >= _LARGEST_FRAME

    @property
    def max_file_bytes(self) -> int:
        """The largest file that may go through the relay."""
        return 0 if self._limits is None else self._limits.max_relay_file_bytes

    @property
    def room(self) -> int:
        """How many bytes of frames, with their lengths, one message can carry: handshakes have less room than others,
        and count."""
        size = 0 if self._limits is None else self._limits.max_message_bytes
        return (size - _ENVELOPE) // 4 * 3 - sealing.HANDSHAKE_OVERHEAD

    def registered(self, limits: Limits | None) -> None:
        """We are registered, perhaps with another server of that name than before."""
        self._limits = limits
        self._disabled = False

    # --- sending ----------------------------------------------------------------------------------------------------

    def new_session(self) -> bytes:
        """The name of a new session."""
        return os.urandom(sealing.SESSION_BYTES)

    def start(
        self, user_id: str, device: str, session: bytes, frames: Sequence[bytes], their_seal_key: bytes
    ) -> tuple[bytes, SessionKeys] | None:
        """Make a handshake; None when their key is none."""
        ours = None if self._client.seal_keys is None else self._client.seal_keys.current
        if ours is None:
            return None
        parties = Parties(self._client.user_id, self._client.device, user_id, device)
        try:
            return sealing.start(
                parties,
                session,
                frames,
                identity=self._identity,
                seal_key=ours.public_key,
                their_seal_key=their_seal_key,
            )
        except Unopened as error:
            _log.warning("%s/%s cannot be reached through the relay: %s", user_id, device, error)
            return None

    async def send(self, to: str, sealed: bytes) -> None:
        """Send a sealed message; returns when the server has taken it. Raises `AldisError`."""
        doubt = asyncio.get_running_loop().call_later(TAKEN, self._client.suspect)
        try:
            await self._client.relay(to, sealed)
        except RequestFailed as error:
            if error.code in (ErrorCode.RELAY_DISABLED, ErrorCode.UNKNOWN_TYPE):
                self._disabled = True
            raise
        finally:
            doubt.cancel()

    # --- receiving --------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Open what has come so far: whoever it comes from can be let in from now on."""
        early, self._early = self._early or [], None
        for event in early:
            self._guard.release(split(event.sender)[0], len(event.sealed))
            self._open(event)

    def received(self, event: RelayReceived) -> None:
        """The server brings a sealed message of a user who is not blocked."""
        if self._early is None:
            self._open(event)
        elif self._guard.hold(split(event.sender)[0], len(event.sealed)):
            self._early.append(event)
        else:
            self._answer_unknown(event.sender, event.sealed[2 : 2 + sealing.SESSION_BYTES])

    def _open(self, event: RelayReceived) -> None:
        user_id, device = split(event.sender)
        device = device or DEFAULT_DEVICE
        try:
            sealed = sealing.read(event.sealed)
        except Unopened as error:
            _log.debug("a sealed message of %s is dropped: %s", event.sender, error)
            return
        match sealed:
            case Unknown(session):
                self._answer_unknown(event.sender, session)
            case Sealed(session):
                known = self._owner.relayed_device(user_id, device)
                verdict = Verdict.UNKNOWN if known is None else known.received(sealed)
                if verdict in (Verdict.UNKNOWN, Verdict.LOST):
                    self._answer_unknown(event.sender, session)
            case Handshake(session):
                call = Call(event.sender, to_base64url(session))
                if self._owner.relays(user_id):
                    self._handshake(sealed, call, user_id, device)
                else:
                    self._owner.refuse(call, "no relay is used here", RefusalCode.NO_RELAY)

    def _handshake(self, handshake: Handshake, call: Call, user_id: str, device: str) -> None:
        keys = self._client.seal_keys
        now = asyncio.get_running_loop().time()
        pair = None if keys is None else keys.find(handshake.to_seal_key, now)
        if self._guard.seen(handshake.to_seal_key, handshake.session):
            return
        pause = self._guard.pause(call.sender, now)
        if pause:
            self._owner.refuse(call, "too many handshakes", RefusalCode.RATE_LIMITED, pause)
            return
        if pair is None or self._guard.full(pair.public_key):
            if pair is not None:
                self._renew_key()
            self._answer_unknown(call.sender, handshake.session)
            return
        parties = Parties(user_id, device, self._client.user_id, self._client.device)
        try:
            opened = sealing.accept(parties, handshake, pair.private)
        except Unopened as error:
            _log.warning("a sealed handshake in the name of %s is refused: %s", call.sender, error)
            self._owner.refuse(call, "the proof is not valid", RefusalCode.BAD_PROOF, PROOF_PAUSE)
            return
        self._guard.take(pair.public_key, handshake.session)
        known = self._owner.admit_call(call, user_id, device, opened.public_key)
        if known is None:
            return
        wrong = self.proved(user_id, opened.public_key)
        if wrong is None:
            known.began(Began(handshake.session, opened))
        else:
            known.untrusted(wrong)
            self._owner.refuse(call, *refusal_of(wrong))

    def proved(self, user_id: str, public_key: bytes) -> Failure | None:
        """A user has proved this key: by a handshake, or by an answer in a session that only the owner of the seal key
        can open, which this identity has signed. Pins the first one. Returns why it is not the one that counts."""
        try:
            self._trust.check_key(user_id, public_key)
        except (PeerKeyChanged, FingerprintMismatch, IdentityError) as error:
            return error
        return None

    def _answer_unknown(self, sender: str, session: bytes) -> None:
        if self._guard.may_answer(sender, session, asyncio.get_running_loop().time()):
            self._owner.refuse(Call(sender, to_base64url(session)), "unknown session", RefusalCode.SEAL_UNKNOWN)

    def _renew_key(self) -> None:
        """No more sessions can be told apart with the current key."""
        if self._renewing is None or self._renewing.done():
            self._renewing = self._spawn(self._renew(), "publish another seal key")

    async def _renew(self) -> None:
        try:
            await self._client.renew_seal_key()
        except AldisError as error:
            _log.debug("no new seal key: %s", error)
