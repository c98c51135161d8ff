"""Lists of contacts and of blocked users, which are kept on the disk, and told to watchers and devices."""

from __future__ import annotations

from benchmarks.attack.attack import Attack, Flood, attack, each_of, flood, forever, idle, together
from benchmarks.attack.honest import PAIR
from benchmarks.attack.sessions import Watched
from benchmarks.attack.wire import Wire, many, text

# Of `sessions.Watched`.
WATCHERS = [f"watcher-{number}" for number in range(1000)]
# As long as 48 KiB allow.
NAMES = [f"contact-{number}-".ljust(44, "x") for number in range(1000)]
OTHERS = [f"another-{number}-".ljust(44, "x") for number in range(1000)]


def privacy(**fields: object) -> bytes:
    """A frame with a change of the privacy."""
    return text({"type": "privacy", **fields})


@attack("contacts-replaced")
class ContactsReplaced(Flood):
    """20 users that replace their 1,000 contacts as fast as they may."""

    connections = 20

    def blob(self) -> bytes:
        # A message has 1,000 names at most.
        there = privacy(removeContacts=NAMES) + privacy(addContacts=OTHERS)
        return there + privacy(removeContacts=OTHERS) + privacy(addContacts=NAMES)


@attack("blocks-in-turns")
class BlocksInTurns(Flood):
    """Blocks and unblocks of one honest user, by 50 users."""

    connections = 50

    def blob(self) -> bytes:
        return many(privacy(block=[PAIR[0]]) + privacy(unblock=[PAIR[0]]), 4096)


@attack("too-many-contacts")
class TooManyContacts(Flood):
    """Changes that are refused: more names than there may be, twice the same, and names that are none."""

    async def enter(self, index: int) -> Wire:
        wire = await super().enter(index)
        await wire.send(privacy(addContacts=NAMES))
        return wire

    def blob(self) -> bytes:
        twice = privacy(addContacts=OTHERS[:500], removeContacts=OTHERS[:500])
        return privacy(addContacts=OTHERS) + twice + privacy(block=["", *OTHERS[1:]]) + privacy(block=OTHERS * 2)


@attack("privacy-asked")
class PrivacyAsked(Flood):
    """Questions for the own privacy, by 20 users with 1,000 contacts: 48 KB for 20 bytes."""

    connections = 20

    async def enter(self, index: int) -> Wire:
        wire = await super().enter(index)
        await wire.send(privacy(addContacts=NAMES))
        return wire

    def blob(self) -> bytes:
        return many(privacy(), 4096)


@attack("privacy-of-devices")
class PrivacyOfDevices(Flood):
    """A user with 16 devices and 1,000 contacts, each of which changes something: all are told all of it."""

    connections = 16

    async def enter(self, index: int) -> Wire:
        wire = await self.user("devices", device=f"device-{index}")
        await wire.send(privacy(addContacts=NAMES[:999]))
        return wire

    def blob(self) -> bytes:
        return many(privacy(block=["somebody"]) + privacy(unblock=["somebody"]), 4096)


class WatchedPrivacy(Watched):
    """What a user with 2,000 watchers changes."""

    blob = b""

    async def move(self) -> None:
        async def once() -> None:
            wire = await self.user("watched")
            try:
                await flood(wire, self.blob)
            finally:
                wire.abort()

        await forever(once)


@attack("hidden-in-turns")
class HiddenInTurns(WatchedPrivacy):
    """A user with 2,000 watchers that hides and shows itself as fast as it may."""

    blob = many(privacy(presence="hidden") + privacy(presence="public"), 4096)


@attack("contacts-in-turns")
class ContactsInTurns(WatchedPrivacy):
    """A user that shows itself to contacts, and makes its 2,000 watchers contacts and strangers, 1,000 at a time."""

    blob = privacy(presence="contacts") + privacy(addContacts=WATCHERS) + privacy(removeContacts=WATCHERS)


@attack("blocked-watchers")
class BlockedWatchers(WatchedPrivacy):
    """A user that blocks 1,000 of its 2,000 watchers and unblocks them, as fast as it may."""

    blob = privacy(block=WATCHERS) + privacy(unblock=WATCHERS)


@attack("private-users-flap")
class PrivateUsersFlap(Attack):
    """50 users with 1,000 contacts that register and leave, and are told their lists each time."""

    async def strike(self) -> None:
        async def one(index: int) -> None:
            wire = await self.user(f"private-{index}")
            await wire.send(privacy(addContacts=NAMES) + text({"type": "unregister"}))
            while (await wire.receive())["type"] != "unregistered":
                pass
            while True:
                wire.abort()
                wire = await self.user(f"private-{index}")

        await together(forever(lambda index=index: one(index)) for index in range(50))  # type: ignore[misc]


@attack("privacy-memory")
class PrivacyMemory(Attack):
    """1,000 users with 1,000 contacts each."""

    growth = 256 + 64  # `--privacy-bytes`, and as much as to others

    async def strike(self) -> None:
        self.end()

        async def one(index: int) -> None:
            wire = await self.user(f"private-{index}", receive_buffer=2048)
            self.kept.append(wire)
            await wire.send(privacy(addContacts=NAMES))

        await each_of(1000, one)
        await idle()


@attack("devices-of-contacts")
class DevicesOfContacts(Attack):
    """25 users that come and go, and show themselves to 188 contacts, each of which watches them with 16 devices."""

    addresses = 250
    contacts = 188
    users = 25

    async def prepare(self) -> None:
        names = [f"contact-{number}" for number in range(self.contacts)]
        shy = [f"shy-{number}" for number in range(self.users)]

        async def device(index: int) -> None:
            wire = await self.user(names[index % self.contacts], device=f"device-{index // self.contacts}")
            self.kept.append(wire)
            await wire.send(text({"type": "watch", "userIds": shy}))

        async def hide(index: int) -> None:
            wire = await self.user(shy[index])
            await wire.send(privacy(presence="contacts", addContacts=names, id=1))
            while (await wire.receive()).get("re") != 1:
                pass
            wire.abort()

        await each_of(16 * self.contacts, device)
        await each_of(self.users, hide)

    async def strike(self) -> None:
        async def one(index: int) -> None:
            wire = await self.user(f"shy-{index}")
            try:
                await wire.send(text({"type": "unregister", "id": 1}))
                while (await wire.receive()).get("re") != 1:
                    pass
            finally:
                wire.abort()

        # Nobody reads what the devices are told: that would keep the attacker busy.
        await together(forever(lambda index=index: one(index)) for index in range(self.users))  # type: ignore[misc]
