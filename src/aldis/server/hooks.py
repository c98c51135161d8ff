"""The operator's application: it is asked whether a client may register, and told who comes online and goes offline.

Every request is a POST of JSON with two headers, so that the application knows that it is from this server and not an
old one again:

    Aldis-Timestamp: seconds since 1970
    Aldis-Signature: sha256= and the HMAC-SHA256 of the timestamp, a dot and the body, in hex (RFC 2104)

docs/accounts.md is the application's side. This module knows neither the hub nor tokens.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Final

from aldis.hub.accounts import MAX_REASON
from aldis.hub.stats import Histogram
from aldis.server.http_calls import CallFailed, HttpCalls
from aldis.server.logs import OUTAGE_SECONDS, Log, OutageLog
from aldis.server.shared_turns import SharedTurns

TIMESTAMP: Final = "Aldis-Timestamp"
SIGNATURE: Final = "Aldis-Signature"
# Bytes of a reply: an answer with the longest reason has 1 KiB.
MAX_REPLY: Final = 4 * 1024
# Answers that are kept: 1 KB each at most.
MAX_CACHED: Final = 10_000
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def sign(secret: bytes, timestamp: int, body: bytes) -> dict[str, str]:
    """The two headers of a request."""
    signature = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"sha256={signature}"}


class SignedPosts:
    """POSTs JSON, signed, to one URL of the operator's."""

    def __init__(self, calls: HttpCalls, url: str, secret: str, wall: Callable[[], float] = time) -> None:
        self._calls = calls
        self._url = url
        self._secret = secret.encode()
        self._wall = wall

    async def post(self, content: dict[str, Any], *, seconds: float) -> bytes:
        """The reply. Raises `CallFailed`."""
        body = json.dumps(content, separators=(",", ":")).encode()
        headers = sign(self._secret, int(self._wall()), body)
        return await self._calls.post(self._url, body, headers, most=MAX_REPLY, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Applicant:
    """A client that asks for a name, as the application sees it. `public_key` is base64; `proved`: it has the key.

    `who` shares the turns out (`server.shared_turns`); when it is empty, each user has a share.
    """

    user_id: str
    device: str
    public_key: str
    proved: bool
    who: tuple[Hashable, ...] = ()

    @property
    def digest(self) -> bytes:
        """What tells it apart from others; a key of the classic dialect may have 4 KiB."""
        fields = json.dumps([self.user_id, self.device, self.public_key, self.proved])
        return hashlib.sha256(fields.encode()).digest()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a client may register, and why not; the client is told the reason."""

    allow: bool
    reason: str = ""


class RegistrationHook:
    """Asks the application about registrations. No call raises but `CallFailed`."""

    def __init__(
        self,
        posts: SignedPosts,
        log: Log,
        *,
        timeout: float,
        cache: float,
        concurrency: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`timeout` is for the whole call, with the wait for one of `concurrency` turns (`server.shared_turns`); both
        times are in seconds."""
        self.cache = cache
        """How long an answer holds, in seconds."""
        self._posts = posts
        self._timeout = timeout
        self._turns = SharedTurns(concurrency)
        self._clock = clock
        self._outage = OutageLog(log, "the application that decides on registrations", OUTAGE_SECONDS, clock)
        # By the digest of the applicant.
        self._cached: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self.calls: Counter[str] = Counter({"allowed": 0, "denied": 0, "cached": 0, "failed": 0})
        self.seconds = Histogram(_BUCKETS)
        self.failing: str | None = None
        """Why the last call failed; None when it did not."""

    def kept(self, applicant: Applicant) -> Decision | None:
        """What the application has said a moment ago; None when it has to be asked."""
        found = self._cached.get(applicant.digest)
        if found is None or self._clock() >= found[0]:
            return None
        self.calls["cached"] += 1
        return found[1]

    async def decide(self, applicant: Applicant) -> Decision:
        """What the application says. Raises `CallFailed` when it says nothing that has a meaning in time."""
        kept = self.kept(applicant)
        if kept is not None:
            return kept
        began = self._clock()
        try:
            decision = await self._ask(applicant)
        except CallFailed as error:
            # The slowest calls are those that are not waited for to the end.
            self.seconds.observe(self._clock() - began)
            self.calls["failed"] += 1
            self.failing = str(error)
            self._outage.failed(error)
            raise
        self.seconds.observe(self._clock() - began)
        self.calls["allowed" if decision.allow else "denied"] += 1
        self.failing = None
        self._outage.works()
        self._keep(applicant, decision)
        return decision

    async def _ask(self, applicant: Applicant) -> Decision:
        try:
            async with asyncio.timeout(self._timeout), self._turns.turn(applicant.who or (applicant.user_id,)):
                content = {
                    "type": "registration",
                    "user": applicant.user_id,
                    "device": applicant.device,
                    "publicKey": applicant.public_key,
                    "proved": applicant.proved,
                }
                return _read_decision(await self._posts.post(content, seconds=self._timeout))
        except TimeoutError:
            raise CallFailed(f"it does not answer within {self._timeout:g} s") from None

    def _keep(self, applicant: Applicant, decision: Decision) -> None:
        digest = applicant.digest
        self._cached.pop(digest, None)
        if self.cache > 0:
            self._cached[digest] = (self._clock() + self.cache, decision)
        while len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)


def _read_decision(text: bytes) -> Decision:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise CallFailed("its answer is no JSON") from None
    allow = value.get("allow") if isinstance(value, dict) else None
    if not isinstance(allow, bool):
        raise CallFailed("its answer is no object with `allow`, true or false")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        raise CallFailed("the `reason` of its answer is no text")
    printable = "".join(character if character.isprintable() else " " for character in reason)
    return Decision(allow, printable.strip()[:MAX_REASON])
