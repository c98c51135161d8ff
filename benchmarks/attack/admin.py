"""The admin port, for somebody who reaches it without its password, and for an operator's tool that has gone wild."""

from __future__ import annotations

import asyncio

from benchmarks.attack.attack import Attack, attack, each_of, forever, together
from benchmarks.attack.doors import HalfOpen, Holding, HugeHeads
from benchmarks.attack.tricks import Requests
from benchmarks.attack.wire import ADMIN_TOKEN, Wire, text

USERS = 1000


class AtAdmin(Attack):
    """At the admin port."""

    ports = frozenset({"admin"})

    async def dial(self, **more: object) -> Wire:
        return await super().dial(port=self.target.admin, **more)

    def request(self, path: str, *, token: str = ADMIN_TOKEN, method: str = "GET", more: str = "") -> bytes:
        """A request on a connection that stays."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        return head.encode()


class Pipelined(AtAdmin):
    """The same request, many in each packet, on 16 connections."""

    def piece(self) -> bytes:
        """The request."""
        raise NotImplementedError

    async def strike(self) -> None:
        requests = self.piece() * 50

        async def once() -> None:
            wire = await self.dial()
            reading = asyncio.create_task(wire.discard())
            try:
                while not reading.done():
                    await wire.send(requests)
                    await asyncio.sleep(0)
            finally:
                reading.cancel()
                wire.abort()

        await together(forever(once) for _ in range(16))


@attack("admin-wrong-tokens")
class AdminWrongTokens(Pipelined):
    """Requests to the admin API with a wrong token."""

    def piece(self) -> bytes:
        return self.request("/api/v1/users", token="x" * 4000)


@attack("admin-metrics")
class AdminMetrics(Pipelined):
    """The metrics again and again, which need no token."""

    def piece(self) -> bytes:
        return self.request("/metrics", token="")


@attack("admin-documents")
class AdminDocuments(Pipelined):
    """The description of the admin API and the operator's page, which need no token."""

    def piece(self) -> bytes:
        return self.request("/api/v1/openapi.json", token="") + self.request("/admin.js", token="")


@attack("admin-probes")
class AdminProbes(Pipelined):
    """Probes of the server's readiness, which ask the directory."""

    def piece(self) -> bytes:
        return self.request("/readyz", token="")


@attack("admin-half-open")
class AdminHalfOpen(AtAdmin, HalfOpen):
    """2,000 connections to the admin port that say nothing."""


@attack("admin-huge-heads")
class AdminHugeHeads(AtAdmin, HugeHeads):
    """1,000 requests of 15 KB at the admin port that lack their last line."""

    def beginning(self) -> bytes:
        return self.request("/", more="X-Padding: " + "x" * 7000 + "\r\nX-More: " + "x" * 7000)[:-2]


@attack("admin-crowds")
class AdminCrowds(AtAdmin, Holding):
    """128 connections to the admin port at the same moment, again and again."""

    async def strike(self) -> None:
        async def once() -> None:
            await together(self.one(index) for index in range(128))
            self.end()

        await forever(once)


@attack("admin-huge-bodies")
class AdminHugeBodies(AtAdmin, Requests):
    """Bodies of gigabytes to the admin API, by their length and in chunks, with wrong and right tokens."""

    def requests(self) -> list[bytes]:
        body = b"x" * 60_000
        sized = "Content-Type: application/json\r\nContent-Length: 4000000000\r\n"
        chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        chunks = b"EA60\r\n" + body + b"\r\n"
        return [
            self.request("/api/v1/bans", method="POST", token=token, more=more) + sent * 4
            for token in ("wrong", ADMIN_TOKEN)
            for more, sent in ((sized, body), (chunked, chunks))
        ]


class WithUsers(AtAdmin):
    """A server with 1,000 users whose names are long."""

    async def prepare(self) -> None:
        async def one(index: int) -> None:
            # Dials the public port.
            wire = await Wire.register(self.target, f"user-{index}-".ljust(128, "x"), self.identity(str(index)))
            self.users.append(wire)
            await wire.send(text({"type": "ping"}))

        self.users: list[Wire] = []
        await each_of(USERS, one)

    def end(self) -> None:
        super().end()
        for wire in self.users:
            wire.abort()


@attack("admin-unread-lists")
class AdminUnreadLists(WithUsers):
    """500 clients with the admin token that ask for 1,000 users again and again, and never read."""

    async def strike(self) -> None:
        super().end()
        self.kept.clear()
        request = self.request("/api/v1/users?limit=1000")

        async def one(index: int) -> None:
            wire = await self.dial(receive_buffer=2048)
            self.kept.append(wire)
            while True:
                await wire.send(request)
                await asyncio.sleep(0.1)

        await together(forever(lambda index=index: one(index)) for index in range(500))  # type: ignore[misc]


@attack("admin-lists")
class AdminLists(WithUsers, Pipelined):
    """The list of 1,000 users again and again, with the right token."""

    def piece(self) -> bytes:
        return self.request("/api/v1/users?limit=1000") + self.request("/api/v1/statistics")
