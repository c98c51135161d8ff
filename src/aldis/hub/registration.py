"""Names: how a session gets one, keeps one over a lost connection, and gives one up.

    register -> challenge -> prove -> the directory says whose name it is -> registered

This module holds all rules about who may have a name: the proof of the key, the durable binding, the newest connection
of the same proven key wins, the classic dialect's unproven names, resume, key rotation. It does not know relaying.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from aldis.backends.base import ClaimBinding, DirectoryAnswer, FindBinding, Question, ReleaseBinding, RotateBinding
from aldis.hub.dialects import Dialect
from aldis.hub.lookups import PendingLookups
from aldis.hub.name_queue import NameAccess
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.resume import Replay
from aldis.hub.sessions import Session, Stage, WatchRequest
from aldis.hub.settings import HubSettings
from aldis.hub.stats import HubStats
from aldis.identity import proofs
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify
from aldis.protocol import messages as m
from aldis.protocol.addresses import DEFAULT_DEVICE, device_problem, join, user_id_problem
from aldis.protocol.codec import from_base64, to_base64, to_base64url
from aldis.protocol.codes import CloseCode, ErrorCode

_SESSION_BYTES = 16
_SECRET_BYTES = 32

_Heir: TypeAlias = "tuple[Session, str, str]"
"""A session that asked for a rotation, the old key, and the new one."""


class Registrar:
    """Moves sessions between the stages; see `sessions.Stage`."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        presence: Presence,
        stats: HubStats,
        random: Callable[[int], bytes],
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._stats = stats
        self._random = random
        self._wall = wall
        # The names of which watchers have to be told, in order; and whether that waits for the end of something.
        self._untold: deque[str] = deque()
        self._holding = False
        # In the order in which they were lost.
        self._detached: OrderedDict[Session, None] = OrderedDict()
        # Names of which the directory did not say what became of a change.
        self._doubtful: dict[str, list[_Heir]] = {}
        self._limits = m.Limits(settings.max_message_bytes, settings.max_watches, settings.resume_window)

    # --- asking for a name ------------------------------------------------------------------------------------------

    def register(self, session: Session, message: m.Register, now: float) -> None:
        """A client asks for a name."""
        problem = user_id_problem(message.user_id)
        if problem:
            self._refuse(session, message, ErrorCode.INVALID_FIELD, f"userId: {problem}")
        elif not session.dialect.proves:
            self._register_unproven(session, message)
        elif session.stage is Stage.REGISTERED:
            text = f"this connection is registered as {session.address}; unregister first"
            self._refuse(session, message, ErrorCode.ALREADY_REGISTERED, text)
        elif problem := self._field_problem(message):
            self._refuse(session, message, ErrorCode.INVALID_FIELD, problem)
        else:
            message.token = UNSET  # nothing reads it, so it is not kept until `prove`
            session.registering = message
            session.nonce = self._random(proofs.NONCE_BYTES)
            session.nonce_expires = now + self._settings.challenge_seconds
            session.stage = Stage.CHALLENGED
            self._outgoing.send(session, m.Challenge(to_base64(session.nonce), message.id))

    def _field_problem(self, message: m.Register) -> str | None:
        device = DEFAULT_DEVICE if message.device is UNSET else message.device
        problem = device_problem(device)
        if problem:
            return f"device: {problem}"
        try:
            key = from_base64(message.public_key, PUBLIC_KEY_BYTES)
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
            signature = from_base64(message.seal_key.signature, SIGNATURE_BYTES)
        except ValueError as error:
            return f"sealKey: {error}"
        if not verify(key, signature, proofs.seal(message.user_id, device, seal_key)):
            return "sealKey: it is not signed by publicKey"
        return None

    def prove(self, session: Session, message: m.Prove, now: float) -> None:
        """A client signs the challenge."""
        request = session.registering
        if session.stage is not Stage.CHALLENGED or request is None:
            text = "there is no challenge to sign: send register first"
            self._outgoing.refuse(session, "prove", ErrorCode.BAD_SIGNATURE, text, message.id)
            return
        if message.id is UNSET:
            message.id = request.id
        nonce, session.nonce = session.nonce, b""  # single use, whatever comes of it
        session.stage = Stage.OPEN
        session.registering = None
        if now > session.nonce_expires:
            self._refuse(session, message, ErrorCode.TIMEOUT, "the challenge has expired: send register again")
            return
        key = from_base64(request.public_key)
        device = DEFAULT_DEVICE if request.device is UNSET else request.device
        try:
            signature = from_base64(message.signature, SIGNATURE_BYTES)
        except ValueError as error:
            self._refuse(session, message, ErrorCode.INVALID_FIELD, f"signature: {error}")
            return
        if not verify(key, signature, proofs.registration(session.host, nonce, request.user_id, device)):
            text = (
                f"the signature does not fit; this server takes its host to be {session.host!r}. If you dialled "
                "another one: a proxy has to pass the Host header on, and --names has to list what you dial"
            )
            self._refuse(session, message, ErrorCode.BAD_SIGNATURE, text)
            session.bad_proofs += 1
            if session.bad_proofs >= self._settings.bad_proofs:
                self.end(session, CloseCode.UNAUTHORIZED, "too many bad signatures")
            return
        if self._unproven_holder(request.user_id):
            text = f"the name {request.user_id} is held by a client that proves nothing, until that one leaves"
            self._refuse(session, message, ErrorCode.KEY_MISMATCH, text)
            return
        session.stage = Stage.CLAIMING
        user_id = request.user_id

        def answered(answer: DirectoryAnswer, then: float) -> None:
            if isinstance(answer, bytes):
                # Another process may have changed the binding in the same directory.
                self._bound(user_id, to_base64(answer))
            if session.stage is not Stage.CLAIMING:
                return  # it has gone meanwhile
            if answer != key:
                self.not_admitted(session)
                self._refuse(session, message, ErrorCode.KEY_MISMATCH, f"the name {user_id} belongs to another key")
            elif self._has_no_room(user_id, request):
                self.not_admitted(session)
                text = f"{self._settings.max_devices} devices of this user are online, which is all that there may be"
                # Those whose connection was lost are gone by then.
                wait = max(self._settings.resume_window, 1.0)
                self._stats.registrations[ErrorCode.OVER_CAPACITY] += 1
                self._outgoing.refuse(session, "prove", ErrorCode.OVER_CAPACITY, text, message.id, retry_after=wait)
            else:
                self._admit(session, request, message, then)

        def failed() -> None:
            # It may have bound the name all the same, which a classic client has taken meanwhile.
            if self._presence.devices(user_id):
                self._doubtful.setdefault(user_id, [])

        def question(token: int) -> Question:
            return ClaimBinding(token, user_id, key)

        self._lookups.ask_in_order(
            user_id, NameAccess.CLAIM, session, "register", message.id, question, answered, failed
        )

    def _has_no_room(self, user_id: str, request: m.Register) -> bool:
        device = DEFAULT_DEVICE if request.device is UNSET else request.device
        if self._presence.at(user_id, device) is not None:
            return False  # it takes the place of that one
        return len(self._presence.devices(user_id)) >= self._settings.max_devices

    def _unproven_holder(self, user_id: str) -> bool:
        return any(not other.dialect.proves for other in self._presence.devices(user_id))

    def not_admitted(self, session: Session) -> None:
        """A registration came to nothing: a classic client keeps the name it had before."""
        if session.stage is Stage.CLAIMING:
            session.stage = Stage.REGISTERED if session.user_id else Stage.OPEN

    def _refuse(self, session: Session, message: m.Register | m.Prove, code: str, text: str) -> None:
        self._stats.registrations[code] += 1
        kind = "register" if isinstance(message, m.Register) else "prove"
        self._outgoing.refuse(session, kind, code, text, message.id)

    # --- getting it -------------------------------------------------------------------------------------------------

    def _admit(self, session: Session, request: m.Register, message: m.Prove, now: float) -> None:
        session.user_id = request.user_id
        session.device = DEFAULT_DEVICE if request.device is UNSET else request.device
        session.address = join(session.user_id, session.device)
        session.key = request.public_key
        session.seal_key = None if request.seal_key is UNSET else request.seal_key
        old = self._presence.at(session.user_id, session.device)
        missed = None if old is None else self._missed(old, request)
        if old is not None and missed is not None:
            self._take_over(session, old)
        else:
            session.id = self._text(_SESSION_BYTES)
            session.secret = self._text(_SECRET_BYTES)
            session.replay = Replay(self._settings.resume_messages, self._settings.resume_bytes)
        session.stage = Stage.REGISTERED
        self._presence.add(session)
        resumed = missed is not None
        outcome = "resumed" if resumed else "new" if old is None else "replaced"
        self._stats.registrations[outcome] += 1
        self._stats.handshake_seconds.observe(now - session.connected_at)
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
            self._outgoing.resend(session, one)  # numbered when it was first told
        changed = old is None or not resumed or old.seal_key != session.seal_key
        if old is not None:
            if resumed:
                self._hand_over(old)
            self.end(old, CloseCode.REPLACED, "replaced by a newer connection of the same address")
        if changed:
            # Also when the name was online all the time: a session that does not go on is a program that was started
            # anew, and who talks to it wants to know.
            self.announce(session.user_id)

    def _missed(self, old: Session, request: m.Register) -> list[bytearray] | None:
        """What a client that shows a ticket for the session `old` has not received; None when it cannot resume."""
        ticket = request.resume
        if ticket is UNSET or old.replay is None or old.key != request.public_key or old.id != ticket.session:
            return None
        if not hmac.compare_digest(old.secret.encode(), ticket.secret.encode()):
            return None
        return old.replay.since(ticket.received)

    def _take_over(self, session: Session, old: Session) -> None:
        session.id = old.id
        session.secret = old.secret
        session.replay, old.replay = old.replay, None
        session.watches, old.watches = old.watches, None
        for user_id in session.watches or ():
            self._presence.unwatch(old, user_id)
            self._presence.watch(session, user_id)

    def _hand_over(self, old: Session) -> None:
        """The messages that waited for `old` have gone out on another connection: say so to their senders."""
        waiting, old.unacknowledged = old.unacknowledged, None
        for sender, re in waiting or ():
            self._outgoing.acknowledge(sender, re)

    def _text(self, size: int) -> str:
        return to_base64url(self._random(size))

    # --- without a proof --------------------------------------------------------------------------------------------

    def _register_unproven(self, session: Session, message: m.Register) -> None:
        """An unproven name: it lasts as long as its connection, and only where no key is bound to it."""
        if len(message.public_key.encode()) > m.MAX_CLASSIC_KEY:
            # Others are told of it, in each `presence`.
            text = f"publicKey: more than {m.MAX_CLASSIC_KEY} bytes"
            self._refuse(session, message, ErrorCode.INVALID_FIELD, text)
            return

        def answered(answer: DirectoryAnswer, now: float) -> None:
            holder = self._presence.find(message.user_id)
            other = holder if holder is not session else None
            bound = answer is not None
            if bound or (other is not None and (other.dialect.proves or other.key != message.public_key)):
                self.not_admitted(session)
                self._stats.registrations[ErrorCode.KEY_MISMATCH] += 1
                self._outgoing.send(session, m.Registered(False, message.user_id))
                return
            if session.user_id and session.user_id != message.user_id:
                self._leave(session)
            changed = holder is None or holder.key != message.public_key
            session.user_id = session.address = message.user_id
            session.device = DEFAULT_DEVICE
            session.key = message.public_key
            session.stage = Stage.REGISTERED
            self._presence.add(session)
            self._stats.registrations["new" if holder is None else "replaced"] += 1
            self._stats.handshake_seconds.observe(now - session.connected_at)
            self._outgoing.send(session, m.Registered(True, message.user_id))
            if other is not None:
                self.end(other, CloseCode.REPLACED, "replaced by a newer connection of the same address")
            if changed:
                self.announce(session.user_id)

        def question(token: int) -> Question:
            return FindBinding(token, message.user_id)

        session.stage = Stage.CLAIMING
        self._lookups.ask_in_order(message.user_id, NameAccess.LOOK, session, "register", UNSET, question, answered)

    # --- changing the key -------------------------------------------------------------------------------------------

    def rotate(self, session: Session, message: m.Rotate, now: float) -> None:
        """Bind the name to a new key, by a signature of the old one."""
        try:
            new_key = from_base64(message.new_public_key, PUBLIC_KEY_BYTES)
            signature = from_base64(message.signature, SIGNATURE_BYTES)
        except ValueError as error:
            text = f"newPublicKey or signature: {error}"
            self._outgoing.refuse(session, "rotate", ErrorCode.INVALID_FIELD, text, message.id)
            return
        if session.user_id in self._doubtful:
            text = "the server does not know yet what became of an earlier rotation; try again in a moment"
            self._outgoing.refuse(session, "rotate", ErrorCode.INTERNAL, text, message.id, retry_after=1.0)
            return
        if message.new_public_key == session.key:
            # Repeated by a client that was not told of the outcome.
            self._outgoing.send(session, m.Rotated(session.key, message.id))
            return
        user_id, old_public_key = session.user_id, session.key
        old_key = from_base64(old_public_key)
        if not verify(old_key, signature, proofs.rotation(user_id, new_key)):
            text = "the rotation is not signed by the key that the name is bound to"
            self._outgoing.refuse(session, "rotate", ErrorCode.BAD_SIGNATURE, text, message.id)
            return

        def answered(answer: DirectoryAnswer, now: float) -> None:
            if answer is True:
                self._hand_to(session, user_id, old_public_key, message.new_public_key)
                self._bound(user_id, message.new_public_key)
                self._outgoing.send(session, m.Rotated(message.new_public_key, message.id))
                self.announce(user_id)
            else:
                text = f"the name {user_id} is bound to another key by now"
                self._outgoing.refuse(session, "rotate", ErrorCode.KEY_MISMATCH, text, message.id)
                self._look_up(user_id, [])

        def failed() -> None:
            # It may have taken effect all the same.
            self._doubtful.setdefault(user_id, []).append((session, old_public_key, message.new_public_key))

        def question(token: int) -> Question:
            return RotateBinding(token, user_id, old_key, new_key)

        self._lookups.ask_in_order(user_id, NameAccess.ALONE, session, "rotate", message.id, question, answered, failed)

    def release(self, user_id: str, then: Callable[[bool | None], None]) -> None:
        """End the binding of a name by the operator's word; `then` gets the outcome, None when there was none."""

        def answered(answer: DirectoryAnswer, now: float) -> None:
            self._bound(user_id, None)
            then(answer is True)

        def failed() -> None:
            self._doubtful.setdefault(user_id, [])
            then(None)

        def question(token: int) -> Question:
            return ReleaseBinding(token, user_id)

        self._lookups.ask_in_order(user_id, NameAccess.ALONE, None, "release", UNSET, question, answered, failed)

    def look_up_doubtful(self) -> None:
        """Ask whose the names are of which the directory did not say what became of them. Called at each tick."""
        doubtful, self._doubtful = self._doubtful, {}
        for user_id, heirs in doubtful.items():
            self._look_up(user_id, heirs)

    def _look_up(self, user_id: str, heirs: list[_Heir]) -> None:
        """Find out which key a name is bound to, and act on that. `heirs` have asked for another one."""

        def answered(answer: DirectoryAnswer, now: float) -> None:
            key = to_base64(answer) if isinstance(answer, bytes) else None
            for session, old_key, new_key in heirs:
                if new_key == key:
                    self._hand_to(session, user_id, old_key, new_key)
            self._bound(user_id, key)
            self.announce(user_id)

        def failed() -> None:
            self._doubtful.setdefault(user_id, []).extend(heirs)

        def question(token: int) -> Question:
            return FindBinding(token, user_id)

        self._lookups.ask_in_order(user_id, NameAccess.ALONE, None, "find", UNSET, question, answered, failed)

    def _hand_to(self, session: Session, user_id: str, old_key: str, new_key: str) -> None:
        """The session that asked for a rotation has the new key, if it still has the name with the old one."""
        if session.user_id == user_id and session.key == old_key:
            session.key = new_key
            session.seal_key = None  # signed by the old key

    def _bound(self, user_id: str, key: str | None) -> None:
        """The directory says which key a name is bound to, None for none: who has it with another key ends."""
        for session in self._presence.devices(user_id):
            if not session.dialect.proves:
                if key is not None:
                    self.end(session, CloseCode.REPLACED, "the owner of the name has registered")
            elif session.key != key:
                # The old key may have been stolen, which is what rotation is for: what it opened is closed.
                reason = "the name was released" if key is None else "the key of this name was rotated"
                self.end(session, CloseCode.UNAUTHORIZED, reason)

    # --- giving it up -----------------------------------------------------------------------------------------------

    def unregister(self, session: Session, message: m.Unregister, now: float) -> None:
        """The client gives its name up; the connection stays."""
        self._leave(session)
        session.stage = Stage.OPEN
        session.connected_at = now  # from here on it has to register in time again
        self._outgoing.send(session, m.Unregistered(message.id))

    def detach(self, session: Session) -> None:
        """The connection is lost; the name stays for the resume window."""
        session.stage = Stage.DETACHED
        self._detached[session] = None
        if len(self._detached) > self._settings.max_detached:
            self.end(next(iter(self._detached)), CloseCode.SESSION_LOST, "")
        # What a full connection has not been told yet is missed like the rest.
        untold, session.untold = session.untold, None
        for one in untold or ():
            if not isinstance(one, WatchRequest) and not self._outgoing.send_numbered(session, self.presence_of(one)):
                self.end(session, CloseCode.SESSION_LOST, "")
                return

    def send_away(self, session: Session, code: CloseCode, reason: str) -> None:
        """Close the connection of a server that stops. Nobody is told: all are sent away, watchers too."""
        self._outgoing.close(session, code, reason)
        self._lookups.forget(session)
        session.stage = Stage.CLOSED

    def end(self, session: Session, code: CloseCode, reason: str) -> None:
        """Close the connection, if there is one, and forget the session: it cannot be resumed."""
        if session.stage is Stage.CLOSED:
            return
        self._outgoing.close(session, code, reason)
        self._lookups.forget(session)
        self._detached.pop(session, None)
        self._leave(session)
        # The timer queue has it until its next time-out: for so long it keeps nothing of what its client has sent.
        session.registering = session.faults = None
        session.stage = Stage.CLOSED

    def _leave(self, session: Session) -> None:
        """Take the session's name, watches and waiting messages off the books."""
        self._presence.unwatch_all(session, session.watches or ())
        session.watches = session.untold = None
        session.replay = session.seal_key = None
        waiting, session.unacknowledged = session.unacknowledged, None
        for sender, re in waiting or ():
            self._outgoing.refuse(sender, "relay", ErrorCode.NOT_ONLINE, f"User {session.address} is not online", re)
        removed = self._presence.remove(session)
        user_id, session.user_id = session.user_id, ""
        session.key = ""
        if removed:
            self.announce(user_id)

    # --- telling others ---------------------------------------------------------------------------------------------

    def announce(self, user_id: str) -> None:
        """Tell all who watch a name how things stand now.

        A detached watcher that can keep no more ends by that, which has to be announced too. So the names stand in a
        queue, which the outermost call empties: ends that cause each other cost no stack, however many there are.
        """
        if self._presence.watchers(user_id):
            self._untold.append(user_id)
            if not self._holding:
                self._tell_watchers()

    @contextmanager
    def holding_back(self) -> Iterator[None]:
        """Announce at the end of the block what comes within it, each name once.

        For sessions that end together: those that watch each other need not be told, and one `presence` stands for all
        devices of a user.
        """
        self._holding = True
        try:
            yield
        finally:
            self._untold = deque(dict.fromkeys(self._untold))
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        self._holding = True
        try:
            while self._untold:
                user_id = self._untold.popleft()
                watchers = self._presence.watchers(user_id)
                if watchers:
                    self._tell_presence(watchers, self.presence_of(user_id))
        finally:
            self._holding = False

    def _tell_presence(self, watchers: AbstractSet[Session], news: m.PresenceMessage) -> None:
        frames: dict[Dialect, bytearray] = {}
        for watcher in tuple(watchers):
            if watcher.connection is not None and watcher.connection.full:
                if watcher.untold is None:
                    watcher.untold = {}
                watcher.untold[news.user_id] = None
                continue
            frame = frames.get(watcher.dialect)
            if frame is None:
                frame = frames[watcher.dialect] = self._outgoing.encode(news, watcher.dialect)
            if not self._outgoing.send_numbered_frame(watcher, frame):
                self.end(watcher, CloseCode.SESSION_LOST, "too much was missed")

    def tell_later(self, watcher: Session, user_ids: Iterable[str], re: m.RequestId | UnsetType) -> bool:
        """Tell a watcher how things stand with some names, and acknowledge that, as fast as it reads.

        False when it asks for that too often without reading.
        """
        untold = watcher.untold = watcher.untold or {}
        untold.update(dict.fromkeys(user_ids))
        if re is not UNSET:
            untold[WatchRequest(re)] = None
        self.tell_untold(watcher)
        left = len(watcher.untold or ())
        return left <= self._settings.max_watches + self._settings.backlog_messages

    def tell_untold(self, watcher: Session) -> None:
        """Tell a connected watcher what it is still to be told, until its connection is full."""
        if watcher.connection is not None and watcher.connection.full:
            return
        untold, watcher.untold = watcher.untold, None
        rest = iter(untold or ())
        while watcher.connection is not None:
            if watcher.connection.full:
                watcher.untold = dict.fromkeys(rest) or None
                return
            one = next(rest, None)
            if one is None:
                return
            if isinstance(one, WatchRequest):
                self._outgoing.acknowledge(watcher, one.id)
            else:
                self._outgoing.send_numbered(watcher, self.presence_of(one))

    def presence_of(self, user_id: str) -> m.PresenceMessage:
        """How things stand with a name, as far as this process knows without asking."""
        sessions = self._presence.devices(user_id)
        if not sessions:
            return m.PresenceMessage(user_id, False)
        return m.PresenceMessage(user_id, True, sessions[0].key, devices_of(sessions))


def devices_of(sessions: list[Session]) -> list[m.Device]:
    """The `devices` of a user as they go over the wire, newest first."""
    return [m.Device(s.device, UNSET if s.seal_key is None else s.seal_key) for s in sessions]
