"""The registration of a name: `register`, `challenge`, `prove`, `registered` (docs/protocol.md, "Registration").

It writes the two messages of the client, checks the server's answers, and knows the key to register with.
`client.machine` decides when to register, and what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from aldis.client.requests import Pending
from aldis.client.settings import MachineSettings
from aldis.errors import ProtocolViolation, RequestFailed
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol import messages as m
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.codes import ErrorCode


@dataclass(frozen=True, slots=True)
class Joining:
    """A registration that is planned or under way: its request, and the key to prove."""

    request: Pending
    identity: Identity

    @property
    def resuming(self) -> bool:
        """Whether it asks to resume an earlier session."""
        return isinstance(self.request.message, m.Register) and self.request.message.resume is not UNSET


class Handshake:
    """The registrations of one client."""

    def __init__(self, settings: MachineSettings) -> None:
        self.identity: Identity | None = None
        """The key under which the client registers again; None before the first registration."""
        self.spare: Identity | None = None
        """The new key of a rotation with an unknown outcome."""
        self.joining: Joining | None = None
        self._settings = settings

    @property
    def wanted(self) -> bool:
        """Whether a new connection has to be registered."""
        return self.joining is not None or self.identity is not None

    def register(self, identity: Identity, resume: m.ResumeTicket | UnsetType) -> m.Register:
        """The request for the name."""
        settings = self._settings
        token = settings.token() if callable(settings.token) else settings.token
        key = to_base64(identity.public_key)
        seal_key = UNSET if settings.seal_key is None else settings.seal_key(identity, resume is not UNSET)
        return m.Register(settings.user_id, key, settings.device, token or UNSET, seal_key, resume)

    def may_renew(self, failure: RequestFailed) -> bool:
        """Whether another token may help after a refusal."""
        return failure.code == ErrorCode.TOKEN_EXPIRED and callable(self._settings.token)

    def belongs(self, re: m.RequestId | UnsetType) -> bool:
        """Whether a message with this `re` belongs to the registration that is under way."""
        return self.joining is not None and (re is UNSET or re == self.joining.request.number)

    def prove(self, joining: Joining, challenge: m.Challenge) -> m.Prove:
        """The answer to a challenge. Raises `ProtocolViolation` when the challenge is not valid."""
        try:
            nonce = from_base64(challenge.nonce, proofs.NONCE_BYTES)
        except ValueError as error:
            raise ProtocolViolation(f"a challenge whose nonce is {error}") from None
        settings = self._settings
        signature = joining.identity.sign(proofs.registration(settings.host, nonce, settings.user_id, settings.device))
        # With the `id` of the registration: both requests are one exchange, and the answer refers to it.
        return m.Prove(to_base64(signature), joining.request.number)

    def check(self, joining: Joining, message: m.Registered) -> None:
        """Raise `ProtocolViolation` when the server has registered another name than the requested one."""
        settings = self._settings
        device = settings.device if message.device is UNSET else message.device
        if message.user_id != settings.user_id or device != settings.device:
            raise ProtocolViolation(f"registered as {message.user_id[:128]!r}, device {device[:64]!r}")
        if message.resumed is True and not joining.resuming:
            raise ProtocolViolation("resumed a session that was not asked for")

    def admitted(self, joining: Joining) -> None:
        """The server has registered the name with this key."""
        self.identity = joining.identity
        self.joining = self.spare = None

    def take_spare(self) -> bool:
        """The key is refused: try the key of a rotation with an unknown outcome. False when there is no such key."""
        if self.spare is None:
            return False
        self.identity, self.spare = self.spare, None
        return True

    def left(self) -> None:
        """The name was given up."""
        self.identity = self.spare = None
