"""The sessions of a hub as plain data, so that the next process of the server can go on with them.

Rules: only sessions that a client may resume are saved. Messages whose senders were told that they did not arrive are
left out. This module knows no file (`server.handover_file`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from aldis.hub.dialects import V1
from aldis.hub.presence import Presence
from aldis.hub.privacy import UserPrivacy
from aldis.hub.resume import new_replay
from aldis.hub.sessions import Session, WatchEnd
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage
from aldis.hub.use import FRAME_BYTES, texts_bytes
from aldis.hub.watches import WATCH_BYTES, WATCHED_BYTES
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import Privacy

# Bytes of messages and watches in all: what is beyond costs its client a new registration, and nobody a slow stop and
# start, at which all clients wait. 600,000 watches alone, which take half a second.
MOST_BYTES: Final = 128 * 1024 * 1024


class SavedSession(Struct, frozen=True):
    """What a client needs to resume its session, and what its peers know of it."""

    user_id: str
    device: str
    address: str
    key: str
    id: str
    secret: str
    host: str
    seal_key: SealKey | None
    watches: list[str]
    confirmed: int
    frames: list[bytes]
    # The users whose presence the client has not been told yet.
    untold: list[str] = []
    # Which of the frames are sealed messages, counted from 0.
    sealed: list[int] = []


class Handover(Struct, frozen=True):
    """All sessions of a server, and when they were saved, in seconds since 1970."""

    saved_at: float
    sessions: list[SavedSession]
    # Of the users of these sessions, except the default.
    privacies: dict[str, Privacy] = {}


def save_privacies(sessions: list[SavedSession], privacies: Mapping[str, UserPrivacy]) -> dict[str, Privacy]:
    """The privacy of each user that is saved."""
    users = dict.fromkeys(one.user_id for one in sessions)
    return {user_id: privacies[user_id].settings for user_id in users if user_id in privacies}


def save(sessions: list[Session], presence: Presence) -> list[SavedSession]:
    """Save those sessions that may be resumed, as long as there is room. Their clients are to be told of the others."""
    saved = {one.address: one for one in _save_some(sessions)}
    registered = presence.sessions()
    gone = {session.user_id for session in registered if session.address not in saved}
    for session in registered if gone else ():
        one = saved.get(session.address)
        # A user that the client has not seen has not gone for it.
        news = [name for name in gone.intersection(session.watches or ()) if presence.shows(name, session)]
        if one is not None and news:
            saved[one.address] = replace(one, untold=sorted({*one.untold, *news}))
    return list(saved.values())


def _save_some(sessions: Iterable[Session]) -> Iterator[SavedSession]:
    kept = []
    for session in sessions:
        replay = session.replay
        if replay is None or session.dialect is not V1 or session.stage not in (Stage.REGISTERED, Stage.DETACHED):
            continue
        waiting = replay.since(replay.confirmed) or []
        late_news = session.late_news or []
        frames = waiting[: len(waiting) - len(session.unsettled or ()) - len(late_news)]
        kept.append((_size(session, frames), session, replay, frames))
    # Those who have most are left out, so that no few clients with long lists take the room of many.
    left = MOST_BYTES
    largest = 0
    for size in sorted(one[0] for one in kept):
        left -= size
        if left < 0:
            break
        largest = size
    left = MOST_BYTES
    for size, session, replay, frames in kept:
        late_news = session.late_news or []
        if size > largest or size > left:
            continue
        left -= size
        untold = [one for one in session.untold or () if isinstance(one, str)]
        # A client that has not been told of the end of a watch has it again.
        ended = [one.user_id for one in session.untold or () if isinstance(one, WatchEnd)]
        yield SavedSession(
            session.user_id,
            session.device,
            session.address,
            session.key,
            session.id,
            session.secret,
            session.host,
            session.seal_key,
            sorted({*(session.watches or ()), *ended}),
            replay.confirmed,
            [bytes(frame) for frame in frames],
            sorted({*untold, *late_news}),
            [index for index in replay.sealed if index < len(frames)],
        )


def _size(session: Session, frames: Sequence[bytes | bytearray]) -> int:
    """What a session takes in the next process: what grows with what others send to it, and with what it watches."""
    names = session.watches or ()
    size = sum(map(len, frames)) + FRAME_BYTES * len(frames)
    return size + (WATCH_BYTES + WATCHED_BYTES) * len(names) + texts_bytes(names)


def restore(saved: SavedSession, settings: HubSettings, now: float) -> Session:
    """A session from what was saved. It has lost its connection, and its stage is the first one."""
    session = Session(None, V1, saved.host, now)
    session.user_id, session.device, session.address = saved.user_id, saved.device, saved.address
    session.key, session.seal_key = saved.key, saved.seal_key
    session.id, session.secret = saved.id, saved.secret
    session.replay = replay = new_replay(settings)
    replay.confirmed = saved.confirmed
    sealed = frozenset(saved.sealed)
    for index, frame in enumerate(saved.frames):
        if index in sealed:
            replay.add_sealed(bytearray(frame))
        else:
            replay.add(bytearray(frame))
    if saved.untold:
        session.untold = dict.fromkeys(saved.untold)
    return session
