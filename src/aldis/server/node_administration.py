"""What an operator may see and do at one server: other nodes of a cluster ask for it, too.

Rules: everything is bounded, and nothing that is secret leaves it (`server.administration`). `respond` answers the
questions of other nodes by their subjects, and gives no answer to one that only newer releases know.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

from aldis.hub.hub import Hub
from aldis.identity.keys import fingerprint
from aldis.protocol.codec import from_base64, to_base64
from aldis.server.accounts import Accounts
from aldis.server.health import Health
from aldis.server.scheduler import FairScheduler
from aldis.version import VERSION

MOST_LISTED: Final = 1000
RELAYED: Final = ("offer", "answer", "ice-candidate", "bye", "relay")


class NodeAdministration:
    """See the module. Values are plain data, as they go out in JSON. Times are seconds since 1970 or durations."""

    def __init__(
        self,
        hub: Hub,
        scheduler: FairScheduler,
        *,
        health: Health,
        accounts: Accounts,
        settings: Callable[[], dict[str, str]] = dict,
    ) -> None:
        """`settings`: those that all nodes of a cluster need alike (`server.same_settings`)."""
        self._hub = hub
        self._settings = settings
        self._scheduler = scheduler
        self._health = health
        self._accounts = accounts
        self._began = monotonic()
        self._subjects: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "statistics": lambda content: self.statistics(),
            "users": lambda content: self.users(content["prefix"], content["after"], content["limit"]),
            "user": lambda content: self.user(content["user"]),
            "disconnect": lambda content: self.disconnect(content["user"]),
            "expel": lambda content: self.expel(content["user"], content["reason"]),
            "released": lambda content: self.released(content["user"]),
            "settings": lambda content: {"settings": self._settings()},
        }

    def respond(self, subject: str, content: dict[str, Any]) -> dict[str, Any] | None:
        """Answer a question of a node; None for a subject that this release does not know."""
        answer = self._subjects.get(subject)
        return None if answer is None else answer(content)

    def statistics(self) -> dict[str, Any]:
        """The server at a glance. Counters only grow."""
        hub = self._hub
        hub.bans.expire(time.time())
        stats = hub.stats
        messages = stats.messages
        handled = sum(count for (_, outcome), count in messages.items() if outcome == "ok")
        health = self._health.read()
        health["problems"] += self._accounts.problems
        return {
            "version": VERSION,
            "host": platform.node(),
            "uptime": round(monotonic() - self._began, 3),
            "connections": stats.connections_now,
            "users": hub.users_online,
            **({} if hub.cluster is None else self._of_cluster()),
            "detached": len(hub.detached_sessions),
            "waiting": len(self._scheduler),
            "bans": len(hub.bans),
            "memory": _resident(),
            "processorSeconds": round(time.process_time(), 3),
            "messages": handled,
            "refused": sum(messages.values()) - handled,
            "relayed": sum(stats.handled[kind].count for kind in RELAYED),
            "sealedBytes": stats.sealed_bytes,
            "throttled": self._scheduler.throttled,
            "messagesByType": _by_type(messages),
            "registrations": dict(stats.registrations),
            "accounts": self._accounts.summary(),
            "closes": {str(int(code)): count for code, count in stats.closes.items()},
            **health,
        }

    def _of_cluster(self) -> dict[str, Any]:
        """What nodes tell each other, and no operator."""
        return {"sharedUsers": _shared(self._hub.shared_users()), "settings": self._settings()}

    def users(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        """Users that are online here, by name; `next` is to be given as `after` for those that follow."""
        limit = min(limit, MOST_LISTED)
        names = self._hub.users(prefix, after, limit + 1)
        listed = names[:limit]
        more = len(names) > len(listed)
        users = [{"user": name, "devices": len(self._hub.sessions(name))} for name in listed]
        return {"users": users, "next": listed[-1] if more else None}

    def user(self, user_id: str) -> dict[str, Any]:
        """One user's sessions here, the newest first."""
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
                # What a classic client says of its key is not checked, and may be anything.
                **(shown_key(from_base64(session.key)) if session.dialect.proves else NO_KEY),
            }
            for session in self._hub.sessions(user_id)
        ]
        privacy = self._hub.privacy(user_id)
        # Only how many: whom somebody knows, or has blocked, is not an operator's business.
        shown = {
            "presence": privacy.presence,
            "offers": privacy.offers,
            "contacts": len(privacy.contacts),
            "blocked": len(privacy.blocked),
        }
        return {"user": user_id, "online": bool(sessions), "privacy": shown if sessions else None, "sessions": sessions}

    def disconnect(self, user_id: str) -> dict[str, Any]:
        """Close all connections of a user here, which may come back at once."""
        return {"sessions": self._hub.disconnect(user_id, monotonic())}

    def expel(self, user_id: str, reason: str) -> dict[str, Any]:
        """End all sessions here of a user that may not register any more."""
        return {"sessions": self._hub.expel(user_id, reason, monotonic())}

    def released(self, user_id: str) -> dict[str, Any]:
        """A name was released at another node: its sessions here end when the directory has confirmed it."""
        if self._hub.cluster is not None:
            self._hub.cluster.doubt(user_id)
        return {}


NO_KEY: Final = {"key": None, "fingerprint": None}


def shown_key(public_key: bytes) -> dict[str, str]:
    """A public key, as `ban key` takes it, and as people compare it."""
    return {"key": to_base64(public_key), "fingerprint": fingerprint(public_key)}


def _shared(users: Mapping[tuple[str, ...], int]) -> list[dict[str, Any]]:
    return [{"nodes": nodes, "users": count} for nodes, count in users.items()]


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
