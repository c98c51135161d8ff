"""Silence, lost connections, resuming, and the server's own end."""

from __future__ import annotations

import pytest

from support.hub_world import Client, World

BYE = {"type": "bye", "to": "alice"}


def resume(world: World, old: Client, received: int, changed: dict[str, object] | None = None) -> Client:
    client = world.connect()
    client.register("alice", resume={**old.ticket(received), **(changed or {})})
    return client


def test_a_lost_client_counts_as_online_for_the_resume_window_and_not_longer() -> None:
    world = World()
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    alice = world.client("alice")
    bob.take()
    alice.lose()
    world.pass_time(29)
    world.hub.heard(bob.session, world.now)
    assert world.hub.online("alice")
    assert bob.take() == []
    world.pass_time(3)
    assert not world.hub.online("alice")
    assert [m["online"] for m in bob.take()] == [False]


def test_a_client_that_leaves_on_purpose_is_offline_at_once() -> None:
    world = World()
    world.client("alice").lose(clean=True)
    assert not world.hub.online("alice")


def test_a_resumed_client_gets_all_it_has_missed_in_order_and_its_watches_go_on() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=["bob", "carol"])
    bob.send(**BYE, reason="1")
    assert len(alice.take()) == 3
    bob.send(**BYE, reason="2")  # on its way when the line broke: alice has received 3 of 4
    alice.lose()
    bob.send(**BYE, reason="3", id="kept")
    assert bob.take() == [], "no ack yet: it has not been handed over"
    carol = world.client("carol")
    back = resume(world, alice, received=3)
    registered, *missed = back.take()
    assert registered["resumed"] is True
    assert registered["session"] == alice.registered["session"]  # type: ignore[index]
    assert [m.get("reason", m["type"]) for m in missed] == ["2", "3", "presence"]
    assert bob.take() == [{"type": "ack", "re": "kept"}]
    carol.lose(clean=True)
    assert [m["online"] for m in back.take()] == [False]
    # and once more, counting on from the same number
    back.lose()
    bob.send(**BYE, reason="4")
    again = resume(world, alice, received=7)
    assert [m.get("reason") for m in again.take()[1:]] == ["4"]


def test_who_watches_hears_of_a_program_that_was_started_anew_and_not_of_one_that_resumed() -> None:
    world = World()
    bob, alice = world.client("bob"), world.client("alice")
    bob.send(type="watch", userIds=["alice"])
    bob.take()
    alice.lose()
    back = resume(world, alice, received=0)
    assert bob.take() == []
    back.lose()
    world.client("alice")  # killed, and started again within the window
    assert [m["online"] for m in bob.take()] == [True]


def test_a_client_whose_old_connection_is_half_open_resumes_and_the_old_one_is_closed() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.send(**BYE, reason="into the void")
    back = resume(world, alice, received=0)
    assert [m.get("reason") for m in back.take()[1:]] == ["into the void"]
    assert alice.closed is not None
    assert alice.closed[0] == 4001
    alice.lose()
    assert world.hub.online("alice")


@pytest.mark.parametrize("changed", [{"secret": "wrong"}, {"session": "wrong"}, {"received": 99}])
def test_a_wrong_ticket_resumes_nothing_and_still_registers(changed: dict[str, object]) -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.lose()
    bob.send(**BYE, id=1)
    back = resume(world, alice, 0, changed)
    (registered,) = back.take()
    assert registered["resumed"] is False
    assert registered["session"] != alice.registered["session"]  # type: ignore[index]
    assert bob.take_one()["code"] == "not-online", "the sender hears that its message is lost"


def test_nothing_is_replayed_in_part() -> None:
    world = World(resume_messages=3)
    alice, bob = world.client("alice"), world.client("bob")
    for n in range(4):
        bob.send(**BYE, reason=str(n))
    alice.lose()
    (registered,) = resume(world, alice, received=2).take()
    assert registered["resumed"] is False


def test_what_the_client_has_confirmed_makes_room() -> None:
    world = World(resume_messages=3)
    alice, bob = world.client("alice"), world.client("bob")
    for n in range(9):
        bob.send(**BYE, reason=str(n))
        if n % 3 == 2:
            alice.send(type="received", count=n + 1)
    bob.send(**BYE, reason="last")
    alice.lose()
    assert [m.get("reason") for m in resume(world, alice, received=9).take()[1:]] == ["last"]


def test_a_session_that_outgrew_its_bounds_can_be_resumed_once_the_client_has_caught_up() -> None:
    world = World(resume_messages=6)
    alice, bob = world.client("alice"), world.client("bob")
    for n in range(7):
        bob.send(**BYE, reason=str(n))
    alice.send(type="received", count=7)
    alice.lose()
    bob.send(**BYE, reason="last")
    assert [m.get("reason") for m in resume(world, alice, received=7).take()[1:]] == ["last"]


def test_a_client_cannot_confirm_what_was_never_sent() -> None:
    alice = World().client("alice")
    alice.send(type="received", count=1, id=1)
    assert alice.take_one()["code"] == "invalid-field"


def test_a_stranger_with_300_messages_ends_no_resume_window_and_voids_nothing() -> None:
    world = World()
    alice, bob, mallory = world.client("alice"), world.client("bob"), world.client("mallory")
    alice.lose()
    bob.send(**BYE, reason="from a friend", id=1)
    for number in range(300):
        mallory.send(**BYE, id=number)
    refused = mallory.take()
    assert {(m["code"], m["temporary"], m["retryAfter"]) for m in refused} == {("rate-limited", True, 2.0)}
    assert len(refused) == 300 - 56, "the rest waits"
    for _ in range(300):
        mallory.send(**BYE)
    assert mallory.take() == [], "no reply to what has no id"
    assert world.hub.stats.refused["bye", "rate-limited"] == len(refused) + 300
    bob.send(**BYE, reason="and another", id=2)
    assert bob.take() == []
    back = resume(world, alice, received=0)
    registered, *missed = back.take()
    assert registered["resumed"] is True
    assert [m["reason"] for m in missed if m["from"] == "bob"] == ["from a friend", "and another"]
    assert [m["re"] for m in bob.take()] == [1, 2]
    mallory.take()
    mallory.send(**BYE, id="now")
    assert mallory.take() == [{"type": "ack", "re": "now"}]


def test_a_client_that_reads_again_may_be_sent_more() -> None:
    world = World(unsent_bytes=6000)
    alice, bob = world.client("alice"), world.client("bob")
    alice.full = True
    for number in range(3):
        bob.send(**BYE, reason="x" * 600, id=number)
    assert [m["type"] for m in bob.take()] == ["ack", "error", "error"]
    alice.full = False
    world.hub.writable(alice.session)
    alice.full = True
    bob.send(**BYE, reason="x" * 600, id=3)
    assert bob.take() == [{"type": "ack", "re": 3}]
    assert len(alice.take()) == 2


def test_presence_that_comes_meanwhile_is_told_once_as_it_is_then() -> None:
    world = World(resume_bytes=200)
    alice = world.client("alice")
    alice.send(type="watch", userIds=["bob", "carol"])
    alice.lose()
    for _ in range(300):
        world.client("bob").lose(clean=True)
    world.client("carol")
    back = resume(world, alice, received=2)
    registered, *missed = back.take()
    assert registered["resumed"] is True
    assert [(m["userId"], m["online"]) for m in missed] == [("bob", False), ("carol", True)]
    world.client("bob")
    assert back.take_one()["online"] is True
    back.lose()
    again = resume(world, alice, received=5)
    assert [m["type"] for m in again.take()] == ["registered"], "they were numbered like the rest"


def test_when_the_window_ends_the_senders_of_what_was_kept_hear_of_it() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.lose()
    bob.send(**BYE, id=1)
    world.hub.heard(bob.session, world.now + 31)
    world.pass_time(31)
    assert bob.take_one()["code"] == "not-online"


def test_without_a_window_a_lost_client_is_offline_at_once() -> None:
    world = World(resume_window=0)
    world.client("alice").lose()
    assert not world.hub.online("alice")


def test_the_silent_are_pinged_and_the_dead_are_closed_and_may_resume() -> None:
    world = World()
    alice = world.client("alice")
    world.pass_time(19)
    assert alice.pings == 0
    world.pass_time(2)
    assert alice.pings == 1
    world.hub.heard(alice.session, world.now)
    world.pass_time(25)
    assert (alice.pings, alice.closed) == (2, None)
    world.pass_time(21)
    assert alice.closed == (4003, "no pong")
    assert world.hub.online("alice")
    alice.lose()
    assert resume(world, alice, received=0).take_one()["resumed"] is True


def test_a_dead_classic_client_is_gone() -> None:
    world = World(auth="open")
    alice = world.classic_client("alice")
    world.pass_time(45)
    assert alice.closed == (4003, "no pong")
    assert not world.hub.online("alice")


def test_a_connection_that_does_not_register_in_time_is_closed_and_a_ping_does_not_help_it() -> None:
    world = World(auth="open")
    silent, chatty, classic = world.connect(), world.connect(), world.connect(classic=True)
    for _ in range(32):
        world.pass_time(1)
        chatty.send(type="ping")
        classic.send(type="ping")
    assert silent.closed == (4004, "not registered in time")
    assert chatty.closed == (4004, "not registered in time")
    assert classic.closed is None, "a classic client may discover without a name"


def test_who_unregisters_must_register_again_in_time() -> None:
    world = World()
    alice = world.client("alice")
    world.pass_time(15)
    alice.send(type="unregister")
    world.pass_time(28)
    assert alice.closed is None
    world.pass_time(3)
    assert alice.closed == (4004, "not registered in time")


def test_a_classic_client_without_a_name_has_to_go_where_it_cannot_get_one() -> None:
    world = World(registration_seconds=10)
    nameless = world.connect(classic=True)
    for _ in range(9):
        world.pass_time(1)
        world.hub.heard(nameless.session, world.now)  # by WebSocket pings
    world.pass_time(1)
    assert nameless.closed == (4004, "not registered in time")


def test_a_classic_client_needs_no_name_where_all_are_trusted() -> None:
    world = World(auth="open", registration_seconds=10)
    nameless = world.connect(classic=True)
    for _ in range(30):
        world.pass_time(1)
        nameless.send(type="ping")
    assert nameless.closed is None


def test_a_server_that_stops_sends_everybody_away_at_moments_of_their_own() -> None:
    world = World(auth="open", drain_spread=5.0)
    alice, bob = world.client("alice"), world.client("bob")
    classic, gone = world.classic_client("classic"), world.client("gone")
    bob.send(type="watch", userIds=["alice", "gone"])
    bob.take()
    gone.lose()
    alice.send(type="bye", to="gone", id=1)
    world.hub.drain(world.now)
    error, going = alice.take()
    assert (error["code"], error["re"]) == ("not-online", 1), "no ack is lost: the message will not arrive"
    assert going["type"] == "going-away"
    assert 0 <= going["reconnectIn"] <= 5
    assert [m["type"] for m in bob.take()] == ["presence", "going-away"]
    assert classic.take() == []
    assert {c.closed[0] for c in (alice, bob, classic) if c.closed} == {4000}
    late = world.connect()
    assert late.closed == (4000, "this server is going away")
    for client in (alice, bob, classic, late):
        client.lose()
    assert world.hub.stats.connections_now == 0


def test_what_comes_after_the_hub_has_hung_up_is_void() -> None:
    world = World()
    old, bob = world.client("alice"), world.client("bob")
    world.client("alice")
    old.send(type="bye", to="bob")
    assert bob.take() == []


def test_a_ticket_confirms_what_has_come_so_a_client_may_be_lost_again_and_again() -> None:
    """In a train a connection may last a second, too short to confirm anything else."""
    world = World(resume_messages=16)
    alice, bob = world.client("alice"), world.client("bob")
    received = 0
    for number in range(40):
        bob.lose()
        for part in range(2):
            alice.send(type="bye", to="bob", connection=f"{number}-{part}", id=number)
        back = world.connect()
        assert back.register("bob", resume=bob.ticket(received))["resumed"]
        messages = [message["connection"] for message in back.take() if message["type"] == "bye"]
        assert messages == [f"{number}-0", f"{number}-1"]
        received += len(messages)
        assert [message["type"] for message in alice.take()] == ["ack", "ack"]
        assert back.session.replay is not None
        assert back.session.replay.waiting == 2, "those that may not have come"
        bob = back
