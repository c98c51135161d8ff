"""What an operator may see and do: the operations behind the admin API, without HTTP.

Rules: everything is bounded (`MOST_LISTED`). Nothing that is secret leaves it: no keys of sessions, no secrets of a
resume, no addresses of clients. What is changed for good is on the disk before it counts as done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

from aldis.backends.base import DirectoryUnavailable
from aldis.errors import UsageError
from aldis.hub.bans import Ban, read_ban
from aldis.hub.hub import Hub
from aldis.server.ban_file import BanFile
from aldis.server.logs import Log
from aldis.server.scheduler import FairScheduler
from aldis.version import VERSION

MOST_LISTED: Final = 1000
# Ten years: what is meant to be longer is meant for ever.
LONGEST_BAN: Final = 10 * 365 * 86_400.0
RELAYED: Final = ("offer", "answer", "ice-candidate", "bye", "relay")
LEVELS: Final = ("debug", "info", "warning", "error")


class Administration:
    """See the module. Values are plain data, as they go out in JSON. Times are seconds since 1970 or durations."""

    def __init__(
        self,
        hub: Hub,
        scheduler: FairScheduler,
        ban_file: BanFile,
        log: Log,
        *,
        release: Callable[[str], Awaitable[bool]],
        end: Callable[[Ban], int],
        stop: Callable[[], None],
    ) -> None:
        """`release` frees a name, `end` ends the connections of a banned network, `stop` starts to drain."""
        self._hub = hub
        self._scheduler = scheduler
        self._ban_file = ban_file
        self._log = log
        self._release = release
        self._end = end
        self._stop = stop
        self._began = monotonic()
        self._saving = asyncio.Lock()

    # --- looking ----------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """The server at a glance. Counters only grow."""
        hub = self._hub
        stats = hub.stats
        messages = stats.messages
        handled = sum(count for (_, outcome), count in messages.items() if outcome == "ok")
        return {
            "version": VERSION,
            "uptime": round(monotonic() - self._began, 3),
            "connections": stats.connections_now,
            "users": hub.users_online,
            "detached": hub.detached,
            "waiting": len(self._scheduler),
            "bans": len(hub.bans),
            "memory": _resident(),
            "processorSeconds": round(time.process_time(), 3),
            "messages": handled,
            "refused": sum(messages.values()) - handled,
            "relayed": sum(stats.handled[kind].count for kind in RELAYED),
            "throttled": self._scheduler.throttled,
            "messagesByType": _by_type(messages),
            "registrations": dict(stats.registrations),
            "closes": {str(int(code)): count for code, count in stats.closes.items()},
        }

    def users(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        """Users that are online, by name; `next` is to be given as `after` for those that follow."""
        names = self._hub.users(prefix, after, min(limit, MOST_LISTED) + 1)
        listed = names[: min(limit, MOST_LISTED)]
        more = len(names) > len(listed)
        users = [{"user": name, "devices": len(self._hub.sessions(name))} for name in listed]
        return {"users": users, "next": listed[-1] if more else None}

    def user(self, user_id: str) -> dict[str, Any]:
        """One user's sessions, the newest first."""
        now = monotonic()
        sessions = [
            {
                "device": session.device,
                "connected": session.connection is not None,
                "seconds": round(now - session.connected_at, 1),
                "silent": round(now - session.heard, 1),
                "watches": len(session.watches or ()),
                "unconfirmed": 0 if session.replay is None else session.replay.waiting,
                "unconfirmedBytes": 0 if session.replay is None else session.replay.size,
                "proved": session.dialect.proves,
            }
            for session in self._hub.sessions(user_id)
        ]
        return {"user": user_id, "online": bool(sessions), "sessions": sessions}

    def bans(self) -> dict[str, Any]:
        """All bans."""
        return {"bans": [_shown(ban) for ban in sorted(self._hub.bans, key=lambda ban: (ban.kind, ban.value))]}

    # --- doing ------------------------------------------------------------------------------------------------------

    def disconnect(self, user_id: str) -> dict[str, Any]:
        """Close all connections of a user, which may come back at once."""
        ended = self._hub.disconnect(user_id)
        self._log.info("disconnected a user", user=user_id, sessions=ended)
        return {"sessions": ended}

    async def release(self, user_id: str) -> dict[str, Any]:
        """Free a name, whose owner has lost the key for instance. Raises `DirectoryUnavailable`."""
        released = await self._release(user_id)
        self._log.info("released a name", user=user_id, bound=released)
        return {"released": released}

    async def ban(self, kind: str, value: str, reason: str, seconds: float | None) -> dict[str, Any]:
        """Ban a user, a key or a network, and end its connections. Raises `UsageError`, and `DirectoryUnavailable`
        when the ban cannot be kept: it holds until the server stops then."""
        if seconds is not None and not 0 < seconds <= LONGEST_BAN:
            raise UsageError(f"a ban lasts up to {LONGEST_BAN:g} seconds, or for ever")
        ban = read_ban(kind, value, reason, None if seconds is None else time.time() + seconds)
        ended = self._hub.ban(ban)
        if ban.kind == "network":
            ended = self._end(ban)
        self._log.info("banned", kind=ban.kind, value=ban.value, reason=ban.reason, until=ban.until, sessions=ended)
        await self._save()
        return {**_shown(ban), "sessions": ended}

    async def unban(self, kind: str, value: str) -> dict[str, Any]:
        """End a ban. Raises `UsageError`, `DirectoryUnavailable` as `ban` does."""
        ban = read_ban(kind, value)
        removed = self._hub.bans.remove(ban.kind, ban.value)
        if removed:
            self._log.info("a ban has ended", kind=ban.kind, value=ban.value)
            await self._save()
        return {"removed": removed}

    def log_level(self, level: str) -> dict[str, Any]:
        """Log from this level up, until the server is started again. Raises `UsageError`."""
        if level not in LEVELS:
            raise UsageError(f"{level!r} is no level; expected one of {', '.join(LEVELS)}")
        logging.getLogger().setLevel(level.upper())
        self._log.warning("the log level has changed", to=level)
        return {"level": level}

    def drain(self) -> dict[str, Any]:
        """Stop as on SIGTERM: clients are told when to come back."""
        self._log.info("asked to stop by the admin API")
        self._stop()
        return {"stopping": True}

    async def _save(self) -> None:
        async with self._saving:
            self._hub.bans.expire(time.time())
            try:
                await asyncio.to_thread(self._ban_file.save, list(self._hub.bans))
            except OSError as error:
                self._log.error("the bans cannot be written; they hold until the server stops", reason=str(error))
                raise DirectoryUnavailable(f"the ban holds, but cannot be written: {error.strerror or error}") from None


def admin_token(configured: str, data: Path | None) -> str | None:
    """The password of the admin API: the one in the settings, else one in a file of the data directory, which is made.

    None for a server that keeps nothing and was given none: its API is closed. Raises `OSError`.
    """
    if configured or data is None:
        return configured or None
    path = data / "admin-token"
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        token = os.urandom(24).hex()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
        return token


def _shown(ban: Ban) -> dict[str, Any]:
    return {"kind": ban.kind, "value": ban.value, "reason": ban.reason, "until": ban.until}


def _by_type(messages: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(messages.items()):
        if count:
            table.setdefault(kind, {})[outcome] = count
    return table


def _resident() -> int | None:
    """Bytes of memory of this process; None where the system does not tell (Linux does)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
