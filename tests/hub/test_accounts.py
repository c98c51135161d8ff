"""The operator's say in a registration, as the hub carries it out."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from aldis.hub.accounts import AccountQuestion, AccountVerdict, Admitted, Rejected
from aldis.hub.costs import SIGNATURE_COST, cost_of
from aldis.protocol import messages as m
from support.hub_world import START, World, identity_of

WALL = 1_700_000_000.0 + START


class Operator:
    """Says what it is told to say, and remembers what it was asked."""

    def __init__(self, *verdicts: AccountVerdict) -> None:
        self.verdicts = list(verdicts)
        self.asked: list[AccountQuestion] = []

    def __call__(self, question: AccountQuestion) -> AccountVerdict:
        self.asked.append(question)
        return self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]


def test_the_operator_is_asked_with_the_token_once_the_key_is_proved() -> None:
    operator = Operator(Admitted())
    world = World(operator=operator)
    alice = world.connect()
    alice.identity = identity_of("alice")
    alice.ask_challenge("alice", device="phone", token="t")
    assert operator.asked == []
    assert alice.register("alice", device="phone", token="t")["success"]
    (asked,) = operator.asked
    assert (asked.user_id, asked.device, asked.proved, asked.token) == ("alice", "phone", True, "t")
    assert "'t'" not in repr(asked)


def test_a_name_is_bound_to_no_key_that_the_operator_refuses() -> None:
    world = World(operator=Operator(Rejected("registration-refused", "no room in this town", retry_after=5.0)))
    mallory = world.connect()
    reply = mallory.register("alice")
    assert (reply["code"], reply["message"], reply["retryAfter"]) == (
        "registration-refused",
        "no room in this town",
        5.0,
    )
    assert not reply["temporary"]
    assert world.keys == {}
    assert world.hub.stats.registrations["registration-refused"] == 1


def test_a_refused_client_may_register_again_on_its_connection() -> None:
    world = World(operator=Operator(Rejected("token-expired", "old"), Admitted()))
    alice = world.connect()
    assert alice.register("alice", token="old")["code"] == "token-expired"
    assert alice.register("alice", token="new")["success"]


def test_forged_tokens_count_like_wrong_signatures() -> None:
    world = World(operator=Operator(Rejected("token-invalid", "no", forged=True)))
    mallory = world.connect()
    for _ in range(3):
        assert mallory.closed is None
        mallory.register("alice", token="x")
    assert mallory.closed == (4501, "too many bad signatures")


def test_requests_behind_a_registration_wait_for_the_operator_too() -> None:
    world = World(operator=Operator(Admitted()))
    world.directory_waits = True
    alice = world.connect()
    alice.register("alice")
    alice.send(type="discover", userId="alice", id=9)
    assert alice.take() == []
    assert world.hub.pending == 1
    world.answer()
    assert [message["type"] for message in alice.take()] == ["registered", "discover-response"]
    assert world.hub.pending == 0


def test_a_verdict_for_a_client_that_has_gone_binds_nothing() -> None:
    world = World(operator=Operator(Admitted()))
    world.directory_waits = True
    alice = world.connect()
    alice.register("alice")
    alice.lose()
    world.answer()
    assert world.keys == {}
    assert not world.hub.online("alice")


def test_a_session_ends_with_its_token_and_can_be_resumed_with_another() -> None:
    world = World(operator=Operator(Admitted(WALL + 100)), token_grace=0.0, ping_interval=1000.0)
    world.operator = Operator(Admitted())
    bob = world.client("bob")
    world.operator = Operator(Admitted(WALL + 100))
    alice = world.client("alice", token="old")
    bob.send(type="watch", userIds=["alice"])
    bob.take()
    world.pass_time(99)
    world.operator = Operator(Admitted(WALL + 1000))
    assert alice.closed is None
    world.pass_time(2)
    assert alice.closed == (4006, "the token has expired")
    bob.send(type="bye", to="alice", reason="meanwhile", id=3)
    again = world.connect()
    assert again.register("alice", token="new", resume=alice.ticket(0))["resumed"]
    assert [message.get("reason") for message in again.take()][-1] == "meanwhile"
    assert [message["type"] for message in bob.take() if message["type"] == "presence"] == []
    world.pass_time(500)
    assert again.closed is None


def test_without_another_token_the_user_is_offline_after_the_resume_window() -> None:
    world = World(operator=Operator(Admitted(WALL + 50)), token_grace=0.0, ping_interval=1000.0)
    alice = world.client("alice", token="old")
    world.pass_time(51)
    assert alice.closed is not None
    assert world.hub.online("alice")
    world.pass_time(31)
    assert not world.hub.online("alice")


def test_sessions_whose_tokens_expire_together_end_spread_over_the_grace() -> None:
    world = World(operator=Operator(Admitted(WALL + 100)), token_grace=60.0, ping_interval=1000.0)
    clients = [world.client(f"user{n}", token="t") for n in range(50)]
    world.pass_time(101)
    early = sum(client.closed is not None for client in clients)
    world.pass_time(30)
    half = sum(client.closed is not None for client in clients)
    world.pass_time(30)
    assert early < 5
    assert 10 < half < 40
    assert all(client.closed is not None for client in clients)


def test_a_client_that_gave_its_name_up_is_not_closed_for_its_old_token() -> None:
    world = World(operator=Operator(Admitted(WALL + 10), Admitted()), token_grace=0.0, ping_interval=1000.0)
    alice = world.client("alice", token="old")
    alice.send(type="unregister")
    alice.register("alice")
    world.pass_time(15)
    assert alice.closed is None


@pytest.mark.parametrize("verdict", [Admitted(), Rejected("registration-refused", "not you")])
def test_the_operator_is_asked_about_a_classic_client_too(verdict: AccountVerdict) -> None:
    operator = Operator(verdict)
    world = World(auth="open", operator=operator)
    old = world.connect(classic=True)
    old.send(type="register", userId="old", publicKey="any")
    (asked,) = operator.asked
    assert (asked.user_id, asked.proved, asked.token) == ("old", False, None)
    if isinstance(verdict, Admitted):
        assert old.take() == [{"type": "registered", "success": True, "userId": "old"}]
    else:
        assert old.take() == [{"type": "error", "message": "not you"}]
        assert not world.hub.online("old")


def test_a_user_is_reported_online_with_the_first_device_and_offline_with_the_last() -> None:
    world = World()
    alice = world.client("alice")
    phone = world.client("alice", device="phone")
    alice.lose(clean=True)
    assert world.presence == [("alice", True)]
    phone.lose()
    assert world.presence == [("alice", True)]  # it may resume
    world.pass_time(31)
    assert world.presence == [("alice", True), ("alice", False)]


def test_a_resumed_and_a_replaced_session_report_nothing() -> None:
    world = World()
    alice = world.client("alice")
    alice.lose()
    again = world.client("alice", resume=alice.ticket(0))
    world.client("alice")
    assert again.closed is not None
    assert world.presence == [("alice", True)]


def test_a_token_costs_its_client_as_much_as_a_signature_to_check() -> None:
    assert cost_of(m.Register("alice", "key", token="t")) == SIGNATURE_COST
    assert cost_of(m.Register("alice", "key")) == 0


def test_nobody_is_asked_where_the_operator_has_no_say_and_the_token_is_not_kept() -> None:
    world = World()
    alice = world.connect()
    alice.identity = identity_of("alice")
    alice.ask_challenge("alice", token="t" * 4096)
    assert alice.session.registering is not None
    assert alice.session.registering.token is UNSET
    assert world.accounts == []
