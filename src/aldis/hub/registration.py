"""Registration: how a session gets a name.

    register -> challenge -> prove -> the directory says whose name it is -> registered

This module holds all rules for names: the proof of the key, the durable binding, the newest connection with the same
proven key wins, unproven names, resume. Changes of a binding are in `hub.bindings`. It does not know relaying.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from aldis.backends.base import Claim, ClaimBinding, DirectoryAnswer, FindBinding, Question
from aldis.hub.bans import Bans
from aldis.hub.bindings import Bindings
from aldis.hub.lifecycle import Lifecycle, advance, bad_proof
from aldis.hub.lookups import PendingLookups
from aldis.hub.name_queue import NameAccess
from aldis.hub.new_names import NewNames
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.resume import Replay
from aldis.hub.router import Router
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage, StageEvent
from aldis.hub.stats import HubStats
from aldis.identity import proofs
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify
from aldis.protocol import messages as m
from aldis.protocol.addresses import DEFAULT_DEVICE, device_problem, join, user_id_problem
from aldis.protocol.codec import from_base64, to_base64, to_base64url
from aldis.protocol.codes import CloseCode, ErrorCode

_SESSION_BYTES = 16
_SECRET_BYTES = 32


class Registrar:
    """Gives sessions their names."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        presence: Presence,
        router: Router,
        lifecycle: Lifecycle,
        bindings: Bindings,
        bans: Bans,
        stats: HubStats,
        random: Callable[[int], bytes],
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._router = router
        self._lifecycle = lifecycle
        self._bindings = bindings
        self._bans = bans
        self._stats = stats
        self._random = random
        self._wall = wall
        self._new_names = NewNames(settings.new_names_per_address)
        self._limits = m.Limits(settings.max_message_bytes, settings.max_watches, settings.resume_window)

    # --- asking for a name ------------------------------------------------------------------------------------------

    def register(self, session: Session, message: m.Register, now: float) -> RequestOutcome:
        """A client asks for a name."""
        session.put_off = None
        problem = user_id_problem(message.user_id)
        if problem:
            return self._refused(ErrorCode.INVALID_FIELD, f"userId: {problem}")
        if not session.dialect.proves:
            return self._register_unproven(session, message)
        if session.stage is Stage.REGISTERED:
            text = f"this connection is registered as {session.address}; unregister first"
            return self._refused(ErrorCode.ALREADY_REGISTERED, text)
        problem = _field_problem(message)
        if problem:
            return self._refused(ErrorCode.INVALID_FIELD, problem)
        if not _seal_key_signed(message):
            close = bad_proof(session, self._settings.bad_proofs)
            return self._refused(ErrorCode.INVALID_FIELD, "sealKey: it is not signed by publicKey", close=close)
        message.token = UNSET  # not used yet, so do not keep it until `prove`
        session.registering = message
        session.nonce = self._random(proofs.NONCE_BYTES)
        session.nonce_expires = now + self._settings.challenge_seconds
        advance(session, StageEvent.CHALLENGED)
        self._outgoing.send(session, m.Challenge(to_base64(session.nonce), message.id))
        return DONE

    def prove(self, session: Session, message: m.Prove, now: float) -> RequestOutcome:
        """A client signs the challenge."""
        request, session.registering = session.registering, None
        if session.stage is not Stage.CHALLENGED or request is None:
            return RequestRefused(ErrorCode.BAD_SIGNATURE, "there is no challenge to sign: send register first")
        if message.id is UNSET:
            message.id = request.id
        nonce, session.nonce = session.nonce, b""  # valid once, whatever the outcome
        key = from_base64(request.public_key)
        refused = self._proof_refused(session, request, message, key, nonce, now)
        if refused is not None:
            advance(session, StageEvent.REFUSED)
            return refused
        advance(session, StageEvent.CLAIMED)
        user_id = request.user_id
        address = "" if session.connection is None else session.connection.address
        wait = self._new_names.take(address, now)

        def answered(answer: DirectoryAnswer, then: float) -> RequestOutcome | None:
            bound = answer.public_key if isinstance(answer, Claim) else answer
            if not wait and not (isinstance(answer, Claim) and answer.new):
                self._new_names.give_back(address)
            if isinstance(bound, bytes):
                # Another process may have changed the binding in the same directory.
                self._bindings.bound(user_id, to_base64(bound))
            if session.stage is not Stage.CLAIMING:
                return None  # the session has ended meanwhile
            if bound is None:
                advance(session, StageEvent.REFUSED)
                text = "too many new names come from your network; a name that is bound to its key already is welcome"
                return self._refused(ErrorCode.RATE_LIMITED, text, retry_after=wait)
            return self._claimed(session, request, message, then, own=bound == key)

        def failed() -> None:
            if not wait:
                self._new_names.give_back(address)
            if session.stage is Stage.CLAIMING:
                advance(session, StageEvent.REFUSED)
            # It may have bound the name, which a session without a proof has taken meanwhile.
            if self._presence.devices(user_id):
                self._bindings.doubt(user_id)

        # A network that may bind no more names may use those that are bound.
        token = self._lookups.token()
        question: Question = FindBinding(token, user_id) if wait else ClaimBinding(token, user_id, key)
        self._lookups.ask(
            question, answered, failed, access=NameAccess.CLAIM, session=session, kind="prove", re=message.id
        )
        return PENDING

    def _proof_refused(
        self, session: Session, request: m.Register, message: m.Prove, key: bytes, nonce: bytes, now: float
    ) -> RequestRefused | None:
        """Why the proof of a challenge is refused; None when it is right."""
        if now > session.nonce_expires:
            return self._refused(ErrorCode.TIMEOUT, "the challenge has expired: send register again")
        try:
            signature = from_base64(message.signature, SIGNATURE_BYTES)
        except ValueError as error:
            return self._refused(ErrorCode.INVALID_FIELD, f"signature: {error}")
        signed = proofs.registration(session.host, nonce, request.user_id, _device(request))
        if not verify(key, signature, signed):
            text = (
                f"the signature does not fit; this server takes its host to be {session.host!r}. If you dialled "
                "another one: a proxy has to pass the Host header on, and --names has to list what you dial"
            )
            close = bad_proof(session, self._settings.bad_proofs)
            return self._refused(ErrorCode.BAD_SIGNATURE, text, close=close)
        banned = self._banned(request.user_id, request.public_key)
        if banned is not None:
            return banned
        if any(not other.dialect.proves for other in self._presence.devices(request.user_id)):
            text = f"the name {request.user_id} is held by a client that proves nothing, until that one leaves"
            return self._refused(ErrorCode.KEY_MISMATCH, text)
        return None

    def _claimed(
        self, session: Session, request: m.Register, message: m.Prove, now: float, *, own: bool
    ) -> RequestOutcome:
        """The directory has said whether a name is bound to the client's `own` key."""
        if not own:
            advance(session, StageEvent.REFUSED)
            return self._refused(ErrorCode.KEY_MISMATCH, f"the name {request.user_id} belongs to another key")
        if self._has_no_room(request):
            advance(session, StageEvent.REFUSED)
            text = f"{self._settings.max_devices} devices of this user are online, which is all that there may be"
            # Detached sessions have ended by then.
            wait = max(self._settings.resume_window, 1.0)
            return self._refused(ErrorCode.OVER_CAPACITY, text, retry_after=wait)
        self._admit(session, request, message, now)
        return DONE

    def _has_no_room(self, request: m.Register) -> bool:
        if self._presence.at(request.user_id, _device(request)) is not None:
            return False  # it replaces that session
        return len(self._presence.devices(request.user_id)) >= self._settings.max_devices

    def _banned(self, user_id: str, key: str) -> RequestRefused | None:
        ban = self._bans.of_user(user_id, key, self._wall())
        return None if ban is None else self._refused(ErrorCode.FORBIDDEN, ban.text, close=(CloseCode.BANNED, ban.text))

    def _refused(
        self,
        code: str,
        text: str,
        *,
        retry_after: float | UnsetType = UNSET,
        close: tuple[CloseCode, str] | None = None,
    ) -> RequestRefused:
        self._stats.registrations[code] += 1
        return RequestRefused(code, text, retry_after, close)

    # --- the name is given ------------------------------------------------------------------------------------------

    def _admit(self, session: Session, request: m.Register, message: m.Prove, now: float) -> None:
        session.user_id = request.user_id
        session.device = _device(request)
        session.address = join(session.user_id, session.device)
        session.key = request.public_key
        session.seal_key = None if request.seal_key is UNSET else request.seal_key
        old = self._presence.at(session.user_id, session.device)
        missed = None if old is None else _missed(old, request)
        resumed = old is not None and missed is not None
        if old is not None and resumed:
            self._lifecycle.resume(session, old)
        else:
            session.id = self._text(_SESSION_BYTES)
            session.secret = self._text(_SECRET_BYTES)
            session.replay = Replay(self._settings.resume_messages, self._settings.resume_bytes)
        changed = old is None or not resumed or old.seal_key != session.seal_key
        self._lifecycle.enter(session)
        self._count("resumed" if resumed else "new" if old is None else "replaced", session, now)
        self._outgoing.send(
            session,
            m.Registered(
                True,
                session.user_id,
                session.device,
                session.id,
                session.secret,
                resumed,
                self._wall(),
                self._limits,
                message.id,
            ),
        )
        for one in missed or ():
            self._outgoing.resend(session, one)  # numbered when it was first sent
        if old is not None:
            self._lifecycle.take_over(old, resumed_by=session if resumed else None)
        if changed:
            # Also when the name was online all the time: a new session means that the program was restarted, and its
            # peers have to know.
            self._router.publish(session.user_id)

    def _count(self, outcome: str, session: Session, now: float) -> None:
        self._stats.registrations[outcome] += 1
        self._stats.handshake_seconds.observe(now - session.connected_at)

    def _text(self, size: int) -> str:
        return to_base64url(self._random(size))

    # --- without a proof --------------------------------------------------------------------------------------------

    def _register_unproven(self, session: Session, message: m.Register) -> RequestOutcome:
        """Claim a name without a proof. It lasts as long as its connection, and only if no key is bound to it."""
        if len(message.public_key.encode()) > m.MAX_CLASSIC_KEY:
            # Each `presence` shows the key to others.
            return self._refused(ErrorCode.INVALID_FIELD, f"publicKey: more than {m.MAX_CLASSIC_KEY} bytes")
        user_id = message.user_id
        banned = self._banned(user_id, message.public_key)
        if banned is not None:
            return banned

        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            self._claimed_unproven(session, message, now, bound=answer is not None)
            return DONE

        def failed() -> None:
            if session.stage is not Stage.CLOSED:
                advance(session, StageEvent.REFUSED)

        advance(session, StageEvent.CLAIMED)
        question = FindBinding(self._lookups.token(), user_id)
        self._lookups.ask(question, answered, failed, access=NameAccess.LOOK, session=session, kind="register")
        return PENDING

    def _claimed_unproven(self, session: Session, message: m.Register, now: float, *, bound: bool) -> None:
        """The directory has said whether a name is `bound` to a key."""
        holder = self._presence.find(message.user_id)
        other = holder if holder is not session else None
        if bound or (other is not None and (other.dialect.proves or other.key != message.public_key)):
            advance(session, StageEvent.REFUSED)
            self._stats.registrations[ErrorCode.KEY_MISMATCH] += 1
            self._outgoing.send(session, m.Registered(False, message.user_id))
            return
        if session.user_id and session.user_id != message.user_id:
            self._lifecycle.leave(session)
        changed = holder is None or holder.key != message.public_key
        session.user_id = session.address = message.user_id
        session.device = DEFAULT_DEVICE
        session.key = message.public_key
        self._lifecycle.enter(session)
        self._count("new" if holder is None else "replaced", session, now)
        self._outgoing.send(session, m.Registered(True, message.user_id))
        if other is not None:
            self._lifecycle.take_over(other, resumed_by=None)
        if changed:
            self._router.publish(session.user_id)


def _device(request: m.Register) -> str:
    return DEFAULT_DEVICE if request.device is UNSET else request.device


def _field_problem(message: m.Register) -> str | None:
    """What is wrong with the fields of a `register`, except its name."""
    device = _device(message)
    problem = device_problem(device)
    if problem:
        return f"device: {problem}"
    try:
        from_base64(message.public_key, PUBLIC_KEY_BYTES)
    except ValueError as error:
        return f"publicKey: {error}; it is the base64 of an Ed25519 public key"
    if message.token is not UNSET and len(message.token.encode()) > m.MAX_TOKEN:
        return f"token: more than {m.MAX_TOKEN} bytes"
    if message.seal_key is UNSET:
        return None
    try:
        seal_key = from_base64(message.seal_key.public_key)
        if len(seal_key) > m.MAX_SEAL_KEY:
            return f"sealKey: more than {m.MAX_SEAL_KEY} bytes"
        from_base64(message.seal_key.signature, SIGNATURE_BYTES)
    except ValueError as error:
        return f"sealKey: {error}"
    return None


def _seal_key_signed(message: m.Register) -> bool:
    """Whether the sealing key, if there is one, is signed by the key. All fields have been checked."""
    seal_key = message.seal_key
    if seal_key is UNSET:
        return True
    signed = proofs.seal(message.user_id, _device(message), from_base64(seal_key.public_key))
    return verify(from_base64(message.public_key), from_base64(seal_key.signature), signed)


def _missed(old: Session, request: m.Register) -> list[bytearray] | None:
    """The messages that a client with a ticket for the session `old` has missed; None when it cannot resume."""
    ticket = request.resume
    if ticket is UNSET or old.replay is None or old.key != request.public_key or old.id != ticket.session:
        return None
    if not hmac.compare_digest(old.secret.encode(), ticket.secret.encode()):
        return None
    return old.replay.since(ticket.received)
