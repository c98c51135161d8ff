"""A TURN server of our own: coturn's `turnserver` as a child process, configured, watched and started again.

Rules: the secret is in a file that only this user reads, and in no argument. The child ends with this process, also
when that is killed. While it is down, clients are not told of it. When it is for the internet, it relays to no address
of a private network, since a client could reach the operator's other machines through it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aldis.errors import ConfigError
from aldis.server.config import ServerConfig
from aldis.server.logs import Log

# A start takes a tenth of a second; a busy machine may need longer.
START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 3.0
# How often the child is asked whether it answers, and how many answers may be missing before it is started again.
PROBE_SECONDS: Final = 20.0
PROBE_PATIENCE: Final = 2.0
MISSING_ANSWERS: Final = 3
# Seconds before it is started again; twice as many after each start that fails, because a port is taken for instance.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# RFC 8489 section 5: a Binding request without attributes, and the magic cookie.
_BINDING: Final = b"\x00\x01\x00\x00\x21\x12\xa4\x42"
_SUCCESS: Final = b"\x01\x01"
# Networks that are nobody's on the internet: RFC 6890, and the addresses of cloud metadata among them.
_PRIVATE: Final = (
    "0.0.0.0-0.255.255.255",
    "10.0.0.0-10.255.255.255",
    "100.64.0.0-100.127.255.255",
    "127.0.0.0-127.255.255.255",
    "169.254.0.0-169.254.255.255",
    "172.16.0.0-172.31.255.255",
    "192.0.0.0-192.0.0.255",
    "192.168.0.0-192.168.255.255",
    "198.18.0.0-198.19.255.255",
    "::1",
    "fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    """`address` is what clients dial; `listen` the address to listen on, None for all."""

    address: str
    listen: str | None
    port: int
    tls_port: int
    relay_ports: tuple[int, int]
    cert: Path | None = None
    key: Path | None = None
    secret: str = ""

    @property
    def urls(self) -> list[str]:
        """The URLs for clients, the fastest first."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        found = [f"turn:{host}:{self.port}?transport={transport}" for transport in ("udp", "tcp")]
        return found if self.cert is None else [*found, f"turns:{host}:{self.tls_port}?transport=tcp"]

    @property
    def stun_url(self) -> str:
        """The same server answers STUN."""
        return f"stun:{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


class TurnServer:
    """The child process. `await start()` raises `ConfigError` when it does not come up; then it is kept up."""

    def __init__(self, settings: TurnSettings, log: Log) -> None:
        self.settings = settings
        self.secret = settings.secret or secrets.token_hex(24)
        self.restarts = 0
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()
        self._log = log
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it answered when it was asked last."""
        return self._up.is_set()

    async def wait_until(self, *, up: bool) -> None:
        """Return when it is up, or down."""
        await (self._up if up else self._down).wait()

    def _is_now(self, *, up: bool) -> None:
        come, gone = (self._up, self._down) if up else (self._down, self._up)
        gone.clear()
        come.set()

    async def start(self) -> None:
        """Start it, and return when it answers. Raises `ConfigError`."""
        executable = shutil.which("turnserver")
        if executable is None:
            raise ConfigError("turn_server", "there is no `turnserver` on the PATH; install coturn")
        self._check_port()
        self._folder = tempfile.TemporaryDirectory(prefix="aldis-turn-")
        folder = Path(self._folder.name)
        path = folder / "turnserver.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(self._configuration(folder)) + "\n")
        words = [executable, "-c", str(path)]
        guard = shutil.which("setpriv")  # of util-linux: the child gets a signal when its parent ends
        command = words if guard is None else [guard, "--pdeathsig", "TERM", *words]
        try:
            said = await self._launch(command, folder)
        except BaseException:
            await self.close()
            raise
        if not self.up:
            await self.close()
            raise ConfigError("turn_server", f"`turnserver` does not come up: {said or 'it answers no request'}")
        self._log.info("TURN server", urls=self.settings.urls, pid=None if self._process is None else self._process.pid)
        self._watching = asyncio.create_task(self._watch(command, folder), name="aldis-turn")

    async def close(self) -> None:
        """End it."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _check_port(self) -> None:
        """See that the port is free. coturn would share it with another coturn, and each would get some datagrams."""
        where = self.settings.listen or "0.0.0.0"  # noqa: S104 - what coturn does
        with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.bind((where, self.settings.port))
            except OSError as error:
                raise ConfigError("turn_port", f"{where}:{self.settings.port}: {error.strerror or error}") from None

    def _configuration(self, folder: Path) -> list[str]:
        settings = self.settings
        first, last = settings.relay_ports
        lines = [
            f"listening-port={settings.port}",
            f"min-port={first}",
            f"max-port={last}",
            "use-auth-secret",
            f"static-auth-secret={self.secret}",
            f"realm={settings.address}",
            "fingerprint",
            "stale-nonce=600",
            "no-cli",
            "no-dtls",
            "no-multicast-peers",
            "no-rfc5780",  # it would take the next port as well
            "no-software-attribute",
            # Allocations at a time: of one user (a peer connection takes one or two for each interface), and of all.
            "user-quota=32",
            f"total-quota={last - first + 1}",
            f"userdb={folder / 'turndb'}",
            f"pidfile={folder / 'turnserver.pid'}",
            "log-file=stdout",
            "simple-log",
        ]
        if settings.listen is not None:
            lines.append(f"listening-ip={settings.listen}")
        if settings.cert is not None and settings.key is not None:
            lines += [f"tls-listening-port={settings.tls_port}", f"cert={settings.cert}", f"pkey={settings.key}"]
            lines += ["no-tlsv1", "no-tlsv1_1"]
        else:
            lines.append("no-tls")
        if not _is_private(settings.address):
            lines += [f"denied-peer-ip={network}" for network in _PRIVATE]
        return lines

    async def _launch(self, command: Sequence[str], folder: Path) -> str:
        """Start the process, and wait until it answers. Return the last thing that it said if it does not."""
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        reading = asyncio.create_task(self._read(process), name="aldis-turn-log")
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None and not reading.done():
                    if await self._answers():
                        self._is_now(up=True)
                        return ""
        await self._end()
        return await reading

    async def _read(self, process: asyncio.subprocess.Process) -> str:
        """Read what it says, which a full pipe would stop; return the last line that tells of a fault."""
        assert process.stdout is not None  # a pipe  # noqa: S101
        fault = ""
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").strip()
            if "ERROR" in text or "annot" in text:
                fault = text.partition(": ")[2] or text
            self._log.debug("turnserver", text=text[:500])
        return fault

    async def _answers(self) -> bool:
        """Whether it answers a STUN Binding request."""
        where = self.settings.listen or "127.0.0.1"
        loop = asyncio.get_running_loop()
        request = _BINDING + os.urandom(12)
        with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            try:
                await loop.sock_connect(probe, (where, self.settings.port))
                async with asyncio.timeout(PROBE_PATIENCE):
                    while True:
                        try:
                            await loop.sock_sendall(probe, request)
                            reply = await asyncio.wait_for(loop.sock_recv(probe, 1024), 0.25)
                        except (TimeoutError, ConnectionRefusedError):
                            await asyncio.sleep(0.05)  # it is starting, or the datagram was lost
                            continue
                        return reply[:2] == _SUCCESS and reply[8:20] == request[8:]
            except (OSError, TimeoutError):
                return False

    async def _watch(self, command: Sequence[str], folder: Path) -> None:
        failures = 0
        while True:
            if self.up:
                await self._until_down()
                self._is_now(up=False)
                self._log.error("the TURN server is down and is started again", restarts=self.restarts)
            await self._end()
            await asyncio.sleep(min(FIRST_PAUSE * 2.0**failures, LONGEST_PAUSE))
            self.restarts += 1
            try:
                said = await self._launch(command, folder)
            except OSError as error:
                said = str(error)
            failures = 0 if self.up else failures + 1
            if self.up:
                self._log.info("the TURN server is up again", restarts=self.restarts)
            else:
                self._log.error("the TURN server does not come up", reason=said, restarts=self.restarts)

    async def _until_down(self) -> None:
        """Return when it has ended, or has not answered for a while."""
        assert self._process is not None  # it is up  # noqa: S101
        missing = 0
        while missing < MISSING_ANSWERS:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), PROBE_SECONDS)
                return
            missing = 0 if await self._answers() else missing + 1

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._is_now(up=False)
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def turn_settings(config: ServerConfig) -> TurnSettings:
    """What a server's settings say about its TURN server. Raises `ConfigError` when nobody knows how to reach it."""
    everywhere = config.host in ("0.0.0.0", "::")  # noqa: S104 - compared with
    address = config.turn_address
    if not address and config.names:
        address = urlsplit(f"//{config.names[0]}").hostname or ""
    if not address and not everywhere:
        address = "127.0.0.1" if config.host == "localhost" else config.host
    if not address:
        raise ConfigError("turn_address", "is needed with turn_server: the address or name by which clients reach it")
    return TurnSettings(
        address=address,
        listen=None if everywhere else _as_address(config.host),
        port=config.turn_port,
        tls_port=config.turn_tls_port,
        relay_ports=config.turn_relay_ports,
        cert=config.tls_cert,
        key=config.tls_key,
        secret=config.turn_secret,
    )


def _as_address(host: str) -> str | None:
    """The address to listen on; None, all of them, for a name."""
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        return None


def _is_private(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return address == "localhost" or address.endswith((".local", ".internal", ".lan"))
    return not ip.is_global
