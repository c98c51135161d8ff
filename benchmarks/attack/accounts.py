"""Servers with accounts: tokens that are wrong, and registrations about which the application thinks for long.

The application (`benchmarks.attack.application`) admits honest users at once, and answers nobody else in time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from contextlib import suppress
from itertools import count
from typing import Final

from aldis.identity.keys import Identity
from benchmarks.attack.attack import Attack, Flood, attack, forever, key_of, together
from benchmarks.attack.wire import PROXY, Refused, Target, Wire, many, text, token_for

KNOWN_AFTER: Final = 3.0  # seconds; the honest newcomers have eight names


def encoded(value: object) -> str:
    """A part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def jwt(header: object, claims: object, signature: bytes = bytes(64)) -> str:
    """A JWT with any signature."""
    return f"{encoded(header)}.{encoded(claims)}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


class Tokens(Attack):
    """Registrations on 16 connections at a time, each with a right proof and with another token."""

    tokens = True
    hook = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._numbers = count()
        self.made: list[str] = []

    async def prepare(self) -> None:
        self.made = self.forged()

    def forged(self) -> list[str]:
        """The tokens."""
        raise NotImplementedError

    async def once(self) -> None:
        wire = await self.open()
        try:
            for _ in range(3):
                with suppress(Refused):
                    token = self.made[next(self._numbers) % len(self.made)]
                    await wire.enter("attacker", self.identity("attacker"), token=token)
        finally:
            wire.abort()

    async def strike(self) -> None:
        await together(forever(self.once) for _ in range(16))

    @property
    def claims(self) -> dict[str, object]:
        """What a right token would say."""
        return {"sub": "attacker", "exp": int(time.time()) + 3600}

    def right(self) -> tuple[dict[str, object], str]:
        """The header of a right token, and the token."""
        token = token_for(self.target.key, "attacker")
        head = token.partition(".")[0]
        return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))), token


@attack("bad-tokens")
class BadTokens(Tokens):
    """Wrong tokens: bad signatures, none, other algorithms, another's name, expired, deep and odd ones."""

    def forged(self) -> list[str]:
        header, right = self.right()
        body = f"{encoded({**header, 'alg': 'HS256'})}.{encoded(self.claims)}"
        secret = hmac.new(right.encode(), body.encode(), hashlib.sha256).digest()
        deep = '{"a":' * 400 + "1" + "}" * 400
        return [
            jwt(header, self.claims),
            jwt({**header, "alg": "none"}, self.claims, b""),
            f"{body}.{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}",
            jwt({**header, "crit": ["exp"]}, self.claims),
            jwt({**header, "jku": "http://127.0.0.1:1/", "jwk": {"kty": "oct", "k": "AAAA"}}, self.claims),
            token_for(self.target.key, "honest-a"),
            right[:-8] + "AAAAAAAA",
            right + "." + right,
            "." * 3000,
            base64.urlsafe_b64encode(deep.encode()).decode() + "." + encoded(self.claims) + ".AAAA",
            jwt([], {}),
            "\u20ac" * 1000,
        ]


@attack("unknown-keys")
class UnknownKeys(Tokens):
    """Tokens of keys that the server does not know: each makes it look for newer ones."""

    def forged(self) -> list[str]:
        header, _ = self.right()
        return [jwt({**header, "kid": os.urandom(8).hex()}, self.claims) for _ in range(1000)]


@attack("largest-tokens")
class LargestTokens(Tokens):
    """Tokens of 4 KiB, the most that is read, with a bad signature."""

    def forged(self) -> list[str]:
        header, _ = self.right()
        return [jwt(header, {**self.claims, "x": "y" * 2800}), jwt({**header, "x": "y" * 2800}, self.claims)]


@attack("huge-tokens")
class HugeTokens(Flood):
    """`register` with tokens of 60 KB, as fast as the server takes them."""

    tokens = True
    hook = True
    registered = False

    def blob(self) -> bytes:
        key = key_of(Identity.generate())
        return many(text({"type": "register", "userId": "attacker", "publicKey": key, "token": "x" * 60_000}))


@attack("hanging-account")
class HangingAccount(Attack):
    """One account with a right token, about whose 64 registrations the application thinks for too long."""

    tokens = True
    hook = True

    async def strike(self) -> None:
        async def one(index: int) -> None:
            wire = await self.open()
            try:
                await self.ask(wire, f"device-{index}")
            finally:
                wire.abort()

        await together(forever(lambda index=index: one(index)) for index in range(64))  # type: ignore[misc]

    async def ask(self, wire: Wire, device: str) -> None:
        await wire.enter("attacker", self.identity("attacker"), device=device)


@attack("given-up-accounts")
class GivenUpAccounts(HangingAccount):
    """The same, and the connections are reset as soon as the application is asked."""

    async def ask(self, wire: Wire, device: str) -> None:
        await wire.prove("attacker", self.identity("attacker"), device=device)


@attack("hanging-strangers")
class HangingStrangers(Attack):
    """Names made up, where no token is needed, about which the application thinks for too long."""

    hook = True
    # Limits by address hold behind a proxy: it tells other addresses than loopback ones.
    proxy = PROXY

    async def strike(self) -> None:
        async def once() -> None:
            wire = await self.open()
            try:
                await wire.enter(f"stranger-{os.urandom(4).hex()}", self.identity("one"))
            finally:
                wire.abort()

        await together(forever(once) for _ in range(64))


@attack("hanging-networks")
class HangingNetworks(Attack):
    """The same from 50 networks, of as many providers: all that the application would do at a time and more."""

    hook = True
    proxy = PROXY
    networks = 50
    each = 4

    async def prepare(self) -> None:
        # Until each newcomer has been there once: those who never were are strangers, and wait with the others.
        await asyncio.sleep(KNOWN_AFTER)

    async def strike(self) -> None:
        async def once(index: int) -> None:
            wire = await self.open(via=self.address(index % self.networks))
            try:
                await wire.enter(f"stranger-{os.urandom(4).hex()}", self.identity("one"))
            finally:
                wire.abort()

        number = self.networks * self.each
        await together(forever(lambda index=index: once(index)) for index in range(number))  # type: ignore[misc]

    def address(self, network: int) -> str:
        """An address of one of the networks: IPv4 and IPv6 by turns."""
        return f"11.{network}.0.1" if network % 2 else f"2001:{network + 1:x}::1"


@attack("hanging-customer")
class HangingCustomer(HangingNetworks):
    """The same from 50 networks of one customer of a provider."""

    def address(self, network: int) -> str:
        return f"2001:1:2:{network:x}::1"
