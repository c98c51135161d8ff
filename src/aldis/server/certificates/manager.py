"""When a certificate is ordered and renewed, and how often that is tried.

Rules: one order at a time, also of two processes with one data directory. A certificate is renewed when the authority
wants it (RFC 9773), else after two thirds of its lifetime. After a failure the next try waits, longer each time, and as
long as the authority asks. The loop is never blocked: conversations run in threads. `ready` in the health of the server
and the log tell what is wrong, in one sentence.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from random import SystemRandom
from typing import Final, TypeVar

from aldis.server.certificates.authority import Authority, AuthoritySettings, OrderFailed
from aldis.server.certificates.challenges import HTTP, TLS, Challenges, Kind
from aldis.server.certificates.files import CertificateFiles, KeptCertificate
from aldis.server.config import ServerConfig
from aldis.server.logs import Log, moment

# Seconds after a first failure; three times as many after each further one. So an hour has five tries at most: the
# largest public authority refuses a name after five failures an hour.
FIRST_PAUSE: Final = 60.0
PAUSE_GROWTH: Final = 3.0
LONGEST_PAUSE: Final = 6 * 3600.0
# Up to this part of a pause is added at random, so that servers that failed together do not come back together.
JITTER: Final = 0.25
# An authority cannot have us wait longer than this.
LONGEST_RETRY_AFTER: Final = 24 * 3600.0
# The part of its lifetime after which a certificate is renewed, and the latest one, whatever the authority says.
RENEW_AT: Final = 2 / 3
RENEW_LATEST: Final = 0.9
# How often the authority is asked when to renew, whatever it says itself.
ASK_AT_MOST: Final = 3600.0
ASK_AT_LEAST: Final = 24 * 3600.0
# The clock may be set, and the machine may sleep: the times above are looked at again this often.
LOOK: Final = 3600.0
# Seconds until another process has finished its order.
OTHER_ORDER: Final = 30.0

T = TypeVar("T")
_RANDOM: Final = SystemRandom()


def manager_for(
    config: ServerConfig, challenges: Challenges, log: Log, *, with_http: bool, use: Callable[[], object]
) -> CertificateManager:
    """The manager of a server with `acme_domain`. `with_http`: it has a port for plain HTTP."""
    files = CertificateFiles(Path(config.data))
    settings = AuthoritySettings(config.acme_directory, config.acme_email, config.acme_ca_file)
    kinds = (HTTP, TLS) if with_http else (TLS,)
    return CertificateManager(config.acme_domain, Authority(settings, files), files, challenges, kinds, log, use=use)


def renewal_due(certificate: KeptCertificate, wanted: datetime | None) -> datetime:
    """When to renew. `wanted` is what the authority says, None if nothing."""
    lifetime = certificate.expires - certificate.starts
    latest = certificate.starts + lifetime * RENEW_LATEST
    return min(certificate.starts + lifetime * RENEW_AT if wanted is None else wanted, latest)


def pause_after(failures: int, retry_after: float | None, random: float) -> float:
    """Seconds until the next try, after so many failures in a row. `random` is from 0 to 1."""
    # The exponent is bounded, because a float is not endless.
    pause = min(FIRST_PAUSE * PAUSE_GROWTH ** min(failures - 1, 20), LONGEST_PAUSE)
    return max(pause, min(retry_after or 0.0, LONGEST_RETRY_AFTER)) * (1.0 + JITTER * random)


class CertificateManager:
    """Keeps the certificate of one server. `run` does it, until it is cancelled.

    `kinds` are the challenges that this server can answer, the preferred one first. `use` is called when there is a
    new certificate.
    """

    def __init__(
        self,
        domains: tuple[str, ...],
        authority: Authority,
        files: CertificateFiles,
        challenges: Challenges,
        kinds: Sequence[Kind],
        log: Log,
        *,
        use: Callable[[], object],
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self.domains = domains
        self.attempts: Counter[str] = Counter({"ok": 0, "failed": 0})
        # Why the last attempt failed, and when; empty after one that did not.
        self.error = ""
        self.failed_at: float | None = None
        # When the next attempt is due, in seconds since 1970; None before that is known.
        self.next_attempt: float | None = None
        self._authority = authority
        self._files = files
        self._challenges = challenges
        self._kinds = kinds
        self._log = log
        self._use = use
        self._wall = wall
        self._random = random
        self._failures = 0
        self._kind = 0
        self._asked = asyncio.Event()
        self._wanted: datetime | None = None
        self._wanted_of: int | None = None
        self._ask_after = 0.0

    @property
    def failures(self) -> int:
        """Failed attempts since the last one that was none."""
        return self._failures

    def renew_now(self) -> None:
        """Order a certificate now, whatever is due."""
        self._asked.set()

    async def run(self) -> None:
        """Get a certificate, and renew it for ever."""
        while True:
            forced = self._asked.is_set()
            self._asked.clear()
            pause = await self._step(forced=forced)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, LOOK)):
                    await self._asked.wait()

    # --- internal ---------------------------------------------------------------------------------------------------

    async def _step(self, *, forced: bool) -> float:
        """Do what is due; return the seconds until something is."""
        now = self._wall()
        try:
            kept = self._files.load()
            if not forced and kept is not None and kept.covers(self.domains):
                due = await self._due(kept)
                if now < due:
                    self.next_attempt = due
                    return min(due, self._ask_after) - now
            if not forced and self._failures and self.next_attempt is not None and now < self.next_attempt:
                return self.next_attempt - now
            return await self._attempt()
        except OrderFailed as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(OrderFailed(f"{self._files.folder} cannot be used: {error.strerror or error}"))
        except Exception as error:  # noqa: BLE001 - a bug of ours or of the library must not end the renewals
            self._log.error("unexpected fault", exc_info=error)
            return self._failed(OrderFailed(f"an unexpected fault: {error!r}"))

    async def _due(self, kept: KeptCertificate) -> float:
        """When to renew this one; the authority is asked once in a while."""
        now = self._wall()
        if self._wanted_of != kept.leaf.serial_number:
            self._wanted, self._wanted_of, self._ask_after = None, kept.leaf.serial_number, 0.0
        if now >= self._ask_after:
            wait = ASK_AT_MOST
            try:
                self._wanted, wait = await _in_thread(lambda: self._authority.renewal_time(kept))
            except OrderFailed as error:
                self._log.debug("the authority does not tell when to renew", reason=str(error))
            self._ask_after = now + min(max(wait, ASK_AT_MOST), ASK_AT_LEAST)
        return renewal_due(kept, self._wanted).timestamp()

    async def _attempt(self) -> float:
        with self._files.order() as ours:
            if not ours:
                self._log.info("another process orders a certificate", again_in=OTHER_ORDER)
                return OTHER_ORDER
            kind = self._kinds[self._kind % len(self._kinds)]
            self._log.info("orders a certificate", domains=self.domains, challenge=kind)
            order = await _in_thread(lambda: self._authority.order(self.domains, kind))
            with self._challenges.answered(order.challenges):
                certificate = await _in_thread(lambda: self._authority.finish(order, self.domains))
            await _in_thread(lambda: self._files.save(certificate))
        self.attempts["ok"] += 1
        self._failures = 0
        self.error, self.failed_at = "", None
        self._use()
        if self._wall() >= renewal_due(certificate, None).timestamp():
            # Or it would be ordered again at once, and for ever.
            raise OrderFailed("the new certificate has to be renewed already; is the clock of this machine right?")
        return 0.0

    def _failed(self, error: OrderFailed) -> float:
        self._failures += 1
        self.attempts["failed"] += 1
        if error.by_challenge:
            self._kind += 1  # another way may be open
        pause = pause_after(self._failures, error.retry_after, self._random())
        now = self._wall()
        self.error, self.failed_at, self.next_attempt = str(error), now, now + pause
        at = moment(self.next_attempt)
        self._log.error("no new certificate", reason=self.error, failures=self._failures, next_try=at)
        return pause


async def _in_thread(work: Callable[[], T]) -> T:
    """Do this in a thread that does not keep the process from ending.

    Not `asyncio.to_thread`, whose threads are waited for at the end: an authority may be silent for minutes.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[], None]) -> None:
        if not done.done():
            set_it()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            found = error
            outcome = lambda: done.set_exception(found)  # noqa: E731
        else:
            outcome = lambda: done.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=run, name="aldis-certificate", daemon=True).start()
    return await done
