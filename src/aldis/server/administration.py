"""What an operator may see and do: the operations behind the admin API, without HTTP.

Rules: everything is bounded (`MOST_LISTED`). Nothing that is secret leaves it: no secrets of a resume, no addresses of
clients. Public keys do, since the operator may ban one. What is changed for good is on the disk before it counts as
done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from aldis.backends.base import Directory, DirectoryUnavailable
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable
from aldis.errors import UsageError
from aldis.hub.bans import Ban, holds, read_ban, wider_than
from aldis.hub.hub import Hub
from aldis.protocol.addresses import user_id_problem
from aldis.server.accounts import Accounts
from aldis.server.ban_file import BanFile
from aldis.server.health import Health
from aldis.server.log_levels import apply_levels, current_levels, read_levels
from aldis.server.logs import Log, moment
from aldis.server.node_administration import MOST_LISTED, NodeAdministration, shown_key
from aldis.server.node_totals import add_sessions, add_statistics, add_user, add_users
from aldis.server.proxies import TrustedProxies
from aldis.server.scheduler import FairScheduler

if TYPE_CHECKING:
    from aldis.cluster.operator_link import OperatorLink  # it loads redis, which not every installation has

# Ten years: what is meant to be longer is meant for ever.
LONGEST_BAN: Final = 10 * 365 * 86_400.0
WRITE_AGAIN: Final = 10.0
"""Seconds from a failure to write the bans until the next attempt."""
# This machine.
_LOOPBACK: Final = ("127.0.0.1", "::1")


class Unconfirmed(UsageError):
    """The operator is to confirm what was asked for. The message says why."""


class Administration:
    """See the module. Values are plain data, as they go out in JSON. Times are seconds since 1970 or durations."""

    def __init__(
        self,
        hub: Hub,
        scheduler: FairScheduler,
        ban_file: BanFile,
        log: Log,
        *,
        health: Health,
        release: Callable[[str], Awaitable[bool]],
        directory: Directory,
        accounts: Accounts,
        end: Callable[[Ban], int],
        stop: Callable[[], None],
        proxies: TrustedProxies,
        cluster: OperatorLink | None = None,
        here: NodeAdministration | None = None,
    ) -> None:
        """`release` frees a name, `end` ends the connections of a banned network, `stop` starts to drain.

        The address of one of the `proxies` stands for all clients of whom nothing else is known.

        `cluster`: what reaches all nodes, where this server is one of several. Bans are there then, not in the file.
        `here` answers for this server, also to other nodes; it is made when it is not given.
        """
        self._hub = hub
        self._here = NodeAdministration(hub, scheduler, health=health, accounts=accounts) if here is None else here
        self._ban_file = ban_file
        self._log = log
        self.health = health
        self._release = release
        self._directory = directory
        self._accounts = accounts
        self._end = end
        self._stop = stop
        self._proxies = proxies
        self._cluster = cluster
        self._saving = asyncio.Lock()
        self._unwritten: asyncio.TimerHandle | None = None  # until the next attempt to write the bans

    # --- looking ----------------------------------------------------------------------------------------------------

    async def statistics(self) -> dict[str, Any]:
        """The server at a glance, or all nodes of a cluster. Counters only grow, while the same nodes are there."""
        if self._cluster is None:
            return self._here.statistics()
        found = await self._cluster.ask("statistics", {})
        return add_statistics(found.here, found.answers, found.silent)

    async def users(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        """Users that are online, by name; `next` is to be given as `after` for those that follow."""
        limit = min(limit, MOST_LISTED)
        if self._cluster is None:
            return self._here.users(prefix, after, limit)
        found = await self._cluster.ask("users", {"prefix": prefix, "after": after, "limit": limit})
        return add_users(found.answers, found.silent, limit)

    async def user(self, user_id: str) -> dict[str, Any]:
        """One user's sessions, the newest first, and `binding`, the key that the name is bound to.

        `binding` is missing when the directory cannot answer.
        """
        binding = await self._binding(user_id)
        if self._cluster is None:
            return {**self._here.user(user_id), **binding}
        found = await self._cluster.ask("user", {"user": user_id})
        return {**add_user(user_id, found.answers, found.silent), **binding}

    async def _binding(self, user_id: str) -> dict[str, Any]:
        if user_id_problem(user_id):
            return {"binding": None}
        try:
            key = await self._directory.find(user_id)
        except DirectoryUnavailable:
            return {}  # the sessions are shown all the same
        return {"binding": None if key is None else shown_key(key)}

    def bans(self) -> dict[str, Any]:
        """All bans that hold."""
        bans = self._hub.bans
        bans.expire(time.time())
        return {"bans": [_shown(ban) for ban in sorted(bans, key=lambda ban: (ban.kind, ban.value))]}

    async def listed(self, after: str, limit: int) -> dict[str, Any]:
        """The names that may register, by name; `next` is to be given as `after` for those that follow."""
        limit = min(limit, MOST_LISTED)
        names = await self._directory.listed_names(after, limit + 1)
        return {"names": names[:limit], "next": names[limit - 1] if len(names) > limit else None}

    # --- doing ------------------------------------------------------------------------------------------------------

    async def disconnect(self, user_id: str) -> dict[str, Any]:
        """Close all connections of a user, which may come back at once."""
        if self._cluster is None:
            ended = self._here.disconnect(user_id)
        else:
            found = await self._cluster.ask("disconnect", {"user": user_id})
            ended = add_sessions(found.answers, found.silent)
        self._log.info("disconnected a user", user=user_id, **ended)
        return ended

    async def release(self, user_id: str) -> dict[str, Any]:
        """Free a name, whose owner has lost the key for instance. Raises `DirectoryUnavailable`."""
        released = await self._release(user_id)
        self._log.info("released a name", user=user_id, bound=released)
        if self._cluster is None:
            return {"released": released}
        found = await self._cluster.ask("released", {"user": user_id})
        return {"released": released, "silentNodes": list(found.silent)}

    async def list_name(self, user_id: str) -> dict[str, Any]:
        """Let a name register, where only listed ones may. Raises `UsageError` and `DirectoryUnavailable`."""
        problem = user_id_problem(user_id)
        if problem:
            raise UsageError(f"{user_id!r} is no name of a user: {problem}")
        added = await self._directory.list_name(user_id)
        self._log.info("listed a name", user=user_id, new=added)
        return {"added": added}

    async def unlist_name(self, user_id: str) -> dict[str, Any]:
        """Let a name register no more, and end its sessions where only listed ones may. Raises `DirectoryUnavailable`.

        Its key stays bound to it, so it has the same owner when it is listed again.
        """
        removed = await self._directory.unlist_name(user_id)
        ended: dict[str, Any] = {"sessions": 0}
        reason = "the name was taken off the list"
        if self._accounts.closed and self._cluster is None:
            ended = self._here.expel(user_id, reason)
        elif self._accounts.closed and self._cluster is not None:
            found = await self._cluster.ask("expel", {"user": user_id, "reason": reason})
            ended = add_sessions(found.answers, found.silent)
        self._log.info("took a name off the list", user=user_id, listed=removed, **ended)
        return {"removed": removed, **ended}

    async def ban(
        self,
        kind: str,
        value: str,
        reason: str,
        seconds: float | None,
        *,
        confirmed: bool = False,
        source: str = "",
    ) -> dict[str, Any]:
        """Ban a user, a key or a network, and end its connections. `source`: the address of the operator.

        The answer has a `warning` for a network in which there may be proxies, and `replaced` with the ban whose place
        this one takes. Raises `Unconfirmed`, unless it is `confirmed`, for a very wide network, one with the operator
        or this machine, and a ban that ends earlier than the one that holds. Raises `UsageError`, also for a network
        that holds trusted proxies, and `DirectoryUnavailable` when the ban cannot be kept: then it holds until the
        server stops, and in a cluster it may not count.
        """
        if seconds is not None and not 0 < seconds <= LONGEST_BAN:
            raise UsageError(f"a ban lasts up to {LONGEST_BAN:g} seconds, or for ever")
        ban = read_ban(kind, value, reason, None if seconds is None else time.time() + seconds)
        shown = {**_shown(ban), **self._warned(ban)}
        earlier = self._hub.bans.same(ban, time.time())
        doubts = [*_doubts_of_network(ban, source), *_doubts_of_end(ban, earlier)]
        if doubts and not confirmed:
            raise Unconfirmed("; ".join(doubts))
        if earlier is not None:
            shown["replaced"] = {"reason": earlier.reason, "until": earlier.until}
        until = moment(ban.until) or "for ever"
        if self._cluster is not None:
            with _cluster_faults("it is not known whether the ban counts"):
                answers = await self._cluster.ban(ban)
            ended = sum(answer["sessions"] for answer in answers.answers.values())
            self._log.info("banned", kind=ban.kind, value=ban.value, reason=ban.reason, until=until, sessions=ended)
            return {**shown, "sessions": ended, "silentNodes": list(answers.silent)}
        ended = self._hub.ban(ban, monotonic())
        if ban.kind == "network":
            ended = self._end(ban)
        self._log.info("banned", kind=ban.kind, value=ban.value, reason=ban.reason, until=until, sessions=ended)
        await self._save()
        return {**shown, "sessions": ended}

    def _warned(self, ban: Ban) -> dict[str, Any]:
        """What is to be said of a ban that fits a proxy. Raises `UsageError` for one that fits all of a network of
        proxies."""
        if ban.kind != "network":
            return {}
        if (proxies := self._proxies.inside(ban.value)) is not None:
            raise UsageError(
                f"{ban.value} holds the trusted proxies {proxies}; ban the clients behind them by their own addresses. "
                "This ban would refuse the proxies' own checks, and all clients whose address is not told"
            )
        if (proxies := self._proxies.around(ban.value)) is None:
            return {}
        warning = (
            f"{ban.value} lies in trusted_proxies ({proxies}): if a proxy has such an address, the server refuses its "
            "own checks, and all clients whose address it does not tell"
        )
        return {"warning": warning}

    async def unban(self, kind: str, value: str) -> dict[str, Any]:
        """End a ban. Raises `UsageError`, `DirectoryUnavailable` as `ban` does."""
        ban = read_ban(kind, value)
        if self._cluster is not None:
            with _cluster_faults("it is not known whether the ban has ended"):
                answers = await self._cluster.unban(ban)
            if answers is None:
                return {"removed": False, "silentNodes": []}
            self._log.info("a ban has ended", kind=ban.kind, value=ban.value)
            return {"removed": True, "silentNodes": list(answers.silent)}
        removed = self._hub.bans.remove(ban.kind, ban.value)
        if removed:
            self._log.info("a ban has ended", kind=ban.kind, value=ban.value)
            await self._save()
        return {"removed": removed}

    def log_level(self, levels: str) -> dict[str, Any]:
        """Log so until the server is started again or reads its settings again: `debug` for all, `tls=debug` for one
        area, `info,tls=debug` for both. Raises `UsageError`."""
        try:
            read = read_levels(levels)
        except UsageError as error:
            raise UsageError(f"{levels!r} is no level; expected {error}") from None
        apply_levels(read)
        now = str(current_levels())
        self._log.warning("the log level has changed", to=now)
        return {"level": now}

    def renew(self) -> dict[str, Any]:
        """Order a certificate now. Raises `UsageError`."""
        done = self.health.renew()
        self._log.info("asked for a new certificate by the admin API")
        return done

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
                if self._unwritten is None:
                    self._log.error("the bans cannot be written; until they are, a stop loses them", reason=str(error))
                else:
                    self._unwritten.cancel()
                self._unwritten = asyncio.get_running_loop().call_later(WRITE_AGAIN, self._save_again)
                raise DirectoryUnavailable(f"the ban holds, but cannot be written: {error.strerror or error}") from None
            if self._unwritten is not None:
                self._unwritten.cancel()
                self._unwritten = None
                self._log.info("the bans are written again")

    def _save_again(self) -> None:
        async def save() -> None:
            with suppress(DirectoryUnavailable):
                await self._save()

        self._attempt = asyncio.create_task(save(), name="aldis-write-bans")


@contextmanager
def _cluster_faults(words: str) -> Iterator[None]:
    try:
        yield
    except (ClusterUnavailable, ClusterProtocolError) as error:
        raise DirectoryUnavailable(f"{words}: {error}") from None


def _doubts_of_network(ban: Ban, source: str) -> Iterator[str]:
    """Why an operator may not mean a network."""
    if ban.kind != "network":
        return
    if (widest := wider_than(ban.value)) is not None:
        yield f"{ban.value} is wider than a /{widest}: it bans a large part of all addresses"
    if holds(ban.value, source):
        yield f"{ban.value} holds {source}, where you are"
    for address in _LOOPBACK:
        if address != source and holds(ban.value, address):
            yield f"{ban.value} holds {address}, which is this machine"


def _doubts_of_end(ban: Ban, earlier: Ban | None) -> Iterator[str]:
    """Whether an operator may not know that a ban holds for longer already."""
    if earlier is None or ban.until is None or (earlier.until is not None and earlier.until <= ban.until):
        return
    until = "for ever" if earlier.until is None else f"until {moment(earlier.until)}"
    why = f" ({earlier.reason})" if earlier.reason else ""
    yield f"{ban.kind} {ban.value} is banned {until} already{why}, and this ban would end earlier"


def _shown(ban: Ban) -> dict[str, Any]:
    return {"kind": ban.kind, "value": ban.value, "reason": ban.reason, "until": ban.until}
