"""Users that flood others, or the server, with sealed messages."""

from __future__ import annotations

from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from benchmarks.attack.attack import Attack, Flood, attack, each_of, forever, sealed, together
from benchmarks.attack.honest import PAIR
from benchmarks.attack.wire import Wire, many, text


@attack("sealed-to-a-victim")
class SealedToAVictim(Flood):
    """Sealed messages of 48 KB to one of the honest pair, by a client that does not slow down when it is told to."""

    def blob(self) -> bytes:
        return sealed(PAIR[1], 48_000)


@attack("many-sealed-to-a-victim")
class ManySealedToAVictim(Flood):
    """The same from 20 users, who fill the window of the victim."""

    connections = 20

    def blob(self) -> bytes:
        return sealed(PAIR[1], 48_000)


@attack("tiny-sealed")
class TinySealed(Flood):
    """Sealed messages of a few bytes to one of the honest pair, from ten users."""

    connections = 10

    def blob(self) -> bytes:
        return many(sealed(PAIR[1], 4), 1024)


@attack("sealed-to-everybody")
class SealedToEverybody(Flood):
    """Sealed messages to 100,000 names, each of which has a budget of its own."""

    connections = 5

    def blob(self) -> bytes:
        return b"".join(sealed(f"nobody-{number}", 4) for number in range(100_000))


@attack("sealed-among-themselves")
class SealedAmongThemselves(Flood):
    """50 clients that all send 16 KB to one of them, which reads, and confirms nothing."""

    connections = 50

    def blob(self) -> bytes:
        return sealed("attacker-0", 16_000)


@attack("sealed-to-lost-clients")
class SealedToLostClients(Attack):
    """20 sessions whose connection is lost, and sealed messages of 48 KB to all of them."""

    number = 20

    async def strike(self) -> None:
        async def lose(index: int) -> None:
            (await self.user(f"away-{index}")).abort()

        async def one(index: int) -> None:
            async def once() -> None:
                wire: Wire = await self.user(f"attacker-{index}")
                try:
                    while True:
                        await wire.send(b"".join(sealed(f"away-{away}", 48_000) for away in range(self.number)))
                finally:
                    wire.abort()

            await forever(once)

        await each_of(self.number, lose)
        await together(one(index) for index in range(self.number))


@attack("seal-keys")
class SealKeyChanges(Flood):
    """Two sealing keys in turns: each costs a signature, and is told to whoever watches."""

    def blob(self) -> bytes:
        identity = self.identity("attacker-0")
        return many(b"".join(text({"type": "seal-key", "sealKey": _seal_key(identity, key)}) for key in (b"1", b"2")))


def _seal_key(identity: Identity, key: bytes) -> dict[str, str]:
    signature = identity.sign(proofs.seal("attacker-0", "main", key))
    return {"publicKey": to_base64(key), "signature": to_base64(signature)}
