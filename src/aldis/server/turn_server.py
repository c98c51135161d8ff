"""A TURN server of our own: coturn's `turnserver` as a child process, configured, watched and started again.

Rules: the secret is in a file that only this user reads, and in no argument. The child ends with this process, also
when that is killed. While it is down, clients are not told of it. When it is for the internet, it relays to no address
of a private network, since a client could reach the operator's other machines through it.

The secrets are in coturn's database, which it reads for each request: `rotate` brings a new one, and the earlier one
stays until the last credentials made with it have expired. coturn reads the certificate and the key by links, and reads
them again on SIGUSR2. So neither ends a relay.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from aldis.errors import ConfigError, UsageError
from aldis.server.logs import Log, moment
from aldis.server.turn_check import ask_for_relay, credentials
from aldis.server.turn_folder import TurnFolder, TurnSettings

# A start takes a tenth of a second; a busy machine may need longer.
START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 3.0
# How often the child is asked whether it answers, and how many answers may be missing before it is started again.
PROBE_SECONDS: Final = 20.0
PROBE_PATIENCE: Final = 2.0
MISSING_ANSWERS: Final = 3
# Earlier secrets at a time: coturn tries each for each request.
MOST_EARLIER: Final = 8
# How often it is asked for a relay. That takes a port for some milliseconds.
ALLOCATION_SECONDS: Final = 60.0
# Seconds before it is started again; twice as many after each start that fails, because a port is taken for instance.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# RFC 8489 section 5: a Binding request without attributes, and the magic cookie.
_BINDING: Final = b"\x00\x01\x00\x00\x21\x12\xa4\x42"
_SUCCESS: Final = b"\x01\x01"
# In the name of nobody: `/` is in no user's name.
_OWN_USER: Final = "/check"


class TurnServer:
    """The child process. `await start()` raises `ConfigError` when it does not come up; then it is kept up."""

    def __init__(self, settings: TurnSettings, log: Log) -> None:
        self.settings = settings
        self.secret = settings.secret or secrets.token_hex(24)
        self.restarts = 0
        # Why the last check got no relay, and when that was (seconds since 1970); None before the first check.
        self.allocation_problem = ""
        self.allocation_checked: float | None = None
        # Earlier secrets that are taken as well, and until when, in seconds since 1970.
        self._earlier: dict[str, float] = {}
        self._forgetting: list[asyncio.TimerHandle] = []
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self._wanted_down = False
        self._next_allocation = 0.0
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()
        self._log = log
        self._folder: TurnFolder | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it answered when it was asked last."""
        return self._up.is_set()

    @property
    def earlier_until(self) -> float | None:
        """Until when an earlier secret is taken as well, in seconds since 1970; None without one."""
        return max(self._earlier.values(), default=None)

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
        try:
            self._folder = folder = TurnFolder()
        except OSError as error:
            raise ConfigError("turn_server", f"there is no room for its files: {error}") from None
        words = [executable, "-c", str(folder.configuration)]
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
        await self._check_allocation()
        self._log.info("TURN server", urls=self.settings.urls, pid=None if self._process is None else self._process.pid)
        self._watching = asyncio.create_task(self._watch(command, folder), name="aldis-turn")

    def change(self, change: Coroutine[Any, Any, object]) -> None:
        """Do this (`rotate`, `use_certificate`) in the background; a failure is an error in the log."""

        async def do() -> None:
            try:
                await change
            except (OSError, UsageError) as error:
                self._log.error("the TURN server cannot be changed", reason=str(error))

        task = asyncio.create_task(do(), name="aldis-turn-change")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def rotate(self, secret: str, lifetime: float) -> float:
        """Use this secret, or one that is made, for new credentials; the earlier one is taken for `lifetime` seconds
        more. Return until when, in seconds since 1970. Raises `OSError` when coturn does not take it, and
        `UsageError` when too many earlier ones are still taken.
        """
        async with self._changing:
            return await self._rotate(secret or secrets.token_hex(24), lifetime)

    async def use_certificate(self, certificate: Path, key: Path) -> None:
        """Serve TLS with these files from now on. They were read already. Raises `OSError`."""
        async with self._changing:
            had_none = self.settings.cert is None
            self.settings = replace(self.settings, cert=certificate, key=key)
            if self._folder is None or self._process is None or not self.up:
                return  # the next start takes them
            await asyncio.to_thread(self._folder.link_certificate, self.settings)
            if had_none:
                # The port for TLS opens at a start only. Nobody is relayed yet: without a certificate no client came.
                self._wanted_down = True
                self._process.terminate()
            else:
                self._process.send_signal(signal.SIGUSR2)
                self._log.info("the TURN server uses the new certificate")

    async def close(self) -> None:
        """End it."""
        for timer in self._forgetting:
            timer.cancel()
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await self._end()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _check_port(self) -> None:
        """See that the port is free. coturn would share it with another coturn, and each would get some datagrams."""
        where = self.settings.listen or "0.0.0.0"  # noqa: S104 - what coturn does
        with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.bind((where, self.settings.port))
            except OSError as error:
                problem = f"cannot be used: {error.strerror or error}"
                if error.errno == errno.EADDRINUSE:
                    problem = "is in use by another program, such as a coturn that runs as a service; stop that one"
                raise ConfigError("turn_port", f"{where}:{self.settings.port} (UDP) {problem}") from None

    async def _rotate(self, secret: str, lifetime: float) -> float:
        if len(self._earlier) >= MOST_EARLIER:
            raise UsageError(f"{MOST_EARLIER} earlier secrets are still in use; credentials with them have to expire")
        await self._write_secrets((*self._all_secrets(), secret))
        problem = await self._problem_with(secret)
        if problem:
            await self._write_secrets(self._all_secrets())
            raise OSError(problem)
        until = time.time() + lifetime
        if secret != self.secret:
            self._earlier[self.secret] = until
            self._forgetting.append(asyncio.get_running_loop().call_later(lifetime, self._forget, self.secret))
        self._earlier.pop(secret, None)
        self.secret = secret
        self._log.info("the TURN server has a new secret", earlier_until=moment(until))
        return until

    def _forget(self, secret: str) -> None:
        """The credentials made with an earlier secret have expired."""
        if self._earlier.pop(secret, None) is None:
            return  # it is in use again
        if self._folder is not None:
            try:
                self._folder.write_secrets(self.settings.address, self._all_secrets())
            except OSError as error:
                self._log.error("the TURN server keeps the earlier secret", reason=str(error))

    def _all_secrets(self) -> tuple[str, ...]:
        return (self.secret, *self._earlier)

    async def _write_secrets(self, accepted: tuple[str, ...]) -> None:
        if self._folder is not None:
            await asyncio.to_thread(self._folder.write_secrets, self.settings.address, accepted)

    async def _check_allocation(self) -> None:
        self._next_allocation = time.monotonic() + ALLOCATION_SECONDS
        before = self.allocation_problem
        self.allocation_problem = problem = await self._problem_with(self.secret)
        self.allocation_checked = time.time()
        if problem and not before:
            self._log.error("the TURN server does not relay", reason=problem)
        elif before and not problem:
            self._log.info("the TURN server relays again")

    async def _problem_with(self, secret: str) -> str:
        """Why a client with credentials of this secret gets no relay; an empty text if it gets one."""
        username, password = credentials(secret, _OWN_USER, int(time.time()) + int(ALLOCATION_SECONDS))
        where = self.settings.listen or "127.0.0.1"
        return (await ask_for_relay(where, self.settings.port, username, password)).problem

    async def _launch(self, command: Sequence[str], folder: TurnFolder) -> str:
        """Start the process, and wait until it answers. Return the last thing that it said if it does not."""
        folder.write(self.settings, self._all_secrets())
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder.path,
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
                            async with asyncio.timeout(0.25):
                                reply = await loop.sock_recv(probe, 1024)
                        except (TimeoutError, ConnectionRefusedError):
                            await asyncio.sleep(0.05)  # it is starting, or the datagram was lost
                            continue
                        return reply[:2] == _SUCCESS and reply[8:20] == request[8:]
            except (OSError, TimeoutError):
                return False

    async def _watch(self, command: Sequence[str], folder: TurnFolder) -> None:
        failures = 0
        while True:
            if self.up:
                await self._until_down()
                self._is_now(up=False)
                if not self._wanted_down:
                    self._log.error("the TURN server is down and is started again", restarts=self.restarts)
            await self._end()
            if self._wanted_down:
                self._wanted_down = False
            else:
                await asyncio.sleep(min(FIRST_PAUSE * 2.0**failures, LONGEST_PAUSE))
                self.restarts += 1
            try:
                said = await self._launch(command, folder)
            except OSError as error:
                said = str(error)
            failures = 0 if self.up else failures + 1
            if self.up:
                self._log.info("the TURN server is up again", restarts=self.restarts)
                await self._check_allocation()
            else:
                self._log.error("the TURN server does not come up", reason=said, restarts=self.restarts)

    async def _until_down(self) -> None:
        """Return when it has ended, or has not answered for a while."""
        assert self._process is not None  # it is up  # noqa: S101
        missing = 0
        while missing < MISSING_ANSWERS:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._process.wait()
                return
            missing = 0 if await self._answers() else missing + 1
            if not missing and time.monotonic() >= self._next_allocation:
                await self._check_allocation()

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._is_now(up=False)
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
