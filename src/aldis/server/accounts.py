"""The operator's say in a registration: its token, the list of names, and the operator's application, in this order.

Each step costs more than the one before it, so what is cheap to refuse is refused first. The hub asks by an
`AccountQuestion`; `check` is the answer. No step blocks the event loop, and no text for a client has anything of its
token in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, Final, Protocol

from aldis.backends.base import DirectoryUnavailable
from aldis.hub.accounts import AccountQuestion, AccountVerdict, Admitted, Rejected
from aldis.protocol.codec import to_base64
from aldis.protocol.codes import ErrorCode
from aldis.server.config import ServerConfig
from aldis.server.hooks import Applicant, RegistrationHook, SignedPosts
from aldis.server.http_calls import CallFailed, HttpCalls
from aldis.server.key_source import KeySource
from aldis.server.logs import Log
from aldis.server.presence_hook import PresenceHook
from aldis.server.tokens import KeyUnknown, TokenClaims, TokenRefused, TokenRules, check_token

# Seconds after which a client may try again when keys, names or the application cannot be asked now.
TRY_AGAIN: Final = 5.0


# Bytes of an address that are the same in networks which somebody may have many of: /16; /32 (a provider) and /48 (a
# customer, RFC 6177).
_IPV4_BYTES: Final = 4
_WIDTHS_4: Final = (2,)
_WIDTHS_6: Final = (4, 6)


class Names(Protocol):
    """The names that are bound, and the list of those that may register."""

    async def find(self, user_id: str) -> bytes | None:
        """The key that a name is bound to. Raises `DirectoryUnavailable`."""

    async def is_listed(self, user_id: str) -> bool:
        """Whether a name is on the list. Raises `DirectoryUnavailable`."""


class Accounts:
    """The accounts of one server. `start` it before the first client comes."""

    def __init__(
        self,
        config: ServerConfig,
        log: Log,
        *,
        file_look: float,
        wall: Callable[[], float] = time,
        clustered: bool = False,
    ) -> None:
        """`file_look` is how often a JWKS file is looked at, in seconds.

        `clustered`: this server is one of several, and the caller says `presence.started` if it is the first of them.
        """
        self._calls = calls = HttpCalls()
        self._wall = wall
        self._policy = config.name_policy
        self._names: Names | None = None
        self._rules = token_rules(config)
        self._allow_on_failure = config.hook_failure == "allow"
        self.keys: KeySource | None = None
        """The keys of tokens; None without `auth = token`."""
        if config.auth == "token":
            refresh = max(file_look, 0.1) if isinstance(config.jwks, Path) else config.jwks_refresh
            self.keys = KeySource(config.jwks, calls, log, refresh=refresh)
        self.hook: RegistrationHook | None = None
        """The application that decides; None when there is none."""
        if config.hook_url:
            self.hook = RegistrationHook(
                SignedPosts(calls, config.hook_url, config.hook_secret),
                log,
                timeout=config.hook_timeout,
                cache=config.hook_cache,
                concurrency=config.hook_concurrency,
            )
        self.presence: PresenceHook | None = None
        """Tells the application who is online; None when it need not be told."""
        if config.presence_url:
            posts = SignedPosts(calls, config.presence_url, config.hook_secret)
            self.presence = PresenceHook(posts, log, most=config.presence_queue)
            if not clustered:
                self.presence.started()
        self.tokens: Counter[str] = Counter(
            {"valid": 0, ErrorCode.TOKEN_REQUIRED: 0, ErrorCode.TOKEN_INVALID: 0, ErrorCode.TOKEN_EXPIRED: 0}
        )
        """Tokens, by what became of them."""
        self._looking: set[asyncio.Task[object]] = set()

    @property
    def closed(self) -> bool:
        """Whether only names on the operator's list may register."""
        return self._policy == "closed"

    @property
    def problems(self) -> list[str]:
        """All that does not work."""
        return [*(() if self.unready is None else (self.unready,)), *self.notes]

    def summary(self) -> dict[str, Any]:
        """What an operator wants to see, as plain data."""
        found: dict[str, Any] = {"namePolicy": self._policy}
        if self.keys is not None:
            found["tokens"] = dict(self.tokens)
            found["keys"] = [] if self.keys.keys is None else [key.kid for key in self.keys.keys.keys]
        if self.hook is not None:
            found["hookCalls"] = dict(self.hook.calls)
        if self.presence is not None:
            found["presenceEvents"] = {**self.presence.events, "waiting": len(self.presence)}
        return found

    @property
    def decides(self) -> bool:
        """Whether registrations have to be asked about."""
        return self.keys is not None or self.hook is not None or self.closed

    async def start(self, names: Names) -> None:
        """Read the keys. Raises `ConfigError` for a file of keys that cannot be used."""
        self._names = names
        if self.keys is not None:
            await self.keys.start()
        if self.presence is not None:
            self.presence.start()

    async def close(self) -> None:
        """Deliver the last events, and close what is open."""
        if self.presence is not None:
            await self.presence.close()
        if self.keys is not None:
            await self.keys.close()
        await self._calls.close()

    def configure(self, config: ServerConfig) -> None:
        """Take over what may change while the server runs, and read the keys anew."""
        self._rules = token_rules(config)
        self._allow_on_failure = config.hook_failure == "allow"
        if self.hook is not None:
            self.hook.cache = config.hook_cache
        if self.keys is not None:
            task = asyncio.create_task(self.keys.look(now=True), name="aldis-keys-reload")
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    @property
    def unready(self) -> str | None:
        """Why no client can register now; None when clients can."""
        if self.keys is not None and self.keys.keys is None:
            return f"the keys of tokens cannot be read: {self.keys.failing}"
        return None

    @property
    def notes(self) -> list[str]:
        """What does not work, though clients can register."""
        notes = []
        if self.keys is not None and self.keys.failing is not None and self.keys.age is not None:
            notes.append(f"the keys of tokens are {self.keys.age:.0f} s old: {self.keys.failing}")
        if self.hook is not None and self.hook.failing is not None:
            notes.append(f"the application that decides on registrations: {self.hook.failing}")
        if self.presence is not None and self.presence.failing is not None:
            notes.append(f"the application that is told who is online: {self.presence.failing}")
        return notes

    async def check(self, question: AccountQuestion) -> AccountVerdict:
        """Whether a client may register."""
        expires = None
        if self.keys is not None:
            claims = await self._token(question, self.keys)
            if isinstance(claims, Rejected):
                return claims
            expires = claims.expires + self._rules.leeway
        if self.closed:
            rejected = await self._listed(question.user_id)
            if rejected is not None:
                return rejected
        if self.hook is not None:
            rejected = await self._application(question, self.hook)
            if rejected is not None:
                return rejected
        return Admitted(expires)

    async def _token(self, question: AccountQuestion, keys: KeySource) -> TokenClaims | Rejected:
        """The claims of the token, if it is valid and names this user."""
        if question.token is None:
            self.tokens[ErrorCode.TOKEN_REQUIRED] += 1
            return Rejected(ErrorCode.TOKEN_REQUIRED, "this server wants a token; its operator says where to get one")
        try:
            claims = await self._claims(question.token, keys)
            if isinstance(claims, Rejected):
                return claims
            self._check_claims(claims, question)
        except TokenRefused as refused:
            self.tokens[refused.code] += 1
            return Rejected(refused.code, refused.text, forged=refused.code == ErrorCode.TOKEN_INVALID)
        self.tokens["valid"] += 1
        return claims

    def _check_claims(self, claims: TokenClaims, question: AccountQuestion) -> None:
        # Otherwise the first to come could have the name of another account.
        if self._policy != "first-come" and claims.user_id != question.user_id:
            raise TokenRefused("the token is for another user")
        if claims.device not in (None, question.device):
            raise TokenRefused("the token is for another device")

    async def _claims(self, token: str, keys: KeySource) -> TokenClaims | Rejected:
        unknown = KeyUnknown("")
        if keys.keys is not None:
            try:
                return check_token(token, keys.keys, self._rules, self._wall())
            except KeyUnknown as error:
                unknown = error
        look = await keys.look()
        if isinstance(look, float) and keys.keys is not None:
            # Its issuer may have begun to use another key a moment ago.
            text = f"{unknown.text}, and has asked for newer keys a moment ago"
            return Rejected(ErrorCode.RATE_LIMITED, text, retry_after=look)
        if look != "done" or keys.keys is None:
            text = "the server cannot get the keys of tokens now; try again in a moment"
            return Rejected(ErrorCode.INTERNAL, text, retry_after=TRY_AGAIN)
        return check_token(token, keys.keys, self._rules, self._wall())

    async def _listed(self, user_id: str) -> Rejected | None:
        if self._names is None:
            raise RuntimeError("the accounts have not been started")
        try:
            if await self._names.is_listed(user_id):
                return None
        except DirectoryUnavailable:
            text = "the server cannot look up names now; try again in a moment"
            return Rejected(ErrorCode.INTERNAL, text, retry_after=TRY_AGAIN)
        text = "the name is not on the list of this server; ask its operator to add it"
        return Rejected(ErrorCode.REGISTRATION_REFUSED, text)

    async def _application(self, question: AccountQuestion, hook: RegistrationHook) -> Rejected | None:
        applicant = Applicant(question.user_id, question.device, question.public_key, question.proved)
        try:
            decision = hook.kept(applicant)
            if decision is None:
                decision = await hook.decide(replace(applicant, who=await self._share(question)))
        except CallFailed:
            if self._allow_on_failure:
                return None
            text = "the server cannot check accounts now; try again in a moment"
            return Rejected(ErrorCode.INTERNAL, text, retry_after=TRY_AGAIN)
        if decision.allow:
            return None
        return Rejected(ErrorCode.REGISTRATION_REFUSED, decision.reason or "the operator does not admit this user")

    async def _share(self, question: AccountQuestion) -> tuple[Hashable, ...]:
        """Who shares the requests to the application with whom.

        Those come first that have been admitted before: their name is bound to their key. So the application may think
        about any number of strangers. A token says whose account it is. Without one a client may be anybody, but not
        everywhere: many networks of one provider, or of one customer of it, are no more than one.
        """
        known = await self._is_bound(question)
        network = question.network
        if self.keys is not None or network is None:
            return known, question.user_id
        if known:
            return known, network
        widths = _WIDTHS_4 if len(network) == _IPV4_BYTES else _WIDTHS_6
        return known, *(network[:width] for width in widths), network

    async def _is_bound(self, question: AccountQuestion) -> bool:
        if not question.proved or self._names is None:
            return False
        try:
            key = await self._names.find(question.user_id)
        except DirectoryUnavailable:
            return False
        return key is not None and to_base64(key) == question.public_key


def token_rules(config: ServerConfig) -> TokenRules:
    """What a token must have, by the settings."""
    return TokenRules(
        audience=config.token_audience,
        issuer=config.token_issuer,
        user_claim=config.token_claim,
        device_claim=config.token_device_claim,
        leeway=config.token_leeway,
    )
