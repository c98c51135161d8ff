"""What the server keeps for users and tells others of them: sessions, watches, presence, devices."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import suppress
from typing import Any

from aldis.identity import proofs
from aldis.identity.keys import Identity
from benchmarks.attack.attack import Attack, Flood, attack, each_of, forever, idle, relay, together
from benchmarks.attack.wire import Wire, many, text


@attack("detached-sessions")
class DetachedSessions(Attack):
    """20 sessions whose connection is lost, and 64 KB messages to them."""

    number = 20

    async def lose(self) -> None:
        async def one(index: int) -> None:
            (await self.user(f"away-{index}")).abort()

        await each_of(self.number, one)

    async def strike(self) -> None:
        await self.lose()

        async def one(index: int) -> None:
            async def once() -> None:
                wire = await self.user(f"attacker-{index}")
                try:
                    while True:
                        await wire.send(relay(f"away-{index}", 64_000))
                        await asyncio.sleep(0)
                finally:
                    wire.abort()

            await forever(once)

        await together(one(index) for index in range(self.number))


@attack("unread-sessions")
class UnreadSessions(DetachedSessions):
    """10 clients that do not read, and 64 KB messages to them."""

    number = 10

    async def lose(self) -> None:
        self.end()

        async def one(index: int) -> None:
            self.kept.append(await self.user(f"away-{index}", receive_buffer=2048))

        await each_of(self.number, one)


@attack("sessions-lost")
class SessionsLost(Attack):
    """2,500 sessions whose connection is lost."""

    async def strike(self) -> None:
        async def one(index: int) -> None:
            (await self.user(f"lost-{index}")).abort()

        await each_of(2500, one)
        await idle()


@attack("hang-ups")
class HangUps(Attack):
    """1,000 users from 250 addresses who hang up in the same moment, again and again."""

    addresses = 250

    async def strike(self) -> None:
        async def one(index: int) -> None:
            self.kept.append(await self.user(f"hangs-up-{index}"))

        while True:
            await each_of(1000, one)
            self.end()


@attack("watches")
class Watches(Attack):
    """50 clients that watch 10,000 names each, all of them different."""

    growth = 256 + 64  # `--watches-bytes`, and as much as to others

    async def strike(self) -> None:
        self.end()

        async def one(index: int) -> None:
            wire = await self.user(f"attacker-{index}")
            self.kept.append(wire)
            reading = asyncio.create_task(wire.discard())
            try:
                for part in range(10):
                    names = [f"watched-name-{index}-{part}-{number}" for number in range(1000)]
                    await wire.send(text({"type": "watch", "userIds": names}))
                await asyncio.wait([reading])
            finally:
                reading.cancel()

        await together(forever(lambda index=index: one(index)) for index in range(50))  # type: ignore[misc]


class Watched(Attack):
    """A user with 2,000 watchers."""

    watchers = 2000

    async def prepare(self) -> None:
        async def one(index: int) -> None:
            wire = await self.user(f"watcher-{index}")
            self.kept.append(wire)
            await wire.send(text({"type": "watch", "userIds": ["watched"]}))

        await each_of(self.watchers, one)

    async def strike(self) -> None:
        reading = [asyncio.ensure_future(_read(wire)) for wire in self.kept]
        try:
            await self.move()
        finally:
            for task in reading:
                task.cancel()

    async def move(self) -> None:
        """Come and go, until cancelled."""

        async def once() -> None:
            wire = await self.user("watched")
            await wire.send(text({"type": "unregister"}))
            await wire.receive()
            wire.abort()

        await forever(once)


@attack("watched-user-flaps")
class WatchedUserFlaps(Watched):
    """A user with 2,000 watchers registers and leaves, again and again."""


@attack("watched-devices-flap")
class WatchedDevicesFlap(Watched):
    """16 devices of a user with 500 watchers come and go."""

    watchers = 500

    async def move(self) -> None:
        key = self.identity("watched")
        seal = base64.b64encode(bytes(2000)).decode()

        async def one(index: int) -> None:
            device = f"device-{index}"
            signature = base64.b64encode(key.sign(proofs.seal("watched", device, bytes(2000)))).decode()
            wire = await self.user("watched", device=device, sealKey={"publicKey": seal, "signature": signature})
            await wire.send(text({"type": "unregister"}))
            await wire.receive()
            wire.abort()

        await together(forever(lambda index=index: one(index)) for index in range(16))  # type: ignore[misc]


@attack("large-replies")
class LargeReplies(Flood):
    """`discover` of a user with 15 devices that have the largest sealing keys: 44 KB for 40 bytes."""

    async def prepare(self) -> None:
        key, seal = self.identity("many"), base64.b64encode(bytes(2048)).decode()

        async def one(index: int) -> None:
            device = f"device-{index}"
            signature = base64.b64encode(key.sign(proofs.seal("many", device, bytes(2048)))).decode()
            seal_key = {"publicKey": seal, "signature": signature}
            self.kept.append(await self.user("many", device=device, sealKey=seal_key))

        await each_of(15, one)

    def blob(self) -> bytes:
        return many(text({"type": "discover", "userId": "many"}), 4096)


@attack("large-presence")
class LargePresence(Watched):
    """10 users with 500 watchers and 16 devices with the largest keys, one of which comes and goes: 44 KB for each."""

    addresses = 250
    tls = True
    watchers = 500
    users = 10
    growth = 512  # what waits for a watcher, and what it has not confirmed, have limits of their own

    async def prepare(self) -> None:
        async def watcher(index: int) -> None:
            wire = await self.user(f"watcher-{index}")
            self.kept.append(wire)
            await wire.send(text({"type": "watch", "userIds": [f"large-{number}" for number in range(self.users)]}))

        async def device(index: int) -> None:
            self.kept.append(await self.device(f"large-{index % self.users}", f"device-{index // self.users}"))

        await each_of(self.watchers, watcher)
        await each_of(15 * self.users, device)

    async def device(self, name: str, device: str) -> Wire:
        """One more device of a user."""
        signature = base64.b64encode(self.identity(name).sign(proofs.seal(name, device, bytes(2048)))).decode()
        seal = base64.b64encode(bytes(2048)).decode()
        return await self.user(name, device=device, sealKey={"publicKey": seal, "signature": signature})

    async def move(self) -> None:
        async def one(index: int) -> None:
            wire = await self.device(f"large-{index}", "last")
            await wire.send(text({"type": "unregister"}))
            await wire.receive()
            wire.abort()

        await together(forever(lambda index=index: one(index)) for index in range(self.users))  # type: ignore[misc]


@attack("replacing")
class Replacing(Attack):
    """Registrations of one name that replace each other."""

    async def strike(self) -> None:
        async def once() -> None:
            wire = await self.user("attacker")
            try:
                await wire.discard()
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("resume-storm")
class ResumeStorm(Attack):
    """A session that is resumed again and again, with 200 messages of 1 KB that it never confirms."""

    async def strike(self) -> None:
        async def one(index: int) -> None:
            name = f"attacker-{index}"
            identity = self.identity(name)
            wire = await self.open()
            session = await wire.enter(name, identity)
            await wire.send(b"".join(relay(name, 1000) for _ in range(200)))
            while True:
                wire.abort()
                wire = await self.open()
                resume = {"session": session["session"], "secret": session["secret"], "received": 0}
                session = await wire.enter(name, identity, resume=resume)

        await together(forever(lambda index=index: one(index)) for index in range(8))  # type: ignore[misc]


@attack("wrong-secrets")
class WrongSecrets(Attack):
    """Resumes of sessions that do not exist."""

    async def strike(self) -> None:
        identity = Identity.generate()

        async def once() -> None:
            wire = await self.open()
            try:
                await wire.enter(
                    "attacker", identity, resume={"session": "x" * 128, "secret": "y" * 128, "received": 0}
                )
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("rotations")
class Rotations(Attack):
    """A user that changes its key again and again, as it may."""

    async def strike(self) -> None:
        async def once() -> None:
            old, new = self.identity("attacker"), Identity.generate()
            wire = await self.user("attacker")
            try:
                while True:
                    signature = base64.b64encode(old.sign(proofs.rotation("attacker", new.public_key))).decode()
                    public_key = base64.b64encode(new.public_key).decode()
                    await wire.send(text({"type": "rotate", "newPublicKey": public_key, "signature": signature}))
                    reply = await wire.receive()
                    if reply["type"] != "rotated":
                        raise OSError(f"not rotated: {reply}")
                    self._identities["attacker"] = old = new
                    new = Identity.generate()
            finally:
                wire.abort()

        await forever(once)


@attack("names-in-turns")
class NamesInTurns(Attack):
    """50 connections of which each registers and leaves under two names in turns, and watches 1,000 names meanwhile."""

    async def strike(self) -> None:
        watch = text({"type": "watch", "userIds": [f"watched-{number}" for number in range(1000)]})

        async def one(index: int) -> None:
            wire = await self.open()
            try:
                while True:
                    for name in (f"one-{index}", f"two-{index}"):
                        await wire.enter(name, self.identity(name))
                        await wire.send(watch + text({"type": "unregister"}))
                        while (await wire.receive())["type"] != "unregistered":
                            pass
            finally:
                wire.abort()

        await together(forever(lambda index=index: one(index)) for index in range(50))  # type: ignore[misc]


class ManyWatches(Attack):
    """Clients that watch 10,000 names, and lose their connections."""

    growth = 64.0 + 20 * 10_000 * 260 / 2**20  # what watches take (docs/limits.md)
    number = 20

    async def strike(self) -> None:
        await together(forever(lambda index=index: self.one(index)) for index in range(self.number))  # type: ignore[misc]

    async def one(self, index: int) -> None:
        """One of them."""
        raise NotImplementedError

    async def enter(self, index: int) -> tuple[Wire, dict[str, Any]]:
        """Register and watch. Returns the session, too."""
        wire = await self.open()
        session = await wire.enter(f"attacker-{index}", self.identity(f"attacker-{index}"))
        for part in range(10):
            names = [f"watched-name-{index}-{part}-{number}" for number in range(1000)]
            await wire.send(text({"type": "watch", "userIds": names, "id": part}))
        while (await wire.receive()).get("re") != 9:
            pass
        return wire, session


@attack("watches-resumed")
class WatchesResumed(ManyWatches):
    """20 sessions with 10,000 watches that are resumed again and again."""

    async def one(self, index: int) -> None:
        wire, session = await self.enter(index)
        count = 10_000
        while True:
            wire.abort()
            wire = await self.open()
            resume = {"session": session["session"], "secret": session["secret"], "received": count}
            session = await wire.enter(f"attacker-{index}", self.identity(f"attacker-{index}"), resume=resume)
            if not session["resumed"]:
                wire.abort()
                wire, session = await self.enter(index)


@attack("watches-dropped")
class WatchesDropped(ManyWatches):
    """20 clients that watch 10,000 names and leave, again and again."""

    async def one(self, index: int) -> None:
        wire, _ = await self.enter(index)
        await wire.send(text({"type": "unregister"}))
        wire.abort()


@attack("resume-guesses")
class ResumeGuesses(Attack):
    """Resumes with ids and secrets made up, on connections that stay, and leave each session at once."""

    async def strike(self) -> None:
        async def once() -> None:
            name = f"guesser-{os.urandom(1)[0] % 64}"
            wire = await self.open()
            try:
                while True:
                    resume = {"session": os.urandom(16).hex(), "secret": os.urandom(16).hex(), "received": 2**50}
                    await wire.enter(name, self.identity(name), resume=resume)
                    await wire.send(text({"type": "unregister"}))
                    await wire.receive()
            finally:
                wire.abort()

        await together(forever(once) for _ in range(16))


async def _read(wire: Wire) -> None:
    with suppress(OSError):
        await wire.discard()
