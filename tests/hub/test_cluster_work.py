"""What a user of one node can make the other nodes do is bounded (aldis.hub.cluster_router), without Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aldis.hub.watchers import Watchers
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from aldis.protocol.privacy import Privacy
from support.hub_cluster import HubCluster
from support.hub_world import Client

NAMES = frozenset(f"somebody{number}" for number in range(1000))
KNOWN = Privacy("contacts", "contacts", NAMES)


def copied(privacy: Privacy) -> Privacy:
    """An equal privacy that shares no list."""
    return Privacy(privacy.presence, privacy.offers, frozenset(list(privacy.contacts)))


def publish(client: Client, name: str, key: bytes) -> None:
    """Publish another sealing key."""
    signature = client.identity.sign(proofs.seal(name, "main", key))
    client.send(type="seal-key", sealKey={"publicKey": to_base64(key), "signature": to_base64(signature)}, id=1)


def with_contacts(cluster: HubCluster, number: int, name: str) -> Client:
    """A user of a node with a thousand contacts."""
    cluster.privacies[name] = KNOWN
    client = cluster.worlds[number].client(name)
    cluster.settle()
    client.take()
    return client


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """The arguments of each call of a method from now on."""
    calls: list[Any] = []
    method: Callable[..., Any] = getattr(owner, name)

    def noted(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, noted)
    return calls


def test_another_seal_key_of_a_user_with_contacts_costs_what_all_nodes_are_told() -> None:
    cluster = HubCluster(2)
    alice, bob = cluster.worlds[0].client("alice"), with_contacts(cluster, 0, "bob")
    for client, name in ((alice, "alice"), (bob, "bob")):
        client.session.charged = 0
        publish(client, name, b"another key")
        assert client.take() == [{"type": "ack", "re": 1}]
    assert alice.session.charged < 30
    assert bob.session.charged > 100


def test_contacts_are_looked_through_once_when_a_device_of_their_user_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = HubCluster(2)
    alice, bob = cluster.worlds[1].client("alice"), with_contacts(cluster, 0, "bob")
    alice.send(type="watch", userIds=["bob"])
    cluster.settle()
    audiences = counted(monkeypatch, Watchers, "audience")
    publish(bob, "bob", b"another key")
    cluster.settle()
    assert len(audiences) == 1, "for those who are told"
    cluster.worlds[0].hub.cluster.link.change_privacy("bob", Privacy())  # type: ignore[union-attr]
    cluster.settle()
    assert alice.take()[-1]["online"]


def test_equal_lists_are_kept_once() -> None:
    cluster = HubCluster(2)
    with_contacts(cluster, 0, "bob")
    router = cluster.worlds[0].hub.cluster
    assert router is not None
    state = cluster.table.state("bob")
    later = state._replace(version=state.version + 1, privacy=copied(KNOWN))
    kept = router.verified.bytes
    router.learn(later)
    assert cluster.worlds[0].hub.privacy("bob") is later.privacy
    assert router.verified.recall("bob", cluster.keys["bob"]).privacy is later.privacy  # type: ignore[union-attr]
    assert router.verified.bytes == kept
