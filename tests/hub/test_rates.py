"""What all sessions of a user may send together, and what happens to those that do not stop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.budgets import BURST_SECONDS, MOST_LINES, PAUSE, UNANSWERED, Budget, RateLimit
from aldis.hub.rates import FORGOTTEN_AFTER, LEASE
from support.hub_world import Client, World

LIMITS: dict[str, Any] = {
    "user_messages_per_second": 10,
    "user_bytes_per_second": 10_000_000,  # so a small message is one unit, as good as
    "user_relayed_bytes_per_second": 1_000_000_000,
    "user_discovers_per_second": 3,
    "offence_burst": 3,
    "offences_per_second": 0.1,
}


def say(client: Client, number: int, **more: Any) -> list[str]:
    """Send so many small messages with ids to bob, and return what came back: `ack` or an error code."""
    for one in range(number):
        client.send(type="bye", to="bob", id=one, **more)
    return [message.get("code", message["type"]) for message in client.take()]


def test_all_devices_of_a_user_share_one_budget() -> None:
    world = World(**LIMITS)
    alice, phone, carol = world.client("alice"), world.client("alice", device="phone"), world.client("carol")
    bob = world.client("bob")
    assert say(alice, 12) == ["ack"] * 12
    assert say(phone, 12) == ["ack"] * 8 + ["rate-limited"] * 4
    assert say(alice, 1) == ["rate-limited"]
    assert say(carol, 1) == ["ack"]
    assert len(bob.take()) == 21
    assert world.hub.stats.limited["user-messages"] == 5


def test_a_refusal_says_when_it_is_over_and_then_it_is() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    say(alice, 20)
    alice.send(type="bye", to="bob", id=1)
    refused = alice.take_one()
    assert (refused["code"], refused["temporary"], refused["retryAfter"]) == ("rate-limited", True, PAUSE + 0.001)
    world.now += refused["retryAfter"]
    assert say(alice, 10) == ["ack"] * 10


def test_large_messages_count_by_their_bytes() -> None:
    world = World(**{**LIMITS, "user_bytes_per_second": 10_000, "user_relayed_bytes_per_second": 5_000})
    alice, _ = world.client("alice"), world.client("bob")
    assert say(alice, 3, reason="x" * 3_400) == ["ack"] * 3
    alice.send(type="bye", to="bob", id=1)
    refused = alice.take_one()
    assert (refused["code"], world.hub.stats.limited["user-relayed-bytes"]) == ("rate-limited", 1)
    assert PAUSE < refused["retryAfter"] < PAUSE + 1
    world.now += refused["retryAfter"]
    assert say(alice, 1) == ["ack"]


def test_most_messages_are_paid_from_a_lease_and_it_is_a_small_part_of_the_budget() -> None:
    world = World(**{**LIMITS, "user_messages_per_second": 800, "user_bytes_per_second": 8_000_000})
    alice, _ = world.client("alice"), world.client("bob")
    assert 1600 - 2 * LEASE <= say(alice, 1700).count("ack") <= 1600
    assert alice.session.credit < LEASE * 10_000


def test_questions_about_others_have_a_budget_of_their_own() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    for number in range(7):
        alice.send(type="discover", userId="bob", id=number)
    assert [message.get("code", "ok") for message in alice.take()] == ["ok"] * 6 + ["rate-limited"]
    assert say(alice, 1) == ["ack"]
    assert world.hub.stats.messages["discover", "rate-limited"] == 1


def test_without_an_id_only_the_first_refusal_of_a_pause_is_answered() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    say(alice, 20)
    for _ in range(3):
        alice.send(type="bye", to="bob")
    assert [message["code"] for message in alice.take()] == ["rate-limited"]


def test_signs_of_life_and_confirmations_are_never_refused() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    assert say(alice, 21)[-1] == "rate-limited"
    alice.send(type="ping", id=1)
    alice.send(type="received", count=0)
    assert alice.take() == [{"type": "pong", "re": 1}]


def test_coming_back_does_not_fill_a_budget() -> None:
    world = World(**LIMITS)
    world.client("bob")
    alice = world.client("alice")
    say(alice, 21)
    alice.lose(clean=True)
    alice = world.client("alice")
    assert say(alice, 1) == ["rate-limited"]
    alice.lose(clean=True)
    world.pass_time(3 * FORGOTTEN_AFTER)
    assert len(world.hub._rates) == 1  # bob


# --- offences ---------------------------------------------------------------------------------------------------------


def test_a_client_that_goes_on_after_it_has_read_the_refusal_is_closed() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    assert say(alice, 50)[20:] == ["rate-limited"] * 30  # it may have sent all of that before it read
    assert alice.closed is None
    alice.pong()
    assert say(alice, 4) == ["rate-limited"] * 4
    assert alice.closed == (4504, "it went on sending when it was told to wait")


def test_a_client_that_has_read_of_one_pause_has_not_read_of_the_next() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    say(alice, 21)
    alice.pong()
    world.now += PAUSE + 0.01
    say(alice, 50)
    assert alice.closed is None


def test_an_old_pong_and_one_of_another_limit_count_for_nothing() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    say(alice, 21)
    old = alice.pinged
    world.now += PAUSE + 0.01
    say(alice, 11)
    for payload in (old, b"user-discovers 2", b"", b"x" * 125):
        world.hub.heard(alice.session, world.now, pong=payload)
        say(alice, 10)
    assert alice.closed is None


def test_a_client_that_answers_no_ping_is_closed_after_a_minute_of_it() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    while alice.closed is None:
        say(alice, 20)
        world.now += 0.5
        assert world.now < 2000
    assert alice.closed[0] == 4504
    assert world.now > 1000 + UNANSWERED


def test_a_client_with_many_peers_may_be_refused_for_each_of_them() -> None:
    """It holds back what goes to one of them, and has to find out about the others."""
    world = World(**LIMITS)
    alice = world.client("alice")
    say(alice, 0)
    for number in range(21):
        alice.send(type="bye", to=f"peer{number}", id=number)
    for number in range(100, 600):
        alice.pong()
        alice.send(type="bye", to=f"peer{number}", id=number)
    alice.pong()
    assert alice.closed is None
    for _ in range(4):
        alice.send(type="bye", to="peer599", id=1)
    assert alice.closed is not None


def test_a_client_that_always_writes_to_somebody_else_is_closed_as_well() -> None:
    world = World(**LIMITS)
    alice = world.client("alice")
    for number in range(20 + MOST_LINES + 4):
        alice.send(type="bye", to=f"peer{number}", id=number)
    assert alice.closed is not None
    assert alice.closed[0] == 4504


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0.0, 0.05, 0.3, 1.0])), max_size=20),
    st.sampled_from([0.05, 0.5, 3.0]),
    st.integers(1, 5),
)
def test_a_client_that_honours_what_it_reads_is_never_closed(
    bursts: list[tuple[int, float]], delay: float, peers: int
) -> None:
    """It reads `delay` seconds late, and sends nothing to a peer from then on until the pause is over."""
    world = World(**LIMITS)
    alice = world.client("alice")
    # What is on its way to the client, with the time of its arrival: refusals, by peer, and pings.
    arriving: list[tuple[float, float, int, bytes]] = []
    quiet_until = [0.0] * peers
    number = 0
    for burst, pause in bursts:
        for _ in range(burst):
            while arriving and arriving[0][0] <= world.now:
                _, retry, peer, ping = arriving.pop(0)
                quiet_until[peer] = max(quiet_until[peer], world.now + retry)
                if ping:
                    world.hub.heard(alice.session, world.now, pong=ping)
            number += 1
            peer = number % peers
            if world.now < quiet_until[peer]:
                continue
            before = alice.pings
            alice.send(type="bye", to=f"peer{peer}", id=peer)
            for message in alice.take():
                if message["code"] == "rate-limited":
                    ping = alice.pinged if alice.pings > before else b""
                    arriving.append((world.now + delay, message["retryAfter"], message["re"], ping))
        world.now += pause
    assert alice.closed is None


@pytest.mark.parametrize("cost", [1, 7, 100])
def test_a_budget_lets_its_rate_through_in_the_long_run(cost: int) -> None:
    limit = RateLimit("some")
    limit.set(10)
    budget = Budget(limit)
    passed = sum(cost for tick in range(100_000) if not budget.take(cost, 1.0 + tick / 100))
    assert passed + 2 * cost + 10 >= 10 * 1000
    assert passed <= 10 * (1000 + BURST_SECONDS) + cost


def test_a_pong_behind_a_request_that_waits_for_the_directory_counts_after_it() -> None:
    world = World(**LIMITS)
    alice = world.client("alice")
    while not alice.pinged:
        say(alice, 1)
    world.directory_waits = True
    world.now += 5
    alice.send(type="discover", userId="bob")
    alice.pong()
    assert alice.session.pongs
    world.answer()
    assert not alice.session.pongs
    pause = alice.session.pauses
    assert pause is not None
    assert all(one._pinged is None for one in pause.values())
