"""Tells the operator's application who comes online and goes offline.

Rules:

* Events are in order, also those of different users. Several go in one request.
* Each event arrives at least once while this process lives: a request is repeated until it is answered with a status
  from 200 to 299. A repeated event has the same id, by which the application knows it.
* Of each user at most one event waits: the latest. It takes the place of the one before, at the end. Somebody who has
  come and gone while the application was busy is not told of at all; in a cluster `offline` is, because another node
  may have told something between the two. So it does not matter how often somebody comes and goes, and the
  application knows the last state of each. These events are counted, and leave no gap in `sequence`.
* What waits is bounded. The oldest event is dropped when there is no room, and when its request has failed `ATTEMPTS`
  times. Each dropped one is counted, and leaves a gap in `sequence`.
* The first event of a process is `started`: whoever was online before and does not come again is offline. In a cluster
  only the first node says so. There each event of a user has a `version`, by which the application puts events of
  several nodes in order, and `lost` tells that events of a node may be missing.

It does not know the hub, which calls `changed`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any, Final

from aldis.server.hooks import SignedPosts
from aldis.server.logs import OUTAGE_SECONDS, Log, OutageLog, Throttle

# Events in one request, 100 KB at most.
MAX_BATCH: Final = 100
# Requests for the same events before they are dropped. With the pauses below, the first to the last take five minutes:
# an application is deployed anew in less.
ATTEMPTS: Final = 12
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
POST_TIMEOUT: Final = 10.0
# Seconds that a server which stops takes to deliver what waits.
LAST_WORDS: Final = 2.0


class PresenceHook:
    """The events of one server. `start` it on the loop; `close` delivers what waits, or drops it."""

    def __init__(
        self,
        posts: SignedPosts,
        log: Log,
        *,
        most: int,
        wall: Callable[[], float] = time,
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """`most` is how many events may wait. `pause` waits for some seconds."""
        self._posts = posts
        self._log = log
        self._most = most
        self._wall = wall
        self._pause = pause
        self._outage = OutageLog(log, "the application that is told who is online", OUTAGE_SECONDS)
        self._drops = Throttle(OUTAGE_SECONDS)
        # By their users; an event of no user has a number of its own. A plain dict would find its first entry more
        # slowly the more have been taken out before it.
        self._waiting: OrderedDict[str | int, dict[str, Any]] = OrderedDict()
        self._without_user = 0
        # The latest of those of whom the application has not heard that they have gone, because that was dropped.
        self._doubtful: OrderedDict[str, None] = OrderedDict()
        self._sending: list[dict[str, Any]] = []
        # The users of these.
        self._on_its_way: set[str] = set()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._process = os.urandom(8).hex()
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self.events: Counter[str] = Counter({"delivered": 0, "dropped": 0, "folded": 0})
        self.failing: str | None = None
        """Why the last request failed; None when it did not."""

    def __len__(self) -> int:
        """The number of events that are not delivered yet."""
        return len(self._waiting) + len(self._sending)

    def start(self) -> None:
        """Start to deliver."""
        self._task = asyncio.create_task(self._deliver(), name="aldis-presence-hook")

    def started(self) -> None:
        """The server has started: nobody is online whom no later event names."""
        self._add_without_user({"type": "started"})

    def changed(self, user_id: str, online: bool, version: int | None = None) -> None:
        """A user has come online with the first device, or gone offline with the last. `version`: in a cluster."""
        before = self._waiting.pop(user_id, None)
        if before is not None:
            self.events["folded"] += 1
            if (
                not online
                and version is None
                and before["type"] == "online"
                and user_id not in self._doubtful  # else it is the word that they have gone
                and user_id not in self._on_its_way  # may never arrive
            ):
                self.events["folded"] += 1
                return
        event: dict[str, Any] = {"type": "online" if online else "offline", "user": user_id}
        self._add(user_id, event if version is None else {**event, "version": version})

    def lost(self, node_id: str) -> None:
        """A node of the cluster is gone, perhaps before it has told all that it knew."""
        self._add_without_user({"type": "lost", "node": node_id})

    async def close(self) -> None:
        """Deliver what waits, within `LAST_WORDS` seconds; drop the rest."""
        if self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while len(self) and self.failing is None:
                    self._idle.clear()
                    await self._idle.wait()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if len(self):
            self._dropped([*self._sending, *self._waiting.values()], "the server stops")

    def _add_without_user(self, event: dict[str, Any]) -> None:
        self._without_user += 1
        self._add(self._without_user, event)

    def _add(self, key: str | int, event: dict[str, Any]) -> None:
        self._waiting[key] = {"time": round(self._wall(), 3), **event}
        if len(self._waiting) > self._most:
            _, oldest = self._waiting.popitem(last=False)
            self._sequence += 1  # the gap
            self._dropped([oldest], "too many wait")
        self._more.set()

    def _take(self) -> dict[str, Any]:
        """Take out the oldest event, and number it: only now is it sure that it will be told."""
        _, event = self._waiting.popitem(last=False)
        self._sequence += 1
        return {"id": f"{self._process}-{self._sequence}", "sequence": self._sequence, **event}

    async def _deliver(self) -> None:
        while True:
            self._more.clear()
            while self._waiting:
                self._sending = [self._take() for _ in range(min(MAX_BATCH, len(self._waiting)))]
                self._on_its_way = {event["user"] for event in self._sending if "user" in event}
                await self._send()
                self._sending = []
                self._on_its_way.clear()
            self._idle.set()
            await self._more.wait()

    async def _send(self) -> None:
        """Deliver `_sending`, or drop it after so many attempts."""
        content = {"type": "presence", "server": self._process, "events": self._sending}
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._posts.post(content, seconds=POST_TIMEOUT)
            except Exception as error:  # noqa: BLE001 - mostly CallFailed; a bug must not end the delivery
                self.failing = str(error)
                self._idle.set()
                self._outage.failed(error)
                if attempt < ATTEMPTS:
                    await self._pause(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.failing = None
                self._outage.works()
                self.events["delivered"] += len(self._sending)
                for event in self._sending if self._doubtful else ():
                    self._doubtful.pop(event.get("user", ""), None)
                return
        self._dropped(self._sending, "the application does not take them")

    def _dropped(self, events: list[dict[str, Any]], reason: str) -> None:
        for event in events:
            if event["type"] == "offline":
                self._doubtful[event["user"]] = None
        while len(self._doubtful) > self._most:
            self._doubtful.popitem(last=False)
        self.events["dropped"] += len(events)
        unlogged = self._drops.pass_now()
        if unlogged is not None:
            self._log.warning("presence events are dropped", reason=reason, dropped=self.events["dropped"])
