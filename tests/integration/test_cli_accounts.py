"""Accounts on the command line: keys and tokens for trials, names that may register, and what `check-config` finds."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from aldis.server.tokens import ALGORITHMS, TokenRules, check_token, read_key_set
from support.application import Application
from support.commands import Piped, aldis
from support.server_process import ServerProcess
from support.tokens import jwks, public_jwk


async def run(*words: str | Path, **more: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, while other things go on."""
    done = await asyncio.to_thread(aldis, *words, **more)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_for_its_owner_only_and_signs_tokens_that_a_server_takes(tmp_path: Path, algorithm: str) -> None:
    key = tmp_path / "keys.json"
    made = aldis("token", "--new-key", key, "--algorithm", algorithm, home=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = aldis("token", "--new-key", key, home=tmp_path)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    settings = tmp_path / "aldis.toml"
    settings.write_text(
        f'auth = "token"\njwks = "{key}"\ntoken_claim = "name"\ntoken_audience = "chat"\n'
        'token_issuer = "https://issuer.example"\ntoken_device_claim = "device"\n'
    )
    words = ("token", "alice", "--config", settings, "--for", "90s", "--device", "phone")
    printed = aldis(*words, home=tmp_path)
    assert (printed.returncode, printed.stderr) == (0, "")
    rules = TokenRules(
        audience="chat", issuer="https://issuer.example", user_claim="name", device_claim="device", leeway=0
    )
    now = time.time()
    claims = check_token(printed.stdout.strip(), read_key_set(key.read_bytes(), secrets=True), rules, now)
    assert (claims.user_id, claims.device) == ("alice", "phone")
    assert 60 < claims.expires - now <= 90
    public = aldis("token", "--public", "--key", key, home=tmp_path)
    if algorithm == "HS256":
        assert (public.returncode, public.stdout) == (2, "")
    else:
        (shown,) = json.loads(public.stdout)["keys"]
        assert not {"d", "p", "q", "k"} & set(shown)
        check_token(printed.stdout.strip(), read_key_set(public.stdout.encode(), secrets=False), rules, now)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "give a NAME"),
        (("alice", "--public"), "give a NAME"),
        (("alice",), "which key?"),
        (("alice", "--key", "public.json"), "has no private key"),
        (("alice", "--key", "private.json", "--device", "phone"), "no token_device_claim"),
        (("a b", "--key", "private.json"), "cannot be a name"),
        (("alice", "--key", "private.json", "--for", "soon"), "is no time"),
        (("--new-key", "new.json", "--algorithm", "none"), "is no algorithm"),
        (("--new-key", "nowhere/new.json"), "cannot write"),
        (("--public", "--key", "no.json"), "no JWKS"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    aldis("token", "--new-key", "private.json", home=tmp_path)
    (tmp_path / "public.json").write_bytes(jwks(public_jwk("EdDSA")))
    (tmp_path / "no.json").write_text("{}")
    done = aldis("token", *words, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert not (tmp_path / "new.json").exists()


async def test_a_chat_takes_its_token_from_the_environment_or_a_file(tmp_path: Path) -> None:
    key, file = tmp_path / "keys.json", tmp_path / "token"
    aldis("token", "--new-key", key, home=tmp_path)
    text = aldis("token", "alice", "--key", key, home=tmp_path).stdout.strip()
    file.write_text(text + "\n")
    async with ServerProcess(tmp_path, auth="token", jwks=str(key)) as server:
        chat = ("chat", "bob", "--as", "alice", "--no-wait", "--server", f"ws://127.0.0.1:{server.port}")
        without = await run(*chat, home=tmp_path)
        assert without[0] == 4
        assert "this server wants a token" in without[2]
        assert "--token-file or ALDIS_TOKEN" in without[2]
        # It was registered. Then there was nothing to send (0), or nobody to send it to (5): it depends on the moment.
        assert (await run(*chat, "--token-file", str(file), home=tmp_path))[0] in (0, 5)
        assert (await run(*chat, home=tmp_path, extra={"ALDIS_TOKEN": text}))[0] in (0, 5)


async def test_an_operator_lists_names_while_the_server_runs_and_while_it_does_not(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert aldis("directory", "names", "list", *data, home=tmp_path).stdout == "the list is empty\n"
    assert aldis("directory", "names", "add", "alice", *data, home=tmp_path).stdout == "alice may register now\n"
    for words, problem in ((("add",), "needs a NAME"), (("list", "bob"), "takes no NAME"), (("x",), "none of list")):
        done = aldis("directory", "names", *words, *data, home=tmp_path)
        assert (done.returncode, problem in done.stderr) == (2, True)
    async with ServerProcess(tmp_path, name_policy="closed", admin_port=0) as server:
        admin = ("--admin", f"http://127.0.0.1:{server.admin_port}", *data)

        async def ask(*words: str) -> str:
            code, out, err = await run("admin", *words, *admin, home=tmp_path)
            assert (code, err) == (0, "")
            return out

        assert await ask("names", "add", "bob") == "bob may register now\n"
        assert await ask("names", "add", "bob") == "bob was on the list already\n"
        assert await ask("names", "list") == "alice\nbob\n"
        assert await ask("names", "list", "--json") == '{"names": ["alice", "bob"]}\n'
        url = f"ws://127.0.0.1:{server.port}"
        async with Piped("chat", "bob", "--as", "alice", "--listen", "--server", url, home=tmp_path) as alice:
            await alice.says("waiting")
            assert await ask("names", "remove", "alice") == "alice may not register any more; 1 session ended\n"
            await alice.says("the name was taken off the list")
        assert await ask("names", "remove", "alice") == "alice was not on the list; 0 sessions ended\n"
        refused = await run("chat", "bob", "--as", "alice", "--no-wait", "--server", url, home=tmp_path)
        assert (refused[0], "not on the list of this server" in refused[2]) == (4, True)
    assert aldis("directory", "names", "list", *data, home=tmp_path).stdout == "bob\n"
    assert (
        aldis("directory", "names", "remove", "bob", *data, home=tmp_path).stdout == "bob may not register any more\n"
    )


async def test_check_config_reads_the_keys_and_does_not_ask_the_application(tmp_path: Path) -> None:
    async def checked(*words: str) -> tuple[int, str]:
        done = await run(
            "check-config", "--admin-port", "none", "--data", ":memory:", "--port", "0", *words, home=tmp_path
        )
        return done[0], done[1]

    private = tmp_path / "keys.json"
    aldis("token", "--new-key", private, home=tmp_path)
    code, text = await checked("--auth", "token", "--jwks", str(private))
    assert (code, f"ok     jwks: {private}: " in text, "chmod" in text) == (0, True, False)
    private.chmod(0o644)
    assert "others can read it: chmod 600" in (await checked("--auth", "token", "--jwks", str(private)))[1]
    (tmp_path / "broken.json").write_text("{")
    code, text = await checked("--auth", "token", "--jwks", str(tmp_path / "broken.json"))
    assert (code, "cannot be used: it is no JSON" in text) == (2, True)
    code, text = await checked("--auth", "token")
    assert (code, "wrong  jwks: is needed with auth = token" in text) == (2, True)
    async with Application(jwks=jwks(public_jwk("ES256", "k7"), {"kty": "x"})) as app:
        url = app.url("/jwks")
        code, text = await checked(
            "--auth", "token", "--jwks", url, "--hook-url", app.url("/hook"), "--hook-secret", "x" * 32
        )
        assert (code, f"ok     jwks: {url}: k7 (ES256)" in text) == (0, True)
        assert "note   jwks: key 2: its kind is none of" in text
        assert [path for path, _ in app.requests] == ["/jwks"]
    code, text = await checked("--auth", "token", "--jwks", url)
    assert (code, f"wrong  jwks: {url} cannot be used: " in text) == (2, True)


def test_a_token_of_the_command_is_one_that_other_libraries_read(tmp_path: Path) -> None:
    key = tmp_path / "keys.json"
    aldis("token", "--new-key", key, home=tmp_path)
    text = aldis("token", "alice", "--key", key, home=tmp_path).stdout.strip()
    public = json.loads(aldis("token", "--public", "--key", key, home=tmp_path).stdout)
    found = jwt.PyJWKSet.from_dict(public)[jwt.get_unverified_header(text)["kid"]]
    assert jwt.decode(text, found, algorithms=["EdDSA"])["sub"] == "alice"


async def test_a_list_that_does_not_count_is_told(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        admin = ("--admin", f"http://127.0.0.1:{server.admin_port}", "--data", str(tmp_path / "data"))
        _, out, _ = await run("admin", "names", "add", "bob", *admin, home=tmp_path)
        unused = "the list counts with name_policy = closed only; here it is first-come"
        assert out == f"bob may register now\n{unused}\n"
