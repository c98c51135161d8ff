"""Who may see a user, and who may call: what others are told is what they would be told of a user that is offline."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from aldis.hub.dialects import Dialect
from aldis.hub.outgoing import Outgoing
from aldis.hub.privacy import ANSWER_SECONDS, MOST_CALLED
from aldis.hub.watchers import MOST_AT_ONCE
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from aldis.protocol.privacy import MAX_PRIVACY_NAMES
from support.hub_world import Client, World, identity_of

OFFER = {"type": "offer", "sdp": "v=0"}


def change(client: Client, **fields: Any) -> dict[str, Any]:
    """Change the privacy of a client's user; the reply, which is the last message."""
    client.send(type="privacy", id="privacy", **fields)
    reply = client.inbox.pop()
    assert reply.pop("re") == "privacy"
    return reply


def privacy(presence: str = "public", offers: str = "public", contacts: Any = (), blocked: Any = ()) -> dict[str, Any]:
    names = {"contacts": list(contacts), "blocked": list(blocked)}
    return {"type": "privacy", "presence": presence, "offers": offers, **names}


def offer(client: Client, to: str) -> dict[str, Any]:
    """The reply to an offer."""
    client.send(type="offer", to=to, offer=OFFER, id="offer")
    return client.inbox.pop()


def asked(client: Client, name: str) -> list[dict[str, Any]]:
    """All that a client gets to know of somebody by asking."""
    client.send(type="discover", userId=name)
    client.send(type="watch", userIds=[name], id="watch")
    client.send(type="unwatch", userIds=[name])
    for kind in ("offer", "answer"):
        client.send(**{"type": kind, "to": name, kind: OFFER, "id": kind})
    client.send(type="ice-candidate", to=f"{name}/main", candidate=None)
    client.send(type="bye", to=name, id="bye")
    client.send(type="relay", to=name, sealed="x", id="relay")
    return client.take()


# --- changing it ----------------------------------------------------------------------------------------------------


def test_the_privacy_is_public_until_it_is_changed() -> None:
    alice = World().client("alice")
    assert change(alice) == privacy()
    assert change(alice, presence="contacts", addContacts=["carol", "bob"]) == privacy(
        "contacts", contacts=["bob", "carol"]
    )
    assert change(alice, offers="hidden", block=["eve"], removeContacts=["carol", "dave"]) == privacy(
        "contacts", "hidden", ["bob"], ["eve"]
    )
    assert change(alice, presence="public", offers="public", removeContacts=["bob"], unblock=["eve"]) == privacy()
    assert change(alice) == privacy()


def test_a_change_without_an_id_is_answered_too() -> None:
    alice = World().client("alice")
    alice.send(type="privacy", block=["eve"])
    assert alice.take() == [privacy(blocked=["eve"])]


def test_the_other_devices_are_told_and_those_that_come_later_too() -> None:
    world = World()
    laptop, phone = world.client("alice", device="laptop"), world.client("alice", device="phone")
    change(laptop, block=["eve"])
    assert phone.take() == [privacy(blocked=["eve"])]
    change(phone, block=["mallory"])
    assert laptop.take() == [privacy(blocked=["eve", "mallory"])]
    tablet = world.connect()
    registered = tablet.register("alice", device="tablet")
    assert registered["privacy"] == {
        "presence": "public",
        "offers": "public",
        "contacts": [],
        "blocked": ["eve", "mallory"],
    }
    change(tablet, unblock=["eve", "mallory"])
    assert "privacy" not in world.connect().register("alice", device="watch")


def test_the_message_to_the_other_devices_is_made_once_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    phone, *others = (world.client("alice", device=device) for device in ("phone", "tablet", "laptop", "desk"))
    made: list[object] = []
    encode = Outgoing.encode

    def counted(self: Outgoing, message: Struct, dialect: Dialect) -> bytearray:
        made.append(message)
        return encode(self, message, dialect)

    monkeypatch.setattr(Outgoing, "encode", counted)
    assert change(phone, addContacts=["bob"]) == privacy(contacts=["bob"])
    assert [other.take() for other in others] == [[privacy(contacts=["bob"])]] * 3
    assert len(made) == 1


def test_a_device_that_does_not_read_is_told_the_last_state_once_it_does() -> None:
    world = World()
    laptop, phone = world.client("alice", device="laptop"), world.client("alice", device="phone")
    phone.full = True
    change(laptop, block=["eve"])
    change(laptop, block=["mallory"])
    assert phone.take() == []
    phone.full = False
    world.hub.writable(phone.session)
    assert phone.take() == [privacy(blocked=["eve", "mallory"])]
    world.hub.writable(phone.session)
    assert phone.take() == []


def test_a_device_that_was_lost_is_told_when_it_resumes() -> None:
    world = World()
    laptop, phone = world.client("alice", device="laptop"), world.client("alice", device="phone")
    phone.lose()
    change(laptop, block=["eve"])
    back = world.connect()
    registered = back.register("alice", device="phone", resume=phone.ticket(0))
    assert registered["resumed"]
    assert registered["privacy"]["blocked"] == ["eve"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"presence": "everybody"}, "invalid-field"),
        ({"offers": None}, "invalid-field"),
        ({"block": "eve"}, "invalid-field"),
        ({"block": ["e v e"]}, "invalid-field"),
        ({"unblock": [""]}, "invalid-field"),
        ({"block": ["alice"]}, "invalid-field"),
        ({"addContacts": ["bob/phone"]}, "invalid-field"),
        ({"block": ["eve"], "unblock": ["eve"]}, "invalid-field"),
        ({"addContacts": ["bob"], "removeContacts": ["bob"]}, "invalid-field"),
        ({"block": [f"user{number}" for number in range(1001)]}, "invalid-field"),
        ({"block": [f"{number:03}" + "😀" * 125 for number in range(98)]}, "too-large"),
    ],
)
def test_a_change_that_cannot_be_is_refused(fields: dict[str, Any], code: str) -> None:
    alice = World().client("alice")
    alice.send(type="privacy", id=1, **fields)
    assert alice.take_one()["code"] == code
    assert change(alice) == privacy()


def test_so_many_names_can_be_blocked_and_no_more() -> None:
    alice = World().client("alice")
    change(alice, block=[f"user{number}" for number in range(MAX_PRIVACY_NAMES)])
    refused = change(alice, block=["one-more"])
    assert (refused["type"], refused["code"], refused["temporary"]) == ("error", "too-large", False)
    assert change(alice, block=["one-more"], unblock=["user7"])["type"] == "privacy"


def test_all_of_it_costs_so_much_memory_and_no_more() -> None:
    world = World(privacy_bytes=20_000)
    alice, bob = world.client("alice"), world.client("bob")
    before = change(alice, block=[f"user{number}" for number in range(70)])
    assert before["type"] == "privacy"
    assert 10_000 < world.hub.memory.bytes()["privacy"] < 20_000
    refused = change(bob, block=[f"user{number}" for number in range(70)])
    assert (refused["code"], refused["temporary"], refused["retryAfter"]) == ("over-capacity", True, 60.0)
    assert change(bob) == privacy()
    alice.lose(clean=True)
    assert world.hub.memory.bytes()["privacy"] == 0
    change(bob, block=[f"user{number}" for number in range(70)])
    late = world.connect().register("alice")
    assert (late["code"], late["temporary"]) == ("over-capacity", True)
    change(bob, unblock=[f"user{number}" for number in range(70)])
    assert world.hub.memory.bytes()["privacy"] == 0
    assert world.connect().register("alice")["type"] == "registered"


def test_a_change_that_the_directory_cannot_keep_is_not_in_force() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_fails = True
    refused = change(alice, block=["bob"])
    assert (refused["code"], refused["temporary"]) == ("internal", True)
    assert offer(bob, "alice") == {"type": "ack", "re": "offer"}


def test_a_change_is_in_force_when_the_directory_has_kept_it() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    alice.send(type="privacy", block=["bob"], id=1)
    alice.send(type="ping", id=2)
    assert alice.take() == []
    assert offer(bob, "alice")["type"] == "ack"
    alice.take()
    world.answer()
    assert [message["re"] for message in alice.take()] == [1, 2]
    assert offer(bob, "alice")["code"] == "not-online"


def test_a_change_counts_also_when_its_device_is_gone_by_then() -> None:
    world = World()
    laptop, phone = world.client("alice", device="laptop"), world.client("alice", device="phone")
    world.directory_waits = True
    laptop.send(type="privacy", block=["bob"])
    laptop.lose(clean=True)
    world.directory_waits = False
    world.settle()
    assert phone.take() == [privacy(blocked=["bob"])]
    assert offer(world.client("bob"), "alice")["code"] == "not-online"


def test_a_change_by_another_process_counts_from_the_next_registration_on() -> None:
    world = World()
    laptop, bob = world.client("alice", device="laptop"), world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    bob.take()
    other = World()
    change(other.client("alice"), presence="hidden")
    world.privacies = other.privacies
    phone = world.connect()
    assert phone.register("alice", device="phone")["privacy"]["presence"] == "hidden"
    assert laptop.take() == [privacy("hidden")]
    assert bob.take() == [{"type": "presence", "userId": "alice", "online": False}]


def test_changes_cost_more_than_messages() -> None:
    alice = World().client("alice")
    before = alice.session.charged
    change(alice, block=[f"user{number:03}" for number in range(900)])
    assert alice.session.charged - before > 100


def test_a_client_without_a_name_has_no_privacy() -> None:
    world = World(auth="open")
    stranger, classic = world.connect(), world.classic_client("carol")
    stranger.send(type="privacy", presence="hidden", id=1)
    assert stranger.take_one()["code"] == "not-registered"
    classic.send(type="privacy", presence="hidden")
    assert classic.take_one()["message"] == "Unknown message type"


# --- what others are told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"block": ["bob"]},
        {"block": ["bob"], "addContacts": ["bob"], "presence": "contacts", "offers": "contacts"},
        {"presence": "contacts", "offers": "contacts", "addContacts": ["carol"]},
        {"presence": "hidden", "offers": "hidden", "addContacts": ["bob"]},
    ],
    ids=["blocked", "a blocked contact", "no contact", "hidden"],
)
def test_one_that_is_not_admitted_gets_the_answers_of_a_user_that_is_offline(fields: dict[str, Any]) -> None:
    online, offline = World(), World()
    phone, alice = online.client("alice", device="phone"), online.client("alice")
    offline.client("alice").lose(clean=True)
    change(alice, **fields)
    phone.take()
    bob = online.client("bob")
    answers = asked(bob, "alice")
    assert answers == asked(offline.client("bob"), "alice")
    assert alice.take() == phone.take() == []
    assert answers[0]["publicKey"] == to_base64(identity_of("alice").public_key), "the key of a name is public"
    # And whatever happens to the user.
    bob.send(type="watch", userIds=["alice"])
    bob.take()
    phone.lose()
    online.client("alice", device="laptop")
    online.pass_time(31)
    signature = to_base64(alice.identity.sign(proofs.rotation("alice", identity_of("new").public_key)))
    alice.send(type="rotate", newPublicKey=to_base64(identity_of("new").public_key), signature=signature)
    alice.lose(clean=True)
    online.pass_time(31)
    assert not online.hub.online("alice")
    online.client("alice", identity=identity_of("new"))
    assert bob.take() == []


def test_the_directory_is_asked_for_the_key_of_a_hidden_user_as_for_that_of_one_that_is_offline() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    change(alice, presence="hidden")
    world.directory_waits = True
    bob.send(type="discover", userId="alice", id=1)
    assert bob.take() == []
    assert len(world.questions) == 1


def test_a_user_that_hides_while_the_directory_is_asked_is_offline() -> None:
    world = World()
    world.client("alice").lose(clean=True)
    bob = world.client("bob")
    world.directory_waits = True
    bob.send(type="discover", userId="alice", id=1)
    asked_for = world.questions.pop()
    world.directory_waits = False
    change(world.client("alice"), presence="hidden")
    world.hub.answered(asked_for, world.look_up(asked_for), world.now)
    assert bob.take_one()["online"] is False


def test_contacts_are_admitted_and_a_user_always_to_itself() -> None:
    world = World()
    alice, phone, bob = world.client("alice"), world.client("alice", device="phone"), world.client("bob")
    change(alice, presence="contacts", offers="contacts", addContacts=["bob"])
    for viewer in (bob, phone):
        viewer.take()
        viewer.send(type="discover", userId="alice")
        assert len(viewer.take_one()["devices"]) == 2
        assert offer(viewer, "alice/main") == {"type": "ack", "re": "offer"}
    change(alice, presence="hidden", offers="hidden")
    phone.take()
    phone.send(type="watch", userIds=["alice"])
    assert phone.take_one()["online"]
    assert offer(phone, "alice/main")["type"] == "ack"
    assert offer(alice, "alice/phone")["type"] == "ack"
    assert offer(bob, "alice")["code"] == "not-online"


def test_presence_and_offers_are_two_things() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    change(alice, offers="hidden")
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["online"]
    assert offer(bob, "alice")["code"] == "not-online"
    change(alice, offers="public", presence="hidden")
    bob.send(type="discover", userId="alice")
    assert not bob.take_one()["online"]
    assert offer(bob, "alice")["type"] == "ack"


def test_a_hidden_user_comes_online_unseen() -> None:
    world = World()
    change(alice := world.client("alice"), presence="hidden", offers="hidden")
    alice.lose(clean=True)
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    assert bob.take_one()["online"] is False
    world.client("alice")
    assert bob.take() == []
    assert offer(bob, "alice")["code"] == "not-online"


def test_a_name_that_no_key_has_proven_is_nobodys_contact() -> None:
    world = World(auth="open")
    alice = world.client("alice")
    change(alice, presence="contacts", offers="contacts", addContacts=["bob"])
    bob = world.classic_client("bob")
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["online"] is False
    bob.send(type="offer", to="alice", offer=OFFER)
    assert bob.take_one()["message"] == "User alice is not online"


# --- changes act at once --------------------------------------------------------------------------------------------


def presences(client: Client) -> list[bool]:
    """What a client was told of others, and nothing else."""
    messages = client.take()
    assert all(message["type"] == "presence" for message in messages)
    return [message["online"] for message in messages]


def test_watchers_that_lose_sight_are_told_once_and_so_are_those_that_gain_it() -> None:
    world = World()
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    bob, carol = world.client("bob"), world.client("carol")
    for watcher in (bob, carol, phone):
        watcher.send(type="watch", userIds=["alice"])
        watcher.take()
    change(alice, block=["bob"])
    assert (presences(bob), presences(carol)) == ([False], [])
    change(alice, presence="contacts", addContacts=["bob", "carol"])
    assert (presences(bob), presences(carol)) == ([], [])
    change(alice, unblock=["bob"])
    assert (presences(bob), presences(carol)) == ([True], [])
    change(alice, removeContacts=["carol"])
    assert (presences(bob), presences(carol)) == ([], [False])
    change(alice, presence="hidden")
    assert (presences(bob), presences(carol)) == ([False], [])
    change(alice, offers="hidden", block=["bob"])
    assert (presences(bob), presences(carol)) == ([], [])
    change(alice, presence="public")
    assert (presences(bob), presences(carol)) == ([], [True])
    assert {message["type"] for message in phone.take()} == {"privacy"}
    alice.lose(clean=True)
    phone.lose(clean=True)
    assert (presences(bob), presences(carol)) == ([], [True, False])


def test_watchers_that_do_not_read_are_told_later() -> None:
    world = World()
    alice, bob, carol = world.client("alice"), world.client("bob"), world.client("carol")
    for watcher in (bob, carol):
        watcher.send(type="watch", userIds=["alice"])
        watcher.take()
    bob.full = True
    carol.lose()
    change(alice, block=["bob", "carol"])
    bob.full = False
    world.hub.writable(bob.session)
    assert presences(bob) == [False]
    back = world.connect()
    back.register("carol", resume=carol.ticket(1))
    assert [message["type"] for message in back.inbox] == ["registered", "presence"]
    assert back.inbox[-1]["online"] is False


def test_a_change_before_the_watchers_are_told_of_the_last_one_hides_nothing_and_shows_nothing() -> None:
    world = World()
    watchers = [world.client(f"watcher{number}") for number in range(3 * MOST_AT_ONCE)]
    for watcher in watchers:
        watcher.send(type="watch", userIds=["alice"])
        watcher.take()
    world.hub_waits = True
    alice = world.client("alice")
    waiting = [watcher for watcher in watchers if not watcher.inbox]
    change(alice, presence="hidden")
    world.client("alice", device="phone")
    world.hub_waits = False
    world.work()
    assert waiting
    for watcher in watchers:
        online = presences(watcher)
        assert online in ([False], [True, False])


def test_messages_of_a_user_that_is_blocked_meanwhile_are_refused_like_those_to_one_that_is_offline() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    assert offer(bob, "alice")["type"] == "ack"
    change(alice, block=["bob"])
    assert offer(bob, "alice") == {
        "type": "error",
        "message": "User alice is not online",
        "code": "not-online",
        "temporary": False,
        "re": "offer",
    }


# --- answers to the user's own calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", ["hidden", "contacts"])
def test_one_that_is_called_may_answer_for_a_while(offers: str) -> None:
    world = World(resume_window=5.0)
    alice, bob, carol = world.client("alice", device="phone"), world.client("bob"), world.client("carol")
    change(alice, presence="hidden", offers=offers)
    assert offer(bob, "alice")["code"] == "not-online"
    assert offer(alice, "bob") == {"type": "ack", "re": "offer"}
    assert bob.take_one()["from"] == "alice/phone"
    bob.send(type="answer", to="alice/phone", answer=OFFER, id=1)
    bob.send(type="bye", to="alice", id=2)
    assert bob.take() == [{"type": "ack", "re": 1}, {"type": "ack", "re": 2}]
    assert [message["type"] for message in alice.take()] == ["answer", "bye"]
    assert offer(carol, "alice")["code"] == "not-online"
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["online"] is False, "it is called, and sees no more than before"
    world.now += ANSWER_SECONDS
    assert offer(bob, "alice")["code"] == "not-online"


def test_each_message_admits_the_answers_anew_and_a_bye_does_not() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    change(alice, offers="hidden")
    alice.send(type="bye", to="bob")
    assert offer(bob, "alice")["code"] == "not-online"
    offer(alice, "bob")
    world.now += ANSWER_SECONDS - 1
    alice.send(type="ice-candidate", to="bob", candidate=None)
    world.now += ANSWER_SECONDS - 1
    assert offer(bob, "alice")["type"] == "ack"


def test_one_that_could_not_be_called_may_not_answer() -> None:
    world = World()
    alice = world.client("alice")
    change(alice, offers="hidden")
    assert offer(alice, "bob")["code"] == "not-online"
    assert offer(world.client("bob"), "alice")["code"] == "not-online"


def test_the_answer_finds_a_device_that_was_lost_and_has_resumed() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    change(alice, offers="hidden")
    offer(alice, "bob")
    alice.lose()
    bob.take()
    bob.send(type="answer", to="alice", answer=OFFER, id=1)
    assert bob.take() == []
    back = world.connect()
    back.register("alice", resume=alice.ticket(0))
    assert [message["type"] for message in back.inbox] == ["registered", "answer"]
    assert bob.take() == [{"type": "ack", "re": 1}]


def test_of_those_that_were_called_the_last_ones_may_answer() -> None:
    world = World()
    alice = world.client("alice")
    change(alice, offers="hidden")
    others = [world.client(f"user{number}") for number in range(MOST_CALLED + 1)]
    for other in others:
        offer(alice, other.session.user_id)
    alice.take()
    assert [offer(other, "alice")["type"] for other in others] == ["error"] + ["ack"] * MOST_CALLED


def test_blocked_users_may_not_answer_and_are_not_called() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    offer(alice, "bob")
    bob.take()
    change(alice, offers="hidden", block=["bob"])
    bob.send(type="answer", to="alice", answer=OFFER, id=1)
    assert bob.take_one()["code"] == "not-online"
    for to in ("bob", "bob/main"):
        refused = offer(alice, to)
        assert (refused["code"], refused["temporary"]) == ("blocked", False)
    alice.send(type="discover", userId="bob")
    assert alice.take_one()["online"], "only messages to them are refused"
    assert bob.take() == []


# --- the life of a name ---------------------------------------------------------------------------------------------


def test_the_privacy_survives_a_rotation_and_ends_with_the_release_of_the_name() -> None:
    world = World()
    alice, new = world.client("alice"), identity_of("new")
    change(alice, block=["bob"])
    signature = to_base64(alice.identity.sign(proofs.rotation("alice", new.public_key)))
    alice.send(type="rotate", newPublicKey=to_base64(new.public_key), signature=signature)
    alice.take()
    assert change(alice) == privacy(blocked=["bob"])
    alice.lose(clean=True)
    again = world.client("alice", identity=new)
    assert offer(bob := world.client("bob"), "alice")["code"] == "not-online"
    world.hub.release("alice", lambda bound: None)
    world.settle()
    assert again.closed is not None
    assert world.hub.memory.bytes()["privacy"] == 0
    world.client("alice")
    assert offer(bob, "alice")["type"] == "ack"


def test_a_connection_that_takes_another_name_leaves_its_privacy_behind() -> None:
    world = World()
    client, bob = world.client("alice"), world.client("bob")
    change(client, block=["bob"])
    client.send(type="unregister")
    assert world.hub.memory.bytes()["privacy"] == 0
    client.take()
    client.register("carol", identity=identity_of("alice"))
    assert offer(bob, "carol")["type"] == "ack"
    assert offer(bob, "alice")["code"] == "not-online"


def test_the_next_process_goes_on_with_it_from_the_first_moment() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    change(alice, block=["bob"], presence="hidden")
    saved = world.hub.save()
    after = World()
    after.keys, after.privacies = world.keys, world.privacies
    after.now = world.now
    assert after.hub.restore(saved, after.now) == 2
    back = after.connect()
    back.register("bob", resume=bob.ticket(0))
    back.take()
    back.send(type="watch", userIds=["alice"])
    assert back.take_one()["online"] is False
    assert offer(back, "alice")["code"] == "not-online"
    assert after.hub.online("alice")


def test_a_network_that_may_bind_no_more_names_has_the_privacy_of_its_old_ones() -> None:
    world = World(new_names_per_address=1)
    change(alice := world.client("alice"), presence="hidden")
    alice.lose(clean=True)
    assert world.connect().register("alice")["privacy"]["presence"] == "hidden"
