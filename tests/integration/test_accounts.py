"""Accounts of the operator on a real server: tokens from a real JWKS, and a real application that dies and hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aldis.errors import ConfigError
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from support.application import SECRET, Application
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess
from support.settings import UNLIMITED, config
from support.tokens import an_hour_passes, jwks, public_jwk, token


def claims(name: str = "alice", seconds: float = 600, **more: Any) -> dict[str, Any]:
    return {"sub": name, "exp": time.time() + seconds, **more}


async def outcome(port: int, name: str = "alice", text: str | None = None, **more: Any) -> str:
    """What becomes of a registration on a connection of its own: `registered`, or the code of the error."""
    async with await RawClient.connect(port) as client:
        given: dict[str, Any] = {} if text is None else {"token": text}
        reply = await client.register(name, **given, **more)
        return str(reply.get("code", reply["type"]))


async def get(server: SignalingServer | ServerProcess, path: str) -> tuple[int, str]:
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
    status, _, body = await http_get(server.admin_port or 0, request)
    return status, body.decode()


def key_file(folder: Path, *keys: dict[str, Any]) -> Path:
    path = folder / "jwks.json"
    path.write_bytes(jwks(*(keys or (public_jwk("EdDSA"),))))
    return path


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256", "HS256"])
async def test_a_token_of_a_key_in_a_file_admits_its_user_and_nobody_else(tmp_path: Path, algorithm: str) -> None:
    path = key_file(tmp_path, public_jwk(algorithm))
    async with SignalingServer(config(auth="token", jwks=path)) as server:
        text = token(claims(), algorithm)
        assert await outcome(server.port, text=text) == "registered"
        assert await outcome(server.port, "bob", text) == "token-invalid"
        assert await outcome(server.port, text=None) == "token-required"
        assert await outcome(server.port, text=token(claims(seconds=-60), algorithm)) == "token-expired"
        assert await outcome(server.port, text=token(claims(), algorithm, which=2)) == "token-invalid"
        # The key proof is not replaced by the token: the name is bound to its first key.
        assert await outcome(server.port, text=text) == "key-mismatch"


async def test_no_token_is_in_the_log(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, auth="token", jwks=str(key_file(tmp_path))) as server:
        texts = [token(claims()), token(claims(), which=2), token(claims(seconds=-60)), "secret.secret.secret"]
        for text in texts:
            await outcome(server.port, text=text)
        await server.stop()
        for text in texts:
            assert text not in server.log_text()
            assert text.split(".")[1] not in server.log_text()


async def test_a_new_key_in_the_file_counts_after_sighup(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    async with ServerProcess(tmp_path, auth="token", jwks=str(path)) as server:
        assert await outcome(server.port, text=token(claims())) == "registered"
        key_file(tmp_path, public_jwk("ES256", "k2"))
        server.process.send_signal(signal.SIGHUP)
        await server.wait_for_line("the keys of tokens", number=2)
        assert await outcome(server.port, "bob", token(claims("bob"), "ES256", "k2")) == "registered"
        # Now that k1 is gone: a stranger's token makes nobody look again at once.
        assert await outcome(server.port, "carol", token(claims("carol"))) == "rate-limited"


async def test_a_token_with_a_key_that_is_new_in_the_file_makes_the_server_look(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    async with SignalingServer(config(auth="token", jwks=path)) as server:
        assert server.accounts.keys is not None
        server.accounts.keys._looked_at = None  # as after ten seconds
        key_file(tmp_path, public_jwk("ES256", "k2"))
        assert await outcome(server.port, text=token(claims(), "ES256", "k2")) == "registered"


async def test_a_server_does_not_start_with_keys_that_cannot_be_used(tmp_path: Path) -> None:
    for text in (None, b"{", b'{"keys": []}'):
        path = tmp_path / "jwks.json"
        if text is not None:
            path.write_bytes(text)
        with pytest.raises(ConfigError, match="jwks"):
            async with SignalingServer(config(auth="token", jwks=path)):
                pass


async def test_keys_come_from_a_url_and_old_ones_hold_while_it_is_away() -> None:
    async with (
        Application(jwks=jwks(public_jwk("EdDSA"))) as app,
        SignalingServer(config(auth="token", jwks=app.url("/jwks"), admin_port=0)) as server,
    ):
        assert await outcome(server.port, text=token(claims())) == "registered"
        assert await get(server, "/readyz") == (200, "ready\n")
        await app.die()
        assert server.accounts.keys is not None
        assert await server.accounts.keys.look(now=True) == "failed"
        assert await outcome(server.port, "bob", token(claims("bob"))) == "registered"
        status, text = await get(server, "/readyz")
        assert (status, text.startswith("ready\nthe keys of tokens are 0 s old: ")) == (200, True)
        metrics = (await get(server, "/metrics"))[1]
        assert 'aldis_token_key_reads_total{outcome="failed"} 1.0' in metrics
        assert "aldis_token_keys 1.0" in metrics
        assert 'aldis_tokens_total{outcome="valid"} 2.0' in metrics
        app.answers["/jwks"] = jwks(public_jwk("ES256", "k2"))
        await app.start()
        assert await server.accounts.keys.look(now=True) == "done"
        assert await outcome(server.port, "carol", token(claims("carol"), "ES256", "k2")) == "registered"


async def test_unknown_keys_cost_one_request_however_many_come() -> None:
    async with (
        Application(jwks=jwks(public_jwk("EdDSA"))) as app,
        SignalingServer(config(auth="token", jwks=app.url("/jwks"))) as server,
    ):
        app.hanging.add("/jwks")
        assert server.accounts.keys is not None
        server.accounts.keys._looked_at = None  # as after ten seconds
        many = [outcome(server.port, f"user{n}", token(claims(f"user{n}"), kid=f"kid{n}")) for n in range(20)]
        waiting = [asyncio.create_task(one) for one in many]
        await app.asked(2)
        # Whoever has a known key need not wait for it.
        assert await outcome(server.port, text=token(claims())) == "registered"
        async with asyncio.timeout(PATIENCE):
            while server.hub.pending < len(many):  # noqa: ASYNC110 - until all of them wait
                await asyncio.sleep(0)
        app.let_go()
        assert set(await asyncio.gather(*waiting)) == {"token-invalid"}
        assert await outcome(server.port, "eve", token(claims("eve"), kid="more")) == "rate-limited"
        assert [path for path, _ in app.requests] == ["/jwks", "/jwks"]


async def test_a_server_starts_without_its_keys_and_is_not_ready_until_it_has_them() -> None:
    app = Application(jwks=jwks(public_jwk("EdDSA")))
    async with SignalingServer(config(auth="token", jwks=app.url("/jwks"), admin_port=0)) as server:
        assert await outcome(server.port, text=token(claims())) == "internal"
        status, text = await get(server, "/readyz")
        assert (status, text.startswith("not ready: the keys of tokens cannot be read")) == (503, True)
        async with app:
            assert server.accounts.keys is not None
            await server.accounts.keys.look(now=True)
            assert await get(server, "/readyz") == (200, "ready\n")
            assert await outcome(server.port, text=token(claims())) == "registered"


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"x" * 300_000,
        web.Response(status=500),
        jwks(public_jwk("HS256")),  # everybody can fetch it
    ],
)
async def test_what_is_no_set_of_keys_at_a_url_changes_nothing(answer: Any) -> None:
    async with (
        Application(jwks=jwks(public_jwk("EdDSA"))) as app,
        SignalingServer(config(auth="token", jwks=app.url("/jwks"))) as server,
    ):
        app.answers["/jwks"] = answer
        assert server.accounts.keys is not None
        assert await server.accounts.keys.look(now=True) == "failed"
        assert await outcome(server.port, text=token(claims())) == "registered"


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_is_asked_of_a_server_whose_certificate_is_trusted_only(tmp_path: Path, trusted: bool) -> None:
    files = make_certificates(tmp_path)
    environ = {"SSL_CERT_FILE": str(files.ca)} if trusted else {}
    async with Application(tls=files, jwks=jwks(public_jwk("EdDSA")), hook={"allow": True}) as app:
        settings = {"auth": "token", "jwks": app.url("/jwks"), **app.hook()}
        async with ServerProcess(tmp_path, environ=environ, admin_port=0, **settings) as server:
            status, _ = await get(server, "/readyz")
            assert status == (200 if trusted else 503)
            assert await outcome(server.port, text=token(claims())) == ("registered" if trusted else "internal")
        assert [path for path, _ in app.requests] == (["/jwks", "/hook"] if trusted else [])


async def test_sighup_takes_over_what_a_token_must_have(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("")
    settings: dict[str, Any] = {"auth": "token", "jwks": str(key_file(tmp_path)), "config": str(file)}
    async with ServerProcess(tmp_path, **settings) as server:
        assert await outcome(server.port, text=token(claims())) == "registered"
        file.write_text('token_audience = "chat"\ntoken_grace = 5\n')
        server.process.send_signal(signal.SIGHUP)
        assert (await server.wait_for_line("reloaded"))["changed"] == ["token_audience"]
        assert await outcome(server.port, "bob", token(claims("bob"))) == "token-invalid"
        assert await outcome(server.port, "bob", token(claims("bob", aud="chat"))) == "registered"


async def test_no_redirect_is_followed() -> None:
    async with Application() as app:
        app.answers["/jwks"] = web.Response(status=302, headers={"Location": app.url("/elsewhere")})
        async with SignalingServer(config(auth="token", jwks=app.url("/jwks"))) as server:
            assert server.accounts.keys is not None
            assert server.accounts.keys.failing == "it answers with the status 302"
        assert [path for path, _ in app.requests] == ["/jwks"]


async def test_a_session_ends_with_its_token_and_goes_on_with_another(tmp_path: Path) -> None:
    identity = Identity.generate()
    settings = config(auth="token", jwks=key_file(tmp_path), token_grace=0, token_leeway=0, ping_interval=1)
    async with (
        SignalingServer(settings, tuning=Tuning(tick=0.05)) as server,
        await RawClient.connect(server.port) as alice,
    ):
        first = await alice.register("alice", identity, token=token(claims()))
        an_hour_passes(server, "alice")
        assert await alice.wait_closed() == (4006, "the token has expired")
        ticket = {"session": first["session"], "secret": first["secret"], "received": 0}
        async with await RawClient.connect(server.port) as again:
            old = await again.register("alice", identity, token=token(claims()), resume=ticket)
            assert old["code"] == "token-expired"
            new = await again.register("alice", identity, token=token(claims(seconds=7200)), resume=ticket)
            assert new["resumed"]


@pytest.mark.parametrize(("policy", "expected"), [("token", "token-invalid"), ("first-come", "registered")])
async def test_a_token_is_a_ticket_for_any_name_only_if_the_operator_says_so(
    tmp_path: Path, policy: str, expected: str
) -> None:
    async with SignalingServer(config(auth="token", jwks=key_file(tmp_path), name_policy=policy)) as server:
        assert await outcome(server.port, "any", token(claims())) == expected


async def test_a_token_may_be_for_one_device_only(tmp_path: Path) -> None:
    async with SignalingServer(
        config(auth="token", jwks=key_file(tmp_path), token_device_claim="dev", token_audience="chat")
    ) as server:
        text = token(claims(dev="phone", aud="chat"))
        assert await outcome(server.port, text=text) == "token-invalid"
        assert await outcome(server.port, text=text, device="phone") == "registered"


async def test_classic_clients_have_no_tokens_and_are_not_admitted(tmp_path: Path) -> None:
    async with (
        SignalingServer(config(auth="token", jwks=key_file(tmp_path))) as server,
        await RawClient.connect(server.port, subprotocol=None) as old,
    ):
        old.send({"type": "register", "userId": "old", "publicKey": "any", "token": token(claims("old"))})
        assert (await old.receive())["type"] == "error"
        assert (await old.wait_closed())[0] == 4501


# --- the application ------------------------------------------------------------------------------------------------


async def test_the_application_decides_and_its_reason_is_told() -> None:
    def decide(applicant: dict[str, Any]) -> dict[str, Any]:
        return {"allow": applicant["user"] == "alice", "reason": "pay first \x1b[31m" + "x" * 500}

    async with Application(hook=decide) as app:
        async with SignalingServer(config(**app.hook())) as server:
            async with await RawClient.connect(server.port) as client:
                reply = await client.register("bob")
            assert reply["code"] == "registration-refused"
            assert reply["message"].startswith("pay first  [31mxxx")
            assert len(reply["message"]) == 200
            identity = Identity.generate()
            async with await RawClient.connect(server.port) as client:
                assert (await client.register("alice", identity, device="phone"))["success"]
        asked = app.requests[-1][1]
        assert {**asked, "publicKey": None} == {
            "type": "registration",
            "user": "alice",
            "device": "phone",
            "publicKey": None,
            "proved": True,
        }


@pytest.mark.parametrize("answer", [{}, {"allow": "yes"}, [], b"{", b"x" * 5000, web.Response(status=500)])
@pytest.mark.parametrize(("failure", "expected"), [("deny", "internal"), ("allow", "registered")])
async def test_an_application_that_makes_no_sense_admits_nobody_unless_the_operator_says_so(
    answer: Any, failure: str, expected: str
) -> None:
    async with Application(hook=answer) as app, SignalingServer(config(**app.hook(hook_failure=failure))) as server:
        assert await outcome(server.port) == expected


async def test_an_application_that_is_dead_or_hangs_does_not_stop_the_server() -> None:
    async with Application(hook={"allow": True}) as app:
        settings = app.hook(hook_timeout=8, admin_port=0)
        async with SignalingServer(config(**settings)) as server, await RawClient.connect(server.port) as honest:
            await honest.register("honest")
            assert server.accounts.hook is not None
            server.accounts.hook._timeout = 0.2  # while it hangs: an answer may take longer on a busy machine
            app.hanging.add("/hook")
            waiting = [asyncio.create_task(outcome(server.port, f"user{n}")) for n in range(10)]
            await app.asked(2)
            assert await honest.request({"type": "ping", "id": 1}) == {"type": "pong", "re": 1}
            assert set(await asyncio.gather(*waiting)) == {"internal"}
            status, text = await get(server, "/readyz")
            assert (status, "does not answer within 0.2 s" in text) == (200, True)
            assert 'aldis_hook_calls_total{outcome="failed"} 10.0' in (await get(server, "/metrics"))[1]
            await app.die()
            assert await outcome(server.port) == "internal"
            app.let_go()
            server.accounts.hook._timeout = 8
            await app.start()
            assert await outcome(server.port) == "registered"
            assert await get(server, "/readyz") == (200, "ready\n")


async def test_an_application_gets_no_more_requests_at_a_time_than_it_may() -> None:
    async with Application(hook={"allow": True}) as app:
        app.hanging.add("/hook")
        # Of which strangers have half.
        async with SignalingServer(config(**app.hook(hook_timeout=8, hook_concurrency=4))) as server:
            waiting = [asyncio.create_task(outcome(server.port, f"user{n}")) for n in range(10)]
            while server.hub.pending < 10:  # noqa: ASYNC110 - the hub tells nobody what it counts
                await asyncio.sleep(0)
            await app.asked(2)
            assert len(app.requests) == 2
            app.let_go()
            assert set(await asyncio.gather(*waiting)) == {"registered"}
            assert len(app.requests) == 10


async def from_network(server: SignalingServer, address: str, name: str, identity: Identity | None = None) -> str:
    async with await RawClient.connect(server.port, headers={"X-Forwarded-For": address}) as client:
        reply = await client.register(name, identity)
        return str(reply.get("code", reply["type"]))


@pytest.mark.parametrize(("family", "asked"), [("11.{}.0.1", 2), ("2001:db8:{}::1", 1)])
async def test_strangers_in_many_networks_do_not_keep_known_users_from_the_application(family: str, asked: int) -> None:
    alice = Identity.generate()
    async with Application(hook={"allow": True}) as app:
        settings = app.hook(hook_timeout=8, hook_concurrency=4, hook_cache=0, trusted_proxies="127.0.0.1")
        async with SignalingServer(config(**settings)) as server:
            assert await from_network(server, "10.0.0.1", "alice", alice) == "registered"
            app.hanging.add("/hook")
            names = [f"stranger{number}" for number in range(20)]
            waiting = [
                asyncio.create_task(from_network(server, family.format(number), name))
                for number, name in enumerate(names)
            ]
            while server.hub.pending < len(names):  # noqa: ASYNC110 - the hub tells nobody what it counts
                await asyncio.sleep(0)
            # Another one who claims to be alice is a stranger, and waits with the others.
            waiting.append(asyncio.create_task(from_network(server, family.format(0), "alice")))
            while server.hub.pending <= len(names):  # noqa: ASYNC110
                await asyncio.sleep(0)
            await app.asked(1 + asked)
            app.hanging.clear()
            assert await from_network(server, "10.0.0.1", "alice", alice) == "registered"
            assert sum(each.done() for each in waiting) == 0
            app.let_go()
            assert sorted(await asyncio.gather(*waiting)) == ["key-mismatch", *["registered"] * len(names)]


async def test_an_application_that_was_started_again_is_asked_without_a_failure() -> None:
    async with Application(hook={"allow": True}) as app, SignalingServer(config(**app.hook())) as server:
        for name in ("alice", "bob", "carol"):
            assert await outcome(server.port, name) == "registered"
            await app.die()
            await app.start()
        assert server.accounts.hook is not None
        assert server.accounts.hook.calls["failed"] == 0


async def test_an_answer_holds_for_a_while() -> None:
    async with Application(hook={"allow": True}) as app, SignalingServer(config(**app.hook(hook_cache=60))) as server:
        identity = Identity.generate()
        for _ in range(3):
            async with await RawClient.connect(server.port) as client:
                await client.register("alice", identity)
        assert len(app.requests) == 1
        assert await outcome(server.port, "alice", device="other") == "key-mismatch"
        assert len(app.requests) == 2


async def test_a_classic_client_is_asked_about_as_one_that_proves_nothing() -> None:
    async with Application(hook={"allow": False, "reason": "not you"}) as app:
        async with (
            SignalingServer(config(auth="open", **app.hook())) as server,
            await RawClient.connect(server.port, subprotocol=None) as old,
        ):
            old.send({"type": "register", "userId": "old", "publicKey": "any"})
            assert await old.receive() == {"type": "error", "message": "not you"}
        assert app.requests[0][1]["proved"] is False


# --- presence -------------------------------------------------------------------------------------------------------


def with_presence(app: Application, **more: Any) -> dict[str, Any]:
    return {"presence_url": app.url("/presence"), "hook_secret": SECRET, **more}


async def test_the_application_is_told_in_order_who_comes_and_goes() -> None:
    async with Application() as app:
        async with SignalingServer(config(**with_presence(app))) as server:
            for name in ("alice", "bob"):
                async with await RawClient.connect(server.port) as client:
                    await client.register(name)
                    await client.leave()
            events = await app.told(5)
        assert [(event["type"], event.get("user")) for event in events] == [
            ("started", None),
            ("online", "alice"),
            ("offline", "alice"),
            ("online", "bob"),
            ("offline", "bob"),
        ]
        assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5]
        assert len({event["id"] for event in events}) == 5


async def test_events_wait_for_an_application_that_is_away_and_come_once_more_with_the_same_id() -> None:
    refused: list[Any] = []

    def refuse_once(content: dict[str, Any]) -> Any:
        if not refused:
            refused.append(content)
            return web.Response(status=503)
        return {}

    async with Application(presence=refuse_once) as app:
        async with (
            SignalingServer(config(**with_presence(app))) as server,
            await RawClient.connect(server.port) as client,
        ):
            await client.register("alice")
            events = await app.told(2)
        assert refused[0]["events"][0] == events[0]


async def test_a_server_that_stops_delivers_what_waits(tmp_path: Path) -> None:
    async with Application() as app:
        async with ServerProcess(tmp_path, **with_presence(app)) as server:
            async with await RawClient.connect(server.port) as client:
                await client.register("alice")
                await client.leave()
            await server.stop()
        assert [event["type"] for event in await app.told(3)] == ["started", "online", "offline"]


async def test_a_dead_application_that_is_told_of_presence_stops_nobody() -> None:
    app = Application()
    settings = config(admin_port=0, **with_presence(app, presence_queue=100), **UNLIMITED)
    async with SignalingServer(settings) as server:
        async with await RawClient.connect(server.port) as client:
            identity = Identity.generate()
            for _ in range(50):
                await client.register("alice", identity)
                await client.request({"type": "unregister"})
        for number in range(130):
            async with await RawClient.connect(server.port) as client:
                await client.register(f"user{number}")  # and vanishes, but stays online for half a minute
        metrics = (await get(server, "/metrics"))[1]
        assert "aldis_presence_events_waiting 101.0" in metrics or "aldis_presence_events_waiting 100.0" in metrics
        assert 'aldis_presence_events_total{outcome="dropped"} 3' in metrics


# --- names that the operator has listed -----------------------------------------------------------------------------


async def test_only_listed_names_register_where_the_operator_says_so(tmp_path: Path) -> None:
    settings = config(name_policy="closed", data=str(tmp_path / "data"))
    identity = Identity.generate()
    async with SignalingServer(settings) as server:
        assert await outcome(server.port) == "registration-refused"
        assert server._questions.directory is not None
        await server._questions.directory.list_name("alice")
        async with await RawClient.connect(server.port) as client:
            assert (await client.register("alice", identity))["success"]
    async with SignalingServer(settings) as server:
        assert await outcome(server.port) == "key-mismatch"
        assert await outcome(server.port, "bob") == "registration-refused"
