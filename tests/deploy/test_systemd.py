"""The systemd unit: what systemd says of it, and a server that runs with the system calls that it leaves."""

from __future__ import annotations

import asyncio
import ctypes
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from aldis.server.config import load_config
from aldis.server.sockets import LISTEN_BACKLOG
from support.commands import aldis
from support.kit import DEPLOY, ROOT, tool, written
from support.patience import PATIENCE
from support.pebble import Pebble
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.server_forks import RUN
from support.server_process import Process, ServerProcess
from support.servers import Server

UNIT = DEPLOY / "systemd" / "aldis.service"
SOCKET = DEPLOY / "systemd" / "aldis.socket"
# At most this much (issue: "hardened"): 0 is a program that may do nothing, 9.6 one without a single setting.
MOST_EXPOSED = 2.0
_COMMAND = Path(sys.executable).with_name("aldis")
_NO_NEW_PRIVILEGES, _MDWE, _REFUSE_EXEC_GAIN = 38, 65, 1  # prctl(2)
_ALLOW, _ERRNO_EPERM = 0x7FFF0000, 0x00050001  # seccomp(2)
# Takes the place of what systemd does before it starts a service with this filter.
_CONFINED = f"""{RUN}
sys.path.insert(0, sys.argv[4])
from deploy.test_systemd import confine
confine(json.loads(sys.argv[3]))
serve(*map(json.loads, sys.argv[1:3]))
"""


def settings(name: str, unit: Path = UNIT) -> list[str]:
    """What a unit says for this setting, line by line."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def exposure(unit: Path) -> float:
    told = tool("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    assert found, told.stdout
    return float(found[1])


def test_the_unit_is_hardened() -> None:
    assert exposure(UNIT) <= MOST_EXPOSED


def test_a_unit_that_is_not_hardened_is_found_out(tmp_path: Path) -> None:
    bare = tmp_path / "aldis.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(bare) > MOST_EXPOSED


def verified(folder: Path, **changes: str) -> str:
    """What systemd finds wrong with the units, where the command is the one of this environment."""
    unit, port = folder / "aldis.service", folder / "aldis.socket"
    unit.write_text(written("systemd/aldis.service", {"/opt/aldis/bin/aldis": str(_COMMAND), **changes}))
    port.write_text(SOCKET.read_text())
    told = tool("systemd-analyze", "verify", "--man=no", unit, port)
    ours = "\n".join(line for line in told.stdout.splitlines() if "aldis" in line)
    assert told.returncode == 0 or ours, told.stdout
    return ours


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    assert verified(tmp_path) == ""


def test_systemd_finds_a_misspelt_setting(tmp_path: Path) -> None:
    assert "ProtectHam" in verified(tmp_path, ProtectHome="ProtectHam")


async def test_the_socket_is_on_the_port_of_the_settings(tmp_path: Path) -> None:
    """So `check-config` looks at the right port, and a server without the socket is where the proxy expects it."""
    file = tmp_path / "aldis.toml"
    file.write_text(written("aldis.toml", {}))
    config = load_config({}, {"ALDIS_TURN_SECRET": "secret"}, file)
    assert settings("ListenStream", SOCKET) == [f"{config.host}:{config.port}"]
    assert settings("FileDescriptorName", SOCKET) == ["public"]
    assert settings("Backlog", SOCKET) == [str(LISTEN_BACKLOG)]
    assert settings("Requires") == ["aldis.socket"]  # so it is passed also to a service that is started alone


async def test_the_commands_of_the_unit_are_ones_that_aldis_takes(tmp_path: Path) -> None:
    (words,) = settings("ExecStart")
    assert words.split()[:2] == ["/opt/aldis/bin/aldis", "serve"]
    check, signal = settings("ExecReload")
    assert check == "/opt/aldis/bin/aldis check-config --offline --config /etc/aldis/aldis.toml"
    assert signal == "/bin/kill -HUP $MAINPID"
    file = tmp_path / "aldis.toml"
    extra = {"ALDIS_DATA": str(tmp_path / "server"), "ALDIS_TURN_SECRET": "secret", "ALDIS_ADMIN_PORT": "none"}
    async with Server(tmp_path) as server:  # the one that is to be reloaded has the port and the names
        file.write_text(written("aldis.toml", {"port = 8080": f"port = {server.port}"}))
        told = await asyncio.to_thread(aldis, "check-config", "--offline", "--config", file, home=tmp_path, extra=extra)
    assert told.returncode == 0, told.stdout
    assert f":{server.port} is in use by a running Aldis" in told.stdout
    (environment,) = settings("Environment")
    assert "ALDIS_DATA=/var/lib/aldis" in environment.split()


def test_the_user_and_the_folders_of_the_unit_are_made(tmp_path: Path) -> None:
    for folder in ("etc", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/lib/sysusers.d/aldis.conf").write_text(written("systemd/aldis.sysusers.conf", {}))
    # A developer who is not root runs this in a namespace that has no other user.
    everything_ours = {" root aldis ": " root root ", " aldis aldis ": " root root "}
    (tmp_path / "usr/lib/tmpfiles.d/aldis.conf").write_text(written("systemd/aldis.tmpfiles.conf", everything_ours))
    made = tool("systemd-sysusers", f"--root={tmp_path}", "aldis.conf")
    assert made.returncode == 0, made.stdout
    (user,) = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if "aldis" in line]
    assert (user[0], user[5], user[6]) == ("aldis", "/var/lib/aldis", "/usr/sbin/nologin")
    assert settings("User") == settings("Group") == ["aldis"]
    made = tool("systemd-tmpfiles", "--create", f"--root={tmp_path}", "aldis.conf")
    assert made.returncode == 0, made.stdout
    modes = {name: oct((tmp_path / name).stat().st_mode & 0o7777) for name in ("etc/aldis", "var/lib/aldis")}
    assert modes == {"etc/aldis": "0o750", "var/lib/aldis": "0o700"}
    assert oct((tmp_path / "etc/aldis/secrets.env").stat().st_mode & 0o7777) == "0o600"


# --- a server with nothing but these system calls -------------------------------------------------------------------


def calls_in(group: str) -> set[str]:
    """The system calls of a group of systemd, such as @system-service, or the one of this name."""
    if not group.startswith("@"):
        return {group}
    told = tool("systemd-analyze", "syscall-filter", "--no-pager", group)
    assert told.returncode == 0, told.stdout
    words = {line.strip() for line in told.stdout.splitlines()[1:]} - {""}
    calls = {word for word in words if not word.startswith(("#", "@"))}
    return calls.union(*(calls_in(word) for word in words if word.startswith("@")))


def allowed() -> set[str]:
    """The system calls that the unit leaves, which always has those of @default."""
    calls = calls_in("@default")
    for line in settings("SystemCallFilter"):
        groups = set[str]().union(*map(calls_in, line.removeprefix("~").split()))
        calls = calls - groups if line.startswith("~") else calls | groups
    return calls


def confine(calls: list[str]) -> None:
    """Leave this process these system calls, and no memory that can be written and run; as systemd does for a unit."""
    seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_ERRNO_EPERM)))
    for name in calls:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # below: another machine's
            assert seccomp.seccomp_rule_add_array(rules, ctypes.c_uint32(_ALLOW), number, 0, None) == 0, name
    if libc.prctl(_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        assert ctypes.get_errno() == 22, "a kernel before 6.3 does not know it, and others must do it"
    assert seccomp.seccomp_load(rules) == 0


class ConfinedServer(ServerProcess):
    """A server with the system calls that are given."""

    def __init__(self, folder: Path, calls: set[str], **more: Any) -> None:
        super().__init__(folder, **more)
        self._calls = calls

    async def _spawn(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "default", "-c", _CONFINED),
            *(json.dumps(self.settings), json.dumps(self._tuning)),
            *(json.dumps(sorted(self._calls)), str(Path(__file__).parents[1])),
            stderr=asyncio.subprocess.PIPE,
        )


async def test_a_server_works_with_the_system_calls_that_the_unit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = allowed()
    assert settings("Type") == ["notify"]
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert "setrlimit" not in calls
    assert "chown" not in calls
    # With a coturn of its own, which has no more.
    turn = {"turn_server": True, "turn_address": "127.0.0.1", "turn_port": free_port()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        async with ConfinedServer(tmp_path, calls, admin_port=0, **turn) as server:
            assert b"READY=1" in systemd.recv(4096)
            await works(server)
            assert await server.stop() == 0
            assert b"STOPPING=1" in systemd.recv(4096)
            server.assert_clean_log()


async def test_a_server_gets_its_certificate_with_these_system_calls(tmp_path: Path) -> None:
    async with (
        Pebble(tmp_path) as authority,
        ConfinedServer(tmp_path, allowed(), **authority.settings()) as server,
    ):
        await server.wait_for_line("new certificate")
        assert await server.stop() == 0
        server.assert_clean_log()


async def works(server: ServerProcess) -> None:
    """The server registers a client, and shows its metrics and its page."""
    async with await RawClient.connect(server.port) as alice:
        assert (await alice.register("alice"))["type"] == "registered"
    status, _, body = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, b"\naldis_turn_up 1.0" in body) == (200, True)
    status, _, body = await http_get(server.port, f"GET / HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode())
    assert (status, b"<title>" in body) == (200, True)


async def test_a_server_without_a_system_call_that_it_needs_does_not_start(tmp_path: Path) -> None:
    server = ConfinedServer(tmp_path, allowed() - {"listen"})
    with pytest.raises(AssertionError):
        await server.start()
    assert await server.wait() != 0


def test_a_guide_that_stops_the_server_stops_its_sockets_which_would_start_it_for_the_next_client() -> None:
    stops = [
        line.strip()
        for guide in ("deploy.md", "cluster.md", "alerts.md", "proxy.md", "accounts.md", "cli.md")
        for line in (ROOT / "docs" / guide).read_text().splitlines()
        if line.startswith(("    systemctl stop aldis", "    systemctl stop 'aldis"))
    ]
    assert len(stops) >= 4
    assert [line for line in stops if not line.startswith("systemctl stop 'aldis*'")] == []
    # Both sockets start the service, and the service pulls them in when it is started alone.
    unit = (DEPLOY / "systemd" / "aldis.service").read_text()
    direct = (DEPLOY / "direct" / "service.conf").read_text()
    assert ("Requires=aldis.socket" in unit, "Requires=aldis-redirect.socket" in direct) == (True, True)
