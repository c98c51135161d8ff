"""The users that the application watches, over any number of sessions.

A resumed session still has its watches; a new session gets them again from here. Pure: it sees the requests that are
sent and how they end, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET

from aldis.protocol import messages as m


class Watches:
    """The watched users of one client, in the order of the requests."""

    def __init__(self) -> None:
        self._user_ids: dict[str, None] = {}
        # For each `watch` without an answer: the names whose presence has not come yet. The server sends one for each
        # name before the `ack`.
        self._unstated: dict[int, set[str]] = {}
        # Names of them whose earlier watch the server has ended meanwhile.
        self._lost: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._user_ids))

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._user_ids

    def sent(self, message: object, number: int) -> tuple[str, ...]:
        """Note a request that goes to the server; only `watch` and `unwatch` matter.

        Returns the names that were not watched before.
        """
        added: tuple[str, ...] = ()
        match message:
            case m.Watch(user_ids=user_ids):
                added = tuple(user_id for user_id in user_ids if user_id not in self._user_ids)
                self._user_ids.update(dict.fromkeys(user_ids))
                self._lost.difference_update(user_ids)
                self._unstated[number] = set(user_ids)
            case m.Unwatch(user_ids=user_ids):
                self.drop(user_ids)
            case _:
                pass
        return added

    def answers(self, user_id: str) -> bool:
        """Whether this presence answers a `watch`. Each `watch` has one such answer for each name."""
        for names in self._unstated.values():
            if user_id in names:
                names.remove(user_id)
                if user_id in self._lost:
                    self._lost.remove(user_id)
                    self._user_ids[user_id] = None
                return True
        return False

    def takes(self, presence: m.PresenceMessage) -> bool:
        """Whether to tell of a presence that `answers` has seen. One that was on its way when its watch ended is void;
        so is the word that the server has ended a watch, if it is asked for it again already."""
        user_id = presence.user_id
        known = user_id in self._user_ids
        if presence.ended is UNSET or not known:
            return known
        del self._user_ids[user_id]
        if not any(user_id in names for names in self._unstated.values()):
            return True
        self._lost.add(user_id)
        return False

    def ended(self, number: int) -> None:
        """A request has ended, with or without an answer."""
        self._unstated.pop(number, None)

    def drop(self, user_ids: Iterable[str]) -> None:
        """Remove these users from the watches."""
        for user_id in user_ids:
            self._user_ids.pop(user_id, None)
            self._lost.discard(user_id)

    def clear(self) -> None:
        """Remove all watches."""
        self._user_ids.clear()
        self._lost.clear()
