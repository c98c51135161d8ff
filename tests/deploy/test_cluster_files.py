"""The files of deploy/cluster by themselves: what Redis, systemd, promtool and the schema of Compose say to them."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

from aldis.identity.keys import Identity
from aldis.server.config import SETTINGS, load_config
from deploy.test_container import _PINNED, check, filled
from support.cluster_kit import KIT, PASSWORD, KitRedis, acl
from support.commands import aldis
from support.directories import content, fill
from support.kit import DEPLOY, ROOT, program, tool, written
from support.patience import PATIENCE
from support.redis_server import AT_ONCE, DOWN_AFTER, RedisServer
from support.registrations import register
from support.server_process import ServerProcess

GUIDE = (ROOT / "docs" / "cluster.md").read_text()
_COMMAND = Path(sys.executable).with_name("aldis")
_ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b")


def said(name: str) -> str:
    return (KIT / name).read_text()


# --- Redis -----------------------------------------------------------------------------------------------------------


def test_redis_takes_the_files_and_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    with KitRedis(tmp_path) as redis:
        assert redis.ask("ping") == "PONG"
        assert "appendfsync\nalways" in redis.ask("config", "get", "appendfsync")
        info = redis.ask("info")
        assert "aof_enabled:1" in info
        assert "maxmemory_policy:noeviction" in info
        assert "NOAUTH" in redis.say("ping")
        assert "NOAUTH" in redis.ask("ping", password="wrong")
        for forbidden in (["config", "set", "appendonly", "no"], ["acl", "list"], ["get", "other:1"]):
            assert "NOPERM" in redis.ask(*forbidden), forbidden


def test_the_rights_are_those_of_the_guide() -> None:
    (line,) = [line for line in said("users.acl").splitlines() if line.startswith("user aldis ")]
    (told,) = [line.strip() for line in GUIDE.splitlines() if line.startswith("    user aldis ")]
    assert line == told.replace(">PASSWORD", "#PASSWORD_SHA256").removesuffix(" +waitaof")


def test_the_guide_makes_the_password_file_and_the_hash_of_it(tmp_path: Path) -> None:
    """Its commands, one by one, but for those that need root."""
    lines = [line.strip() for line in GUIDE.splitlines() if line.startswith("    ")]
    make, hashed = (next(line for line in lines if line.startswith(start)) for start in ("(umask 077", "hash="))
    (put,) = [line for line in lines if line.startswith("sed") and line.endswith("/etc/redis/users.acl")]
    put = put.replace(">/etc/redis/", ">").replace("deploy/cluster", str(KIT))
    told = tool("sh", "-euc", f"{make}\n{hashed}\n{put}", cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    password = (tmp_path / "redis-password").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", password)
    assert oct((tmp_path / "redis-password").stat().st_mode & 0o777) == "0o600"
    assert (tmp_path / "users.acl").read_text() == acl("users.acl", password=password.strip())


async def test_names_are_copied_to_this_redis_and_back(tmp_path: Path) -> None:
    """From one server to a cluster, and each night's backup."""
    alone, backup = tmp_path / "alone.sqlite3", tmp_path / "backup.sqlite3"
    await fill(alone, 500)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    with KitRedis(tmp_path / "redis") as redis:
        place = redis.url("aldis@")

        async def copy(*words: str | Path) -> None:
            password = ("--redis-password-file", tmp_path / "password")
            told = await asyncio.to_thread(aldis, "directory", "copy", *password, *words, home=tmp_path)
            assert told.returncode == 0, told.stdout + told.stderr

        await copy(alone, place)
        await copy("--exact", alone, place)
        await copy("--verify", alone, place)
        await copy(place, backup)
    assert content(backup) == content(alone)
    assert GUIDE.count("aldis directory copy --redis-password-file /etc/aldis/redis-password") == 3


# --- the nodes -------------------------------------------------------------------------------------------------------


def test_the_settings_are_ones_that_the_server_takes(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text(written("cluster/aldis.toml", {"/etc/aldis/redis-password": f"{tmp_path}/password"}))
    (tmp_path / "password").write_text(PASSWORD)
    config = load_config({}, {"ALDIS_DATA": str(tmp_path)}, file)
    assert config.warnings == ()
    assert config.names == ("signal.example.com",)
    assert config.redis.startswith("redis://aldis@")
    for proxy in ("upstream.conf", "haproxy.cfg", "Caddyfile", "prometheus.yml"):
        nodes = set(_ADDRESS.findall(said(proxy))) - {"127.0.0.1"}
        assert nodes == {config.host, "10.0.0.12"} == {each.removesuffix("/32") for each in config.trusted_proxies}, (
            proxy
        )
    for proxy in ("upstream.conf", "haproxy.cfg", "Caddyfile"):
        assert set(re.findall(r"10\.0\.0\.1\d:(\d+)", said(proxy))) == {str(config.port)}
    for asks in ("haproxy.cfg", "Caddyfile", "prometheus.yml"):
        assert str(config.admin_port) in said(asks)


def test_the_script_writes_the_settings_for_its_machine(tmp_path: Path) -> None:
    (words,) = re.findall(r'^ +(sed .*)"\$kit/cluster/aldis\.toml"', said("setup.sh"), re.MULTILINE)
    told = tool("sh", "-euc", f"name=a.example address=192.0.2.7; {words} {KIT}/aldis.toml")
    expected = written("cluster/aldis.toml", {"signal.example.com": "a.example"}).splitlines()
    changed = [(line, old) for line, old in zip(told.stdout.splitlines(), expected, strict=True) if line != old]
    assert [line for line, _ in changed if not line.startswith("#")] == [
        'host = "192.0.2.7"',
        'admin_host = "192.0.2.7"',
    ]


def test_systemd_finds_nothing_wrong_with_the_unit_that_the_script_writes(tmp_path: Path) -> None:
    (words,) = re.findall(r"^(sed [^\n]*\n.*\n) +\"\$kit/systemd/aldis\.service\"", said("setup.sh"), re.MULTILINE)
    told = tool("sh", "-euc", f"{words} {DEPLOY}/systemd/aldis.service")
    assert told.returncode == 0, told.stdout
    rules = [line for line in told.stdout.splitlines() if not line.startswith("#")]
    assert not [line for line in rules if "socket" in line]
    whole = (DEPLOY / "systemd" / "aldis.service").read_text().splitlines()
    assert [line for line in whole if not line.startswith("#") and "aldis.socket" not in line] == rules
    unit = tmp_path / "aldis.service"
    unit.write_text(told.stdout.replace("/opt/aldis/bin/aldis", str(_COMMAND)))
    told = tool("systemd-analyze", "verify", "--man=no", unit)
    assert [line for line in told.stdout.splitlines() if "aldis" in line] == []


def test_the_script_refuses_what_is_no_name_or_address() -> None:
    assert tool("sh", "-n", KIT / "setup.sh").returncode == 0
    for words in ([], ["a.example"], ["--help", "10.0.0.11"], ["a/b", "10.0.0.11"], ["a.example", "b.example"]):
        refused = tool("sh", KIT / "setup.sh", *words)
        assert (refused.returncode, "usage" in refused.stdout) == (64, True), words


# --- compose ---------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    """The compose file, with its variables replaced."""
    found: dict[str, Any] = yaml.safe_load(filled(said("compose.yaml"), {"ALDIS_NAME": "signal.example.com"}))
    return found


def test_the_compose_file_is_one_by_its_schema() -> None:
    check(compose())
    document = compose()
    document["services"]["valkey"]["red_only"] = True
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check(document)


def test_the_services_may_do_little_and_have_a_version() -> None:
    document = compose()
    for name, service in document["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "build" in service or _PINNED.fullmatch(service["image"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            there = source == "./secrets/tls" or (KIT / source).exists()
            assert there if "/" in source else source in document["volumes"]
        assert set(service.get("secrets", ())) <= set(document["secrets"])
    published = {port for service in document["services"].values() for port in service.get("ports", ())}
    assert published == {"80:80", "443:443", "127.0.0.1:9090:9090"}


def test_the_nodes_are_alike_and_the_others_know_their_addresses() -> None:
    services = compose()["services"]
    one, two = (dict(services[name]) for name in ("aldis-one", "aldis-two"))
    addresses = [node.pop("networks")["inside"]["ipv4_address"] for node in (one, two)]
    assert one.pop("volumes") != two.pop("volumes")
    assert one == two
    assert set(_ADDRESS.findall(said("compose/upstream.conf"))) == set(addresses)
    build = one["build"]
    assert (KIT / build["context"] / build["dockerfile"]).exists()
    (version,) = re.findall(
        r"^ARG PACKAGE=aldis-server==(\S+)$", (DEPLOY / "container/Containerfile").read_text(), re.M
    )
    assert build["args"]["PACKAGE"] == f"aldis-server[redis]=={version}"
    environment = {name: str(value) for name, value in one["environment"].items()}
    assert {name.removeprefix("ALDIS_").lower() for name in environment} <= set(SETTINGS)
    config = load_config({}, environment, None)
    assert config.warnings == ()
    assert config.trusted_proxies == (f"{services['nginx']['networks']['inside']['ipv4_address']}/32",)
    assert str(config.redis_password_file) == "/run/secrets/redis-password"
    scraped = yaml.safe_load(said("compose/prometheus.yml"))["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == [f"{name}:{config.admin_port}" for name in ("aldis-one", "aldis-two")]


def test_both_upstreams_say_the_same() -> None:
    def rules(name: str) -> list[str]:
        return [_ADDRESS.sub("ADDRESS", line) for line in said(name).splitlines() if not line.startswith("#")]

    assert rules("upstream.conf") == rules("compose/upstream.conf")


def test_the_command_and_the_health_check_of_valkey_do_what_they_should(tmp_path: Path) -> None:
    """With a Redis: the commands of both are the same."""
    valkey = compose()["services"]["valkey"]
    assert valkey["command"][:2] == ["valkey-server", "/etc/valkey/aldis.conf"]
    words = [
        {"/run/secrets/users.acl": f"{tmp_path}/users.acl", "/data": str(tmp_path)}.get(word, word)
        for word in valkey["command"][2:]
    ]
    assert words[words.index("--bind") + 1] == "0.0.0.0"
    words[words.index("--bind") + 1] = "127.0.0.1"
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    kind, check_line = valkey["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    line = check_line.replace("$$", "$").replace("/run/secrets/redis-password", f"{tmp_path}/password")
    with KitRedis(tmp_path, *words) as redis:
        line = line.replace("valkey-cli", f"{program('redis-cli')} -p {redis.port}")
        assert tool("sh", "-c", line).returncode == 0
        redis.kill()
        assert tool("sh", "-c", line).returncode != 0


def test_prometheus_takes_its_files(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    for name in ("prometheus.yml", "compose/prometheus.yml"):
        shutil.copy(KIT / name, tmp_path)
        told = tool("promtool", "check", "config", tmp_path / "prometheus.yml")
        assert told.returncode == 0, told.stdout


# --- Sentinels -------------------------------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(holds):
            pass


def knows(sentinel: RedisServer, replica: int) -> bool:
    """Whether a Sentinel knows the replica and both others."""
    master = sentinel.say("sentinel", "master", "aldis").splitlines()
    others = master[master.index("num-other-sentinels") + 1]
    return others == "2" and str(replica) in sentinel.say("sentinel", "replicas", "aldis")


def master_offset(master: KitRedis) -> str:
    """How much a master has written, in the words of a replica that has all of it."""
    (offset,) = re.findall(r"master_repl_offset:(\d+)", master.ask("info", "replication"))
    return f"slave_repl_offset:{offset}"


class KitSentinel(RedisServer):
    """A Sentinel with sentinel.conf of the kit, which does not wait as long as on real machines."""

    def __init__(self, folder: Path, master: int) -> None:
        super().__init__(folder, "--sentinel")
        changes = {
            "bind 127.0.0.1 10.0.0.11\nport 26379\n": "",
            "dir /var/lib/redis\n": "",
            "10.0.0.5 6379 2": f"127.0.0.1 {master} 2",
            "PASSWORD": PASSWORD,
            "milliseconds aldis 5000": f"milliseconds aldis {DOWN_AFTER}",
            "timeout aldis 60000": "timeout aldis 3000",
        }
        (folder / "sentinel.conf").write_text(written("cluster/sentinel.conf", changes))

    def _file(self) -> tuple[str, ...]:
        return (str(self.folder / "sentinel.conf"),)


async def test_the_nodes_go_on_when_sentinels_have_made_the_replica_the_master(tmp_path: Path) -> None:
    more = f"masteruser replica\nmasterauth {PASSWORD}\n"
    assert re.findall(r"printf '(.*)'", GUIDE) == [more.replace(PASSWORD, "%s").replace("\n", "\\n")]
    users = ("users.acl", "sentinel-users.acl")
    (tmp_path / "password").write_text(PASSWORD)
    with ExitStack() as stack:
        master = stack.enter_context(KitRedis(tmp_path / "master", *AT_ONCE, users=users, more=more))
        of_master = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = stack.enter_context(KitRedis(tmp_path / "replica", *of_master, users=users, more=more))
        sentinels = [stack.enter_context(KitSentinel(tmp_path / str(number), master.port)) for number in range(3)]
        await until(lambda: "master_link_status:up" in replica.ask("info", "replication"))
        for sentinel in sentinels:
            await until(partial(knows, sentinel, replica.port))
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        settings: dict[str, Any] = {
            "redis": f"redis+sentinel://aldis@{hosts}/aldis/0",
            "redis_password_file": f"{tmp_path}/password",
        }
        one, other = (ServerProcess(tmp_path / name, **settings) for name in ("one", "other"))
        alice = Identity.generate()
        async with one, other:
            assert await register(one, "alice", alice) == "registered"
            await until(lambda: replica.ask("info", "replication").count(master_offset(master)) > 0)
            master.kill()
            await one.wait_for_line("the Redis of the cluster fails")
            for server in (one, other):
                await server.wait_for_line("the Redis of the cluster answers again")
            assert await register(other, "alice", Identity.generate()) == "key-mismatch"
            assert await register(one, "bob", Identity.generate()) == "registered"
            assert "role:master" in replica.ask("info", "replication")


@pytest.mark.parametrize("direct", [True, False])
def test_a_node_keeps_no_socket_of_the_server_that_the_machine_was(tmp_path: Path, *, direct: bool) -> None:
    left = [
        "aldis.socket",
        *(("aldis-redirect.socket", "aldis.service.d/direct.conf", "aldis.socket.d/direct.conf") if direct else ()),
    ]
    for name in [*left, "aldis.service.d/own.conf"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho $*\n")
    (tmp_path / "systemctl").chmod(0o755)
    (lines,) = re.findall(
        r"^if \[ -e /etc/systemd/system/aldis.socket \].*?^fi$", said("setup.sh"), re.MULTILINE | re.DOTALL
    )
    lines = lines.replace("/etc/systemd/system", str(tmp_path)).replace("/run/systemd/system", str(tmp_path))
    done = tool("sh", "-euc", f"PATH={tmp_path}:$PATH\n{lines}")
    assert done.returncode == 0, done.stdout
    disabled = "aldis.socket aldis-redirect.socket" if direct else "aldis.socket"
    assert done.stdout.splitlines() == ["stop aldis*", f"disable --quiet {disabled}"]
    kept = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert kept == {"systemctl", "aldis.service.d/own.conf"}
