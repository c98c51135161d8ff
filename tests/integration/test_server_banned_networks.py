"""Bans of networks behind proxies: whom they fit, on a real server behind a real nginx, and by the PROXY protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.commands import aldis
from support.nginx import HOST, PASS, nginx
from support.ports import free_port
from support.proxied import arrive_by_proxy
from support.raw_websocket import RawClient
from support.server_process import ServerProcess

# Two addresses of this machine that are not those of the proxy (tools/netns.sh).
OUTSIDE, OTHER = "10.77.0.1", "::1"
FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
TOKEN = "a token of the operator"
BANNED = (4503, "banned: spam")


class Proxied(ServerProcess):
    """A server whose proxies are trusted at 127.0.0.1."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(
            folder,
            **{"names": "signal.example", "trusted_proxies": "127.0.0.1", **settings},
            admin_port=0,
            admin_token=TOKEN,
        )

    async def ban(self, network: str, **more: object) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.admin_port}/api/v1/bans"
        body = {"kind": "network", "value": network, "reason": "spam", **more}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()


async def pings(client: RawClient) -> bool:
    return await client.request({"type": "ping"}) == {"type": "pong"}


async def is_refused(client: RawClient) -> bool:
    async with client:
        return await client.wait_closed() == BANNED


async def test_a_ban_fits_the_address_that_a_trusted_proxy_forwards(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    async with Proxied(tmp_path, resume_window=300) as server:
        places = PASS + HOST + FORWARDED + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"

        async def arrive(number: int, said: str | None = None) -> RawClient:
            headers = {} if said is None else {"X-Forwarded-For": said}
            return await RawClient.connect(
                ports[number], address=(OUTSIDE, OTHER)[number], host="signal.example", headers=headers
            )

        async with (
            nginx(tmp_path / "one", ports[0], places, address=OUTSIDE),
            nginx(tmp_path / "two", ports[1], places, address=f"[{OTHER}]"),
            await arrive(0) as banned,
            await arrive(1) as other,
        ):
            await banned.register("mallory", capabilities={"resume": True})
            await other.register("alice")
            assert (await other.request({"type": "watch", "userIds": ["mallory"]}))["online"]
            status, answer = await server.ban("10.77.0.0/24")
            assert (status, answer["sessions"]) == (200, 1)
            assert "warning" not in answer
            assert await banned.wait_closed() == BANNED
            assert not (await other.receive())["online"]  # at once: the session is not kept
            assert await pings(other)
            # What the client says of itself does not help it, and does not harm another one.
            for said in (None, "192.0.2.1", "127.0.0.1"):
                assert await is_refused(await arrive(0, said))
            async with await arrive(1, "10.77.0.1") as honest:
                assert await pings(honest)
            assert await pings(other)
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_ban_fits_the_address_in_a_proxy_header(tmp_path: Path) -> None:
    async with (
        Proxied(tmp_path, names="127.0.0.1", proxy_protocol=True) as server,
        await arrive_by_proxy(server.port, "192.0.2.1", None) as banned,
        await arrive_by_proxy(server.port, "198.51.100.1", None) as other,
    ):
        status, answer = await server.ban("192.0.2.1")
        assert (status, answer["value"], answer["sessions"]) == (200, "192.0.2.1/32", 1)
        assert await banned.wait_closed() == BANNED
        assert await is_refused(await arrive_by_proxy(server.port, "192.0.2.1", None))
        assert await pings(other)
        async with await arrive_by_proxy(server.port, "192.0.2.2", None) as neighbour:
            assert await pings(neighbour)


@pytest.mark.parametrize("network", ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0"])
async def test_the_proxy_itself_cannot_be_banned(tmp_path: Path, network: str) -> None:
    async with Proxied(tmp_path) as server:
        headers = {"X-Forwarded-For": "192.0.2.1"}
        async with await RawClient.connect(server.port, host="signal.example", headers=headers) as client:
            status, answer = await server.ban(network)
            assert status == 400
            assert "holds the trusted proxies 127.0.0.1/32" in answer["error"]
            assert await pings(client)
        async with await RawClient.connect(server.port, host="signal.example") as unforwarded:
            assert await pings(unforwarded)


async def test_a_ban_inside_a_network_of_proxies_warns_and_counts(tmp_path: Path) -> None:
    async with Proxied(tmp_path, trusted_proxies="127.0.0.0/8") as server:
        headers = {"X-Forwarded-For": "127.0.0.2"}  # a client on the same machines as the proxies
        async with await RawClient.connect(server.port, host="signal.example", headers=headers) as client:
            extra = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_ADMIN_TOKEN": TOKEN}
            words = ("admin", "ban", "network", "127.0.0.2", "--reason", "spam")
            said = await asyncio.to_thread(aldis, *words, home=tmp_path, extra=extra)
            first, second = said.stdout.splitlines()
            assert first == "network 127.0.0.2/32 is banned for ever; 1 session ended"
            assert second.startswith("! 127.0.0.2/32 lies in trusted_proxies (127.0.0.0/8)")
            assert await client.wait_closed() == BANNED
        async with await RawClient.connect(server.port, host="signal.example") as proxy:
            assert await pings(proxy)


async def test_without_trusted_proxies_a_ban_fits_who_has_dialled(tmp_path: Path) -> None:
    async with Proxied(tmp_path, trusted_proxies="") as server:
        headers = {"X-Forwarded-For": "192.0.2.1"}
        async with await RawClient.connect(server.port, host="signal.example", headers=headers) as client:
            assert (await server.ban("192.0.2.1"))[1]["sessions"] == 0
            assert await pings(client)
            assert (await server.ban("127.0.0.1", confirmed=True))[1]["sessions"] == 1
            assert await client.wait_closed() == BANNED
