"""The servers under test: how each is started, on which port it listens, and that it ends.

Every server runs in a process of its own, on a core of its own, on loopback, with its default logging into a file that
is shown when it fails.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load.process import running_on

RELAYS: Final = Path(__file__).parent / "relays"
START_SECONDS: Final = 15.0
# Linux gives ports from 32768 on to outgoing connections (net.ipv4.ip_local_port_range).
BELOW_EPHEMERAL: Final = range(20_000, 32_000)


class ServerFailed(Exception):
    """A server under test did not start, or ended by itself."""


@dataclass(frozen=True)
class Contender:
    """One server and the dialect in which it is spoken to."""

    name: str
    title: str
    dialect: str
    proves: str  # what has been shown when a client counts as registered
    data: str = ""  # Aldis: where the names are kept; "directory" for a fresh one
    program: str = ""  # Aldis: the command of another environment; the one beside this Python when empty

    @property
    def on_node(self) -> bool:
        return self.name in ("peerjs", "ws")

    @property
    def server(self) -> str:
        """Contenders with the same value can be measured on one process."""
        return "aldis" + self.data if self.name.startswith("aldis") else self.name

    def command(self, port: int, admin: int, folder: Path) -> list[str]:
        node = ["node", "--expose-gc", "--require", str(RELAYS / "collect.cjs")]
        match self.name:
            case "picows":
                return [sys.executable, str(RELAYS / "picows_relay.py"), str(port)]
            case "ws":
                return [*node, str(RELAYS / "ws_relay.mjs"), str(port)]
            case "peerjs":
                binary = RELAYS / "node_modules" / "peer" / "dist" / "bin" / "peerjs.js"
                # Its default limit of 5,000 users is above what is measured here.
                return [*node, str(binary), "--host", "127.0.0.1", "--port", str(port)]
            case _:
                data = str(folder / "data") if self.data == "directory" else ":memory:"
                aldis = self.program or str(Path(sys.executable).with_name("aldis"))
                return [aldis, "serve", "--port", str(port), "--admin-port", str(admin), "--data", data]


# How much the server can carry is measured, and not how much it lets one client say.
UNLIMITED: Final = {
    "ALDIS_MESSAGES_PER_SECOND": "1000000",
    "ALDIS_BYTES_PER_SECOND": "1000000000",
    "ALDIS_USER_MESSAGES_PER_SECOND": "1000000",
    "ALDIS_USER_BYTES_PER_SECOND": "1000000000",
    "ALDIS_USER_RELAYED_BYTES_PER_SECOND": "1000000000",
    "ALDIS_NEW_NAMES_PER_ADDRESS": "0",
}
NOTHING: Final = "nothing: whoever says a name has it"
ALDIS: Final = Contender("aldis", "Aldis", "aldis", "an Ed25519 key, checked against the name's")
ALDIS_COMPLETE: Final = Contender("aldis-complete", "Aldis, proof and ack", "aldis-complete", ALDIS.proves)
ALDIS_SQLITE: Final = Contender("aldis-sqlite", "Aldis on SQLite", "aldis", ALDIS.proves + " on disk", "directory")
# The same server at another commit, from an environment of its own: `--before`.
BEFORE: Final = Contender("before", "Aldis before", "aldis", ALDIS.proves)
PICOWS: Final = Contender("picows", "bare picows", "minimal", NOTHING)
WS: Final = Contender("ws", "minimal on ws", "minimal", NOTHING)
PEERJS: Final = Contender("peerjs", "PeerJS server", "peerjs", "a token, for a name that is in use")

ALL: Final = (ALDIS, ALDIS_COMPLETE, ALDIS_SQLITE, PICOWS, WS, PEERJS)


_given: Final[set[int]] = set()


def free_port() -> int:
    """A port on which nobody listens now, and which the kernel gives to no outgoing connection meanwhile. None is given
    twice: the first may not be in use yet."""
    for port in random.sample([each for each in BELOW_EPHEMERAL if each not in _given], 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise ServerFailed("no free port was found")


@dataclass(frozen=True)
class Running:
    contender: Contender
    port: int
    pid: int
    admin: int = 0  # Aldis: its admin port


@contextmanager
def started(
    contender: Contender, core: int, limits: Mapping[str, str] = UNLIMITED, *, own_session: bool = False
) -> Iterator[Running]:
    """Run a server for the length of the block. `limits` are variables of its environment."""
    with (
        tempfile.TemporaryDirectory(prefix="aldis-bench-") as name,
        started_in(Path(name), contender, free_port(), core, limits, own_session=own_session) as running,
    ):
        yield running


@contextmanager
def started_in(
    folder: Path,
    contender: Contender,
    port: int,
    core: int,
    limits: Mapping[str, str] = UNLIMITED,
    *,
    own_session: bool = False,
) -> Iterator[Running]:
    """The same, with its data in `folder`, and on a given port. The block may kill it."""
    log, admin = folder / "log", free_port()
    with log.open("ab") as output, running_on(core):
        process = subprocess.Popen(
            contender.command(port, admin, folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **limits},
            start_new_session=own_session,
        )
    try:
        wait_for(process, port, contender.title, log)
        yield Running(contender, port, process.pid, admin)
        if process.poll() not in (None, -signal.SIGKILL):
            raise ServerFailed(f"{contender.title} ended by itself:\n{_tail(log)}")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], port: int, title: str, log: Path) -> None:
    """Return when a process listens at this port. Raises `ServerFailed` with the end of its log."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise ServerFailed(f"{title} did not start:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
