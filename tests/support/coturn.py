"""A real TURN server, coturn, as a process of its own on 127.0.0.1; it relays at the other address of the namespace."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from aioice.turn import create_turn_endpoint

from aldis.protocol.messages import IceServer
from support.patience import PATIENCE
from support.ports import free_port

USERNAME, CREDENTIAL = "user", "secret"
RELAY_ADDRESS = "10.77.0.1"  # of tools/netns.sh; coturn relays to no loopback address


class Coturn:
    """`async with Coturn(folder, "--no-udp") as server`: `server.port`, and with a certificate `server.tls_port`."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.port, self.tls_port = free_port(), free_port()
        executable = shutil.which("turnserver")
        assert executable, "there is no turnserver on the path; `make test` installs it"
        self._command = [
            *(executable, "-n", "-v", "--listening-ip", "127.0.0.1", "--listening-port", str(self.port)),
            *("--tls-listening-port", str(self.tls_port), "--relay-ip", RELAY_ADDRESS, "--lt-cred-mech"),
            *("--user", f"{USERNAME}:{CREDENTIAL}", "--realm", "test", "--no-cli", "--no-dtls"),
            *("--userdb", str(folder / "turndb")),
            *("--log-file", "stdout", "--pidfile", str(folder / "turnserver.pid"), *words),
        ]
        self._folder = folder

    async def __aenter__(self) -> Coturn:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=self._folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert self._process.stdout is not None
        said = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while b"IO method (auth thread)" not in said:
                    line = await self._process.stdout.readline()
                    assert line, said.decode()
                    said += line
        except BaseException:
            await self.__aexit__()
            raise
        self._reading = asyncio.create_task(self._process.stdout.read())  # a full pipe would stop it
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if hasattr(self, "_reading"):
            await self._reading


async def allocate(server: IceServer, port: int) -> str:
    """Have the TURN server relay for us; the address at which it does."""
    assert server.username is not None
    assert server.credential is not None
    transport, _ = await create_turn_endpoint(
        asyncio.DatagramProtocol,
        server_addr=(RELAY_ADDRESS, port),
        username=server.username,
        password=server.credential,
        lifetime=60,
        ssl=False,
        transport="udp",
    )
    try:
        return str(transport.get_extra_info("sockname")[0])
    finally:
        transport.close()
