"""`aldis check-config` as a process: what it finds, and that it changes nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support.certificates import make_certificates
from support.commands import Piped, aldis
from support.ports import free_port


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
    assert "wrong" not in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "99999"), "port: '99999' given with --port cannot be used"),
        (("--tls-cert", "x.pem"), "tls_key: tls_cert and tls_key go together"),
        (("--tls-cert", "x.pem", "--tls-key", "y.pem"), "tls_cert: cannot read x.pem"),
        (("--host", "no.such.host.invalid"), "host: 'no.such.host.invalid' cannot be resolved"),
        (("--host", "192.0.2.1"), "port: cannot listen on 192.0.2.1:"),
        (("--data", "/dev/null"), "data: /dev/null is no directory"),
        (("--data", "/dev/null/x"), "data: this user may not make /dev/null/x"),
    ],
)
def test_what_cannot_be_used_is_code_2(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    code, text = checked(tmp_path, "--port", str(free_port()), "--data", ":memory:", *words)
    assert code == 2
    assert f"wrong  {told}" in text


def test_a_key_of_another_certificate_and_an_expired_one_are_found(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = make_certificates(tmp_path / "one", expired=True), make_certificates(tmp_path / "other")
    common = ("--port", str(free_port()), "--data", ":memory:", "--tls-cert", str(one.cert))
    assert "is not the key of the certificate" in checked(tmp_path, *common, "--tls-key", str(other.key))[1]
    code, text = checked(tmp_path, *common, "--tls-key", str(one.key))
    assert code == 2
    assert "it has expired" in text


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


def test_it_takes_the_options_of_serve(tmp_path: Path) -> None:
    ours, theirs = (aldis(command, "--help", home=tmp_path).stdout for command in ("check-config", "serve"))
    assert (
        ours.partition("Options")[2].partition("Examples")[0] == theirs.partition("Options")[2].partition("Examples")[0]
    )
