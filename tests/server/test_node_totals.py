"""How the answers of several nodes become one (aldis.server.node_totals)."""

from __future__ import annotations

from typing import Any

from aldis.server.node_totals import add_sessions, add_statistics, add_user, add_users, different_settings


def statistics(**more: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "host": "one",
        "uptime": 10.0,
        "connections": 1,
        "users": 1,
        "sharedUsers": [],
        "detached": 0,
        "waiting": 0,
        "bans": 2,
        "memory": 100,
        "processorSeconds": 0.1,
        "messages": 5,
        "refused": 1,
        "relayed": 2,
        "sealedBytes": 3,
        "throttled": 0,
        "registrations": {"new": 1},
        "closes": {"1000": 1},
        "messagesByType": {"offer": {"ok": 2}},
        "certificate": None,
        "turn": None,
        "limits": [{"limit": "a", "effect": "refused", "count": 1}],
        "problems": [],
        **more,
    }


def test_figures_are_sums_and_what_cannot_be_summed_is_of_the_asked_node() -> None:
    other = statistics(
        host="two",
        uptime=99.0,
        users=2,
        sharedUsers=[{"nodes": ["n1"], "users": 1}],
        memory=None,
        processorSeconds=0.2,
        registrations={"new": 2, "resumed": 1},
        messagesByType={"offer": {"ok": 1, "not-online": 1}, "bye": {"ok": 1}},
        limits=[{"limit": "a", "effect": "refused", "count": 4}, {"limit": "b", "effect": "closed", "count": 1}],
        problems=["bad"],
    )
    found = add_statistics("n1", {"n2": other, "n1": statistics(sharedUsers=[{"nodes": ["n2"], "users": 1}])}, ["n3"])
    assert (found["users"], found["connections"], found["memory"], found["processorSeconds"]) == (2, 2, 100, 0.3)
    assert (found["uptime"], found["bans"], found["node"], found["silentNodes"]) == (10.0, 2, "n1", ["n3"])
    assert found["registrations"] == {"new": 3, "resumed": 1}
    assert found["messagesByType"] == {"bye": {"ok": 1}, "offer": {"ok": 3, "not-online": 1}}
    assert found["limits"] == [
        {"limit": "a", "effect": "refused", "count": 5},
        {"limit": "b", "effect": "closed", "count": 1},
    ]
    assert found["problems"] == ["node n2 (two): bad", "The node n3 does not answer."]
    assert [(node["node"], node["host"], node["users"]) for node in found["nodes"]] == [
        ("n1", "one", 1),
        ("n2", "two", 2),
    ]
    assert "sharedUsers" not in found


def test_a_user_at_several_nodes_counts_once_whoever_answers() -> None:
    def of(users: int, **others: int) -> dict[str, Any]:
        shared = [{"nodes": nodes.split("_"), "users": count} for nodes, count in others.items()]
        return statistics(users=users, sharedUsers=shared)

    # Five at n1 and n2, two at all three, and three, none and one at a single one.
    answers = {"n1": of(10, n2=5, n2_n3=2), "n2": of(7, n1=5, n1_n3=2), "n3": of(3, n1_n2=2)}
    assert add_statistics("n1", answers, [])["users"] == 11
    for silent in answers:
        heard = {node: answer for node, answer in answers.items() if node != silent}
        assert add_statistics(next(iter(heard)), heard, [silent])["users"] == {"n1": 8, "n2": 11, "n3": 10}[silent]


def test_settings_that_differ_are_problems_and_are_shown_nowhere_else() -> None:
    answers = {
        "n1": statistics(settings={"relay": "True", "turn_secret of turn:t": "ab", "auth": "verify"}),
        "n2": statistics(host="two", settings={"relay": "False", "turn_secret of turn:t": "cd", "auth": "verify"}),
        "n3": statistics(host="three", settings={"relay": "True", "newer": "1"}),
        "n4": statistics(host="older"),
    }
    found = add_statistics("n1", answers, [])
    assert found["problems"] == [
        "relay is not the same at all servers: True at n1 (one), n3 (three); False at n2 (two).",
        "turn_secret of turn:t is not the same at all servers: another one at n1 (one); another one at n2 (two).",
    ]
    assert "settings" not in found
    assert all("settings" not in node for node in found["nodes"])
    assert different_settings({node: answers[node].get("settings", {}) for node in ("n1", "n3", "n4")}) == []


def test_no_node_knows_its_memory_on_some_systems() -> None:
    assert add_statistics("n1", {"n1": statistics(memory=None)}, [])["memory"] is None


def test_a_page_has_the_first_names_of_all_nodes_and_says_whether_more_follow() -> None:
    one = {"users": [{"user": "a", "devices": 1}, {"user": "d", "devices": 1}], "next": "d"}
    two = {"users": [{"user": "b", "devices": 2}, {"user": "d", "devices": 1}], "next": None}
    found = add_users({"n1": one, "n2": two}, [], 2)
    assert ([user["user"] for user in found["users"]], found["next"]) == (["a", "b"], "b")
    found = add_users({"n1": one, "n2": two}, [], 3)
    assert found["users"][2] == {"user": "d", "devices": 2, "nodes": {"n1": 1, "n2": 1}}
    assert found["next"] == "d"
    assert add_users({"n2": two}, ["n1"], 2) == {
        "users": [{"user": "b", "devices": 2, "nodes": {"n2": 2}}, {"user": "d", "devices": 1, "nodes": {"n2": 1}}],
        "next": None,
        "silentNodes": ["n1"],
    }
    assert add_users({"n1": {"users": [], "next": None}}, [], 2)["next"] is None


def test_sessions_of_a_user_are_in_one_list_the_newest_first() -> None:
    old, new = {"device": "old", "seconds": 9.0}, {"device": "new", "seconds": 1.0}
    found = add_user(
        "bob",
        {
            "n1": {"sessions": [old], "privacy": {"presence": "public"}},
            "n2": {"sessions": [new], "privacy": {"presence": "public"}},
            "n3": {"sessions": [], "privacy": None},
        },
        [],
    )
    assert [(each["device"], each["node"]) for each in found["sessions"]] == [("new", "n2"), ("old", "n1")]
    assert (found["online"], found["privacy"]) == (True, {"presence": "public"})


def test_ended_sessions_are_summed() -> None:
    assert add_sessions({"n1": {"sessions": 2}, "n2": {"sessions": 1}}, ["n3"]) == {
        "sessions": 3,
        "silentNodes": ["n3"],
    }
