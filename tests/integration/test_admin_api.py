"""The admin API and `aldis admin`, on a real server with real clients."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aldis.backends.base import DirectoryUnavailable
from aldis.backends.sqlite import SqliteDirectory
from aldis.cli.admin import duration
from aldis.errors import ConfigError
from aldis.hub.bans import Ban
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.server.admin_api import MAX_BODY, openapi
from aldis.server.app import SignalingServer
from aldis.server.ban_file import FILE_NAME, BanFile
from support.certificates import make_certificates
from support.commands import aldis
from support.patience import PATIENCE
from support.raw_websocket import RawClient, http_get, read_reply
from support.server_process import ServerProcess
from support.settings import config

TOKEN = "a token of the operator"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(admin_port=0, admin_token=TOKEN, data=str(tmp_path / "data"))) as server:
        yield server


async def ask(server: SignalingServer, method: str, path: str, **more: Any) -> tuple[int, Any]:
    headers = more.pop("headers", {"Authorization": f"Bearer {TOKEN}"})
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{server.admin_port}/api/v1{path}", headers=headers, **more) as reply,
    ):
        return reply.status, await reply.json()


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
async def test_nothing_is_told_or_done_without_the_token(server: SignalingServer, header: dict[str, str]) -> None:
    for method, path in (("GET", "/statistics"), ("POST", "/drain"), ("GET", "/bans"), ("POST", "/users/a/release")):
        status, answer = await ask(server, method, path, headers=header)
        assert (status, answer) == (401, {"error": "the admin token is missing or wrong"})
    assert await server.ready() is None


async def test_a_token_that_is_no_text_is_wrong_and_no_error_of_the_server(
    server: SignalingServer, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"GET /api/v1/bans HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n"
    status, _, _ = await http_get(server.admin_port or 0, request)
    assert status == 401
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_server_that_keeps_nothing_has_no_api_without_a_token_of_its_own() -> None:
    async with SignalingServer(config(admin_port=0)) as server:
        status, answer = await ask(server, "GET", "/statistics")
        assert status == 403
        assert "admin_token" in answer["error"]


async def test_users_and_their_sessions_are_shown_without_anything_secret(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as phone:
        identity = Identity.generate()
        await alice.register("alice", identity)
        await phone.register("alice", identity, device="phone")
        await phone.request({"type": "watch", "userIds": ["bob"]})
        assert await ask(server, "GET", "/users") == (200, {"users": [{"user": "alice", "devices": 2}], "next": None})
        status, found = await ask(server, "GET", "/users/alice")
        assert (status, found["online"]) == (200, True)
        assert [session["device"] for session in found["sessions"]] == ["phone", "main"]
        assert found["sessions"][0]["watches"] == 1
        assert not {"secret", "id", "nonce", "host", "address"} & set(found["sessions"][0])
        status, found = await ask(server, "GET", "/statistics")
        assert (found["users"], found["connections"]) == (1, 2)
        assert found["messagesByType"]["register"] == {"ok": 2}


async def test_the_key_of_a_user_is_shown_as_a_ban_takes_it(server: SignalingServer) -> None:
    identity = Identity.generate()
    shown = {"key": to_base64(identity.public_key), "fingerprint": identity.fingerprint}
    async with await RawClient.connect(server.port) as mallory:
        await mallory.register("mallory", identity)
        _, found = await ask(server, "GET", "/users/mallory")
        assert found["binding"] == shown
        assert {name: found["sessions"][0][name] for name in shown} == shown
        status, _ = await ask(server, "POST", "/bans", json={"kind": "key", "value": found["binding"]["key"]})
        assert (status, (await mallory.wait_closed())[0]) == (200, 4503)
    _, found = await ask(server, "GET", "/users/mallory")
    assert (found["online"], found["binding"]) == (False, shown)
    for free in ("nobody", "no%00name"):
        _, found = await ask(server, "GET", f"/users/{free}")
        assert found["binding"] is None


async def test_the_sessions_of_a_user_are_shown_while_the_directory_cannot_answer(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await RawClient.connect(server.port) as alice:
        await alice.register("alice")

        async def away(self: SqliteDirectory, user_id: str) -> bytes | None:
            raise DirectoryUnavailable("away")

        monkeypatch.setattr(SqliteDirectory, "find", away)
        _, found = await ask(server, "GET", "/users/alice")
        assert [session["key"] is None for session in found["sessions"]] == [False]
        assert "binding" not in found


async def test_pages_of_users(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as one, await RawClient.connect(server.port) as two:
        await one.register("alice")
        await two.register("bob")
        assert (await ask(server, "GET", "/users?limit=1"))[1] == {
            "users": [{"user": "alice", "devices": 1}],
            "next": "alice",
        }
        assert (await ask(server, "GET", "/users?limit=1&after=alice"))[1]["users"][0]["user"] == "bob"
        assert (await ask(server, "GET", "/users?prefix=b"))[1]["users"] == [{"user": "bob", "devices": 1}]


async def test_a_ban_ends_a_user_and_outlives_the_server(server: SignalingServer, tmp_path: Path) -> None:
    identity = Identity.generate()
    async with await RawClient.connect(server.port) as mallory:
        await mallory.register("mallory", identity)
        ban = {"kind": "user", "value": "mallory", "reason": "spam", "seconds": 3600}
        status, answer = await ask(server, "POST", "/bans", json=ban)
        assert (status, answer["sessions"]) == (200, 1)
        assert await mallory.wait_closed() == (4503, "banned: spam")
    await server.stop()
    again_config = config(admin_port=0, admin_token=TOKEN, data=str(tmp_path / "data"))
    async with SignalingServer(again_config) as again:
        async with await RawClient.connect(again.port) as mallory:
            assert (await mallory.register("mallory", identity))["code"] == "forbidden"
        status, answer = await ask(again, "DELETE", "/bans?kind=user&value=mallory")
        assert (status, answer) == (200, {"removed": True})
        async with await RawClient.connect(again.port) as mallory:
            assert (await mallory.register("mallory", identity))["success"] is True
        assert (await ask(again, "GET", "/bans"))[1] == {"bans": []}


async def test_a_ban_that_has_ended_is_not_listed_and_not_counted(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("short", 1), ("long", 1000)):
        await ask(server, "POST", "/bans", json={"kind": "user", "value": name, "seconds": seconds})
    assert (await ask(server, "GET", "/statistics"))[1]["bans"] == 2
    later = time.time() + 10
    monkeypatch.setattr("aldis.server.administration.time.time", lambda: later)
    assert (await ask(server, "GET", "/statistics"))[1]["bans"] == 1
    assert [ban["value"] for ban in (await ask(server, "GET", "/bans"))[1]["bans"]] == ["long"]


async def test_a_banned_network_is_cut_off_and_kept_out(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        ban = {"kind": "network", "value": "127.0.0.0/8", "reason": "a scan", "confirmed": True}
        status, answer = await ask(server, "POST", "/bans", json=ban)
        assert (status, answer["sessions"]) == (200, 1)
        assert await client.wait_closed() == (4503, "banned: a scan")
    async with await RawClient.connect(server.port) as again:
        assert await again.wait_closed() == (4503, "banned: a scan")
    await ask(server, "DELETE", "/bans?kind=network&value=127.0.0.0/8")
    async with await RawClient.connect(server.port) as again:
        assert (await again.register("bob"))["success"] is True


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (
            "0.0.0.0/0",
            "is wider than a /8: it bans a large part of all addresses; 0.0.0.0/0 holds 127.0.0.1, where",
        ),
        ("192.0.0.0/7", "is wider than a /8: it bans a large part of all addresses"),
        ("2001::/15", "is wider than a /16"),
        ("::/0", "is wider than a /16: it bans a large part of all addresses; ::/0 holds ::1, which is this machine"),
        ("127.0.0.1", "holds 127.0.0.1, where you are"),
    ],
)
async def test_a_network_that_an_operator_may_not_mean_is_to_be_confirmed(
    server: SignalingServer, network: str, why: str
) -> None:
    ban = {"kind": "network", "value": network}
    status, answer = await ask(server, "POST", "/bans", json=ban)
    assert (status, why in answer["error"]) == (409, True), answer
    assert (await ask(server, "GET", "/bans"))[1] == {"bans": []}
    status, answer = await ask(server, "POST", "/bans", json={**ban, "confirmed": True})
    assert (status, "replaced" in answer) == (200, False)
    assert len((await ask(server, "GET", "/bans"))[1]["bans"]) == 1


@pytest.mark.parametrize("network", ["192.0.0.0/8", "2001::/16", "127.0.0.2", "::ffff:198.51.100.0/120"])
async def test_other_networks_are_banned_at_once(server: SignalingServer, network: str) -> None:
    assert (await ask(server, "POST", "/bans", json={"kind": "network", "value": network}))[0] == 200


async def test_a_ban_that_ends_earlier_than_the_one_that_holds_is_to_be_confirmed(server: SignalingServer) -> None:
    async def ban(seconds: float | None, **more: object) -> tuple[int, Any]:
        body = {"kind": "user", "value": "mallory", "reason": f"for {seconds}", **more}
        return await ask(server, "POST", "/bans", json=body if seconds is None else {**body, "seconds": seconds})

    status, answer = await ban(60)
    assert (status, "replaced" in answer) == (200, False)
    first = answer["until"]
    status, answer = await ban(3600)
    assert (status, answer["replaced"]) == (200, {"reason": "for 60", "until": first})
    status, answer = await ban(1800)
    assert status == 409
    assert answer["error"].startswith("user mallory is banned until 20")
    assert answer["error"].endswith("already (for 3600), and this ban would end earlier")
    assert (await ban(None))[0] == 200
    status, answer = await ban(3600)
    assert status == 409
    assert "is banned for ever already (for None)" in answer["error"]
    assert (await ask(server, "GET", "/bans"))[1]["bans"][0]["until"] is None, "nothing has changed"
    status, answer = await ban(3600, confirmed=True)
    assert (status, answer["replaced"]) == (200, {"reason": "for None", "until": None})


async def test_a_ban_that_is_over_is_not_replaced(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ban = {"kind": "user", "value": "mallory", "seconds": 60}
    await ask(server, "POST", "/bans", json=ban)
    later = time.time() + 100
    monkeypatch.setattr("aldis.server.administration.time.time", lambda: later)
    status, answer = await ask(server, "POST", "/bans", json={**ban, "seconds": 1})
    assert (status, "replaced" in answer) == (200, False)


async def test_a_ban_that_cannot_be_written_holds_and_says_so(server: SignalingServer, tmp_path: Path) -> None:
    (tmp_path / "data" / "bans.new").mkdir()
    status, answer = await ask(server, "POST", "/bans", json={"kind": "user", "value": "mallory"})
    assert status == 503
    assert "cannot be written" in answer["error"]
    async with await RawClient.connect(server.port) as mallory:
        assert (await mallory.register("mallory"))["code"] == "forbidden"


async def test_a_ban_that_could_not_be_written_is_written_when_there_is_room(
    server: SignalingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aldis.server.administration.WRITE_AGAIN", 0.01)
    written, loop, save = asyncio.Event(), asyncio.get_running_loop(), BanFile.save

    def noted(file: BanFile, bans: Iterable[Ban]) -> None:
        save(file, bans)
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(BanFile, "save", noted)
    data = tmp_path / "data"
    (data / "bans.new").mkdir()
    assert (await ask(server, "POST", "/bans", json={"kind": "user", "value": "mallory"}))[0] == 503
    (data / "bans.new").rmdir()
    async with asyncio.timeout(PATIENCE):
        await written.wait()
    assert [ban.value for ban in BanFile(data / FILE_NAME).load()] == ["mallory"]


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "{}",
        '{"bans": [{"kind": "planet", "value": "mars"}]}',
        '{"bans": [1]}',
        pytest.param("[" * 100_000, id="deep"),
        '{"bans": [{"kind": "user", "value": "mallory", "until": NaN}]}',
        '{"bans": [{"kind": "user", "value": "mallory", "until": -1e400}]}',
    ],
)
async def test_a_server_does_not_start_with_a_list_of_bans_that_it_cannot_read(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError, match=FILE_NAME):
        async with SignalingServer(config(data=str(tmp_path))):
            pass


async def test_a_user_is_disconnected_and_a_name_is_freed(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as alice:
        await alice.register("alice")
        assert await ask(server, "POST", "/users/alice/disconnect") == (200, {"sessions": 1})
        assert (await alice.wait_closed())[0] == 4000
    async with await RawClient.connect(server.port) as thief:
        assert (await thief.register("alice"))["code"] == "key-mismatch"
        assert await ask(server, "POST", "/users/alice/release") == (200, {"released": True})
        assert (await thief.register("alice"))["success"] is True
    assert await ask(server, "POST", "/users/nobody/release") == (200, {"released": False})


async def test_without_tls_and_turn_there_is_nothing_to_renew_and_to_rotate(server: SignalingServer) -> None:
    status, found = await ask(server, "GET", "/statistics")
    assert (found["certificate"], found["turn"], found["limits"], found["problems"]) == (None, None, [], [])
    status, answer = await ask(server, "POST", "/certificate/renew")
    assert (status, "acme_domain" in answer["error"]) == (400, True)
    status, answer = await ask(server, "POST", "/turn/rotate")
    assert (status, answer) == (400, {"error": "this server has no TURN server"})


async def test_the_secret_of_a_turn_server_elsewhere_is_changed_there_first(tmp_path: Path) -> None:
    given = config(admin_port=0, admin_token=TOKEN, turn=["turn:turn.example.com"], turn_secret="s3cret")
    async with SignalingServer(given) as server:
        status, answer = await ask(server, "POST", "/turn/rotate")
        assert status == 400
        assert "static-auth-secret" in answer["error"]
        assert "4 hours later" in answer["error"]


async def test_a_certificate_from_files_is_shown_and_why_a_new_one_was_not_taken(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    given = config(admin_port=0, admin_token=TOKEN, tls_cert=files.cert, tls_key=files.key)
    async with SignalingServer(given) as server:
        _, found = await ask(server, "GET", "/statistics")
        certificate = found["certificate"]
        assert (certificate["source"], certificate["names"], certificate["problem"]) == ("files", ["127.0.0.1"], "")
        assert certificate["issuer"] == "An authority for a test"
        assert 0 < certificate["expires"] - time.time() <= 86_400
        assert found["problems"] == ["The certificate expires in 0 days."]
        files.cert.write_text("nothing")
        assert not server.reload()
        _, found = await ask(server, "GET", "/statistics")
        assert found["problems"][1].startswith("No new certificate: tls_cert: ")
        assert found["certificate"]["expires"] == certificate["expires"]


@pytest.mark.parametrize(
    ("expired", "problem", "state"),
    [
        (True, "The certificate has expired: clients refuse it.", "expired, from files"),
        (False, "The certificate is not valid before 2", "not valid before 2"),
    ],
)
async def test_a_certificate_that_clients_refuse_by_its_dates_is_a_problem(
    tmp_path: Path, expired: bool, problem: str, state: str
) -> None:
    files = make_certificates(tmp_path, expired=expired, early=not expired)
    given = config(admin_port=0, admin_token=TOKEN, tls_cert=files.cert, tls_key=files.key)
    async with SignalingServer(given) as server:
        _, found = await ask(server, "GET", "/statistics")
        assert [text.startswith(problem) for text in found["problems"]] == [True]
        environment = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_ADMIN_TOKEN": TOKEN}
        said = await asyncio.to_thread(aldis, "admin", "certificate", home=tmp_path, extra=environment)
        assert re.search(rf"^state +{state}", said.stdout, re.MULTILINE)


async def test_a_limit_that_was_reached_is_shown(server: SignalingServer) -> None:
    server.listener.admission.refusals["address"] += 2
    server.hub.stats.detached_ended += 1
    server.hub.stats.limited["watches-per-user"] += 3
    _, found = await ask(server, "GET", "/statistics")
    assert found["limits"] == [
        {"limit": "connections_per_address", "effect": "connections refused", "count": 2},
        {"limit": "watches-per-user", "effect": "requests refused", "count": 3},
        {"limit": "detached_bytes", "effect": "lost clients given up", "count": 1},
    ]


BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/bans", {"json": {"kind": "planet", "value": "mars"}}),
    ("POST", "/bans", {"json": {"kind": "user"}}),
    ("POST", "/bans", {"json": {"kind": "user", "value": "a", "seconds": -1}}),
    ("POST", "/bans", {"json": {"kind": "user", "value": "a", "seconds": True}}),
    ("POST", "/bans", {"json": {"kind": "user", "value": "a", "sconds": 1}}),
    ("POST", "/bans", {"json": {"kind": "user", "value": "a", "confirmed": "yes"}}),
    ("POST", "/bans", {"json": []}),
    ("POST", "/bans", {"data": b"{"}),
    ("POST", "/bans", {"data": b"[" * 10_000}),
    ("GET", "/users?limit=no", {}),
    ("GET", "/users?colour=red", {}),
    ("PUT", "/log-level", {"json": {"level": "loud"}}),
    ("DELETE", "/bans?kind=user", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), BAD)
async def test_a_wrong_request_is_answered_in_words(
    server: SignalingServer, method: str, path: str, more: dict[str, Any]
) -> None:
    status, answer = await ask(server, method, path, **more)
    assert status == 400
    assert answer["error"]


async def test_a_large_request_is_not_read(server: SignalingServer) -> None:
    status, _ = await ask(server, "POST", "/bans", data=b" " * (MAX_BODY + 1))
    assert status == 413


async def test_a_large_request_without_a_length_is_not_read(server: SignalingServer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    assert (await ask(server, "POST", "/bans", data=pieces()))[0] == 413


async def test_a_request_may_come_in_pieces(server: SignalingServer) -> None:
    """The first piece was taken for all of it."""
    body = json.dumps({"kind": "user", "value": "mallory"}).encode()
    assert server.admin_port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", server.admin_port)
    head = f"POST /api/v1/bans HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
    # Requests have their turns in order: the first one has been looked at when this one is answered.
    assert (await ask(server, "GET", "/openapi.json"))[0] == 200
    writer.write(body[10:])
    assert (await read_reply(reader))[0] == 200
    writer.close()
    assert [ban["value"] for ban in (await ask(server, "GET", "/bans"))[1]["bans"]] == ["mallory"]


async def test_the_openapi_document_names_what_there_is(server: SignalingServer) -> None:
    status, document = await ask(server, "GET", "/openapi.json", headers={})
    assert (status, document) == (200, openapi())
    assert "post" in document["paths"]["/api/v1/bans"]
    user = document["paths"]["/api/v1/users/{user}"]["get"]
    assert user["parameters"][0]["in"] == "path"
    answer = user["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert {"key", "fingerprint"} == set(answer["binding"]["properties"])


# --- the command line -------------------------------------------------------------------------------------------------


async def command(server: ServerProcess, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_DATA": str(home / "data")}
    return await asyncio.to_thread(aldis, *words, home=home, extra=environment)


async def test_an_operators_day_at_the_command_line(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server, await RawClient.connect(server.port) as mallory:
        await mallory.register("mallory")

        async def say(*words: str) -> str:
            done = await command(server, tmp_path, "admin", *words)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert await say("users") == "mallory\n"
        key, fingerprint, session = (await say("user", "mallory")).splitlines()
        assert ("main" in session, len(fingerprint.split()[1])) == (True, 39)
        assert await say("unban", *key.split()) == f"{' '.join(key.split())} was not banned\n"
        assert "users online            1" in await say("stats")
        assert json.loads(await say("stats", "--json"))["users"] == 1
        said = await say("ban", "user", "mallory", "--reason", "spam", "--for", "2h")
        assert said == "user mallory is banned for 2 h; 1 session ended\n"
        assert await mallory.wait_closed() == (4503, "banned: spam")
        assert "mallory" in await say("bans")
        shorter = await command(server, tmp_path, "admin", "ban", "user", "mallory", "--for", "1h")
        assert shorter.returncode == 4
        assert shorter.stderr.endswith("already (spam), and this ban would end earlier; --yes does it all the same\n")
        said = await say("ban", "user", "mallory", "--for", "1h", "--yes")
        replaced = "it takes the place of a ban for 1 h 59 m more (spam)"
        assert said == f"user mallory is banned for 1 h; 0 sessions ended\n{replaced}\n"
        wide = await command(server, tmp_path, "admin", "ban", "network", "0.0.0.0/0")
        assert wide.returncode == 4
        assert "0.0.0.0/0 is wider than a /8" in wide.stderr
        assert await say("unban", "user", "mallory") == "user mallory is banned no more\n"
        assert await say("release", "mallory") == "mallory is free now\n"
        assert await say("certificate") == "the server speaks no TLS\n"
        assert await say("turn") == "the server runs no TURN server (turn_server), and asks none (turn_check)\n"
        assert "certificate             none: no TLS here" in await say("stats")
        unknown = await command(server, tmp_path, "admin", "turn", "spin")
        assert (unknown.returncode, "expected rotate" in unknown.stderr) == (2, True)
        assert await say("log-level", "debug") == "the server logs from debug up\n"
        assert await say("log-level", "tls=warning") == "the server logs from debug,tls=warning up\n"
        assert (await command(server, tmp_path, "admin", "log-level", "moon=info")).returncode == 2
        refused = await command(server, tmp_path, "admin", "ban", "planet", "mars")
        assert refused.returncode == 2
        assert "planet" in refused.stderr
        looks = await command(server, tmp_path, "top", "--times", "2", "--every", "0")
        assert [json.loads(line)["users"] for line in looks.stdout.splitlines()] == [0, 0]
        assert await say("drain") == "the server stops\n"
        assert await server.wait() == 0


async def test_the_settings_of_the_kit_lead_to_the_server_without_its_secrets(tmp_path: Path) -> None:
    # The secret of coturn is in the environment of the service alone.
    kit = (Path(__file__).parent.parent.parent / "deploy" / "aldis.toml").read_text()
    async with ServerProcess(tmp_path, admin_port=0) as server:
        file = tmp_path / "aldis.toml"
        file.write_text(
            f"admin_port = {server.admin_port}\n{kit.replace('/var/lib/aldis', str(tmp_path / 'data'))}", "utf-8"
        )
        for words, told in (
            (("admin", "users"), "nobody is online\n"),
            (("top", "--times", "1"), '"users": 0'),
            (("directory", "names", "list"), "the list is empty\n"),
            (("directory", "backup", str(tmp_path / "backup")), "0 names copied"),
        ):
            done = await asyncio.to_thread(aldis, *words, "--config", file, home=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert told in done.stdout


async def test_the_token_is_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        path = tmp_path / "data" / "admin-token"
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_text("another token\n")
        refused = await command(server, tmp_path, "admin", "stats")
        assert refused.returncode == 4
        assert re.fullmatch(
            rf"aldis: the server at http://\S+:\d+ has another admin token than {re.escape(str(path))}; .*--data.*\n",
            refused.stderr,
        )
        watched = await command(server, tmp_path, "top", "--times", "1")
        assert (watched.returncode, watched.stderr) == (4, refused.stderr)
        path.unlink()
        missing = await command(server, tmp_path, "admin", "stats")
        assert missing.returncode == 2
        assert "is not there" in missing.stderr


async def test_the_settings_file_of_the_server_says_where_it_is(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        settings = tmp_path / "aldis.toml"
        settings.write_text(f"admin_host = '0.0.0.0'\nadmin_port = {server.admin_port}\ndata = '{tmp_path / 'data'}'\n")

        def say(*words: str) -> subprocess.CompletedProcess[str]:
            return aldis(*words, "--config", str(settings), home=tmp_path)

        assert "users online            0" in (await asyncio.to_thread(say, "admin", "stats")).stdout
        assert (await asyncio.to_thread(say, "top", "--times", "1")).returncode == 0
        settings.write_text(f"admin_port = {server.admin_port}\nadmin_token = 'another'\n")
        assert (await asyncio.to_thread(say, "admin", "stats")).returncode == 4
        settings.write_text(f"admin_port = 'none'\ndata = '{tmp_path / 'data'}'\n")
        nowhere = await asyncio.to_thread(say, "admin", "stats")
        assert nowhere.returncode == 2
        assert "does not say where the admin port is" in nowhere.stderr


async def test_options_before_the_command_are_pointed_out(tmp_path: Path) -> None:
    done = await asyncio.to_thread(aldis, "admin", "--data", "there", "stats", home=tmp_path)
    assert (done.returncode, done.stderr) == (2, "aldis: options follow the command: `aldis admin stats --data`.\n")


async def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text("token")
    environment = {"ALDIS_ADMIN": "http://127.0.0.1:1", "ALDIS_DATA": str(tmp_path / "data")}
    for words in (("admin", "stats"), ("top",)):
        done = await asyncio.to_thread(aldis, *words, home=tmp_path, extra=environment)
        assert done.returncode == 3
        assert "cannot reach http://127.0.0.1:1: Connection refused\n" in done.stderr
        # That looks at the port of clients.
        assert "doctor" not in done.stderr
        assert "--admin" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 m"), (3_661, "1 h 1 m"), (86_400, "1 d"), (90_061, "1 d 1 h"), (7_200, "2 h")],
)
def test_times_are_shown_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
