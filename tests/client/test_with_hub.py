"""The client's machine and the server's hub, the real ones, over a link in memory: what both have to agree on."""

from __future__ import annotations

import pytest

from aldis.client.backoff import Backoff
from aldis.client.events import (
    ByeReceived,
    Closed,
    Disconnected,
    Discovery,
    GoingAway,
    OfferReceived,
    PresenceChanged,
    Registered,
    Registration,
    RequestsDelayed,
    WatchEnded,
)
from aldis.errors import ConnectionClosed, RequestFailed
from aldis.protocol import messages as m
from aldis.protocol.codec import raw
from support.hub_pair import HubPair, PairedClient
from support.machine_bench import identity_of


def byes(client: PairedClient) -> list[str | None]:
    """The reasons of the byes that have arrived: a simple way to number messages."""
    return [event.reason for event in client.take_events() if isinstance(event, ByeReceived)]


def resumptions(client: PairedClient) -> list[bool]:
    return [event.resumed for event in client.take_events() if isinstance(event, Registered)]


def say(sender: PairedClient, to: str, text: str) -> int:
    return sender.do(lambda machine, now: machine.relay(m.Bye(to, reason=text), now))


def test_two_clients_register_find_each_other_and_talk() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob", device="phone")
    found = alice.call(lambda m, now: m.discover("bob", now))
    assert found == Discovery("bob", online=True, public_key=bob.identity.public_key, devices=("phone",))
    offer = m.Offer("bob", raw(m.Description("offer", "v=0")), connection="c")
    assert alice.call(lambda m, now: m.relay(offer, now)) is None
    assert bob.take_events() == [OfferReceived("alice", m.Description("offer", "v=0"), "c", None, m.Capabilities())]


def test_the_hub_takes_the_proof_and_binds_the_name() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    assert pair.keys == {"alice": alice.identity.public_key}
    with pytest.raises(RequestFailed) as caught:
        pair.client("alice", identity=identity_of("mallory"))
    assert caught.value.code == "key-mismatch"
    assert not caught.value.temporary


def test_a_newer_connection_of_the_same_key_replaces_the_older_for_good() -> None:
    pair = HubPair()
    old, new = pair.client("alice"), pair.client("alice")
    assert new.registered
    (gone, closed) = old.take_events()
    assert isinstance(gone, Disconnected)
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, ConnectionClosed)
    assert closed.error.code == 4001
    pair.pass_time(100.0)
    assert new.registered


def test_presence_comes_at_once_and_at_each_change() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    alice.do(lambda m, now: m.watch(["bob"], now))
    bob = pair.client("bob")
    bob.do(lambda m, now: m.close())
    assert alice.take_events() == [
        PresenceChanged("bob", online=False, public_key=None, devices=(), initial=True),
        PresenceChanged("bob", online=True, public_key=bob.identity.public_key, devices=("main",)),
        PresenceChanged("bob", online=False, public_key=None, devices=()),
    ]


def test_the_answer_to_a_watch_is_told_from_a_change() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")

    def told() -> list[bool]:
        return [event.initial for event in alice.take_events() if isinstance(event, PresenceChanged)]

    alice.do(lambda m, now: m.watch(["bob"], now))
    assert told() == [True]
    pair.client("bob", identity=bob.identity)  # registered anew, without resuming
    assert told() == [False]
    alice.do(lambda m, now: [m.watch(["bob"], now), m.watch(["bob"], now)])
    assert told() == [True, True]
    pair.reachable = False
    alice.cut()
    pair.pass_time(60.0)  # too long to resume: the watches are restored
    pair.reachable = True
    pair.pass_time(60.0)
    assert told() == [True]


def test_a_short_loss_is_resumed_and_nobody_notices() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    alice.do(lambda m, now: m.watch(["bob"], now))
    alice.take_events()
    bob.cut()
    number = say(alice, "bob", "while you were out")
    pair.pass_time(2.0)
    assert number in alice.results  # acknowledged once bob was back
    events = bob.take_events()
    assert True in [event.resumed for event in events if isinstance(event, Registered)]
    assert ByeReceived("alice", None, "while you were out") in events
    assert alice.take_events() == []


def test_who_writes_to_somebody_who_is_long_away_hears_that_it_was_handed_over() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob", backoff=Backoff(most=1.0))
    pair.reachable = False
    bob.cut()
    number = say(alice, "bob", "while you were out")
    pair.pass_time(25.0)
    assert number not in alice.failures
    assert number not in alice.results
    pair.reachable = True
    pair.pass_time(4.0)
    assert number in alice.results
    assert byes(bob) == ["while you were out"]


def test_who_writes_to_somebody_who_does_not_come_back_hears_that_they_are_not_online() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    pair.reachable = False
    bob.cut()
    number = say(alice, "bob", "while you were out")
    pair.pass_time(31.0)
    error = alice.failures[number]
    assert isinstance(error, RequestFailed)
    assert error.code == "not-online"


@pytest.mark.parametrize("lost", [1, 2, 5, 40, 100])
def test_what_was_lost_on_the_way_is_sent_again_in_order_and_once(lost: int) -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    for n in range(50):
        say(alice, "bob", f"before {n}")
    bob.drop_next(lost)
    for n in range(lost):
        say(alice, "bob", f"lost {n}")
    assert not bob.registered
    for n in range(3):
        say(alice, "bob", f"after {n}")
    pair.pass_time(5.0)
    expected = (
        [f"before {n}" for n in range(50)] + [f"lost {n}" for n in range(lost)] + [f"after {n}" for n in range(3)]
    )
    assert byes(bob) == expected


def test_a_loss_that_nobody_notices_is_found_out_and_resumed() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    bob.go_dark()
    say(alice, "bob", "into the dark")
    pair.pass_time(34.0)
    assert bob.registered  # as far as it knows
    pair.pass_time(5.0)
    assert bob.registered
    events = bob.take_events()
    assert True in [event.resumed for event in events if isinstance(event, Registered)]
    assert ByeReceived("alice", None, "into the dark") in events


def test_confirming_keeps_the_hub_able_to_replay_after_thousands_of_messages() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    for n in range(2000):
        say(alice, "bob", str(n))
    bob.cut()
    say(alice, "bob", "last")
    pair.pass_time(2.0)
    texts = byes(bob)
    assert texts == [*map(str, range(2000)), "last"]


def test_a_loss_beyond_the_window_starts_over_and_restores_watches() -> None:
    pair = HubPair(resume_window=5.0)
    alice, bob = pair.client("alice", backoff=Backoff(first=50.0, most=50.0)), pair.client("bob")
    alice.do(lambda m, now: m.watch(["bob", "carol"], now))
    alice.take_events()
    alice.cut()
    pair.reachable = False
    pair.pass_time(6.0)
    assert not pair.hub.online("alice")
    bob.do(lambda m, now: m.close())
    pair.reachable = True
    pair.pass_time(100.0)
    events = alice.take_events()
    assert False in [event.resumed for event in events if isinstance(event, Registered)]
    seen = [(event.user_id, event.online) for event in events if isinstance(event, PresenceChanged)]
    assert seen == [("bob", False), ("carol", False)]
    pair.client("carol")
    assert [e.user_id for e in alice.take_events() if isinstance(e, PresenceChanged)] == ["carol"]


def test_after_a_crash_everybody_comes_back_and_watches_are_restored() -> None:
    pair = HubPair()
    clients = [pair.client(f"user-{n}") for n in range(20)]
    for client in clients:
        client.do(lambda m, now: m.watch(["user-0"], now))
        client.take_events()
    pair.crash()
    pair.pass_time(20.0)
    assert not any(client.registered for client in clients)
    pair.start()
    pair.pass_time(31.0)
    assert all(client.registered for client in clients)
    for client in clients:
        events = client.take_events()
        assert [event.resumed for event in events if isinstance(event, Registered)] == [False]
        assert any(isinstance(event, PresenceChanged) and event.online for event in events)
    say(clients[1], "user-2", "we are back")
    assert byes(clients[2]) == ["we are back"]


def test_a_graceful_restart_is_announced_and_spread_over_time() -> None:
    pair = HubPair(drain_spread=5.0)
    clients = [pair.client(f"user-{n}") for n in range(20)]
    pair.restart()
    waits = []
    for client in clients:
        (going, gone) = client.take_events()
        assert isinstance(going, GoingAway)
        assert isinstance(gone, Disconnected)
        assert gone.code == 4000
        assert gone.retry_in == pytest.approx(going.reconnect_in)
        waits.append(gone.retry_in)
    assert len(set(waits)) > 15
    pair.pass_time(6.0)
    assert all(client.registered for client in clients)


def test_unregistering_and_registering_again_on_one_connection_numbers_anew() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    for n in range(5):
        say(alice, "bob", str(n))
    bob.call(lambda m, now: m.unregister(now))
    with pytest.raises(RequestFailed, match="not online"):
        alice.call(lambda machine, now: machine.relay(m.Bye("bob"), now))
    assert isinstance(bob.call(lambda m, now: m.register(bob.identity, now)), Registration)
    bob.take_events()
    say(alice, "bob", "first")
    bob.drop_next(1)
    say(alice, "bob", "second")
    pair.pass_time(3.0)
    assert byes(bob) == ["first", "second"]


def test_a_rotation_whose_reply_is_lost_is_found_out() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    alice.drop_next(1)
    new = identity_of("new")
    number = alice.do(lambda m, now: m.rotate(new, now))
    assert number in alice.failures
    assert pair.keys["alice"] == new.public_key
    pair.pass_time(3.0)
    assert alice.registered
    assert alice.machine.identity is new


def test_a_client_that_names_nobody_is_closed_in_time_and_comes_back() -> None:
    pair = HubPair(registration_seconds=30.0)
    alice = pair.client("alice", register=False)
    pair.pass_time(32.0)
    alice.call(lambda m, now: m.register(alice.identity, now))
    assert alice.registered


@pytest.mark.parametrize("seed", range(25))
def test_through_any_storm_each_message_that_was_acknowledged_arrives_once_and_in_order(seed: int) -> None:
    """Random losses at both ends; every other storm has restarts of the server too, which forgets what was acked."""
    pair = HubPair(seed=seed)
    restarts = seed % 2
    backoff = Backoff(first=0.2, most=2.0)
    alice, bob = pair.client("alice", backoff=backoff), pair.client("bob", backoff=backoff)
    sent: dict[int, str] = {}
    for n in range(200):
        match pair.random.randrange(40):
            case 0:
                alice.cut()
            case 1:
                bob.cut()
            case 2 if bob.registered:
                bob.drop_next(pair.random.randrange(1, 5))
            case 3 if alice.registered:
                alice.drop_next(pair.random.randrange(1, 5))
            case 4 if restarts:
                pair.restart()
        if alice.machine.identity is not None:
            sent[say(alice, "bob", str(n))] = str(n)
        pair.pass_time(pair.random.random() * 0.5)
    bob.cut()  # perhaps its line has swallowed something and not broken yet
    pair.pass_time(60.0)
    assert alice.registered
    assert bob.registered
    assert set(sent) <= set(alice.results) | set(alice.failures)
    arrived = [text for text in byes(bob) if text is not None]
    assert len(arrived) == len(set(arrived))
    assert arrived == sorted(arrived, key=int)
    acknowledged = {text for number, text in sent.items() if number in alice.results}
    assert len(acknowledged) > 50
    if not restarts:
        assert acknowledged <= set(arrived)
    say(alice, "bob", "the end")
    assert byes(bob) == ["the end"]


def test_a_client_whose_network_has_most_watchers_is_told_that_it_gives_way() -> None:
    pair = HubPair(max_watchers=2)
    alice, dave, carol = (pair.client(name) for name in ("alice", "dave", "carol"))
    for client, address in ((alice, "203.0.113.1"), (dave, "203.0.113.1"), (carol, "192.0.2.1")):
        client.come_from(address)
        client.do(lambda m, now: m.watch(["bob"], now))
    ended = [event for client in (alice, dave) for event in client.take_events() if isinstance(event, WatchEnded)]
    (told,) = ended
    assert isinstance(told.error, RequestFailed)
    assert (told.user_ids, told.error.code, told.error.retry_after) == (("bob",), "over-capacity", 60.0)
    pair.client("bob")
    assert any(isinstance(event, PresenceChanged) and event.online for event in carol.take_events())


def test_a_server_that_comes_back_with_room_for_fewer_watches_is_told_of() -> None:
    pair = HubPair(max_watches=10)
    alice = pair.client("alice")
    names = tuple(f"user-{number}" for number in range(5))
    for number in alice.do(lambda m, now: m.watch(names, now)):
        assert number in alice.results
    alice.take_events()
    pair.restart(max_watches=3)
    pair.pass_time(60)
    (ended,) = (event for event in alice.take_events() if isinstance(event, WatchEnded))
    assert ended.user_ids == names
    assert isinstance(ended.error, RequestFailed)
    assert ended.error.code == "too-large"
    # What it has room for can be watched again, and comes back by itself from then on.
    alice.do(lambda m, now: m.watch(names[:3], now))
    pair.restart()
    pair.pass_time(60)
    events = alice.take_events()
    assert not any(isinstance(event, WatchEnded) for event in events)
    assert {event.user_id for event in events if isinstance(event, PresenceChanged)} == set(names[:3])


# --- limits ---------------------------------------------------------------------------------------------------------


def test_messages_beyond_the_share_of_a_sender_reach_a_client_that_comes_back_all_and_in_order() -> None:
    pair = HubPair()
    alice, bob, carol = pair.client("alice"), pair.client("bob", backoff=Backoff(most=2)), pair.client("carol")
    bob.cut()
    pair.reachable = False
    numbers = [say(alice, "bob", str(number)) for number in range(120)]
    pair.pass_time(10)
    say(alice, "carol", "for carol")
    numbers += [say(alice, "bob", str(number)) for number in range(120, 130)]
    assert byes(carol) == ["for carol"]
    pair.reachable = True
    pair.pass_time(15)
    assert byes(bob) == [str(number) for number in range(130)]
    assert not alice.failures
    assert set(numbers) <= set(alice.results)


def test_of_the_delay_the_application_hears_once_for_each_pause() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    bob.cut()
    pair.reachable = False
    for number in range(120):
        say(alice, "bob", str(number))
    (event,) = alice.take_events()
    assert isinstance(event, RequestsDelayed)
    assert (event.request, event.to) == ("bye", "bob")
    assert 2 <= event.retry_in <= 2.5
    assert event.error.code == "rate-limited"
    pair.pass_time(event.retry_in)
    assert [type(event) for event in alice.take_events()] == [RequestsDelayed]


def test_what_waits_for_a_client_that_does_not_come_back_fails_in_time() -> None:
    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")
    bob.cut()
    pair.reachable = False
    numbers = [say(alice, "bob", str(number)) for number in range(120)]
    pair.pass_time(60)
    assert set(alice.failures) == set(numbers)
    assert {failure.code for failure in alice.failures.values() if isinstance(failure, RequestFailed)} == {"not-online"}


def test_a_burst_beyond_the_budgets_of_a_user_arrives_whole_and_in_order_and_is_no_offence() -> None:
    pair = HubPair(user_messages_per_second=100, user_discovers_per_second=20)
    alice, bob, carol = pair.client("alice"), pair.client("bob"), pair.client("carol")
    for number in range(300):
        say(alice, "bob", str(number))
        say(alice, "carol", str(number))
    lookups = [
        alice.do(lambda machine, now, number=number: machine.discover(f"user{number}", now)) for number in range(60)
    ]
    pair.pass_time(35)
    assert not alice.failures
    assert byes(bob) == byes(carol) == [str(number) for number in range(300)]
    assert set(lookups) <= set(alice.results)
    delayed = {(event.request, event.to) for event in alice.take_events() if isinstance(event, RequestsDelayed)}
    assert delayed == {("bye", "bob"), ("bye", "carol"), ("discover", None)}
    assert sum(pair.hub.stats.closes.values()) == 0
