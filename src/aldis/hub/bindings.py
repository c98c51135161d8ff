"""Changes of the binding between a name and its key: rotation, release, and changes by other processes.

The rule: when a name gets another key, all sessions that registered with the old key end, also when the session that
asked for the change has ended before the answer. If the directory does not report the outcome of a change, the name is
looked up until the outcome is known.

A name that is free although nobody has released it was lost with the data of the directory, as by a failover of Redis.
While its owner is online, it is bound to the same key again, with its privacy.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, TypeAlias

from aldis.backends.base import (
    ChangePrivacy,
    Claim,
    ClaimBinding,
    DirectoryAnswer,
    LoadBinding,
    ReleaseBinding,
    RotateBinding,
)
from aldis.hub.failed_proofs import FailedProofs
from aldis.hub.lifecycle import Lifecycle
from aldis.hub.lookups import PendingLookups
from aldis.hub.name_queue import NameAccess
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.router import Router
from aldis.hub.sessions import Session
from aldis.identity import proofs
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify
from aldis.protocol import messages as m
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.codes import CloseCode, ErrorCode
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange

_Heir: TypeAlias = "tuple[Session, str, str]"
"""A session that asked for a rotation, the old key, and the new one."""


# Names of unknown outcome that are looked up in one tick: after an outage of a cluster it is each one that is online.
LOOKED_UP: Final = 1000


class Bindings:
    """Keeps the registered sessions in step with the directory."""

    def __init__(
        self,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        presence: Presence,
        router: Router,
        lifecycle: Lifecycle,
        failed_proofs: FailedProofs,
        verified: Callable[[str, bytes | None], None] | None,
    ) -> None:
        """`verified`: told of each name which key the directory has it bound to."""
        self._verified = verified
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._router = router
        self._lifecycle = lifecycle
        self._failed_proofs = failed_proofs
        # Names whose last change has an unknown outcome, and the sessions that asked for a rotation.
        self._doubtful: dict[str, list[_Heir]] = {}
        # Of them, those that nobody has released; and the privacies of lost names, until the directory has them again.
        self._unreleased: set[str] = set()
        self._lost: dict[str, Privacy] = {}

    def rotate(self, session: Session, message: m.Rotate, now: float) -> RequestOutcome:
        """Bind the name to a new key, by a signature of the old one."""
        try:
            new_key = from_base64(message.new_public_key, PUBLIC_KEY_BYTES)
            signature = from_base64(message.signature, SIGNATURE_BYTES)
        except ValueError as error:
            return RequestRefused(ErrorCode.INVALID_FIELD, f"newPublicKey or signature: {error}")
        if session.user_id in self._doubtful:
            text = "the server does not know yet what became of an earlier rotation; try again in a moment"
            return RequestRefused(ErrorCode.INTERNAL, text, retry_after=1.0)
        if message.new_public_key == session.key:
            # A client repeats a rotation when it was not told the outcome.
            self._outgoing.send(session, m.Rotated(session.key, message.id))
            return DONE
        user_id, old_public_key = session.user_id, session.key
        old_key = from_base64(old_public_key)
        if not verify(old_key, signature, proofs.rotation(user_id, new_key)):
            text = "the rotation is not signed by the key that the name is bound to"
            close = self._failed_proofs.wrong_signature(session, user_id, old_public_key, now)
            return RequestRefused(ErrorCode.BAD_SIGNATURE, text, close=close)

        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            if answer is not True:
                self._look_up(user_id, [])
                return RequestRefused(ErrorCode.KEY_MISMATCH, f"the name {user_id} is bound to another key by now")
            self._hand_to(session, user_id, old_public_key, message.new_public_key)
            self.bound(user_id, message.new_public_key)
            self._outgoing.send(session, m.Rotated(message.new_public_key, message.id))
            self._router.rebound(user_id)
            self._router.publish(user_id)
            return DONE

        def failed() -> None:
            # The change may have taken effect.
            self._doubtful.setdefault(user_id, []).append((session, old_public_key, message.new_public_key))

        question = RotateBinding(self._lookups.token(), user_id, old_key, new_key)
        self._lookups.ask(
            question, answered, failed, access=NameAccess.ALONE, session=session, kind="rotate", re=message.id
        )
        return PENDING

    def release(self, user_id: str, then: Callable[[bool | None], None]) -> None:
        """End a binding for the operator. `then` gets whether there was one, or None when the outcome is unknown."""

        def answered(answer: DirectoryAnswer, now: float) -> None:
            self.bound(user_id, None)
            self._router.rebound(user_id)
            then(answer is True)

        def failed() -> None:
            self.doubt(user_id)
            then(None)

        question = ReleaseBinding(self._lookups.token(), user_id)
        self._lookups.ask(question, answered, failed, access=NameAccess.ALONE)

    def doubt(self, user_id: str, *, released: bool | None = None) -> None:
        """The outcome of a change is unknown, or one may have been missed: look the name up at the next tick.

        `released`: whether somebody may have released it; None for what was last said. If nobody has, a free name is
        bound to the key of its sessions again.
        """
        self._doubtful.setdefault(user_id, [])
        if released is not None:
            (self._unreleased.discard if released else self._unreleased.add)(user_id)

    def tick(self) -> None:
        """Look up the names whose last change has an unknown outcome."""
        for user_id in list(islice(self._doubtful, LOOKED_UP)):
            self._look_up(user_id, self._doubtful.pop(user_id))

    def _look_up(self, user_id: str, heirs: list[_Heir]) -> None:
        """Look up the key that a name is bound to, and act on it. The `heirs` have asked for another key."""

        def answered(answer: DirectoryAnswer, now: float) -> None:
            claim = answer if isinstance(answer, Claim) else None
            if claim is None and user_id in self._unreleased and self._bind_again(user_id):
                return
            self._unreleased.discard(user_id)
            key = None if claim is None else to_base64(claim.public_key)
            before = _keys(self._presence.devices(user_id))
            for session, old_key, new_key in heirs:
                if new_key == key:
                    self._hand_to(session, user_id, old_key, new_key)
            self.bound(user_id, key)
            if _keys(self._presence.devices(user_id)) != before:
                self._router.publish(user_id)
            lost = self._lost.pop(user_id, None)
            if claim is not None and lost is not None and before and claim.privacy == DEFAULT_PRIVACY:
                self._restore(user_id, claim.public_key, lost)
            elif claim is not None and self._router.privacy_read(user_id, claim.privacy):
                self.doubt(user_id)  # it may have changed since it was read: until both are the same

        def failed() -> None:
            self._doubtful.setdefault(user_id, []).extend(heirs)

        question = LoadBinding(self._lookups.token(), user_id)
        self._lookups.ask(question, answered, failed, access=NameAccess.ALONE)

    def _bind_again(self, user_id: str) -> bool:
        """Bind a name that was lost to the key of its sessions; False when there is none that has proved it."""
        key = next((session.key for session in self._presence.devices(user_id) if session.dialect.proves), None)
        if key is None:
            return False
        kept = self._presence.privacies.get(user_id)
        if kept is not None:
            self._lost.setdefault(user_id, kept.settings)
        question = ClaimBinding(self._lookups.token(), user_id, from_base64(key))
        # Whatever the answer: the name is looked up once more, and somebody else may have it by now.
        self._lookups.ask(
            question,
            lambda answer, now: self.doubt(user_id),
            lambda: self.doubt(user_id),
            access=NameAccess.ALONE,
        )
        return True

    def _restore(self, user_id: str, key: bytes, privacy: Privacy) -> None:
        """Give the privacy of a lost name back to the directory, and to other nodes that have read that it has none."""

        def failed() -> None:
            self._lost[user_id] = privacy
            self.doubt(user_id)

        change = PrivacyChange(privacy.presence, privacy.offers, add_contacts=privacy.contacts, block=privacy.blocked)
        question = ChangePrivacy(self._lookups.token(), user_id, key, change)
        self._lookups.ask(question, lambda answer, now: self.doubt(user_id), failed, access=NameAccess.ALONE)

    def _hand_to(self, session: Session, user_id: str, old_key: str, new_key: str) -> None:
        """Give the new key to the session that asked for the rotation, if it still has the name with the old key."""
        if session.user_id == user_id and session.key == old_key:
            session.key = new_key
            session.seal_key = None  # signed by the old key
            self._router.changed(session)

    def bound(self, user_id: str, key: str | None) -> None:
        """End the sessions of a name whose key differs from the directory's; `key` is None for a free name."""
        if self._verified is not None:
            self._verified(user_id, None if key is None else from_base64(key))
        for session in self._presence.devices(user_id):
            if not session.dialect.proves:
                if key is not None:
                    self._lifecycle.end(session, CloseCode.REPLACED, "the owner of the name has registered")
            elif session.key != key:
                # A rotation may mean that the old key was stolen, so close every connection that it opened.
                reason = "the name was released" if key is None else "the key of this name was rotated"
                self._lifecycle.end(session, CloseCode.UNAUTHORIZED, reason)


def _keys(sessions: list[Session]) -> list[tuple[Session, str]]:
    return [(session, session.key) for session in sessions]
