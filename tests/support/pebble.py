"""A real certificate authority, Pebble (ACME, RFC 8555), with a DNS that answers 127.0.0.1 for every name.

Pebble asks for http-01 and tls-alpn-01 as any authority, at ports that it is told. Nothing is taken on trust.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from pathlib import Path
from typing import Any

from support.certificates import make_certificates
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import http_get


class Pebble:
    """`async with Pebble(folder) as authority`; a server under test is given `settings`.

    `http_port` and `tls_port` are where it expects the answers. `environ`: variables of Pebble.
    """

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder / "pebble"
        self.folder.mkdir()
        self.port, self.http_port, self.tls_port = free_port(), free_port(), free_port()
        self._management, self._dns, self._dns_management = free_port(), free_port(), free_port()
        self._environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", **environ}
        self.files = make_certificates(self.folder)
        self._config = self.folder / "config.json"
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.files.cert),
            "privateKey": str(self.files.key),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
        }
        self._config.write_text(json.dumps({"pebble": settings}))
        self._processes: list[asyncio.subprocess.Process] = []
        self._reading: list[asyncio.Task[bytes]] = []

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def settings(self, *, plain: bool = True) -> dict[str, Any]:
        """The settings of a server that gets its certificate here; `plain`: with a port for plain HTTP."""
        return {
            "port": self.tls_port,
            **({"redirect_port": self.http_port} if plain else {}),
            "acme_domain": "signal.example.com",
            "acme_directory": self.directory,
            "acme_ca_file": str(self.files.ca),
            "acme_agree_tos": True,
        }

    async def root(self) -> Path:
        """The authority's own certificate, which Pebble makes anew at each start."""
        request = b"GET /roots/0 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        _, _, body = await http_get(self._management, request, self.files.client_context())
        path = self.folder / "root.pem"
        path.write_bytes(body)
        return path

    async def start(self) -> None:
        """Start it, and return when it answers."""
        nothing = ("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "")
        dns = ("-dns01", f"127.0.0.1:{self._dns}", "-management", f"127.0.0.1:{self._dns_management}")
        await self._spawn(
            "Starting management server", "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", *nothing, *dns
        )
        words = ("-config", str(self._config), "-dnsserver", f"127.0.0.1:{self._dns}")
        await self._spawn("ACME directory available", "pebble", *words)
        async with asyncio.timeout(PATIENCE):
            while not await self._listens():
                assert self._processes[-1].returncode is None, await self._reading[-1]

    async def _listens(self) -> bool:
        """Whether it does what it has just said that it does: it says so a moment before."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    async def stop(self) -> None:
        """End it. It forgets all accounts and orders."""
        processes, self._processes = self._processes, []
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        for reading in self._reading:
            await reading
        self._reading = []

    async def _spawn(self, awaited: str, name: str, *words: str) -> None:
        """Start a program, and return when it has said this."""
        executable = shutil.which(name)
        assert executable, f"there is no {name} on the path; `make test` installs it"
        process = await asyncio.create_subprocess_exec(
            *(executable, *words),
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        self._processes.append(process)
        said = b""
        async with asyncio.timeout(PATIENCE):
            while awaited.encode() not in said:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        self._reading.append(asyncio.create_task(process.stdout.read()))  # a full pipe would stop it

    async def __aenter__(self) -> Pebble:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Front:
    """What Pebble lacks: an authority before it that limits orders (RFC 8555 section 6.6), or says when to renew
    (RFC 9773). Everything else goes to Pebble itself: the directory that this one serves names Pebble's addresses.

    `limited`: orders get 429 with this `Retry-After`. `window`: when certificates are to be renewed, as two times of
    RFC 3339; asked for once, and then for no certificate any more.
    """

    def __init__(self, authority: Pebble, *, limited: int | None = None, window: tuple[str, str] | None = None) -> None:
        self._authority = authority
        self._limited = limited
        self._windows = [] if window is None else [window]
        self.port = free_port()

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        status, headers = "200 OK", ""
        if path == "/dir":
            request = b"GET /dir HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % self._authority.port
            _, _, body = await http_get(self._authority.port, request, self._authority.files.client_context())
            found = json.loads(body)
            own = f"https://127.0.0.1:{self.port}"
            found |= {"renewalInfo": f"{own}/renewal"} if self._limited is None else {"newOrder": f"{own}/order"}
        elif path == "/order":
            status, headers = "429 Too Many Requests", f"Retry-After: {self._limited}\r\n"
            found = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates of late"}
        else:
            start, end = self._windows.pop() if self._windows else ("2100-01-01T00:00:00Z", "2100-01-02T00:00:00Z")
            found = {"suggestedWindow": {"start": start, "end": end}}
        body = json.dumps(found).encode()
        kind = "application/problem+json" if status.startswith("4") else "application/json"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(f"{head}{headers}\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async def __aenter__(self) -> Front:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._authority.files.cert, self._authority.files.key)
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port, ssl=context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
