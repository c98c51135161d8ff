"""A server behind a real nginx: at a sub-path with the prefix taken off or not, and with or without `Host`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from aldis.client.client import SignalingClient
from aldis.errors import RequestFailed
from aldis.identity.keys import Identity
from support.commands import aldis
from support.nginx import HOST, PASS, SUB_PATHS, nginx
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess


async def registers(url: str, name: str) -> None:
    async with SignalingClient(url, name) as client:
        await client.register(Identity.generate())
        await client.ping()


@pytest.mark.parametrize("way", SUB_PATHS)
async def test_clients_reach_a_server_at_a_sub_path_however_they_write_it(tmp_path: Path, way: str) -> None:
    port = free_port()
    settings: dict[str, Any] = {"base_path": "/aldis"} if way == "kept" else {}
    async with ServerProcess(tmp_path, names=f"127.0.0.1:{port},localhost:{port}", **settings) as server:
        async with nginx(tmp_path / "nginx", port, PASS + HOST + SUB_PATHS[way].format(server=server.port)):
            for number, path in enumerate(("aldis", "aldis/", "aldis/ws", "aldis/ws/")):
                await registers(f"ws://127.0.0.1:{port}/{path}", f"ws{number}")
                await registers(f"http://localhost:{port}/{path}", f"http{number}")
            address = f"127.0.0.1:{port}/aldis"
            told = await asyncio.to_thread(aldis, "doctor", "--json", "--server", address, home=tmp_path)
            found = {check["check"]: check["mark"] for check in json.loads(told.stdout)["checks"]}
            assert (found["WebSocket"], found["registration"]) == ("ok", "ok"), told.stdout
            status, _, page = await http_get(port, f"GET /aldis/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert (status, b'src="assets/page-' in page) == (200, True)
            if way == "kept":
                status, headers, _ = await http_get(
                    port, f"GET /aldis HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
                )
                assert (status, headers["location"]) == (308, "/aldis/")
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_proxy_that_passes_no_host_on_needs_the_name_in_the_settings(tmp_path: Path) -> None:
    port = free_port()
    async with ServerProcess(tmp_path, names=f"127.0.0.1:{port}") as server:
        places = PASS + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
        async with nginx(tmp_path / "nginx", port, places):
            await registers(f"ws://127.0.0.1:{port}", "alice")
        assert await server.stop() == 0
    async with ServerProcess(tmp_path) as server:
        places = PASS + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
        async with nginx(tmp_path / "again", port, places):
            with pytest.raises(RequestFailed, match=r"pass the Host header on, and --names") as refused:
                await registers(f"ws://127.0.0.1:{port}", "alice")
            assert refused.value.code == "bad-signature"


@pytest.mark.parametrize("passed", [HOST, ""])
async def test_a_page_of_the_proxy_s_host_may_connect_and_no_other(tmp_path: Path, passed: str) -> None:
    """Scheme and port of the page are the proxy's."""
    port = free_port()
    async with ServerProcess(tmp_path, names="signal.example") as server:
        assert (await server.wait_for_line("serving"))["origins"] == "same host"
        places = PASS + passed + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
        async with nginx(tmp_path / "nginx", port, places):
            for origin, allowed in (("https://signal.example", True), ("https://evil.example", False)):
                headers = {"Origin": origin}
                async with await RawClient.connect(port, host="signal.example", headers=headers) as page:
                    if allowed:
                        assert await page.request({"type": "ping"}) == {"type": "pong"}
                    else:
                        assert await page.wait_closed() == (4502, "origin not allowed")
