"""Registration: how a session gets a name.

    register -> challenge -> prove -> (the operator agrees) -> the directory says whose name it is -> registered

This module holds all rules for names: the proof of the key, the durable binding, the newest connection with the same
proven key wins, unproven names, resume. Changes of a binding are in `hub.bindings`. It does not know relaying.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from aldis.backends.base import Claim, ClaimBinding, DirectoryAnswer, FindBinding, LoadBinding, Question
from aldis.hub.accounts import AccountChecks, AccountVerdict, Rejected
from aldis.hub.bans import Bans
from aldis.hub.bindings import Bindings
from aldis.hub.cluster import FULL, EntryRefusal, RemoteDevice
from aldis.hub.entering import ClusterEntrance
from aldis.hub.failed_proofs import FailedProofs
from aldis.hub.lifecycle import Lifecycle, advance
from aldis.hub.lookups import PendingLookups
from aldis.hub.memory import MemoryBudget
from aldis.hub.name_queue import NameAccess
from aldis.hub.networks import network_of
from aldis.hub.new_names import OF_NETWORK, NewNames
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy_policies import PrivacyPolicies, wire
from aldis.hub.resume import new_replay
from aldis.hub.router import Router
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage, StageEvent
from aldis.hub.stats import HubStats
from aldis.hub.usage import SharedUsage
from aldis.identity import proofs
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify
from aldis.protocol import messages as m
from aldis.protocol.addresses import DEFAULT_DEVICE, device_problem, join, user_id_problem
from aldis.protocol.codec import from_base64, to_base64, to_base64url
from aldis.protocol.codes import CloseCode, ErrorCode
from aldis.protocol.privacy import DEFAULT_PRIVACY

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
        failed_proofs: FailedProofs,
        bans: Bans,
        accounts: AccountChecks,
        policies: PrivacyPolicies,
        memory: MemoryBudget,
        stats: HubStats,
        random: Callable[[int], bytes],
        wall: Callable[[], float],
        cluster: ClusterEntrance | None,
        usage: SharedUsage | None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._router = router
        self._lifecycle = lifecycle
        self._bindings = bindings
        self._failed_proofs = failed_proofs
        self._bans = bans
        self._accounts = accounts
        self._policies = policies
        self._memory = memory
        self._stats = stats
        self._random = random
        self._wall = wall
        self._new_names = NewNames(settings, usage)
        self._limits = _limits(settings)

    def configure(self) -> None:
        """The settings have changed."""
        self._new_names.configure()
        self._limits = _limits(self._settings)

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
        refused = self._too_many_failed(session, message, now)
        if refused is not None:
            return refused
        seal_key = message.seal_key
        if seal_key is not UNSET and not _signed(seal_key, message.user_id, _device(message), message.public_key):
            close = self._wrong_signature(session, message, now)
            return self._refused(ErrorCode.INVALID_FIELD, "sealKey: it is not signed by publicKey", close=close)
        if not self._accounts.wanted:
            message.token = UNSET  # do not keep it until `prove`
        session.registering = message
        session.nonce = self._random(proofs.NONCE_BYTES)
        session.nonce_expires = now + self._settings.challenge_seconds
        advance(session, StageEvent.CHALLENGED)
        self._outgoing.send(session, m.Challenge(to_base64(session.nonce), message.id))
        return DONE

    def change_seal_key(self, session: Session, message: m.SealKeyRequest, now: float) -> RequestOutcome:
        """A registered client publishes another sealing key."""
        user_id, key = session.user_id, session.key
        problem = _seal_key_problem(message.seal_key)
        if problem:
            return RequestRefused(ErrorCode.INVALID_FIELD, problem)
        refused = self._failed_proofs.refusal(session, user_id, key, now)
        if refused is not None:
            return refused
        if not _signed(message.seal_key, user_id, session.device, key):
            close = self._failed_proofs.wrong_signature(session, user_id, key, now)
            return RequestRefused(ErrorCode.INVALID_FIELD, "sealKey: it is not signed by your key", close=close)
        if session.seal_key != message.seal_key:
            session.seal_key = message.seal_key
            # Its contacts are looked through for watchers, and each node of a cluster hears of all of them.
            session.charged += self._policies.cost_of_telling(user_id)
            self._router.changed(session)
            self._router.publish(user_id)
        self._outgoing.acknowledge(session, message.id)
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
        session.claim = request.user_id, request.public_key
        if not self._accounts.wanted:
            return self._claim(session, request, message, key, now)

        def answered(verdict: AccountVerdict, then: float) -> RequestOutcome:
            if isinstance(verdict, Rejected):
                return self._rejected(session, request, verdict, then)
            if verdict.expires is not None:
                session.token_expires = self._deadline(verdict.expires, then)
            return self._claim(session, request, message, key, then)

        token = None if request.token is UNSET else request.token
        self._accounts.ask(
            session,
            "prove",
            message.id,
            answered,
            user_id=request.user_id,
            device=_device(request),
            public_key=request.public_key,
            token=token,
        )
        return PENDING

    def _too_many_failed(self, session: Session, request: m.Register, now: float) -> RequestRefused | None:
        """Why a proof is not looked at, as too many others have failed; None when it is."""
        old = self._presence.at(request.user_id, _device(request))
        resumes = old is not None and _has_ticket(old, request)
        refused = self._failed_proofs.refusal(session, request.user_id, request.public_key, now, resumes=resumes)
        if refused is not None:
            self._stats.registrations[refused.code] += 1
        return refused

    def _rejected(self, session: Session, request: m.Register, verdict: Rejected, now: float) -> RequestRefused:
        advance(session, StageEvent.REFUSED)
        close = self._wrong_signature(session, request, now) if verdict.forged else None
        return self._refused(verdict.code, verdict.text, retry_after=verdict.retry_after, close=close)

    def _wrong_signature(self, session: Session, request: m.Register, now: float) -> tuple[CloseCode, str] | None:
        return self._failed_proofs.wrong_signature(session, request.user_id, request.public_key, now)

    def _deadline(self, expires: float, now: float) -> float:
        """When to end a session whose token expires (wall time). Tokens issued together do not end together."""
        share = int.from_bytes(self._random(2), "big") / 0xFFFF
        return now + max(expires - self._wall(), 0.0) + share * self._settings.token_grace

    def _claim(self, session: Session, request: m.Register, message: m.Prove, key: bytes, now: float) -> RequestOutcome:
        """Ask the directory whose name it is."""
        user_id = request.user_id
        held = self._cluster is not None and self._cluster.is_held_unproven(user_id)
        if self._cluster is not None and held is None:
            return self._cluster.look(
                session, message, user_id, lambda then: self._claim(session, request, message, key, then)
            )
        if held:
            advance(session, StageEvent.REFUSED)
            return self._held_unproven(user_id)
        # A name is for good, so a proxy on this machine that does not tell where its clients are has the limit, too.
        network = network_of(session.client_address, loopback=True)
        wait = 0.0 if network is None else self._new_names.take(network, now)

        def answered(answer: DirectoryAnswer, then: float) -> RequestOutcome | None:
            claim = answer if isinstance(answer, Claim) else None
            if network is not None and not wait and not (claim is not None and claim.new):
                self._new_names.give_back(network)
            if claim is not None:
                # Another process may have changed the binding in the same directory.
                self._bindings.bound(user_id, to_base64(claim.public_key))
            if session.stage is not Stage.CLAIMING:
                return None  # the session has ended meanwhile
            if claim is None:
                advance(session, StageEvent.REFUSED)
                text = "too many new names come from your network; a name that is bound to its key already is welcome"
                return self._refused(ErrorCode.RATE_LIMITED, text, retry_after=wait, limit=OF_NETWORK)
            return self._claimed(session, request, message, then, claim)

        def failed() -> None:
            if network is not None and not wait:
                self._new_names.give_back(network)
            if session.stage is Stage.CLAIMING:
                advance(session, StageEvent.REFUSED)
            # It may have bound the name, which a session without a proof has taken meanwhile.
            if self._presence.devices(user_id):
                self._bindings.doubt(user_id)

        # A network that may bind no more names may use those that are bound.
        token = self._lookups.token()
        question: Question = LoadBinding(token, user_id) if wait else ClaimBinding(token, user_id, key)
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
        refused = self._too_many_failed(session, request, now)  # others may have failed since the challenge
        if refused is not None:
            return refused
        signed = proofs.registration(session.host, nonce, request.user_id, _device(request))
        if not verify(key, signature, signed):
            text = (
                f"the signature does not fit; this server takes its host to be {session.host!r}. If you dialled "
                "another one: a proxy has to pass the Host header on, and --names has to list what you dial"
            )
            close = self._wrong_signature(session, request, now)
            return self._refused(ErrorCode.BAD_SIGNATURE, text, close=close)
        banned = self._banned(request.user_id, request.public_key)
        if banned is not None:
            return banned
        if any(not other.dialect.proves for other in self._presence.devices(request.user_id)):
            return self._held_unproven(request.user_id)
        return self._memory_refused(request)

    def _memory_refused(self, request: m.Register) -> RequestRefused | None:
        """Why there is no memory for a session; None when there is. What replaces a session needs no more.

        Ask after the proof: the answer tells whether the name is online, which only its owner may know.
        """
        old = self._presence.at(request.user_id, _device(request))
        refused = None if old is not None and old.key == request.public_key else self._memory.refusal()
        if refused is not None:
            self._stats.registrations[refused.code] += 1
        return refused

    def _claimed(
        self, session: Session, request: m.Register, message: m.Prove, now: float, claim: Claim
    ) -> RequestOutcome:
        """The directory has said which key a name is bound to."""
        if to_base64(claim.public_key) != request.public_key:
            advance(session, StageEvent.REFUSED)
            close = self._failed_proofs.wrong_key(session, request.user_id, request.public_key, now)
            text = f"the name {request.user_id} belongs to another key"
            return self._refused(ErrorCode.KEY_MISMATCH, text, close=close)
        if self._has_no_room(request):
            advance(session, StageEvent.REFUSED)
            return self._too_many_devices()
        if not self._policies.has_room(request.user_id, claim.privacy):
            advance(session, StageEvent.REFUSED)
            text = "this server has no room now for the contacts and blocked users of this name"
            pause = self._settings.privacy_pause
            return self._refused(ErrorCode.OVER_CAPACITY, text, retry_after=pause, limit="privacy-bytes")
        session_id = self._text(_SESSION_BYTES)

        def admit(then: float) -> RequestOutcome:
            self._policies.load(request.user_id, claim.privacy)
            self._admit(session, request, message, then, session_id)
            if self._cluster is not None:
                self._cluster.verified(request.user_id, claim)
            if self._cluster is not None and session.id != device.session:
                self._router.changed(session)
            return DONE

        if self._cluster is None:
            return admit(now)
        old = self._presence.at(request.user_id, _device(request))
        resumes = old is not None and _missed(old, request) is not None
        shown = old.id if old is not None and resumes else session_id
        device = self._entry(request.public_key, _device(request), shown, request.seal_key)

        def refuse(refusal: EntryRefusal) -> RequestOutcome:
            return self._too_many_devices() if refusal == FULL else self._held_unproven(request.user_id)

        return self._cluster.enter(session, message, request.user_id, device, claim.privacy, admit, refuse)

    def _entry(self, key: str, device: str, session_id: str, seal_key: m.SealKey | UnsetType) -> RemoteDevice:
        """What the table of the cluster gets of a session; the node and the order are filled in there."""
        seal = None if seal_key is UNSET else seal_key
        return RemoteDevice(device, "", self._text(_SESSION_BYTES), 0, session_id, key, seal, proves=bool(session_id))

    def _too_many_devices(self) -> RequestRefused:
        text = f"{self._settings.max_devices} devices of this user are online, which is all that there may be"
        # Detached sessions have ended by then.
        wait = max(self._settings.resume_window, 1.0)
        return self._refused(ErrorCode.OVER_CAPACITY, text, retry_after=wait, limit="devices-per-user")

    def _held_unproven(self, user_id: str) -> RequestRefused:
        text = f"the name {user_id} is held by a client that proves nothing, until that one leaves"
        return self._refused(ErrorCode.KEY_MISMATCH, text)

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
        limit: str = "",
    ) -> RequestRefused:
        self._stats.registrations[code] += 1
        return RequestRefused(code, text, retry_after, close, limit=limit)

    # --- the name is given ------------------------------------------------------------------------------------------

    def _admit(self, session: Session, request: m.Register, message: m.Prove, now: float, session_id: str) -> None:
        session.user_id = request.user_id
        session.device = _device(request)
        session.address = join(session.user_id, session.device)
        session.key = request.public_key
        session.seal_key = None if request.seal_key is UNSET else request.seal_key
        old = self._presence.at(session.user_id, session.device)
        missed = None if old is None else _missed(old, request)
        resumed = old is not None and missed is not None
        if old is not None and resumed and request.resume is not UNSET:
            self._lifecycle.resume(session, old, request.resume.received)
        else:
            session.id = session_id
            session.secret = self._text(_SECRET_BYTES)
            session.replay = new_replay(self._settings)
            self._lifecycle.count(session.replay)
        self._failed_proofs.succeeded(session)
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
                wire(self._policies.of(session.user_id)),
            ),
        )
        if missed:
            with self._outgoing.together(session):
                for one in missed:
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
        refused = self._banned(user_id, message.public_key) or self._memory_refused(message)
        if refused is not None:
            return refused

        advance(session, StageEvent.CLAIMED)
        session.claim = user_id, message.public_key
        if not self._accounts.wanted:
            return self._find_unproven(session, message)

        def answered(verdict: AccountVerdict, now: float) -> RequestOutcome:
            if isinstance(verdict, Rejected):
                return self._rejected(session, message, verdict, now)
            return self._find_unproven(session, message)

        self._accounts.ask(
            session,
            "register",
            message.id,
            answered,
            user_id=user_id,
            device=DEFAULT_DEVICE,
            public_key=message.public_key,
            token=None,
        )
        return PENDING

    def _find_unproven(self, session: Session, message: m.Register) -> RequestOutcome:
        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            return self._claimed_unproven(session, message, now, bound=answer is not None)

        def failed() -> None:
            if session.stage is not Stage.CLOSED:
                advance(session, StageEvent.REFUSED)

        question = FindBinding(self._lookups.token(), message.user_id)
        self._lookups.ask(question, answered, failed, access=NameAccess.LOOK, session=session, kind="register")
        return PENDING

    def _claimed_unproven(self, session: Session, message: m.Register, now: float, *, bound: bool) -> RequestOutcome:
        """The directory has said whether a name is `bound` to a key."""
        holder = self._presence.find(message.user_id)
        other = holder if holder is not session else None
        if bound or (other is not None and (other.dialect.proves or other.key != message.public_key)):
            advance(session, StageEvent.REFUSED)
            self._stats.registrations[ErrorCode.KEY_MISMATCH] += 1
            self._outgoing.send(session, m.Registered(False, message.user_id))
            return DONE
        if self._cluster is None:
            return self._admit_unproven(session, message, now)
        device = self._entry(message.public_key, DEFAULT_DEVICE, "", UNSET)

        def admit(then: float) -> RequestOutcome:
            return self._admit_unproven(session, message, then)

        def refuse(refusal: EntryRefusal) -> RequestOutcome:
            self._stats.registrations[ErrorCode.KEY_MISMATCH] += 1
            self._outgoing.send(session, m.Registered(False, message.user_id))
            return DONE

        return self._cluster.enter(session, message, message.user_id, device, DEFAULT_PRIVACY, admit, refuse)

    def _admit_unproven(self, session: Session, message: m.Register, now: float) -> RequestOutcome:
        holder = self._presence.find(message.user_id)
        other = holder if holder is not session else None
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
        return DONE


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
    return None if message.seal_key is UNSET else _seal_key_problem(message.seal_key)


def _limits(settings: HubSettings) -> m.Limits:
    return m.Limits(
        settings.max_message_bytes,
        settings.max_watches,
        settings.resume_window,
        settings.relay,
        settings.max_relay_file_bytes if settings.relay else 0,
    )


def _seal_key_problem(seal_key: m.SealKey) -> str | None:
    try:
        if len(from_base64(seal_key.public_key)) > m.MAX_SEAL_KEY:
            return f"sealKey: more than {m.MAX_SEAL_KEY} bytes"
        from_base64(seal_key.signature, SIGNATURE_BYTES)
    except ValueError as error:
        return f"sealKey: {error}"
    return None


def _signed(seal_key: m.SealKey, user_id: str, device: str, public_key: str) -> bool:
    """Whether a sealing key is signed by the key. All fields have been checked."""
    signed = proofs.seal(user_id, device, from_base64(seal_key.public_key))
    return verify(from_base64(public_key), from_base64(seal_key.signature), signed)


def _missed(old: Session, request: m.Register) -> list[bytearray] | None:
    """The messages that a client with a ticket for the session `old` has missed; None when it cannot resume."""
    if request.resume is UNSET or old.replay is None or not _has_ticket(old, request):
        return None
    return old.replay.since(request.resume.received)


def _has_ticket(old: Session, request: m.Register) -> bool:
    """Whether a client shows the secret of a session."""
    ticket = request.resume
    if ticket is UNSET or old.key != request.public_key or old.id != ticket.session:
        return False
    return hmac.compare_digest(old.secret.encode(), ticket.secret.encode())
