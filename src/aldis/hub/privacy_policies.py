"""The privacy of all users that are online: loaded with their names, changed by their devices, in force at once.

Rules:

* A user's privacy is known before the user counts as online, so nobody sees a hidden user for a moment.
* The directory decides what it is; a change is in force when the directory has kept it.
* After a change, the watchers that lose sight of the user are told that they are offline, those that gain it that they
  are online, and nobody else is told anything. The user's devices are told the whole of it.

The meaning of a privacy is in `hub.privacy`. This module knows neither relaying nor registration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.backends.base import ChangePrivacy, DirectoryAnswer, PrivacyRefusal
from aldis.hub.lookups import PendingLookups
from aldis.hub.name_queue import NameAccess
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy import UserPrivacy, settings_of
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.use import texts_bytes
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.addresses import user_ids_problem
from aldis.protocol.codec import from_base64
from aldis.protocol.codes import ErrorCode
from aldis.protocol.privacy import DEFAULT_PRIVACY, MAX_PRIVACY_BYTES, Privacy, PrivacyChange

# Bytes of a name in a list, beside its text: a str, and its place in a set that is up to two thirds empty.
ENTRY_BYTES: Final = 160
# Bytes of a privacy without names, and of the users that were called.
USER_BYTES: Final = 2048
# Watchers that are told of a change for one unit of a client's rate (`hub.costs`), and bytes of replies.
WATCHERS_PER_UNIT: Final = 16
BYTES_PER_UNIT: Final = 1300


class PrivacyPolicies:
    """Keeps `Presence.privacies`, which has an entry for each user whose privacy is not the default."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        presence: Presence,
        watchers: Watchers,
        changed: Callable[[str, Privacy], None],
    ) -> None:
        """`changed`: the directory has kept another privacy of a user."""
        self._changed = changed
        self._settings = settings
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._watchers = watchers
        self.bytes = 0
        """What all of them cost."""

    # --- with the names ---------------------------------------------------------------------------------------------

    def has_room(self, user_id: str, privacy: Privacy) -> bool:
        """Whether there is memory for the privacy of a user."""
        return self.bytes - self._size(user_id) + size_of(privacy) <= self._settings.privacy_bytes

    def of(self, user_id: str) -> Privacy:
        """The privacy of a user that is online."""
        return settings_of(self._presence.privacies.get(user_id))

    def cost_of_telling(self, user_id: str) -> int:
        """What it costs to tell somebody the whole privacy of a user, in units of a client's rate."""
        return self._size(user_id) // BYTES_PER_UNIT

    def _size(self, user_id: str) -> int:
        found = self._presence.privacies.get(user_id)
        return 0 if found is None else found.bytes

    def load(self, user_id: str, privacy: Privacy) -> None:
        """The directory has said what the privacy of a user is. Call it before the user's session is entered."""
        if privacy != self.of(user_id):
            self._apply(user_id, privacy)
        elif (found := self._presence.privacies.get(user_id)) is not None:
            found.settings = privacy  # to compare it once more with this one takes no time

    def left(self, user_id: str) -> None:
        """The last session of a user has ended, and the watchers are told."""
        found = self._presence.privacies.pop(user_id, None)
        if found is not None:
            self.bytes -= found.bytes

    # --- requests ---------------------------------------------------------------------------------------------------

    def request(self, session: Session, message: m.PrivacyRequest, now: float) -> RequestOutcome:
        """A client asks for the privacy of its user, or changes it."""
        change = _change_of(message, session.user_id, self._settings.max_privacy_names)
        if isinstance(change, RequestRefused):
            return change
        if change == PrivacyChange(most_names=change.most_names):
            self._tell(session, message.id)
            return DONE
        user_id, key, re = session.user_id, from_base64(session.key), message.id

        # It does not keep `message`, whose lists have up to 64 KB.
        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            if not isinstance(answer, Privacy):
                return _refused(answer, user_id, change.most_names)
            self._changed(user_id, answer)
            if self._presence.newest(user_id) is not None:
                session.charged += self._apply(user_id, answer, besides=session) // WATCHERS_PER_UNIT
            if session.user_id == user_id:
                self._tell(session, re)
            return DONE

        after = self.of(user_id).changed(change)
        if after is not None and not self.has_room(user_id, after):
            text = "this server has no room for more contacts and blocked users now"
            return RequestRefused(ErrorCode.OVER_CAPACITY, text, self._settings.privacy_pause, limit="privacy-bytes")
        question = ChangePrivacy(self._lookups.token(), user_id, key, change)
        self._lookups.ask(question, answered, access=NameAccess.ALONE, session=session, kind="privacy", re=re)
        return PENDING

    def _apply(self, user_id: str, privacy: Privacy, *, besides: Session | None = None) -> int:
        """Put a privacy in force, and tell the watchers and the user's devices. Returns how many watchers were told."""
        privacies, sessions = self._presence.privacies, self._presence.devices(user_id)
        found = privacies.get(user_id)
        # Not of a user that comes: its session is announced. To find who sees it may take half a millisecond.
        before = self._watchers.audience(user_id, settings_of(found)) if sessions else None
        size = size_of(privacy)
        self.bytes += size - self._size(user_id)
        if privacy == DEFAULT_PRIVACY:
            privacies.pop(user_id, None)
            found = None
        elif found is None:
            found = privacies[user_id] = UserPrivacy(user_id, privacy)
        else:
            found.settings = privacy
        if found is not None:
            found.bytes = size
        for session in sessions:
            session.privacy = found
        told = set() if before is None else before ^ self._watchers.audience(user_id, privacy)
        if told:
            self._watchers.tell_some(user_id, told)
        self._tell_changes([session for session in sessions if session is not besides])
        return len(told)

    # --- telling the user's devices ---------------------------------------------------------------------------------

    def tell_change(self, session: Session) -> None:
        """Tell a device what has changed, when it reads. One that is lost is told when it registers again."""
        self._tell_changes([session])

    def _tell_changes(self, sessions: list[Session]) -> None:
        """The same for devices of one user, which get the same frame: to make one takes as long as to send five."""
        frame = None
        for session in sessions:
            connection = session.connection
            if connection is None or not session.dialect.proves:
                continue
            session.privacy_untold = connection.full
            if not connection.full:
                if frame is None:  # there is one dialect that proves
                    frame = self._outgoing.encode(self._message(session.user_id, UNSET), session.dialect)
                session.charged += self.cost_of_telling(session.user_id)
                self._outgoing.resend(session, frame)

    def _tell(self, session: Session, re: m.RequestId | UnsetType) -> None:
        session.charged += self.cost_of_telling(session.user_id)
        self._outgoing.send(session, self._message(session.user_id, re))

    def _message(self, user_id: str, re: m.RequestId | UnsetType) -> m.PrivacyMessage:
        privacy = self.of(user_id)
        return m.PrivacyMessage(privacy.presence, privacy.offers, sorted(privacy.contacts), sorted(privacy.blocked), re)


def wire(privacy: Privacy) -> m.PrivacySettings | UnsetType:
    """A privacy as `registered` has it; left out when it is the default."""
    if privacy == DEFAULT_PRIVACY:
        return UNSET
    return m.PrivacySettings(privacy.presence, privacy.offers, sorted(privacy.contacts), sorted(privacy.blocked))


def size_of(privacy: Privacy) -> int:
    """What a privacy costs; nothing when it is the default."""
    if privacy == DEFAULT_PRIVACY:
        return 0
    names = [*privacy.contacts, *privacy.blocked]
    return USER_BYTES + ENTRY_BYTES * len(names) + texts_bytes(names)


def _change_of(message: m.PrivacyRequest, user_id: str, most_names: int) -> PrivacyChange | RequestRefused:
    lists = [message.add_contacts, message.remove_contacts, message.block, message.unblock]
    fields = ["addContacts", "removeContacts", "block", "unblock"]
    names = [frozenset(() if found is UNSET else found) for found in lists]
    if sum(map(len, names)) > m.MAX_WATCHED_PER_MESSAGE:
        text = f"privacy: at most {m.MAX_WATCHED_PER_MESSAGE} names in one message"
        return RequestRefused(ErrorCode.INVALID_FIELD, text)
    for field, some in zip(fields, names, strict=True):
        problem = user_ids_problem(some)
        if problem is None and user_id in some:
            problem = "it is your own name; your own devices are always admitted"
        if problem is not None:
            return RequestRefused(ErrorCode.INVALID_FIELD, f"{field}: {problem}")
    add, remove, block, unblock = names
    if add & remove or block & unblock:
        return RequestRefused(ErrorCode.INVALID_FIELD, "privacy: a name is both added and removed")
    return PrivacyChange(
        None if message.presence is UNSET else message.presence,
        None if message.offers is UNSET else message.offers,
        *names,
        most_names=most_names,
    )


def _refused(answer: DirectoryAnswer, user_id: str, most_names: int) -> RequestRefused:
    if answer is PrivacyRefusal.TOO_LARGE:
        text = f"at most {most_names} contacts and {most_names} blocked users, and {MAX_PRIVACY_BYTES} bytes of names"
        return RequestRefused(ErrorCode.TOO_LARGE, text, limit="privacy-names")
    # It may have been lost with the data of the directory, and is bound again soon. If it has another key, the session
    # ends soon (`hub.bindings`).
    text = f"the directory has no such binding of {user_id} now; try again in a moment"
    return RequestRefused(ErrorCode.INTERNAL, text, retry_after=1.0)
