"""The files for nginx and Caddy in deploy/, each before a real server: at the root, and at /aldis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from support.caddy import caddy
from support.certificates import Certificates, make_certificates
from support.kit import written
from support.nginx import nginx_with
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import PING, PONG, ConnectionOver, RawClient
from support.server_process import ServerProcess
from support.stores import contents, new_store

# Seconds of silence after which these proxies cut a connection, where they do. The server pings each 3 to 4 s.
SILENCE = 8
PING_INTERVAL = 3
# A host that has something else at its root.
_NGINX_HOST = """
server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {tls.cert};
    ssl_certificate_key {tls.key};
    include {snippet};
}}
"""
_TIME_OUTS = f"""
	servers {{
		timeouts {{
			idle {SILENCE}s
			read_header {SILENCE}s
		}}
	}}
"""
_CADDY_HOST = """
https://localhost:{port} {{
	bind 127.0.0.1
	tls {tls.cert} {tls.key}
	import {snippet}
}}
"""
Proxy: TypeAlias = Callable[[Path, Certificates, int, int], AbstractAsyncContextManager[None]]


def nginx_at_root(folder: Path, tls: Certificates, port: int, server: int) -> AbstractAsyncContextManager[None]:
    changes = {
        "    listen [::]:443 ssl;\n": "",
        "    listen [::]:80;\n": "",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 80": f"listen 127.0.0.1:{free_port()}",
        "/etc/letsencrypt/live/signal.example.com/fullchain.pem": str(tls.cert),
        "/etc/letsencrypt/live/signal.example.com/privkey.pem": str(tls.key),
        "signal.example.com": "localhost",
        "127.0.0.1:8080": f"127.0.0.1:{server}",
        "timeout 90s": f"timeout {SILENCE}s",
    }
    return nginx_with(folder, written("nginx/aldis.conf", changes))


def nginx_at_path(folder: Path, tls: Certificates, port: int, server: int) -> AbstractAsyncContextManager[None]:
    snippet = folder / "snippet.conf"
    changes = {"127.0.0.1:8080": f"127.0.0.1:{server}", "timeout 90s": f"timeout {SILENCE}s"}
    snippet.write_text(written("nginx/aldis-sub-path.conf", changes))
    return nginx_with(folder, _NGINX_HOST.format(port=port, tls=tls, snippet=snippet))


def caddy_at_root(folder: Path, tls: Certificates, port: int, server: int) -> AbstractAsyncContextManager[None]:
    site = f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {tls.cert} {tls.key}\n"
    changes = {"signal.example.com {\n": site, "127.0.0.1:8080": f"127.0.0.1:{server}"}
    return caddy(folder, written("caddy/Caddyfile", changes), _TIME_OUTS)


def caddy_at_path(folder: Path, tls: Certificates, port: int, server: int) -> AbstractAsyncContextManager[None]:
    snippet = folder / "snippet.caddy"
    snippet.write_text(written("caddy/sub-path.caddy", {"127.0.0.1:8080": f"127.0.0.1:{server}"}))
    return caddy(folder, _CADDY_HOST.format(port=port, tls=tls, snippet=snippet), _TIME_OUTS)


EVERYWHERE = pytest.mark.parametrize(
    ("proxy", "path"),
    [
        pytest.param(nginx_at_root, "/", id="nginx-root"),
        pytest.param(nginx_at_path, "/aldis/", id="nginx-path"),
        pytest.param(caddy_at_root, "/", id="caddy-root"),
        pytest.param(caddy_at_path, "/aldis/", id="caddy-path"),
    ],
)


async def silent(port: int, path: str, tls: Certificates) -> RawClient:
    """A registered client, which will say nothing by itself."""
    client = await RawClient.connect(
        port, host=f"localhost:{port}", path=path, context=tls.client_context(), server_hostname="localhost"
    )
    assert (await client.register("silent"))["type"] == "registered"
    return client


async def talk(url: str, tls: Certificates) -> None:
    """Two stores connect to each other, and one of them says something."""
    async with new_store() as alice, new_store() as bob:
        await alice.connect_to_signaling(url, "alice", ca_file=tls.ca)
        await bob.connect_to_signaling(url, "bob", ca_file=tls.ca)
        await alice.send("bob", "Hello bob!")
        assert await contents(bob, 1) == ["Hello bob!"]


@EVERYWHERE
async def test_stores_talk_and_an_idle_connection_outlives_the_time_outs(
    tmp_path: Path, proxy: Proxy, path: str
) -> None:
    tls, port = make_certificates(tmp_path, host="localhost"), free_port()
    async with ServerProcess(tmp_path, names=f"localhost:{port}", ping_interval=PING_INTERVAL) as server:
        async with (
            proxy(tmp_path, tls, port, server.port),
            await silent(port, path, tls) as idle,
            asyncio.TaskGroup() as tasks,
        ):
            began = asyncio.get_running_loop().time()
            talking = tasks.create_task(talk(f"wss://localhost:{port}{path.rstrip('/')}", tls))
            # However long they take, its pings are answered meanwhile: the server ends a connection that does not.
            while not talking.done() or asyncio.get_running_loop().time() < began + 1.5 * SILENCE:
                ping = await idle.receive_frame()
                assert ping.opcode == PING
                idle.send_frame(PONG, ping.payload)
            assert (await idle.request({"type": "ping"}))["type"] == "pong"
        assert await server.stop() == 0
        server.assert_clean_log()


@pytest.mark.parametrize(("proxy", "path"), [(nginx_at_root, "/"), (nginx_at_path, "/aldis/")])
async def test_an_nginx_that_waits_less_than_the_ping_interval_cuts_connections(
    tmp_path: Path, proxy: Proxy, path: str
) -> None:
    tls, port = make_certificates(tmp_path, host="localhost"), free_port()
    async with (
        ServerProcess(tmp_path, names=f"localhost:{port}") as server,
        proxy(tmp_path, tls, port, server.port),
        await silent(port, path, tls) as idle,
    ):
        with pytest.raises(ConnectionOver):
            await idle.receive_frame()


@EVERYWHERE
async def test_the_server_gets_the_host_and_the_true_address(tmp_path: Path, proxy: Proxy, path: str) -> None:
    tls, port, behind = make_certificates(tmp_path, host="localhost"), free_port(), free_port()
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heads.put(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", behind), proxy(tmp_path, tls, port, behind):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls.client_context(), server_hostname="localhost"
        )
        lies = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: gopher\r\n"
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        writer.write(f"GET {path}ws HTTP/1.1\r\nHost: localhost:{port}\r\n{lies}{upgrade}\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            head = (await heads.get()).decode()
        writer.close()
    lines = {line.lower() for line in head.split("\r\n")}
    assert lines >= {
        "get /ws http/1.1",
        f"host: localhost:{port}",
        "connection: upgrade",
        "upgrade: websocket",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: https",
    }
