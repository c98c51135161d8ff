"""`aldis check-config` as a process: what it finds, and that it changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aldis.backends.sqlite_file import MIGRATIONS, SqliteFile
from aldis.cli.check_config import Finding, _shown
from aldis.server.data_folder import held_folder
from support.certificates import make_certificates
from support.commands import COMMAND, Piped, aldis, environment
from support.patience import PATIENCE
from support.ports import free_port
from support.postgres_server import postgres_server
from support.redis_server import RedisServer


def checked(home: Path, *words: str, admin: str = "none") -> tuple[int, str]:
    done = aldis("check-config", "--admin-port", admin, *words, home=home)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_settings_that_can_be_used_are_code_0_and_nothing_is_made(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    file = tmp_path / "aldis.toml"
    port = free_port()
    file.write_text(f'port = {port}\ntls-cert = "{files.cert}"\ntls-key = "{files.key}"\ndata = "{tmp_path}/data"\n')
    code, text = checked(tmp_path, "--config", str(file))
    assert code == 0
    assert f"ok     settings: {file}\n" in text
    assert f"tls_cert: {files.cert} for 127.0.0.1, until " in text
    assert f"ok     port: 127.0.0.1:{port} is free\n" in text
    assert f"ok     data: {tmp_path}/data can be made\n" in text
    reload = next(line for line in text.splitlines() if line.startswith("ok     reload: "))
    assert "host, port" in reload
    assert "watches_per_session" in reload
    assert "memory_budget" not in reload
    assert "outgoing_queue_bytes" not in reload
    assert "wrong" not in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "99999"), "port: '99999' given with --port cannot be used"),
        (("--tls-cert", "x.pem"), "tls_key: tls_cert and tls_key go together"),
        (("--tls-cert", "x.pem", "--tls-key", "y.pem"), "tls_cert: cannot read x.pem"),
        (("--host", "no.such.host.invalid"), "host: 'no.such.host.invalid' cannot be resolved"),
        (("--host", "::1%98765"), "port: cannot listen on [::1%98765]:"),
        (("--host", "192.0.2.1"), "port: cannot listen on 192.0.2.1:"),
        (("--tls-handshakes", "5"), "tls_handshakes: '5' given with --tls-handshakes cannot be used; expected a whole"),
        (
            ("--max-message-bytes", "524288", "--outgoing-queue-bytes", "600000"),
            "outgoing_queue_bytes: with max_message_bytes = 524288, a client that comes back may be sent 851968 bytes",
        ),
        (("--data", "/dev/null"), "data: /dev/null is no directory"),
        (("--data", "/dev/null/x"), "data: /dev/null/x cannot be made: Not a directory"),
        (("--data", "/proc/foo/bar"), "data: /proc/foo/bar cannot be made: No such file or directory"),
        (("--data", "/proc"), "data: "),
        (("--redis", "redis://u:hidden-1@127.0.0.1:1"), "redis: redis://127.0.0.1:1 cannot be used: "),
        (("--directory", "redis://127.0.0.1:1"), "directory: redis://127.0.0.1:1 cannot be used: "),
        (("--directory", "postgresql://u:hidden-1@127.0.0.1:1/x"), "directory: postgresql://127.0.0.1:1/x cannot be"),
        (("--directory", "/proc/foo/names.sqlite3"), "directory: /proc/foo cannot be made: "),
    ],
)
def test_what_cannot_be_used_is_code_2(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    code, text = checked(tmp_path, "--port", str(free_port()), "--data", ":memory:", *words)
    assert code == 2
    assert f"wrong  {told}" in text
    assert "hidden-1" not in text


def test_the_password_file_of_a_redis_is_read_although_that_is_not_asked(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    words = ("--port", str(free_port()), "--data", ":memory:", "--redis-password-file", str(secret), "--offline")
    for setting in ("--redis", "--directory"):
        url = (setting, "redis://127.0.0.1:1")
        code, text = checked(tmp_path, *words, *url)
        assert (code, f"wrong  redis_password_file: {secret} cannot be read: " in text) == (2, True)
        secret.touch()
        code, text = checked(tmp_path, *words, *url)
        assert (code, f"wrong  redis_password_file: {secret} is empty\n" in text) == (2, True)
        secret.write_text("open sesame")
        assert checked(tmp_path, *words, *url)[0] == 0
        secret.unlink()


def test_offline_no_other_machine_is_asked(tmp_path: Path) -> None:
    away = "redis://u:hidden-1@127.0.0.1:1"
    tokens = ("--auth", "token", "--jwks", "https://127.0.0.1:1/keys", "--token-audience", "aldis")
    common = ("--port", str(free_port()), "--data", ":memory:", "--redis", away, "--directory", away, *tokens)
    assert checked(tmp_path, *common)[0] == 2
    code, text = checked(tmp_path, *common, "--offline")
    assert (code, "ok     redis: redis://127.0.0.1:1 (not asked)\n" in text) == (0, True)
    assert "hidden-1" not in text


def test_a_key_of_another_certificate_and_dates_that_clients_refuse_are_found(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = make_certificates(tmp_path / "one", expired=True), make_certificates(tmp_path / "other")
    common = ("--port", str(free_port()), "--data", ":memory:", "--tls-cert", str(one.cert))
    assert "is not the key of the certificate" in checked(tmp_path, *common, "--tls-key", str(other.key))[1]
    code, text = checked(tmp_path, *common, "--tls-key", str(one.key))
    assert code == 0  # as a server starts with it, a reload must not be refused
    assert re.search(r"^WARN   tls_cert: .* it has expired: clients refuse it$", text, re.MULTILINE)
    early = make_certificates(tmp_path / "one", early=True)
    code, text = checked(tmp_path, *common, "--tls-key", str(early.key))
    assert code == 0
    assert re.search(r"^WARN .* it is not valid before 20..-..-.. ..:.. UTC: clients refuse it$", text, re.MULTILINE)


def test_a_redis_and_a_postgresql_are_asked_and_nothing_is_written_there(tmp_path: Path) -> None:
    common = ("--port", str(free_port()), "--data", ":memory:")
    with RedisServer(tmp_path / "redis", "--appendonly", "no") as redis:
        url = redis.url()
        code, text = checked(tmp_path, *common, "--redis", url)
        assert (code, f"ok     redis: {url} answers\n" in text) == (0, True)
        assert re.search(r"^note   redis: .* has no append-only file", text, re.MULTILINE)
        assert redis.say("DBSIZE") == "0"
        redis.pause()
        code, text = checked(tmp_path, *common, "--directory", url)
        redis.resume()
        assert (code, f"wrong  directory: {url} " in text) == (2, True)
    with postgres_server() as postgres:
        code, text = checked(tmp_path, *common, "--directory", postgres.url())
        assert (code, "ok     directory: postgresql://" in text) == (0, True)
        assert postgres.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'aldis'") == []


def test_all_settings_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text('port = 99999\nnonsense = 1\nauth = "never"\n')
    code, text = checked(tmp_path, "--config", str(file), "--tls-handshakes", "5")
    assert code == 2
    assert [line.split()[1] for line in text.splitlines()] == ["port:", "nonsense:", "auth:", "tls_handshakes:"]
    words = ("--turn", "turn:turn.example", "--proxy-protocol", "--redirect-port", "80", "--auth", "token")
    code, text = checked(tmp_path, *words)
    assert code == 2
    told = ["jwks:", "turn_secret:", "proxy_protocol:", "redirect_port:"]
    assert [line.split()[1] for line in text.splitlines()] == told


def test_an_admin_port_that_other_machines_reach_is_a_note(tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--data", ":memory:", "--admin-host")
    told = "note   admin_host: 0.0.0.0: other machines reach the admin port"
    code, text = checked(tmp_path, *words, "0.0.0.0", admin=str(free_port()))
    assert (code, told in text) == (0, True)
    assert told not in checked(tmp_path, *words, "0.0.0.0")[1]
    assert "note   admin_host" not in checked(tmp_path, *words, "127.0.0.1", admin="0")[1]


def test_what_a_proxy_does_not_bring_along_is_a_note(tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--data", ":memory:", "--trusted-proxies", "127.0.0.1")
    code, text = checked(tmp_path, *words)
    assert code == 0
    assert "note   names: with trusted_proxies, clients dial the name of the proxy" in text
    assert "note   stun_address: a proxy passes no UDP on" in text
    text = checked(tmp_path, *words, "--names", "signal.example.com", "--stun-address", "signal.example.com")[1]
    assert not re.search(r"^note   (names|stun_address)", text, re.MULTILINE)


def test_a_turn_server_that_is_not_installed_is_found(tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--data", ":memory:", "--turn-server", "--turn-address", "turn.example.com")
    told = "wrong  turn_server: there is no `turnserver` on the PATH; install coturn\n"
    assert told not in checked(tmp_path, *words)[1]
    nowhere = aldis("check-config", "--admin-port", "none", *words, home=tmp_path, extra={"PATH": str(tmp_path)})
    assert (nowhere.returncode, told in nowhere.stdout) == (2, True)


def test_a_turn_server_without_an_address_is_found(tmp_path: Path) -> None:
    words = ("--host", "0.0.0.0", "--port", str(free_port()), "--stun-port", "0", "--data", ":memory:", "--turn-server")
    code, text = checked(tmp_path, *words)
    assert (code, "wrong  turn_address: is needed with turn_server: " in text) == (2, True)
    assert checked(tmp_path, *words, "--names", "turn.example.com", "--turn-port", str(free_port()))[0] == 0


async def test_a_turn_port_of_a_running_aldis_is_a_note_and_of_another_program_an_error(tmp_path: Path) -> None:
    """coturn's own service has it after `apt-get install coturn`, and a server does not start beside that."""
    port = str(free_port())
    words = ("--turn-server", "--turn-port", port, "--port", str(free_port()), "--data", ":memory:")
    async with Piped("serve", "--admin-port", "none", *words, home=tmp_path) as server:
        await server.says("Ctrl-C stops the server")
        code, text = checked(tmp_path, *words)
        by = f"a running Aldis (process {server.process.pid})"
        assert f"note   turn_port: 127.0.0.1:{port} (UDP) is in use by {by}\n" in text
        assert code == 0  # or no reload would go through
        server.process.send_signal(signal.SIGTERM)  # and coturn with it
        assert await server.end() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", int(port)))
        code, text = checked(tmp_path, *words)
        assert (code, f"wrong  turn_port: 127.0.0.1:{port} (UDP) is in use by " in text) == (2, True)
        done = aldis("serve", "--admin-port", "none", *words, home=tmp_path)
    assert done.returncode == 2
    assert f"turn_port: 127.0.0.1:{port} (UDP) is in use by another program, such as a coturn that" in done.stderr
    assert f"ok     turn_port: 127.0.0.1:{port} (UDP) is free\n" in checked(tmp_path, *words)[1]


def test_several_workers_are_checked_with_their_ports(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    words = ("--port", str(port), "--data", ":memory:", "--redis", "redis://127.0.0.1:1", "--workers", "2")
    with socket.create_server(("127.0.0.1", admin + 1)):
        code, text = checked(tmp_path, *words, admin=str(admin))
    assert code == 2
    assert f"ok     admin_port: 127.0.0.1:{admin} is free\n" in text
    assert f"wrong  admin_port: 127.0.0.1:{admin + 1} is in use" in text
    assert re.search(r"^(ok  |note)   workers: 2, 5000 of the 10000 connections each", text, re.MULTILINE)
    reload = next(line for line in text.splitlines() if line.startswith("ok     reload: "))
    assert "replaces the workers one by one" in reload
    assert "max_message_bytes" not in reload
    code, text = checked(tmp_path, "--workers", "2")
    assert (code, "wrong  workers: more than one need redis" in text) == (2, True)
    many = checked(tmp_path, *words[:-1], "128", admin="none")[1]
    assert "note   workers: 128, 79 of the 10000 connections each; this machine has " in many


async def test_a_port_of_a_running_aldis_is_a_note_and_of_another_program_an_error(tmp_path: Path) -> None:
    port = str(free_port())
    words = ("--port", port, "--data", ":memory:")
    async with Piped("serve", "--admin-port", "none", *words, home=tmp_path) as server:
        await server.says("Ctrl-C stops the server")
        code, text = checked(tmp_path, *words)
        assert code == 0
        assert f"note   port: 127.0.0.1:{port} is in use by a running Aldis (process {server.process.pid})\n" in text
    with socket.create_server(("127.0.0.1", int(port))):
        code, text = checked(tmp_path, *words)
    assert f"(process {os.getpid()})" in text
    assert code == 2


async def test_a_stun_port_of_a_running_aldis_is_a_note_and_of_another_program_an_error(tmp_path: Path) -> None:
    port = str(free_port())
    words = ("--host", "0.0.0.0", "--port", str(free_port()), "--data", ":memory:", "--stun-port", port)
    async with Piped("serve", "--admin-port", "none", *words, home=tmp_path) as server:
        await server.says("Ctrl-C stops the server")
        code, text = checked(tmp_path, *words)
        assert code == 0  # or no reload would go through
        by = f"a running Aldis (process {server.process.pid})"
        assert f"note   stun_port: 0.0.0.0:{port} (UDP) is in use by {by}\n" in text
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", int(port)))
        code, text = checked(tmp_path, *words)
        assert re.search(
            rf"^wrong  stun_port: 0.0.0.0:{port} .UDP. is in use by .* .process {os.getpid()}", text, re.MULTILINE
        )
        assert code == 2


async def test_a_port_that_systemd_holds_is_a_note(tmp_path: Path) -> None:
    port = str(free_port())
    words = ("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "/bin/true")
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert b"Listening on" in await process.stderr.readline()
        code, text = checked(tmp_path, "--port", port, "--data", ":memory:")
        assert code == 0
        assert f"note   port: 127.0.0.1:{port} is in use by systemd, which passes it on" in text
    finally:
        process.terminate()
        await process.communicate()


async def test_a_port_that_somebody_shares_with_aldis_is_a_note(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as shared:
        port, descriptor = shared.getsockname()[1], shared.fileno()
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&{descriptor}; exec "$@"', "-", sys.executable),
            *("-m", "aldis", "serve", "--admin-port", "none", "--data", ":memory:", "--log-format", "json"),
            env={**os.environ, "HOME": str(tmp_path)},
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[descriptor],
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(PATIENCE):
                assert b"serving" in await process.stderr.readline()
            code, text = checked(tmp_path, "--port", str(port), "--data", ":memory:")
        finally:
            process.terminate()
            await process.communicate()
    assert code == 0
    assert f"is in use by a running Aldis (process {process.pid})" in text


def unable(home: Path, *words: str) -> tuple[int, str]:
    """Check as a user that may neither open a low port nor see who has: root without its capabilities."""
    drop = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
    command = [*drop, *COMMAND, "check-config", "--admin-port", "none", *words]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout


def test_a_low_port_that_is_open_is_taken_for_the_one_that_systemd_passes_on(tmp_path: Path) -> None:
    # systemd has the ports 443 and 80, and lets the server's user check the settings before a reload.
    words = ("--data", ":memory:", "--host", "::1", "--port", "1019")
    code, text = unable(tmp_path, *words)
    assert code == 2
    assert "wrong  port: this user may not listen on port 1019\n" in text
    with socket.create_server(("::1", 1019), family=socket.AF_INET6):
        code, text = unable(tmp_path, *words)
    assert "note   port: [::1]:1019 is in use; this user cannot see by whom\n" in text
    assert code == 0


def test_names_that_the_server_may_not_write_are_found(tmp_path: Path) -> None:
    names = tmp_path / "data" / "names.sqlite3"
    names.parent.mkdir()
    names.touch(mode=0o400)
    (names.parent / "backup.sqlite3").touch(mode=0o400)  # which is nobody's business
    code, text = unable(tmp_path, "--port", str(free_port()), "--data", str(names.parent))
    assert f"wrong  data: this user may not write {names}\n" in text
    assert code == 2
    names.chmod(0o600)
    assert unable(tmp_path, "--port", str(free_port()), "--data", str(names.parent))[0] == 0


def test_a_full_disk_is_told_of_by_the_check_and_by_a_backup(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    SqliteFile(tmp_path / "names.sqlite3", patience=1).create()
    kept = f'[ ! "$1" ] || cp "$1" {data}/names.sqlite3'
    mount = f"mount -t tmpfs -o size=64k none {data}; {kept}; head -c 1M /dev/zero >{data}/filler"

    def on_a_full_disk(file: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--mount", "sh", "-c", f'{mount}; shift; exec "$@"', "sh", file, *COMMAND, *words]
        return subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    check = ("check-config", "--admin-port", "none", "--port", str(free_port()), "--data", str(data))
    done = on_a_full_disk("", *check)
    assert (done.returncode, f"wrong  data: no file can be made in {data}: No space left" in done.stdout) == (2, True)
    # An empty file is left by a server that could not begin there.
    done = on_a_full_disk("/dev/null", *check)
    assert (done.returncode, f"wrong  data: no file can be made in {data}: No space left" in done.stdout) == (2, True)
    done = on_a_full_disk(str(tmp_path / "names.sqlite3"), *check)
    told = f"WARN   data: there is no room in {data}: new names are refused, and a stop loses new bans"
    assert (done.returncode, told in done.stdout) == (0, True)
    done = on_a_full_disk("", "directory", "backup", str(data / "b.sqlite3"), "--data", str(tmp_path))
    assert done.returncode == 1
    assert re.search(r"b.sqlite3 .* the disk is full", done.stderr)
    assert "--data" not in done.stderr


@pytest.mark.parametrize("stopped", [True, False])
def test_names_and_bans_that_a_server_would_not_start_with_are_found(tmp_path: Path, *, stopped: bool) -> None:
    data = tmp_path / "data"
    names, bans = data / "names.sqlite3", data / "bans.json"
    SqliteFile(names, patience=1).create()
    words = ("--port", str(free_port()), "--data", str(data))

    def found() -> list[str]:
        before = {file.name: file.read_bytes() for file in data.iterdir()}
        code, text = checked(tmp_path, *words)
        after = {file.name: file.read_bytes() for file in data.iterdir()}
        assert {**after, "names.sqlite3-shm": b""} == {**before, "names.sqlite3-shm": b""}  # readers mark it
        assert after.keys() == before.keys()
        wrong = [line for line in text.splitlines() if line.startswith("wrong")]
        assert code == (2 if wrong else 0)
        return wrong

    assert found() == []
    with closing(sqlite3.connect(names, isolation_level=None)) as database:
        database.execute("PRAGMA user_version=99")
        if stopped:
            database.close()
        assert found() == [
            f"wrong  data: {names} has version 99, of a newer release of Aldis;"
            f" this one knows version {len(MIGRATIONS)}"
        ]
    bans.write_text("no list")
    assert found()[1].startswith(f"wrong  data: {bans} is no list of bans: ")
    assert found()[1].endswith("; mend it, or move it away, and then nobody is banned")
    names.write_bytes(b"no database" * 100)
    assert found()[0].startswith(f"wrong  data: {names} is not a directory of names, or is damaged: ")
    done = aldis("serve", "--admin-port", "none", *words, home=tmp_path)
    assert (done.returncode, "is not a directory of names" in done.stderr) == (1, True)


def test_names_that_are_damaged_behind_a_whole_first_page_are_told(tmp_path: Path) -> None:
    """A server does not start with them, and reads no further than the one page that leads to all names."""
    names = tmp_path / "data" / "names.sqlite3"
    SqliteFile(names, patience=1).create()
    with names.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"damaged" * 1000)
    words = ("--admin-port", "none", "--port", str(free_port()), "--data", str(names.parent))
    done = aldis("check-config", *words, home=tmp_path)
    assert (done.returncode, f"wrong  data: {names} is damaged: " in done.stdout) == (2, True)
    done = aldis("serve", *words, home=tmp_path)
    assert (done.returncode, f"{names} is damaged: " in done.stderr) == (1, True)


def test_a_server_that_is_older_than_its_names_says_how_to_go_on(tmp_path: Path) -> None:
    names, backup = tmp_path / "names.sqlite3", tmp_path / "backup.sqlite3"
    SqliteFile(names, patience=1).create()
    words = ("--data", str(tmp_path))
    assert aldis("directory", "backup", str(backup), *words, home=tmp_path).returncode == 0
    with closing(sqlite3.connect(names, isolation_level=None)) as database:
        database.execute("PRAGMA user_version=99")
    done = aldis("serve", "--admin-port", "none", "--port", str(free_port()), *words, home=tmp_path)
    assert done.returncode == 1
    assert "names.sqlite3 has version 99, of a newer release of Aldis" in done.stderr
    assert "Use that release again." in done.stderr
    assert "aldis directory restore" in done.stderr
    assert aldis("directory", "restore", str(backup), *words, home=tmp_path).returncode == 0
    assert "wrong" not in checked(tmp_path, "--port", str(free_port()), *words)[1]


def test_a_backup_of_names_of_a_newer_release_says_how_to_go_on(tmp_path: Path) -> None:
    names, backup = tmp_path / "names.sqlite3", tmp_path / "backup.sqlite3"
    SqliteFile(names, patience=1).create()
    with closing(sqlite3.connect(names, isolation_level=None)) as database:
        database.execute("PRAGMA user_version=99")
    done = aldis("directory", "backup", str(backup), "--data", str(tmp_path), home=tmp_path)
    assert (done.returncode, backup.exists()) == (2, False)
    assert "names.sqlite3 has version 99, of a newer release of Aldis" in done.stderr
    assert "Use that release again." in done.stderr


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_file_in_the_place_of_the_data_folder_is_told_once_and_as_what_it_is(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    words = ("--data", str(file / below), "--port", str(free_port()))
    done = aldis("serve", "--admin-port", "none", *words, home=tmp_path)
    assert done.returncode == 1
    assert f"{file} is no directory" in done.stderr
    assert "File exists" not in done.stderr
    code, text = checked(tmp_path, *words)
    (wrong,) = [line for line in text.splitlines() if line.startswith("wrong")]
    assert code == 2
    assert "Errno" not in wrong


def test_it_takes_the_options_of_serve(tmp_path: Path) -> None:
    ours, theirs = (aldis(command, "--help", home=tmp_path).stdout for command in ("check-config", "serve"))
    shown = [text.partition("Options")[2].partition("Examples")[0].splitlines() for text in (ours, theirs)]
    own = [line for line in shown[0] if line not in shown[1]]
    assert [line for line in shown[0] if line not in own] == shown[1]
    assert own[0].split()[0] == "--offline"
    assert len(own) <= 2


def test_what_an_authority_needs_is_looked_at(tmp_path: Path) -> None:
    data = tmp_path / "data"
    words = ("--port", str(free_port()), "--data", str(data), "--acme-agree-tos", "--acme-domain", "no.such.invalid")
    code, text = checked(tmp_path, *words)
    assert code == 0
    assert "note   acme_domain: no.such.invalid has no address here; the authority needs one in the DNS\n" in text
    assert "note   acme_domain: the authority asks the ports 80 (redirect_port) or 443 (port)" in text
    assert "note   acme_domain: there is no certificate yet; the server orders one at its start\n" in text
    assert not data.exists()
    files = make_certificates(tmp_path, host="no.such.invalid")
    kept = data / "acme" / "certificate.pem"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    assert f"acme_domain: {kept} for no.such.invalid, until " in checked(tmp_path, *words)[1]
    code, text = checked(tmp_path, *words, "--acme-ca-file", str(files.key))
    assert (code, f"wrong  acme_ca_file: {files.key} holds no certificate in PEM form\n" in text) == (2, True)
    code, text = checked(tmp_path, *words[:4], "--acme-domain", "a.example")
    assert (code, "acme_agree_tos: is needed with acme_domain" in text) == (2, True)


def test_several_domains_can_be_given_one_by_one(tmp_path: Path) -> None:
    words = ("--data", str(tmp_path / "data"), "--acme-agree-tos")
    _, text = checked(tmp_path, *words, "--acme-domain", "a.invalid", "--acme-domain", "b.invalid,c.invalid")
    assert [name for name in ("a", "b", "c") if f"{name}.invalid has no address" in text] == ["a", "b", "c"]


def test_an_admin_token_that_others_can_read_is_noted(tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--data", str(tmp_path))
    token = tmp_path / "admin-token"
    token.write_text("secret\n")
    token.chmod(0o644)
    code, text = checked(tmp_path, *words)
    assert (code, f"note   data: others can read {token}, " in text) == (0, True)
    token.chmod(0o600)
    assert "others can read" not in checked(tmp_path, *words)[1]


def test_a_data_directory_that_is_mounted_read_only_is_told_as_that(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mount = f'mount -t tmpfs none {data} && mount -o remount,ro {data}; exec "$@"'
    words = ("check-config", "--admin-port", "none", "--port", str(free_port()), "--data", str(data))
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", *COMMAND, *words]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert f"wrong  data: {data} is on a file system that is mounted read-only\n" in done.stdout


def test_at_a_terminal_long_lines_are_wrapped_between_words() -> None:
    finding = Finding("ok", "reload: SIGHUP takes over all settings but host, port, admin_host, admin_port, auth")
    assert _shown(finding, 40).splitlines() == [
        "ok     reload: SIGHUP takes over all",
        "       settings but host, port,",
        "       admin_host, admin_port, auth",
    ]
    assert _shown(finding, None) == f"ok     {finding.text}"


def test_a_data_directory_that_a_server_has_is_noted(tmp_path: Path) -> None:
    words = ("--port", str(free_port()), "--data", str(tmp_path))
    with held_folder(tmp_path):
        code, text = checked(tmp_path, *words)
    assert code == 0
    assert f"note   data: {tmp_path} is in use by a running server (process {os.getpid()});" in text
    assert "in use" not in checked(tmp_path, *words)[1]
