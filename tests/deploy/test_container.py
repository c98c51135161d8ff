"""The container file and the compose file: what they say, by rules and by the schema of Compose; nothing is built here.

`compose_spec.json` is the schema in the package docker-compose 1.29.2 from PyPI (Apache-2.0).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

from aldis.server.config import SETTINGS, load_config
from support.kit import DEPLOY, ROOT, tool
from support.patience import PATIENCE
from support.ports import free_port
from support.server_process import ServerProcess

CONTAINER = DEPLOY / "container"
SCHEMA = Path(__file__).with_name("compose_spec.json")
# What the schema calls a format, which is no part of JSON Schema.
FORMATS = {
    "duration": r"^(\d+(us|ms|s|m|h))+$",
    "expose": r"^\d+(-\d+)?(/[a-z]+)?$",
    "ports": r"^((\d+\.){3}\d+:)?(\d+(-\d+)?:)?\d+(-\d+)?(/(tcp|udp))?$",
    "subnet_ip_address": r"^[\d.:a-f]+/\d+$",
}
# An image by a full version, or by its digest.
_PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
ENVIRONMENT = {"ALDIS_NAME": "signal.example.com", "ALDIS_TURN_SECRET": "secret"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a container file, with their lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def complaints(text: str) -> list[str]:
    """What is wrong with a container file."""
    found = instructions(text)
    stages = [rest.split() for word, rest in found if word == "FROM"]
    names = {stage[2] for stage in stages if len(stage) == 3}
    last = found[max(number for number, (word, _) in enumerate(found) if word == "FROM") :]
    users = [rest for word, rest in last if word == "USER"]
    wrong = [
        f"{stage[0]} is not pinned" for stage in stages if stage[0] not in names and not _PINNED.fullmatch(stage[0])
    ]
    if not users or users[-1].partition(":")[0] in ("root", "0") or not users[-1].replace(":", "").isdigit():
        wrong.append("the last user must be a number that is not root's")
    wrong += [f"{word} is missing" for word in ("HEALTHCHECK", "ENTRYPOINT") if word not in dict(last)]
    wrong += ["ADD fetches and unpacks" for word, _ in found if word == "ADD"]
    wrong += [
        f"{word} needs the form of a list" for word, rest in found if word in ("CMD", "ENTRYPOINT") and rest[0] != "["
    ]
    wrong += [
        "pip keeps a cache"
        for word, rest in found
        if word == "RUN" and "pip install" in rest and "--no-cache-dir" not in rest
    ]
    wrong += ["a secret stays in the image" for word, rest in found if word in ("ENV", "ARG") and "SECRET" in rest]
    return wrong


FILE = (CONTAINER / "Containerfile").read_text()


def test_the_container_file_keeps_the_rules() -> None:
    assert complaints(FILE) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.13.1-slim-bookworm AS", "python:latest AS", "pinned"),
        ("python:3.13.1-slim-bookworm AS", "python AS", "pinned"),
        ("USER 10001:10001", "USER root", "root"),
        ("USER 10001:10001\n", "", "root"),
        ("HEALTHCHECK", "LABEL", "HEALTHCHECK"),
        ('CMD ["serve"]', "CMD serve", "list"),
        ("--no-cache-dir ", "", "cache"),
        ("ENV ALDIS_HOST", "ENV ALDIS_TURN_SECRET=x ALDIS_HOST", "secret"),
    ],
)
def test_a_container_file_that_breaks_a_rule_is_found_out(old: str, new: str, problem: str) -> None:
    assert old in FILE
    assert any(problem in text for text in complaints(FILE.replace(old, new)))


def image_environment() -> dict[str, str]:
    (text,) = [rest for word, rest in instructions(FILE) if word == "ENV"]
    return dict(pair.split("=", 1) for pair in text.split())


def test_the_image_sets_settings_of_the_server_alone() -> None:
    own = {name: value for name, value in image_environment().items() if name.startswith("ALDIS_")}
    config = load_config({}, own, None)
    assert (config.host, config.data, config.log_format) == ("0.0.0.0", "/var/lib/aldis", "json")
    assert config.watchdog_seconds == 30, "Docker does not start a container again that is unhealthy"
    assert config.warnings == ()


async def test_the_health_check_of_the_image_asks_a_real_server(tmp_path: Path) -> None:
    (rest,) = [rest for word, rest in instructions(FILE) if word == "HEALTHCHECK"]
    program, flag, code = json.loads(rest[rest.index("[") :])
    assert (program, flag) == ("/opt/aldis/bin/python", "-c")

    async def healthy(port: int) -> bool:
        assert "127.0.0.1:9080" in code
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code.replace("127.0.0.1:9080", f"127.0.0.1:{port}")),
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE):
            return await process.wait() == 0

    async with ServerProcess(tmp_path, admin_port=0) as server:
        assert await healthy(server.admin_port)
        assert await server.stop() == 0
    assert not await healthy(free_port())


# --- compose ---------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    """The compose file, with its variables replaced."""
    found: dict[str, Any] = yaml.safe_load(filled((CONTAINER / "compose.yaml").read_text(), ENVIRONMENT))
    return found


def filled(text: str, environment: dict[str, str]) -> str:
    """A compose file with its variables replaced: `${NAME}`, `${NAME:-default}` and `${NAME:?what is missing}`."""

    def value(found: re.Match[str]) -> str:
        name, rule, word = found.groups()
        return word if rule == ":-" and not environment.get(name) else environment[name]

    return re.sub(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}", value, text)


def check(document: dict[str, Any]) -> None:
    validate = fastjsonschema.compile(json.loads(SCHEMA.read_text()), formats=FORMATS)
    validate(document)


def test_the_compose_file_is_one_by_its_schema() -> None:
    check(compose())


@pytest.mark.parametrize(("key", "value"), [("red_only", True), ("ports", ["80:x"]), ("restart", 1)])
def test_a_compose_file_with_a_mistake_is_found_out(key: str, value: object) -> None:
    document = compose()
    document["services"]["caddy"][key] = value
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check(document)


def test_the_services_may_do_little_and_have_a_version() -> None:
    document = compose()
    assert set(document["services"]) == {"aldis", "caddy", "coturn", "prometheus"}
    for name, service in document["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        assert "build" in service or _PINNED.fullmatch(service["image"]), name
        if name != "coturn":  # its image writes to its own folders
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (CONTAINER / source).exists() if "/" in source else source in document["volumes"]
    published = {port for service in document["services"].values() for port in service.get("ports", ())}
    assert published == {"80:80", "443:443", "127.0.0.1:9090:9090"}


@pytest.mark.parametrize(
    ("file", "package"),
    [("container/compose.yaml", "aldis-server==0.1.0"), ("cluster/compose.yaml", "aldis-server[redis]==0.1.0")],
)
def test_a_compose_file_installs_the_package_of_the_environment(file: str, package: str) -> None:
    text = (DEPLOY / file).read_text()
    for given, expected in (("", package), ("/wheels/a.whl[redis]", "/wheels/a.whl[redis]")):
        document = yaml.safe_load(filled(text, {**ENVIRONMENT, "ALDIS_PACKAGE": given}))
        check(document)
        built = [service["build"] for service in document["services"].values() if "build" in service]
        assert built
        assert all(one["args"] == {"PACKAGE": expected} for one in built)
        # The folder of the wheels is part of what the builder gets, and is there in a fresh clone.
        assert ("COPY", "wheels /wheels") in instructions(FILE)
        assert all(((DEPLOY / file).parent / one["context"] / "wheels" / "README.md").exists() for one in built)


def test_the_compose_file_has_settings_that_the_server_takes() -> None:
    environment = compose()["services"]["aldis"]["environment"]
    assert {name.removeprefix("ALDIS_").lower() for name in environment} <= set(SETTINGS)
    config = load_config({}, {name: str(value) for name, value in environment.items()}, None)
    assert config.trusted_proxies
    assert (config.names, config.warnings) == (("signal.example.com",), ())


def test_the_trial_of_the_containers_has_a_stand_in_for_each_image() -> None:
    trial = (ROOT / "tools" / "try-containers.sh").read_text()
    assert tool("sh", "-n", ROOT / "tools" / "try-containers.sh").returncode == 0
    texts = [(DEPLOY / kit / "compose.yaml").read_text() for kit in ("container", "cluster")]
    images = {image for text in texts for image in re.findall(r"^    image: (\S+)$", text, re.MULTILINE)}
    assert {image.split(":")[0].rpartition("/")[2] for image in images} == set(re.findall(r"/images/(\w+)\"", trial))
    bases = {rest.split()[0] for word, rest in instructions(FILE) if word == "FROM"}
    assert set(re.findall(r"^FROM (?:docker.io/library/)?(\S+)$", trial, re.MULTILINE)) == bases


def test_coturn_has_the_same_settings_with_and_without_containers() -> None:
    words = {word.removeprefix("--") for word in compose()["services"]["coturn"]["command"]} - {"-n", "log-file=stdout"}
    text = (DEPLOY / "coturn" / "turnserver.conf").read_text().replace("TURN_SECRET", "secret")
    lines = {line for line in text.splitlines() if line and not line.startswith("#")} - {"syslog", "no-stdout-log"}
    assert words == lines


def test_caddy_and_prometheus_take_their_files(tmp_path: Path) -> None:
    told = tool("caddy", "adapt", "--config", CONTAINER / "Caddyfile", env={**os.environ, **ENVIRONMENT})
    assert told.returncode == 0, told.stdout
    assert "signal.example.com" in told.stdout
    assert "aldis:8080" in told.stdout
    # Compose puts the two files side by side.
    for file in (CONTAINER / "prometheus.yml", DEPLOY / "prometheus" / "alerts.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    told = tool("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert told.returncode == 0, told.stdout
