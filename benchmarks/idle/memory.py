"""What an idle connection takes of memory: without TLS, with the server's own TLS, and behind nginx, Caddy or HAProxy.

    .venv/bin/python -m benchmarks.idle.memory                           # all five, 2,000 clients, four minutes
    .venv/bin/python -m benchmarks.idle.memory --clients 500 --only tls --only nginx

The clients are `SignalingClient`s that register and say nothing more (`benchmarks.storm.clients`). A tenth of them come
first, so that what a process allocates once is not counted. The figure is the growth of the proportional set size of
all processes of the server, or of the proxy, divided by the other clients. The proxies have the files of `deploy/`, and
one worker or thread each, but Caddy. What the kernel keeps for sockets is in no figure. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import servers
from benchmarks.load.helpers import helper
from benchmarks.load.process import choose_cores, memory, running_on

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.certificates import Certificates, make_certificates  # noqa: E402
from support.kit import program, written  # noqa: E402

PROXIES: Final = ("nginx", "caddy", "haproxy")
CASES: Final = ("plain", "tls", *PROXIES)
WHERE: Final = {
    "plain": "no TLS",
    "tls": "the server's own TLS",
    "nginx": "nginx in front",
    "caddy": "Caddy in front",
    "haproxy": "HAProxy in front",
}
# All clients are at one address, and their names are new.
LIMITS: Final = {
    "ALDIS_NEW_NAMES_PER_ADDRESS": "0",
    "ALDIS_MAX_CONNECTIONS": "100000",
    "ALDIS_TRUSTED_PROXIES": "127.0.0.1",
}
# Connections of a proxy: two for each client.
_NGINX: Final = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile 100000;
events {{ worker_connections 50000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{site}
}}
"""
_CADDY: Final = "{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}\n"


@dataclass(frozen=True)
class Result:
    """KiB for each connection, of the server and of the proxy before it."""

    case: str
    clients: int
    server: float
    proxy: float

    @property
    def together(self) -> float:
        """What the machine needs where both are on it."""
        return self.server + self.proxy


def tree(pid: int) -> list[int]:
    """A process and those that it has started."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def kib(pid: int | None) -> float:
    """What a process and its children occupy."""
    return 0.0 if pid is None else sum(memory(each).pss for each in tree(pid)) / 1024


def settled(pid: int | None, seconds: float) -> float:
    """The least that they occupy within some seconds: a collector of garbage works when it likes."""
    end = time.monotonic() + seconds
    least = kib(pid)
    while time.monotonic() < end:
        time.sleep(0.5)
        least = min(least, kib(pid))
    return least


def nginx_command(folder: Path, tls: Certificates, port: int, server: int) -> list[str]:
    """nginx with `deploy/nginx/aldis.conf`."""
    changes = {
        "    listen [::]:443 ssl;\n": "",
        "    listen [::]:80;\n": "",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl backlog=4096",
        "listen 80": f"listen 127.0.0.1:{servers.free_port()}",
        "/etc/letsencrypt/live/signal.example.com/fullchain.pem": str(tls.cert),
        "/etc/letsencrypt/live/signal.example.com/privkey.pem": str(tls.key),
        "signal.example.com": "127.0.0.1",
        "127.0.0.1:8080": f"127.0.0.1:{server}",
    }
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, site=written("nginx/aldis.conf", changes)))
    return [program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(file)]


def caddy_command(folder: Path, tls: Certificates, port: int, server: int) -> list[str]:
    """Caddy with `deploy/caddy/Caddyfile`."""
    site = f"https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {tls.cert} {tls.key}\n"
    changes = {"signal.example.com {\n": site, "127.0.0.1:8080": f"127.0.0.1:{server}"}
    file = folder / "Caddyfile"
    file.write_text(_CADDY.format(site=written("caddy/Caddyfile", changes)))
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


def haproxy_command(folder: Path, tls: Certificates, port: int, server: int) -> list[str]:
    """HAProxy with `deploy/cluster/haproxy.cfg`, for one node, which it does not check."""
    both = folder / "haproxy.pem"
    both.write_bytes(tls.cert.read_bytes() + tls.key.read_bytes())
    changes = {
        "    log /dev/log local0\n    user haproxy\n    group haproxy\n": "    nbthread 1\n",
        "maxconn 40000": "maxconn 9000",  # it takes two descriptors for each, and starts with no fewer
        "bind :80\n": f"bind 127.0.0.1:{servers.free_port()}\n",
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/aldis/tls/haproxy.pem": str(both),
        "default-server check port 9080 inter 2s fall 2 rise 1": "default-server no-check",
        "10.0.0.11:8080": f"127.0.0.1:{server}",
        "    server two 10.0.0.12:8080\n": "",
    }
    file = folder / "haproxy.cfg"
    file.write_text(written("cluster/haproxy.cfg", changes))
    return [program("haproxy"), "-f", str(file)]


COMMANDS: Final = {"nginx": nginx_command, "caddy": caddy_command, "haproxy": haproxy_command}


@contextmanager
def started(command: Sequence[str], folder: Path, port: int, core: int) -> Iterator[int]:
    """A proxy that listens; its process."""
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = folder / "proxy.log"
    with log.open("ab") as output, running_on(core):
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        servers.wait_for(process, port, command[0], log)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def measure(case: str, clients: int, settle: float) -> Result:
    """One row."""
    cores = choose_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-idle-")))
        folder.chmod(0o755)  # nginx's workers are another user
        tls = make_certificates(folder)
        port = front = servers.free_port()
        proxy = None
        limits = dict(LIMITS)
        if case == "tls":
            limits |= {"ALDIS_TLS_CERT": str(tls.cert), "ALDIS_TLS_KEY": str(tls.key)}
        if case in PROXIES:
            front = servers.free_port()
            limits |= {"ALDIS_NAMES": f"127.0.0.1:{front}"}
        server = stack.enter_context(servers.started_in(folder, servers.ALDIS, port, cores.server, limits))
        if case in PROXIES:
            command = COMMANDS[case](folder, tls, front, port)
            proxy = stack.enter_context(started(command, folder, front, cores.generator))
        url = f"{'ws' if case == 'plain' else 'wss'}://127.0.0.1:{front}"
        authority = [] if case == "plain" else [str(tls.ca)]

        def enter(first: int, count: int) -> None:
            words = map(str, (url, first, count, 0, *authority))
            stack.enter_context(helper(cores.generator, "benchmarks.storm.clients", *words))

        early = max(20, clients // 10)
        enter(0, early)
        before = settled(server.pid, settle), settled(proxy, settle)
        enter(early, clients)
        after = settled(server.pid, settle), settled(proxy, settle)
    grown = [(late - early_) / clients for early_, late in zip(before, after, strict=True)]
    return Result(case, clients, *grown)


HEAD: Final = (
    "| TLS by | KiB of the server | KiB of the proxy | together | for 10,000 users |\n|---|---:|---:|---:|---:|"
)


def row(result: Result) -> str:
    """A line of the table."""
    proxy = f"{result.proxy:.1f}" if result.case in PROXIES else ""
    total = f"{result.together * 10_000 / 1024:,.0f} MiB"
    return f"| {WHERE[result.case]} | {result.server:.1f} | {proxy} | {result.together:.1f} | {total} |"


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=2000, help="that are counted (%(default)s)")
    parser.add_argument("--only", choices=CASES, action="append", help="these cases; all when not given")
    parser.add_argument("--settle", type=float, default=8.0, help="seconds before memory is read (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this needs Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception ends the other processes, too
    print(HEAD, flush=True)
    results = []
    for case in options.only or CASES:
        results.append(measure(case, options.clients, options.settle))
        print(row(results[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
