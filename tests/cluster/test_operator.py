"""What an operator sees and does in all nodes, whichever is asked (aldis.server.administration), over a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from aldis.backends.base import Directory, DirectoryUnavailable
from aldis.cluster import questions
from aldis.hub.hub import Hub
from aldis.identity.keys import fingerprint
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.codes import CloseCode
from aldis.server.accounts import Accounts
from aldis.server.administration import Administration, Unconfirmed
from aldis.server.ban_file import BanFile
from aldis.server.health import Health
from aldis.server.logs import get_logger
from aldis.server.node_administration import NodeAdministration
from aldis.server.proxies import TrustedProxies
from aldis.server.scheduler import FairScheduler
from support.hub_redis import RedisCluster
from support.hub_world import Client
from support.redis_server import RedisServer


class NoHealth:
    def read(self) -> dict[str, Any]:
        return {"certificate": None, "turn": None, "limits": [], "problems": []}


class NoAccounts:
    closed = True
    problems: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        return {"namePolicy": "closed"}


class Names:
    async def find(self, user_id: str) -> bytes | None:
        return None if user_id == "nobody" else b"\1" * 32

    async def unlist_name(self, user_id: str) -> bool:
        return True


class Scheduler:
    throttled = 0

    def __len__(self) -> int:
        return 0


class Operator:
    """An operator who asks one of the nodes."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.apis = [self._api(number) for number in range(len(cluster.nodes))]

    def _api(self, number: int) -> Administration:
        hub: Hub = self.cluster.worlds[number].hub
        health, accounts = cast(Health, NoHealth()), cast(Accounts, NoAccounts())
        scheduler = cast(FairScheduler, Scheduler())
        here = NodeAdministration(hub, scheduler, health=health, accounts=accounts)
        self.cluster.responders[number] = here.respond
        return Administration(
            *(hub, scheduler, BanFile(None), get_logger("aldis.test")),
            health=health,
            release=lambda user_id: self._release(number, user_id),
            directory=cast(Directory, Names()),
            accounts=accounts,
            end=lambda ban: 0,
            stop=lambda: None,
            proxies=TrustedProxies(),
            cluster=self.cluster.nodes[number].operator,
            here=here,
        )

    async def _release(self, number: int, user_id: str) -> bool:
        found: list[bool | None] = []
        world = self.cluster.worlds[number]
        world.hub.release(user_id, found.append)
        world.settle()
        return bool(found[0])

    def ask(self, number: int, name: str, *words: object) -> dict[str, Any]:
        """What a node answers, when all has come of it."""
        answer: dict[str, Any] = self.cluster.run(getattr(self.apis[number], name)(*words))
        self.cluster.settle()
        return answer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--save", "") as server:
        yield server


@pytest.fixture
def operator(redis: RedisServer) -> Iterator[Operator]:
    cluster = RedisCluster(redis.url(), 3)
    yield Operator(cluster)
    cluster.close()


def join(operator: Operator, number: int, name: str, device: str = "main") -> Client:
    client = operator.cluster.worlds[number].connect()
    client.register(name, device=device, settle=operator.cluster.settle)
    assert client.registered is not None, client.inbox
    client.take()
    return client


def test_users_of_all_nodes_are_listed_at_each_in_pages(operator: Operator) -> None:
    ids = [node.node for node in operator.cluster.nodes]
    for number, name in enumerate(["alice", "bob", "carol"]):
        join(operator, number, name)
    join(operator, 0, "bob", "phone")
    listed = operator.ask(2, "users", "", "", 100)
    assert listed == {
        "users": [
            {"user": "alice", "devices": 1, "nodes": {ids[0]: 1}},
            {"user": "bob", "devices": 2, "nodes": {ids[0]: 1, ids[1]: 1}},
            {"user": "carol", "devices": 1, "nodes": {ids[2]: 1}},
        ],
        "next": None,
        "silentNodes": [],
    }
    names, after = [], ""
    while after is not None:
        page = operator.ask(0, "users", "", after, 1)
        names += [user["user"] for user in page["users"]]
        after = page["next"]
    assert names == ["alice", "bob", "carol"]


def test_the_sessions_of_a_user_say_at_which_node_they_are(operator: Operator) -> None:
    join(operator, 0, "bob")
    join(operator, 1, "bob", "phone")
    found = operator.ask(2, "user", "bob")
    assert found["online"]
    assert {(each["device"], each["node"]) for each in found["sessions"]} == {
        ("main", operator.cluster.nodes[0].node),
        ("phone", operator.cluster.nodes[1].node),
    }
    assert found["privacy"]["presence"] == "public"
    assert {each["fingerprint"] for each in found["sessions"]} == {
        fingerprint(from_base64(each["key"])) for each in found["sessions"]
    }
    assert found["binding"] == {"key": to_base64(b"\1" * 32), "fingerprint": fingerprint(b"\1" * 32)}
    assert operator.ask(2, "user", "nobody") == {
        "user": "nobody",
        "binding": None,
        "online": False,
        "privacy": None,
        "sessions": [],
        "silentNodes": [],
    }


def test_figures_are_summed_and_a_user_at_several_nodes_counts_once(operator: Operator) -> None:
    for number in range(3):
        join(operator, number, "bob", f"device-{number}")
    join(operator, 0, "alice")
    found = operator.ask(1, "statistics")
    assert (found["users"], found["connections"], found["messagesByType"]["prove"]) == (2, 4, {"ok": 4})
    assert found["node"] == operator.cluster.nodes[1].node
    assert {node["node"]: (node["users"], node["connections"]) for node in found["nodes"]} == {
        operator.cluster.nodes[0].node: (2, 2),
        operator.cluster.nodes[1].node: (1, 1),
        operator.cluster.nodes[2].node: (1, 1),
    }
    assert found["silentNodes"] == found["problems"] == []


def test_a_user_is_disconnected_at_all_nodes(operator: Operator) -> None:
    clients = [join(operator, number, "bob", f"device-{number}") for number in range(3)]
    assert operator.ask(0, "disconnect", "bob") == {"sessions": 3, "silentNodes": []}
    assert [client.closed and client.closed[0] for client in clients] == [CloseCode.GOING_AWAY] * 3


def test_a_released_name_loses_its_sessions_at_all_nodes_and_is_free(operator: Operator) -> None:
    clients = [join(operator, number, "bob", f"device-{number}") for number in range(3)]
    assert operator.ask(0, "release", "bob") == {"released": True, "silentNodes": []}
    for world in operator.cluster.worlds:
        world.pass_time(1.0)
    operator.cluster.settle()
    assert [client.closed and client.closed[0] for client in clients] == [CloseCode.UNAUTHORIZED] * 3


def test_a_name_that_is_taken_off_the_list_loses_its_sessions_at_all_nodes(operator: Operator) -> None:
    clients = [join(operator, number, "bob", f"device-{number}") for number in range(3)]
    assert operator.ask(1, "unlist_name", "bob") == {"removed": True, "sessions": 3, "silentNodes": []}
    assert [client.closed and client.closed[0] for client in clients] == [CloseCode.UNAUTHORIZED] * 3


def test_a_ban_tells_how_many_sessions_have_ended_in_all(operator: Operator) -> None:
    for number in range(3):
        join(operator, number, "mallory", f"device-{number}")
    answer = operator.ask(2, "ban", "user", "mallory", "spam", None)
    assert (answer["sessions"], answer["silentNodes"]) == (3, [])
    assert operator.ask(0, "unban", "user", "mallory") == {"removed": True, "silentNodes": []}
    assert operator.ask(0, "unban", "user", "mallory") == {"removed": False, "silentNodes": []}


def test_a_node_that_does_not_answer_is_named_in_each_answer(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 1.0)  # the other node has to answer within it
    join(operator, 0, "alice")
    join(operator, 1, "bob")
    dead = operator.cluster.nodes[2].node
    operator.cluster.kill(2)
    found = operator.ask(0, "users", "", "", 10)
    assert ([user["user"] for user in found["users"]], found["silentNodes"]) == (["alice", "bob"], [dead])
    assert operator.ask(0, "disconnect", "bob") == {"sessions": 1, "silentNodes": [dead]}
    found = operator.ask(1, "statistics")
    assert found["silentNodes"] == [dead]
    assert found["problems"] == [f"The node {dead} does not answer."]


def test_a_node_that_gets_a_new_id_while_it_asks_answers_under_the_former_one(operator: Operator) -> None:
    """Others have counted it as lost meanwhile."""
    join(operator, 0, "alice")
    asking, other = operator.cluster.nodes[0], operator.cluster.nodes[1].node
    former, respond = asking.node, operator.cluster.responders[1]

    def move(subject: str, content: dict[str, Any]) -> dict[str, Any] | None:
        asking._bus._former.append(former)
        asking._bus.node_id = "moved"
        return respond(subject, content)

    operator.cluster.responders[1] = move
    found = operator.ask(0, "statistics")
    assert (found["node"], found["users"]) == (former, 1)
    assert other in [each["node"] for each in found["nodes"]]


def test_a_node_that_knows_no_such_question_is_named(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 1.0)
    operator.cluster.responders[1] = lambda subject, content: None
    assert operator.ask(0, "disconnect", "bob")["silentNodes"] == [operator.cluster.nodes[1].node]


def test_each_node_says_which_ban_a_new_one_replaces(operator: Operator) -> None:
    first, other, _ = operator.apis
    assert "replaced" not in operator.cluster.run(first.ban("user", "mallory", "spam", None))
    with pytest.raises(Unconfirmed, match="is banned for ever already"):
        operator.cluster.run(other.ban("user", "mallory", "", 60.0))
    found = operator.cluster.run(other.ban("user", "mallory", "", 60.0, confirmed=True))
    assert found["replaced"] == {"reason": "spam", "until": None}


def test_without_redis_a_node_tells_of_itself_and_names_the_others(operator: Operator, redis: RedisServer) -> None:
    join(operator, 0, "alice")
    for number in range(3):
        operator.cluster.renew(number)
    redis.kill()
    api = operator.apis[0]
    found = operator.cluster.run(api.users("", "", 10))
    assert [user["user"] for user in found["users"]] == ["alice"]
    assert found["silentNodes"] == sorted(node.node for node in operator.cluster.nodes[1:])
    with pytest.raises(DirectoryUnavailable, match="it is not known whether the ban counts"):
        operator.cluster.run(api.ban("user", "mallory", "", None))
    redis.start()
    operator.cluster.until_healthy()


def test_a_redis_that_hangs_keeps_nobody_waiting(
    operator: Operator, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 0.05)
    join(operator, 0, "alice")
    for number in range(3):
        operator.cluster.renew(number)
    redis.pause()
    found = operator.cluster.run(operator.apis[0].users("", "", 10))
    redis.resume()
    assert [user["user"] for user in found["users"]] == ["alice"]
    assert found["silentNodes"] == sorted(node.node for node in operator.cluster.nodes[1:])
    operator.cluster.settle()
