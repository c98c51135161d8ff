"""A real PostgreSQL server of a test's own: in a folder of its own, with a Unix socket there and a port on loopback.

PostgreSQL refuses to run as root, so root starts it as `nobody`. Debian keeps its programs outside the path.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psutil
import psycopg

from support.patience import PATIENCE
from support.ports import free_port

PASSWORD: Final = "p%40ss word"  # has to be written in a URL otherwise
_READY: Final = ("ready to accept connections", "ready to accept read-only connections")
_NOBODY: Final = 65534


def _program(name: str) -> str:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    path = os.pathsep.join([*map(str, reversed(debian)), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    assert found, f"there is no {name} of PostgreSQL on this machine; `make system` installs it"
    return found


def _is_ready(line: str) -> bool:
    return any(words in line for words in _READY)


def _as_other_user() -> tuple[list[str], dict[str, Any]]:
    """What goes before a command of PostgreSQL, and options for `Popen`."""
    if os.geteuid() != 0:
        return [], {}
    maps = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if any(first <= _NOBODY < first + length for first, _, length in maps):
        return [], {"user": _NOBODY, "group": pwd.getpwuid(_NOBODY).pw_gid, "extra_groups": []}
    # tools/netns.sh without root: this root is the only user there is, under another name.
    return ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"], {}


class PostgresServer:
    """`initdb` at once; then `start`, `kill`, `stop` and so on. `settings` are those of postgresql.conf.

    With `primary` it is a standby of that server, which runs, from a copy of its data.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, primary: PostgresServer | None = None
    ) -> None:
        self.folder, self.port = folder, free_port()
        self._prefix, self._options = _as_other_user()
        if "user" in self._options:
            os.chown(folder, self._options["user"], self._options["group"])
        self._data = folder / "data"
        self.settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(folder)} | dict(settings or {})
        self._numbers = count()
        if primary is not None:
            address = ["-h", str(primary.folder), "-p", str(primary.port), "-U", "postgres"]
            self._run("pg_basebackup", "-D", str(self._data), "-R", "-c", "fast", "--no-sync", *address)
            return
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        words = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", f"--pwfile={password}"]
        self._run("initdb", "-D", str(self._data), *words, "--auth-local=trust", "--auth-host=scram-sha-256")

    def _command(self, name: str, *words: str) -> list[str]:
        return [*self._prefix, _program(name), *words]

    def _run(self, name: str, *words: str) -> None:
        ended = subprocess.run(
            self._command(name, *words),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **self._options,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def start(self) -> None:
        """Return when the server takes connections."""
        settings = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            self._command("postgres", "-D", str(self._data), "-p", str(self.port), *settings),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **self._options,
        )
        ready = threading.Event()
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        if not ready.wait(PATIENCE) or not any(map(_is_ready, self.log)):
            self._process.kill()
            self._wait()
            raise AssertionError("".join(self.log))

    def _read(self, ready: threading.Event) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if _is_ready(line):
                ready.set()
        ready.set()

    def _processes(self) -> list[psutil.Process]:
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # one of its processes has ended meanwhile
                process.send_signal(number)

    def pause(self) -> None:
        """Stop all of its processes, as on a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all of its processes at once, as when the machine crashes."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End it in order: a fast shutdown, which ends its connections."""
        self._process.send_signal(signal.SIGINT)
        self._wait()

    def _wait(self) -> None:
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)  # all of its processes have closed the pipe
        assert not self._reader.is_alive()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def wait_for_replay_of(self, primary: PostgresServer) -> None:
        """Return when this standby has what the primary has committed."""
        ((position,),) = primary.execute("SELECT pg_current_wal_lsn()::text")
        deadline = monotonic() + PATIENCE
        while self.execute(f"SELECT pg_last_wal_replay_lsn() < '{position}'") == [(True,)]:
            assert monotonic() < deadline, "".join(self.log)

    @property
    def running(self) -> bool:
        """Whether it was started, and neither killed nor stopped."""
        return hasattr(self, "_process") and self._process.poll() is None

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """The database as the superuser, over the Unix socket."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql:///{database}?host={self.folder}&port={self.port}&user=postgres{more}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; return its rows."""
        with psycopg.connect(self.url(database, connect_timeout="10"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self, words: str = "ENCODING 'UTF8'") -> str:
        """Make an empty database; return its name. Each call makes another one."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 {words}")
        return name


@contextmanager
def postgres_server(
    settings: Mapping[str, str] | None = None, primary: PostgresServer | None = None
) -> Iterator[PostgresServer]:
    """A server that runs until the block ends."""
    # Not in `tmp_path`: that is for its owner alone, and its paths are too long for a Unix socket (unix(7): 108 bytes).
    with tempfile.TemporaryDirectory(prefix="aldis-postgres-") as folder:
        server = PostgresServer(Path(folder), settings, primary)
        server.start()
        try:
            yield server
        finally:
            if server.running:
                server.kill()
