"""A real Redis: a process of its own on a port of 127.0.0.1, with its files in a folder.

with RedisServer(folder) as server:
    server.url()
    server.kill(); server.start()     # kill -9, and again at the same port with the same files
    server.pause(); server.resume()   # it neither answers nor closes
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from support.kit import program
from support.patience import PATIENCE
from support.ports import free_port

# Milliseconds after which a Sentinel holds a silent master for down. It connects once a second, counted from its last
# attempt at the former master: with less it holds the new one for down until then, and nobody finds a master.
DOWN_AFTER = 2000
# By default a master waits 5 s for more replicas before it sends its data to the first.
AT_ONCE = ("--repl-diskless-sync-delay", "0")
# Of the log of a Redis, when a test fails.
_LAST_LINES = 25


class RedisServer:
    """`settings` are words of its command line, such as `--appendfsync always`. The folder is made."""

    def __init__(self, folder: Path, *settings: str, bus: bool = False, tls: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        # That of a node of a Cluster is by default 10,000 above, where the ports of other test processes are.
        self.settings = (*settings, "--cluster-port", str(free_port())) if bus else settings
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, login: str = "", scheme: str = "redis") -> str:
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it answers: also while it is loading its data, it does not."""
        words = ("--port", "0", "--tls-port", str(self.port)) if self._tls else ("--port", str(self.port))
        words = (*words, "--bind", "127.0.0.1", "--dir", str(self.folder))
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [program("redis-server"), *self._file(), *words, *self.settings], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()

    def _file(self) -> tuple[str, ...]:
        return ()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
                if self._tls:
                    return True
                connection.sendall(b"PING\r\n")
                answer = connection.recv(100)
        except ConnectionError:
            return False
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def say(self, *words: str) -> str:
        """Run a command with redis-cli."""
        command = [program("redis-cli"), "-p", str(self.port), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.strip()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            error.add_note(f"It said: {error.stdout!r} {error.stderr!r}")
            raise

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if isinstance(error, Exception):
            lines = (self.folder / "log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
            error.add_note("\n".join([f"The end of the log of the Redis at port {self.port}:", *lines, ""]))


class Sentinels:
    """A master, its replica, and one Sentinel that has a new master chosen: `master` and `replica` are RedisServers."""

    SERVICE = "names"

    def __init__(self, folder: Path, *settings: str, down_after: int = DOWN_AFTER) -> None:
        """`down_after`: milliseconds after which a master that says nothing is replaced. On a busy machine one that
        lives may be silent for longer than what the default is."""
        settings = (*settings, *AT_ONCE)
        self.master = RedisServer(folder / "master", *settings)
        self.replica = RedisServer(folder / "replica", *settings, "--replicaof", f"127.0.0.1 {self.master.port}")
        self._sentinel = _Sentinel(folder / "sentinel", self.master.port, self.SERVICE, down_after)

    @property
    def url(self) -> str:
        return f"{self._sentinel.url(scheme='redis+sentinel')}/{self.SERVICE}"

    def has_replica(self) -> bool:
        """Whether the replica has all of the master's data, and the Sentinel knows that: it can be chosen."""
        known = self._sentinel.say("sentinel", "replicas", self.SERVICE)
        return "master-link-status\nok" in known

    def masters_port(self) -> int:
        """The port of the master, by the Sentinel's word."""
        return int(self._sentinel.say("sentinel", "get-master-addr-by-name", self.SERVICE).split()[1])

    def fail_over(self) -> None:
        """Have the replica chosen as the master, although the master answers. Nothing, while it cannot be chosen."""
        self._sentinel.say("sentinel", "failover", self.SERVICE)

    def __enter__(self) -> Sentinels:
        with ExitStack() as stack:
            for server in (self.master, self.replica, self._sentinel):
                stack.enter_context(server)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


class _Sentinel(RedisServer):
    def __init__(self, folder: Path, port_of_master: int, service: str, down_after: int) -> None:
        super().__init__(folder, "--sentinel")
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor {service} 127.0.0.1 {port_of_master} 1\n"
            f"sentinel down-after-milliseconds {service} {down_after}\n"
            f"sentinel failover-timeout {service} 2000\n"
        )

    def _file(self) -> tuple[str, ...]:
        return (str(self.folder / "sentinel.conf"),)


class Cluster:
    """Three masters with a third of the slots each, and a replica of each, if wanted: a lost master is replaced."""

    def __init__(self, folder: Path, *settings: str, replicas: bool = False) -> None:
        # In milliseconds; a master that says nothing for so long is replaced, if there is a replica.
        timeout = ("--cluster-node-timeout", "1000" if replicas else "15000")
        more = ("--cluster-enabled", "yes", *timeout, *AT_ONCE, *settings)
        self.servers = [RedisServer(folder / str(number), *more, bus=True) for number in range(6 if replicas else 3)]
        self._replicas = replicas

    @property
    def url(self) -> str:
        """With two of the servers: a node that starts later may find one of them dead."""
        return f"{self.servers[0].url(scheme='redis+cluster')},127.0.0.1:{self.servers[1].port}"

    def masters(self) -> list[RedisServer]:
        """The servers that say they are masters. All of `servers` have to run."""
        return [server for server in self.servers if "role:master" in server.say("info", "replication")]

    def lose_a_master(self, choose: Callable[[Sequence[RedisServer]], RedisServer] = itemgetter(0)) -> RedisServer:
        """Kill one as kill -9 does, and return it. `until_replaced` and `bring_back` go on."""
        victim = choose(self.masters())
        victim.kill()
        self.servers.remove(victim)
        return victim

    def bring_back(self, victim: RedisServer) -> None:
        """Start a lost master again, with its files: it becomes a replica of the one that has replaced it."""
        victim.start()
        self.servers.append(victim)

    def until_whole(self) -> None:
        """Wait until all serve, each master has its replica, with all its data, and all of them know it."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_whole():
            assert time.monotonic() < deadline

    def until_replaced(self) -> None:
        """Wait until there are three masters that serve all slots again."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_replaced():
            assert time.monotonic() < deadline

    def _is_replaced(self) -> bool:
        return len(self.masters()) == 3 and self._all_serve()

    def _is_whole(self) -> bool:
        roles = [server.say("info", "replication") for server in self.servers]
        linked = sum("master_link_status:up" in role for role in roles)
        known = [server.say("cluster", "nodes").count("slave ") for server in self.servers]
        return linked == len(self.servers) // 2 and set(known) == {linked} and self._all_serve()

    def _all_serve(self) -> bool:
        return all("cluster_state:ok" in server.say("cluster", "info") for server in self.servers)

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
            more = ("--cluster-replicas", "1") if self._replicas else ()
            self.servers[0].say("--cluster", "create", *addresses, *more, "--cluster-yes")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
