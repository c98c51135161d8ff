"""What `aldis admin` prints of a cluster: where users are, and which nodes have not answered."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.cli import admin

SILENT = {"silentNodes": ["0123456789ab"]}
MISSING = "! the node 0123456789ab has not answered"


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: dict[str, Any], *words: str
) -> list[str]:
    """The lines of a command, when the server answers so."""

    class Client:
        def __init__(self, arguments: object) -> None:
            pass

        def ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
            return answer

    monkeypatch.setattr(admin, "AdminClient", Client)
    assert admin.run(words) == 0
    return capsys.readouterr().out.splitlines()


def test_users_are_listed_with_their_nodes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    users = [
        {"user": "alice", "devices": 3, "nodes": {"n1": 1, "n2": 2}},
        {"user": "bob", "devices": 2, "nodes": {"n1": 2}},
        {"user": "carol", "devices": 1, "nodes": {"n1": 1}},
    ]
    assert said(monkeypatch, capsys, {"users": users, "next": None, **SILENT}, "users") == [
        "alice  (1 device at n1, 2 devices at n2)",
        "bob  (2 devices)",
        "carol",
        MISSING,
    ]
    (line,) = said(monkeypatch, capsys, {"users": [], "next": None, **SILENT}, "users", "--json")
    assert line == '{"users": [], "silentNodes": ["0123456789ab"]}'


def test_a_prefix_that_fits_nobody_does_not_say_that_nobody_is_online(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody: dict[str, Any] = {"users": [], "next": None}
    assert said(monkeypatch, capsys, nobody, "users", "zzz") == ["nobody is online whose name begins with zzz"]
    assert said(monkeypatch, capsys, nobody, "users") == ["nobody is online"]


def test_a_name_that_is_free_already_is_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(monkeypatch, capsys, {"released": False}, "release", "bob") == [
        "bob is free already: no key is bound to that name"
    ]


@pytest.mark.parametrize(("up", "relays"), [(True, "yes, asked "), (False, "no, the server is down; asked ")])
def test_a_turn_server_that_is_down_does_not_relay(
    up: bool, relays: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = {"up": up, "restarts": 1, "urls": ["turn:h"], "allocation": {"problem": "", "at": 1.0}}
    answer = {"turn": {**turn, "earlierSecretUntil": None}}
    assert said(monkeypatch, capsys, answer, "turn")[2].startswith(f"relays          {relays}")


def test_a_limit_that_was_reached_once_reads_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ("users", "connections", "detached", "waiting", "relayed", "sealedBytes", "messages", "refused")
    found: dict[str, Any] = dict.fromkeys((*counts, "throttled", "bans", "memory", "uptime", "processorSeconds"), 0)
    found |= {"version": "1", "certificate": None, "turn": None, "problems": []}
    found["limits"] = [{"limit": "watches-per-user", "effect": "requests refused", "count": 1}]
    assert "watches-per-user        requests refused: 1" in said(monkeypatch, capsys, found, "stats")


def test_a_session_says_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    session = {"device": "main", "connected": True, "seconds": 1.0, "silent": 1.0, "watches": 0, "node": "n1"}
    session |= {"unconfirmed": 0, "unconfirmedBytes": 0}
    first, second = said(monkeypatch, capsys, {"sessions": [session], **SILENT}, "user", "alice")
    assert first.endswith(", at node n1")
    assert second == MISSING


def test_the_key_of_a_name_is_said_and_that_of_a_session_where_it_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = {"device": "main", "connected": True, "seconds": 1.0, "silent": 1.0, "watches": 0, "node": "n1"}
    session |= {"unconfirmed": 0, "unconfirmedBytes": 0, "key": "QQ==", "fingerprint": "aaaa-bbbb"}
    older = {name: value for name, value in session.items() if name not in ("key", "fingerprint")}
    bound = {"key": "QQ==", "fingerprint": "aaaa-bbbb"}
    lines = said(monkeypatch, capsys, {"sessions": [session, older], "binding": bound}, "user", "alice")
    assert lines[:2] == ["key          QQ==", "fingerprint  aaaa-bbbb"]
    assert all(line.endswith(", at node n1") for line in lines[2:])
    away = said(monkeypatch, capsys, {"sessions": [session]}, "user", "alice")
    assert away[0].endswith(", with the key QQ== (aaaa-bbbb)")
    free = said(monkeypatch, capsys, {"sessions": [], "binding": None}, "user", "alice")
    assert free == ["key          none: whoever registers the name next has it", "fingerprint  none",
                    "alice is not online"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("disconnect", "bob"), {"sessions": 2}),
        (("release", "bob"), {"released": True}),
        (("names", "remove", "bob"), {"removed": True, "sessions": 2}),
        (("ban", "user", "bob"), {"kind": "user", "value": "bob", "sessions": 2}),
        (("unban", "user", "bob"), {"removed": True}),
    ],
)
def test_what_a_silent_node_may_not_have_done_is_said(
    words: tuple[str, ...],
    answer: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said(monkeypatch, capsys, {**answer, **SILENT}, *words)[-1] == MISSING
    assert len(said(monkeypatch, capsys, answer, *words)) == 1
