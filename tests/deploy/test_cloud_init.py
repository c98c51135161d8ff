"""The user-data for cloud-init, and what it and `setup.sh` put on a machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from aldis.server.config import load_config
from support.kit import DEPLOY, ROOT, program, running, tool, written
from support.ports import free_port

USER_DATA = DEPLOY / "cloud-init" / "aldis.yaml"
# At the strictest provider, bytes.
MOST = 16 * 1024


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    specification = importlib.util.spec_from_file_location("cloud_init", ROOT / "tools" / "cloud_init.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def told(path: Path) -> tuple[bool, str]:
    """What cloud-init finds wrong with user-data."""
    result = tool("cloud-init", "schema", "--config-file", path)
    return result.returncode == 0, result.stdout


def test_cloud_init_finds_nothing_wrong_with_the_user_data() -> None:
    fine, text = told(USER_DATA)
    assert fine, text
    assert len(USER_DATA.read_bytes()) <= MOST


def test_cloud_init_finds_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(USER_DATA.read_text().replace("package_update: true", "package_update: [1]"))
    fine, text = told(wrong)
    assert not fine
    assert "package_update" in text


def test_the_user_data_holds_the_files_of_the_kit_as_they_are(writer: ModuleType) -> None:
    assert USER_DATA.read_text() == writer.user_data(), "run: python tools/cloud_init.py"
    document: dict[str, Any] = yaml.safe_load(USER_DATA.read_text())
    for entry in document["write_files"]:
        name = entry["path"].removeprefix(f"{writer.PLACE}/")
        assert entry["content"] == (DEPLOY / name).read_text()
    package = "ALDIS_PACKAGE=aldis-server[redis]"
    assert document["runcmd"] == [["env", package, "sh", f"{writer.PLACE}/setup.sh", "signal.example.com"]]


def test_the_user_data_holds_each_file_that_the_script_puts_somewhere(writer: ModuleType) -> None:
    script = (DEPLOY / "setup.sh").read_text()
    assert {"setup.sh", *re.findall(r"\bput \d+ (\S+)", script, re.MULTILINE)} == set(writer.FILES)


GUIDE = (ROOT / "docs" / "deploy.md").read_text()


def test_the_guide_writes_user_data_that_fetches_a_wheel(tmp_path: Path) -> None:
    """By its own commands, in a folder that has a wheel."""
    (commands,) = re.findall(r"^    wheel=.*\n(?:    .*\n)+", GUIDE, re.MULTILINE)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "aldis_server-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    (tmp_path / "deploy").symlink_to(DEPLOY)
    done = tool("sh", "-euc", commands, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    fine, text = told(tmp_path / "user-data")
    assert fine, text
    document = yaml.safe_load((tmp_path / "user-data").read_text())
    url = "https://files.example.com/aldis_server-0.1.0-py3-none-any.whl"
    digest = hashlib.sha256(b"a wheel").hexdigest()
    assert document["runcmd"][0][1] == f"ALDIS_PACKAGE=aldis-server[redis] @ {url}#sha256={digest}"
    assert document["runcmd"][0][-1] == "YOUR.NAME"


def test_the_trial_of_the_user_data_takes_the_wheel_as_the_guide_says() -> None:
    trial = (ROOT / "tools" / "try-cloud-init.sh").read_text()
    (command,) = re.findall(r'-e "s\|PACKAGE=.*?"', GUIDE)
    assert command in trial
    assert "PIP_" not in trial


@pytest.mark.parametrize("script", ["setup.sh", "cluster/setup.sh"])
@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("", ["--upgrade aldis-server[redis]"]),
        ("aldis-server==0.2.0", ["--upgrade aldis-server==0.2.0"]),
        ("./a.whl[redis]", ["--upgrade ./a.whl[redis]", "--force-reinstall --no-deps ./a.whl[redis]"]),
        (
            "aldis-server @ https://a.example/a.whl#sha256=0",
            [
                "--upgrade aldis-server @ https://a.example/a.whl#sha256=0",
                "--force-reinstall --no-deps aldis-server @ https://a.example/a.whl#sha256=0",
            ],
        ),
    ],
)
def test_the_script_installs_a_wheel_also_when_its_version_is_there(
    script: str, package: str, expected: list[str]
) -> None:
    (lines,) = re.findall(r"^package=\$\{.*?esac$", (DEPLOY / script).read_text(), re.MULTILINE | re.DOTALL)
    lines = lines.replace("/opt/aldis/bin/python -m pip install --quiet", "echo")
    done = tool("sh", "-euc", lines, env={**os.environ, "ALDIS_PACKAGE": package})
    assert done.stdout.splitlines() == expected


def test_the_script_refuses_what_is_no_name() -> None:
    assert tool("sh", "-n", DEPLOY / "setup.sh").returncode == 0
    for words in ([], ["--help"], ["a b"], ["a/b"], ["a;b"]):
        refused = tool("sh", DEPLOY / "setup.sh", *words)
        assert (refused.returncode, "usage" in refused.stdout) == (64, True)


def test_the_settings_are_ones_that_the_server_takes(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text(written("aldis.toml", {}))
    config = load_config({}, {"ALDIS_TURN_SECRET": "secret", "ALDIS_DATA": str(tmp_path)}, file)
    assert config.warnings == ()
    assert config.names == ("signal.example.com",)
    unit = (DEPLOY / "systemd" / "aldis.service").read_text()
    found = re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert found
    assert int(found[1]) >= config.max_connections + 1000


async def coturn_says(folder: Path, **changes: str) -> str:
    """What coturn says of its settings at the start. It starts in spite of a wrong line."""
    file = folder / "turnserver.conf"
    here = {
        "listening-port=3478": f"listening-port={free_port()}\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1",
        "TURN_SECRET": "0" * 64,
        "syslog\nno-stdout-log\n": f"log-file=stdout\npidfile={folder}/pid\nuserdb={folder}/db\n",
    }
    file.write_text(written("coturn/turnserver.conf", {**here, **changes}))
    async with running(program("turnserver"), "-c", file, says=b"IO method (auth thread)", cwd=folder) as said:
        return said


async def test_coturn_takes_its_settings(tmp_path: Path) -> None:
    assert "Bad configuration" not in await coturn_says(tmp_path)
    assert "Bad configuration" in await coturn_says(tmp_path, fingerprint="fingerpaint")


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        ("203.0.113.7     STREAM signal.example.com", "external-ip=203.0.113.7/10.0.0.4"),
        ("10.0.0.4        STREAM signal.example.com", ""),
        ("127.0.1.1       STREAM signal.example.com", ""),
        ("", ""),
    ],
    ids=["of a provider that translates addresses", "of this machine", "of the hosts file", "without an address"],
)
def test_coturn_is_told_of_a_public_address_that_the_machine_does_not_have(
    resolved: str, expected: str, tmp_path: Path
) -> None:
    address = "2: eth0    inet 10.0.0.4/24 brd 10.0.0.255 scope global eth0"
    route = "203.0.113.7 via 10.0.0.1 dev eth0 src 10.0.0.4 uid 0"
    programs = {
        "getent": f'[ "$*" = "ahostsv4 signal.example.com" ] && echo "{resolved}"',
        "ip": f'case $* in *route*) echo "{route}" ;; *) echo "{address}" ;; esac',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (function,) = re.findall(
        r"^external_ip\(\) \{\n.*?^\}\n", (DEPLOY / "setup.sh").read_text(), re.MULTILINE | re.DOTALL
    )
    script = f"set -eu\nPATH={tmp_path}:$PATH\n{function}external_ip signal.example.com"
    done = tool("sh", "-c", script)
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("proxy=caddy coturn=coturn", ["restart aldis", "reload-or-restart caddy", "start coturn"]),
        ("proxy= coturn=coturn", ["restart aldis", "start coturn"]),
        ("proxy=caddy coturn=coturn turn_before=", ["restart aldis", "reload-or-restart caddy", "restart coturn"]),
        ("proxy= coturn=", ["stop coturn", "restart aldis"]),
    ],
)
def test_an_upgrade_closes_no_port_of_the_proxy_and_ends_no_relay(
    words: str, expected: list[str], tmp_path: Path
) -> None:
    _, condition, lines = (DEPLOY / "setup.sh").read_text().partition("if [ -d /run/systemd/system ]")
    lines = condition + lines
    (tmp_path / "turnserver.conf").write_text("realm=signal.example.com\n")
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho $*\n")
    (tmp_path / "systemctl").chmod(0o755)
    lines = lines.replace("/run/systemd/system", str(tmp_path)).replace("/etc/", f"{tmp_path}/")
    given = f"PATH={tmp_path}:$PATH name=signal.example.com turn_before=$(cksum {tmp_path}/turnserver.conf) {words}"
    done = tool("sh", "-euc", f"{given}\n{lines}")
    assert done.returncode == 0, done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith(("start", "stop", "re"))]
    assert told == expected
