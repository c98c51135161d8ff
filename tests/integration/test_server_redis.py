"""Servers whose names are in one Redis."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aldis.errors import ConfigError
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from support.certificates import make_certificates
from support.redis_server import RedisServer
from support.registrations import register
from support.server_process import ServerProcess

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def test_a_name_bound_at_one_server_is_bound_at_the_other_and_outlives_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", *DURABLE, "--requirepass", "s3cret") as redis:
        url = redis.url(":s3cret@")
        one = ServerProcess(tmp_path / "one", directory=url)
        other = ServerProcess(tmp_path / "other", directory=url)
        alice, bob = Identity.generate(), Identity.generate()
        async with one, other:
            assert (await one.wait_for_line("serving"))["directory"] == redis.url()
            assert await register(one, "alice", alice) == "registered"
            assert await register(other, "alice", bob) == "key-mismatch"
            redis.kill()
            assert await register(one, "alice", alice) == "internal"
            assert "cannot be reached" in str((await one.wait_for_line("the directory of names fails"))["reason"])
            redis.start()
            assert await register(one, "alice", alice) == "registered"
            assert await register(other, "alice", bob) == "key-mismatch"
            assert await one.stop() == 0
            assert await other.stop() == 0
        for server in (one, other):
            assert "s3cret" not in server.log_text()
            assert "Traceback" not in server.log_text()


async def test_redis_is_reached_with_tls_by_the_authority_of_the_url(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    tls = ("--tls-cert-file", files.cert, "--tls-key-file", files.key, "--tls-ca-cert-file", files.ca)
    redis = RedisServer(tmp_path / "redis", *DURABLE, *map(str, tls), "--tls-auth-clients", "no", tls=True)
    with redis:
        url = redis.url(scheme="rediss")
        async with ServerProcess(tmp_path / "server", directory=f"{url}?ca_file={files.ca}") as server:
            assert await register(server, "alice", Identity.generate()) == "registered"
            assert await server.stop() == 0
        refused = ServerProcess(tmp_path / "refused", directory=url)  # nobody here knows the authority
        with pytest.raises(AssertionError, match="certificate verify failed"):
            await refused.start()
        assert await refused.wait() != 0


async def test_a_missing_library_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "aldis.backends.redis", None)
    server = SignalingServer(ServerConfig(port=0, data=str(tmp_path), directory="redis://127.0.0.1:1"))
    with pytest.raises(ConfigError, match=r"pip install 'aldis\[redis\]'"):
        await server.start()
