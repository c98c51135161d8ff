"""Clients that want to be somebody else, or to have what is another's: names, sessions, proofs, keys."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import suppress
from typing import Any

from aldis.identity import proofs
from aldis.identity.keys import Identity
from benchmarks.attack.attack import Attack, Flood, attack, each_of, forever, idle, key_of, together
from benchmarks.attack.honest import PAIR
from benchmarks.attack.wire import Refused, Wire, many, text

# Characters that look like those of `honest-a`, or are not seen at all.
ALIKE = ["hοnest-a", "hоnest-a", "honest‐a", "ｈonest-a", "honest-a\u200b", "honest-а", "\u202ehonest-a", "HONEST-A"]


class Many(Attack):
    """Something that 16 connections do again and again."""

    async def once(self) -> None:
        """Once."""

    async def strike(self) -> None:
        await together(forever(self.once) for _ in range(16))


@attack("look-alikes")
class LookAlikes(Many):
    """Registrations of names that look like an honest user's."""

    async def once(self) -> None:
        wire = await self.open()
        try:
            for name in ALIKE:
                with suppress(Refused):
                    await wire.enter(name, Identity.generate())
        finally:
            wire.abort()


@attack("acks-of-nothing")
class AcksOfNothing(Flood):
    """Confirmations, answers and candidates for what was never sent."""

    def blob(self) -> bytes:
        said: list[dict[str, Any]] = [{"type": "received", "count": count} for count in (0, 1, 5, 2**52, 0)]
        said += [{"type": "answer", "to": PAIR[0], "connection": "x", "answer": {"type": "answer", "sdp": "v=0"}}]
        said += [
            {"type": "ack", "re": 1},
            {"type": "challenge", "nonce": "AAAA"},
            {"type": "registered", "success": True},
        ]
        return many(b"".join(map(text, said)))


@attack("stolen-sessions")
class StolenSessions(Many):
    """Resumes of an own session with another's name, of a session in use, and of guessed ones."""

    async def once(self) -> None:
        name = f"thief-{os.urandom(1)[0] % 16}"
        identity = self.identity(name)
        wire = await self.open()
        try:
            session = await wire.enter(name, identity)
            ticket = {"session": session["session"], "secret": session["secret"], "received": 0}
            for victim, resume in (
                (PAIR[0], ticket),
                (name, ticket | {"received": 2**52}),
                (name, ticket | {"secret": ticket["secret"][::-1]}),
                (name, ticket | {"session": "A" * 22}),
            ):
                other = await self.open()
                try:
                    with suppress(Refused):
                        await other.enter(victim, identity, resume=resume)
                finally:
                    other.abort()
        finally:
            wire.abort()


@attack("replayed-proofs")
class ReplayedProofs(Many):
    """The proof of another connection, for the same name."""

    async def once(self) -> None:
        name, identity = "replayed", self.identity("replayed")
        first, second = await self.open(), await self.open()
        try:
            register = text({"type": "register", "userId": name, "publicKey": key_of(identity)})
            await first.send(register)
            nonce = base64.b64decode((await first.receive())["nonce"])
            signed = identity.sign(proofs.registration(self.target.host, nonce, name, "main"))
            proof = text({"type": "prove", "signature": base64.b64encode(signed).decode()})
            await second.send(register)
            await second.receive()
            for _ in range(3):
                await second.send(proof)
            await second.discard()
        finally:
            first.abort()
            second.abort()


@attack("discover-all")
class DiscoverAll(Flood):
    """`discover` of all short names, to learn who is there."""

    def blob(self) -> bytes:
        letters = "abcdefghij"
        names = [a + b + c for a in letters for b in letters for c in letters]
        return b"".join(text({"type": "discover", "userId": name, "id": name}) for name in names)


@attack("watch-a-victim")
class WatchAVictim(Attack):
    """2,000 sessions from 250 addresses that all watch an honest user, who comes and goes."""

    addresses = 250

    async def strike(self) -> None:
        self.end()

        async def one(index: int) -> None:
            wire = await self.user(f"attacker-{index}")
            self.kept.append(wire)
            await wire.send(text({"type": "watch", "userIds": [f"honest-newcomer-{number}" for number in range(8)]}))

        await each_of(2000, one)
        await idle()


@attack("squatting")
class Squatting(Attack):
    """New names from 250 addresses, of which each stays within its limits."""

    addresses = 250

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._next = 0

    async def strike(self) -> None:
        identity = Identity.generate()

        async def once() -> None:
            self._next += 1
            wire = await self.open()
            try:
                await wire.enter(f"squatted-{self._next}", identity)
            finally:
                wire.abort()

        await together(forever(once) for _ in range(8))


@attack("rotate-another")
class RotateAnother(Many):
    """`rotate` of an honest user's key, and `register` with keys signed for another."""

    async def once(self) -> None:
        mine, other = self.identity("attacker"), Identity.generate()
        signature = base64.b64encode(mine.sign(proofs.rotation(PAIR[0], other.public_key))).decode()
        wire = await self.user("attacker", device=f"d{os.urandom(1)[0] % 8}")
        try:
            message = {"type": "rotate", "userId": PAIR[0], "newPublicKey": key_of(other), "signature": signature}
            for _ in range(3):
                await wire.send(text(message))
            await wire.discard()
        finally:
            wire.abort()


@attack("many-devices")
class ManyDevices(Attack):
    """A user with 200 devices, which replace each other and more."""

    async def strike(self) -> None:
        async def one(index: int) -> None:
            async def once() -> None:
                wire = await self.user("devices", device=f"device-{index}-{os.urandom(2).hex()}")
                try:
                    async with asyncio.timeout(0.5):
                        await wire.discard()
                except TimeoutError:
                    pass
                finally:
                    wire.abort()

            await forever(once)

        await together(one(index) for index in range(200))


@attack("large-frames")
class LargeFrames(Attack):
    """500 clients from 250 addresses that each send one message of 60 KB now and then, and stay."""

    addresses = 250

    async def strike(self) -> None:
        self.end()
        message = text({"type": "ping", "padding": "x" * 60_000})

        async def one(index: int) -> None:
            wire: Wire = await self.open()
            self.kept.append(wire)
            await wire.send(message)

        await each_of(500, one)
        while True:
            for wire in self.kept:
                with suppress(OSError):
                    wire.sock.send(message)
            await asyncio.sleep(0.5)
