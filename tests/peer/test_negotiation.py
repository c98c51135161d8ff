"""The negotiation machine: each rule by itself, then whole histories on a link that loses, repeats and reorders."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aldis.peer.attempts import Refused
from aldis.peer.commands import (
    AddCandidate,
    ApplyAnswer,
    Command,
    CreateConnection,
    DropConnection,
    MakeAnswer,
    MakeOffer,
    Probe,
    Refuse,
    SendAnswer,
    SendBye,
    SendCandidate,
    SendOffer,
)
from aldis.peer.negotiation import MAX_CANDIDATES, MAX_EARLY_NAMES, MAX_OFFERS, Negotiation, PeerState
from aldis.protocol.messages import Candidate, Capabilities
from support.negotiation_model import ATTEMPT, HEAL, World

ALL = Capabilities()
NO_RESTART = Capabilities(trickle=False, restart=False)
THEIRS = "v=0\r\na=fingerprint:sha-256 AA\r\na=ice-ufrag:frag\r\n"
THEIRS_AGAIN = "v=1\r\na=fingerprint:SHA-256 aa\r\na=ice-ufrag:more\r\n"
STRANGERS = "v=0\r\na=fingerprint:sha-256 BB\r\na=ice-ufrag:frag\r\n"
THEIR_NAME = "theirs"
OUR_NAME = "AAAAAAAAAAAAAAAAAAAAAQ"
DOES_NOT_FIT = Refuse(OUR_NAME, "it does not fit the connection", "invalid-offer", 10.0)


def machine(local: str = "bob", remote: str = "alice", capabilities: Capabilities = ALL) -> Negotiation:
    numbers = iter(range(1, 100))
    return Negotiation(
        local,
        remote,
        capabilities=capabilities,
        random=lambda size: next(numbers).to_bytes(size, "big"),
        attempt_seconds=30,
        heal_seconds=15,
    )


def candidate(fragment: str | None = None) -> Candidate:
    return Candidate("candidate:1", "0", 0, fragment)


def offered(m: Negotiation) -> Negotiation:
    m.connect(0)
    m.offer_made(OUR_NAME, 1, "our offer")
    return m


def settled(m: Negotiation, capabilities: Capabilities = ALL) -> Negotiation:
    offered(m).answer_received(OUR_NAME, THEIRS, capabilities, 1)
    return m


def connected(m: Negotiation, capabilities: Capabilities = ALL) -> Negotiation:
    settled(m, capabilities).channel_opened(OUR_NAME)
    m.channel_ready(OUR_NAME)
    assert m.state is PeerState.CONNECTED
    return m


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


# --- the plain way ----------------------------------------------------------------------------------------------------


def test_the_offerer_makes_connection_and_channel_then_offers_then_takes_the_answer() -> None:
    m = machine()
    assert m.state is PeerState.NEW
    assert m.connect(0) == [CreateConnection(OUR_NAME, open_channel=True), MakeOffer(OUR_NAME, 1, restart=False)]
    assert m.state is PeerState.CONNECTING
    assert m.offer_made(OUR_NAME, 1, "our offer") == [SendOffer(OUR_NAME, 1, "our offer")]
    assert m.answer_received(OUR_NAME, THEIRS, ALL, 1) == [ApplyAnswer(OUR_NAME, 1, THEIRS)]
    assert m.channel_opened(OUR_NAME) == []
    assert m.state is PeerState.CONNECTING
    assert m.deadline == 30
    m.channel_ready(OUR_NAME)
    assert m.state is PeerState.CONNECTED
    assert m.deadline is None


def test_the_answerer_makes_a_connection_without_channel() -> None:
    m = machine()
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 0) == [
        CreateConnection(THEIR_NAME, open_channel=False),
        MakeAnswer(THEIR_NAME, 1, THEIRS),
    ]
    assert m.answer_made(THEIR_NAME, 1, "our answer") == [SendAnswer(THEIR_NAME, 1, "our answer")]
    assert m.state is PeerState.CONNECTING


def test_connecting_twice_makes_one_attempt() -> None:
    m = offered(machine())
    assert m.connect(1) == []
    assert connected(machine()).connect(1) == []


def test_names_are_16_bytes_in_base64url() -> None:
    (create, _) = machine().connect(0)
    assert create.name == OUR_NAME
    assert len(OUR_NAME) == 22


def test_the_user_id_that_sorts_first_by_bytes_is_polite() -> None:
    assert machine("alice", "bob").polite
    assert not machine("bob", "alice").polite
    assert machine("Zoe", "adam").polite  # upper case sorts first
    # By UTF-16 units, as a browser compares strings, it would be the other way round.
    assert machine("\ufffd", "\U0001f600").polite


# --- when two first offers cross --------------------------------------------------------------------------------------


def test_the_impolite_side_insists_on_its_offer() -> None:
    m = offered(machine("bob", "alice"))
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 1) == [SendOffer(OUR_NAME, 1, "our offer")]
    assert not m.is_over(THEIR_NAME)
    assert m.answer_received(OUR_NAME, THEIRS, ALL, 2) == [ApplyAnswer(OUR_NAME, 1, THEIRS)]


def test_the_impolite_side_has_nothing_to_repeat_while_its_offer_is_being_made() -> None:
    m = machine("bob", "alice")
    m.connect(0)
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 1) == []


@pytest.mark.parametrize("sent", [False, True])
def test_the_polite_side_throws_its_attempt_away_and_answers_on_a_fresh_connection(sent: bool) -> None:
    m = machine("alice", "bob")
    m.connect(0)
    if sent:
        m.offer_made(OUR_NAME, 1, "our offer")
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 1) == [
        DropConnection(OUR_NAME),
        CreateConnection(THEIR_NAME, open_channel=False),
        MakeAnswer(THEIR_NAME, 1, THEIRS),
    ]
    assert m.offer_made(OUR_NAME, 1, "our offer") == []
    assert kinds(m.answer_received(OUR_NAME, THEIRS, ALL, 2)) == [SendBye]


def test_an_offer_that_comes_after_the_answer_makes_an_attempt_beside_the_first() -> None:
    """It may be a late one of before the answer, or of a program that was started anew: time will tell."""
    m = settled(machine())
    assert kinds(m.offer_received(THEIR_NAME, THEIRS, ALL, 2)) == [CreateConnection, MakeAnswer]
    assert kinds(m.channel_opened(OUR_NAME)) == [SendBye, DropConnection]


def test_of_three_attempts_the_oldest_goes() -> None:
    m = settled(machine())
    m.offer_received("two", THEIRS, ALL, 2)
    assert m.offer_received("three", THEIRS, ALL, 3)[:2] == [
        SendBye(OUR_NAME, "replaced by a newer attempt"),
        DropConnection(OUR_NAME),
    ]


def test_a_peer_that_offers_without_end_is_slowed_down() -> None:
    m = machine()
    for number in range(MAX_OFFERS):
        assert m.offer_received(f"name{number}", THEIRS, ALL, 0)
    assert m.offer_received("more", THEIRS, ALL, 9) == [Refuse("more", "too many offers", "rate-limited", 1.0)]
    assert m.offer_received("later", THEIRS, ALL, 10)


# --- names ------------------------------------------------------------------------------------------------------------


def test_messages_for_other_names_are_dropped() -> None:
    m = connected(machine())
    assert m.answer_received("unknown", THEIRS, ALL, 1) == []
    assert m.bye_received("unknown", "") == []
    assert m.offer_made("unknown", 1, "") == []
    assert m.answer_made("unknown", 1, "") == []
    assert m.candidate_gathered("unknown", None) == []
    assert m.operation_failed("unknown", 1, "") == []
    assert m.channel_opened("unknown") == []
    assert m.channel_ready("unknown") == []
    assert m.path_lost("unknown", 1, final=True) == []
    assert m.path_restored("unknown") == []
    assert m.attempt_ended("unknown", "", orderly=True) == []
    assert m.abandon("unknown", "") == []
    assert m.state is PeerState.CONNECTED


def test_an_answer_counts_once() -> None:
    m = settled(machine())
    assert not m.awaits_answer(OUR_NAME)
    assert m.answer_received(OUR_NAME, STRANGERS, ALL, 2) == []


def test_offers_and_answers_for_a_connection_that_is_over_are_answered_by_a_bye() -> None:
    m = connected(machine())
    m.attempt_ended(OUR_NAME, "gone", orderly=False)
    assert m.offer_received(OUR_NAME, THEIRS, ALL, 2) == [SendBye(OUR_NAME, "this connection is over")]
    assert m.answer_received(OUR_NAME, THEIRS, ALL, 2) == [SendBye(OUR_NAME, "this connection is over")]
    assert m.is_over(OUR_NAME)
    assert m.candidate_received(OUR_NAME, None) == []


def test_an_offer_on_top_of_our_own_unanswered_one_is_refused() -> None:
    assert offered(machine("alice", "bob")).offer_received(OUR_NAME, THEIRS, ALL, 1) == [DOES_NOT_FIT]


# --- candidates -------------------------------------------------------------------------------------------------------


def test_candidates_before_their_answer_wait_for_it() -> None:
    m = machine()
    m.connect(0)
    assert m.candidate_received(OUR_NAME, candidate()) == []
    m.offer_made(OUR_NAME, 1, "our offer")
    assert m.candidate_received(OUR_NAME, None) == []
    assert m.answer_received(OUR_NAME, THEIRS, ALL, 1) == [
        ApplyAnswer(OUR_NAME, 1, THEIRS),
        AddCandidate(OUR_NAME, candidate()),
        AddCandidate(OUR_NAME, None),
    ]
    assert m.candidate_received(OUR_NAME, candidate("frag")) == [AddCandidate(OUR_NAME, candidate("frag"))]


def test_candidates_before_their_offer_wait_for_it() -> None:
    m = machine()
    assert m.candidate_received(THEIR_NAME, candidate()) == []
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 0) == [
        CreateConnection(THEIR_NAME, open_channel=False),
        MakeAnswer(THEIR_NAME, 1, THEIRS),
        AddCandidate(THEIR_NAME, candidate()),
    ]


def test_candidates_of_a_restart_wait_for_its_description() -> None:
    m = connected(machine())
    assert m.candidate_received(OUR_NAME, candidate("more")) == []
    commands = m.offer_received(OUR_NAME, THEIRS_AGAIN, ALL, 5)
    assert commands == [MakeAnswer(OUR_NAME, 2, THEIRS_AGAIN), AddCandidate(OUR_NAME, candidate("more"))]


def test_candidates_that_belong_to_nothing_are_forgotten() -> None:
    m = offered(machine())
    m.candidate_received(OUR_NAME, candidate("stale"))
    assert m.answer_received(OUR_NAME, THEIRS, ALL, 1) == [ApplyAnswer(OUR_NAME, 1, THEIRS)]


def test_candidates_are_bounded() -> None:
    m = settled(machine())
    taken = sum(len(m.candidate_received(OUR_NAME, candidate())) for _ in range(3 * MAX_CANDIDATES))
    assert taken == MAX_CANDIDATES
    for number in range(100):
        for _ in range(2 * MAX_CANDIDATES):
            m.candidate_received(f"name{number}", None)
    assert len(m._early) == MAX_EARLY_NAMES
    assert all(len(kept) == MAX_CANDIDATES for kept in m._early.values())


def test_our_candidates_follow_our_description() -> None:
    m = machine()
    m.connect(0)
    assert m.candidate_gathered(OUR_NAME, candidate()) == []
    assert m.offer_made(OUR_NAME, 1, "our offer") == [
        SendOffer(OUR_NAME, 1, "our offer"),
        SendCandidate(OUR_NAME, candidate()),
    ]
    assert m.candidate_gathered(OUR_NAME, None) == [SendCandidate(OUR_NAME, None)]


# --- lost paths and restarts ------------------------------------------------------------------------------------------


def test_a_lost_path_is_restarted_under_the_same_name() -> None:
    m = connected(machine())
    assert m.path_lost(OUR_NAME, 50, final=False) == [MakeOffer(OUR_NAME, 2, restart=True)]
    assert m.state is PeerState.DISCONNECTED
    assert m.deadline == 65
    assert m.path_lost(OUR_NAME, 51, final=False) == []
    assert m.path_lost(OUR_NAME, 51, final=True) == []  # a restart is under way
    m.offer_made(OUR_NAME, 2, "restart")
    assert m.answer_received(OUR_NAME, THEIRS_AGAIN, ALL, 52) == [ApplyAnswer(OUR_NAME, 2, THEIRS_AGAIN)]
    assert m.path_restored(OUR_NAME) == []
    assert m.state is PeerState.CONNECTED
    assert m.deadline is None
    assert m.path_restored(OUR_NAME) == []


def test_a_path_that_does_not_come_back_fails_the_connection() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    assert m.tick(64.9) == []
    assert m.tick(65) == [DropConnection(OUR_NAME)]  # and no bye, which would be a farewell
    assert m.state is PeerState.FAILED
    assert m.outcome is not None
    assert "did not come back within 15 s" in m.outcome.reason


@pytest.mark.parametrize(("ours", "theirs"), [(ALL, NO_RESTART), (NO_RESTART, ALL), (NO_RESTART, NO_RESTART)])
def test_without_restart_on_both_sides_a_connection_is_replaced(ours: Capabilities, theirs: Capabilities) -> None:
    m = connected(machine(capabilities=ours), theirs)
    assert m.path_lost(OUR_NAME, 50, final=False) == []
    assert m.state is PeerState.DISCONNECTED
    commands = m.connect(51)
    assert kinds(commands) == [CreateConnection, MakeOffer]
    name = commands[0].name
    assert name != OUR_NAME
    assert m.state is PeerState.CONNECTING
    m.offer_made(name, 1, "anew")
    m.answer_received(name, THEIRS, theirs, 52)
    assert m.channel_opened(name) == [
        SendBye(OUR_NAME, "replaced by another connection"),
        DropConnection(OUR_NAME),
    ]
    m.channel_ready(name)
    assert m.state is PeerState.CONNECTED


def test_without_restart_a_path_that_the_engine_gave_up_is_over() -> None:
    m = connected(machine(), NO_RESTART)
    assert m.path_lost(OUR_NAME, 50, final=True) == [DropConnection(OUR_NAME)]
    assert m.state is PeerState.FAILED


def test_an_attempt_without_a_path_fails_when_the_engine_says_so() -> None:
    m = settled(machine())
    assert m.path_lost(OUR_NAME, 2, final=False) == []
    assert kinds(m.path_lost(OUR_NAME, 2, final=True)) == [SendBye, DropConnection]
    assert m.state is PeerState.FAILED


def test_the_polite_side_gives_way_when_two_restarts_cross() -> None:
    m = connected(machine("alice", "bob"))
    m.path_lost(OUR_NAME, 50, final=False)
    m.offer_made(OUR_NAME, 2, "our restart")
    assert m.offer_received(OUR_NAME, THEIRS_AGAIN, ALL, 51) == [MakeAnswer(OUR_NAME, 3, THEIRS_AGAIN)]
    assert m.answer_received(OUR_NAME, THEIRS_AGAIN, ALL, 52) == []
    assert m.answer_made(OUR_NAME, 3, "answer") == [SendAnswer(OUR_NAME, 3, "answer")]


def test_the_impolite_side_insists_when_two_restarts_cross() -> None:
    m = connected(machine("bob", "alice"))
    m.path_lost(OUR_NAME, 50, final=False)
    assert m.offer_received(OUR_NAME, THEIRS_AGAIN, ALL, 51) == []
    m.offer_made(OUR_NAME, 2, "our restart")
    assert m.offer_received(OUR_NAME, THEIRS_AGAIN, ALL, 51) == [SendOffer(OUR_NAME, 2, "our restart")]


def test_only_the_last_of_two_answers_is_sent() -> None:
    m = connected(machine())
    m.offer_received(OUR_NAME, THEIRS_AGAIN, ALL, 5)
    m.offer_received(OUR_NAME, THEIRS_AGAIN + "x", ALL, 6)
    assert m.answer_made(OUR_NAME, 2, "old") == []
    assert m.answer_made(OUR_NAME, 3, "new") == [SendAnswer(OUR_NAME, 3, "new")]


def test_a_restart_with_another_certificate_is_no_restart() -> None:
    assert connected(machine()).offer_received(OUR_NAME, STRANGERS, ALL, 5) == [DOES_NOT_FIT]


def test_an_answer_to_a_restart_with_another_certificate_leads_to_a_new_connection() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    m.offer_made(OUR_NAME, 2, "restart")
    commands = m.answer_received(OUR_NAME, STRANGERS, ALL, 51)
    assert kinds(commands) == [SendBye, DropConnection, CreateConnection, MakeOffer]
    assert m.state is PeerState.CONNECTING


def test_such_an_answer_leads_to_nothing_more_when_an_attempt_is_under_way() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    m.offer_made(OUR_NAME, 2, "restart")
    m.offer_received(THEIR_NAME, STRANGERS, ALL, 50)
    assert kinds(m.answer_received(OUR_NAME, STRANGERS, ALL, 51)) == [SendBye, DropConnection]


def test_beside_a_lost_path_another_connection_is_made_while_ice_restarts() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    assert m.needs_attempt
    create, offer = m.connect(51)
    assert isinstance(create, CreateConnection)
    assert offer == MakeOffer(create.name, 1, restart=False)
    assert m.connect(52) == []  # it is under way
    m.path_restored(OUR_NAME)
    assert m.state is PeerState.CONNECTED


def test_a_change_of_the_network_restarts_ice_before_the_path_is_lost() -> None:
    m = connected(machine())
    assert m.network_changed(50) == [MakeOffer(OUR_NAME, 2, restart=True)]
    assert m.state is PeerState.CONNECTED
    assert m.network_changed(51) == []


def test_a_restart_that_cannot_be_sent_ends_nothing() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    m.offer_made(OUR_NAME, 2, "restart")
    assert m.operation_failed(OUR_NAME, 2, "the server is gone") == []
    assert m.state is PeerState.DISCONNECTED
    assert m.deadline == 65


def test_a_restart_that_nobody_answers_does_not_stand_in_the_way_of_the_next() -> None:
    m = connected(machine())
    m.path_lost(OUR_NAME, 50, final=False)
    m.offer_made(OUR_NAME, 2, "restart")
    m.path_restored(OUR_NAME)  # by itself
    assert m.deadline == 65
    m.tick(65)
    assert m.deadline is None
    assert m.path_lost(OUR_NAME, 70, final=False) == [MakeOffer(OUR_NAME, 3, restart=True)]


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_bye_ends_an_attempt_and_only_questions_a_connection() -> None:
    m = settled(machine())
    assert m.bye_received(OUR_NAME, "busy") == [DropConnection(OUR_NAME)]
    assert m.state is PeerState.FAILED
    assert m.outcome is not None
    assert m.outcome.reason == "the other side gave up: busy"
    assert connected(machine()).bye_received(OUR_NAME, "busy") == [Probe(OUR_NAME, "busy")]
    m = offered(machine())
    m.bye_received(OUR_NAME, "")
    assert m.outcome is not None
    assert m.outcome.reason == "the other side gave up"


def test_a_refusal_ends_an_attempt_with_its_code_and_time_and_harms_no_connection() -> None:
    m = offered(machine())
    assert m.bye_received(OUR_NAME, "", "rate-limited", 7.5) == [DropConnection(OUR_NAME)]
    assert m.outcome == Refused(
        OUR_NAME, False, "the other side refuses: rate-limited", code="rate-limited", retry_after=7.5
    )
    assert m.state is PeerState.FAILED
    assert connected(machine()).bye_received(OUR_NAME, "no", "not-accepted") == [Probe(OUR_NAME, "no")]


def test_an_offer_that_does_not_pass_the_check_is_refused_within_reason() -> None:
    refusal = ("bad", "bad-proof", 60.0)
    m = machine()
    for _ in range(MAX_OFFERS):
        assert m.refuse("forged", *refusal, 0) == [Refuse("forged", *refusal)]
    assert m.refuse("forged", *refusal, 9) == []
    assert m.refuse("forged", *refusal, 10) == [Refuse("forged", *refusal)]
    assert offered(machine()).refuse(OUR_NAME, *refusal, 0) == []  # it would end what is under way
    m.close("")
    assert m.refuse("forged", *refusal, 100) == []


def test_a_goodbye_closes_and_a_goodbye_in_place_of_a_hello_fails() -> None:
    m = connected(machine())
    assert m.attempt_ended(OUR_NAME, "bye", orderly=True) == [DropConnection(OUR_NAME)]
    assert m.state is PeerState.CLOSED
    m = settled(machine())
    m.channel_opened(OUR_NAME)
    m.attempt_ended(OUR_NAME, "no", orderly=True)
    assert m.state is PeerState.FAILED


def test_after_an_end_there_may_be_a_beginning() -> None:
    m = connected(machine())
    m.attempt_ended(OUR_NAME, "bye", orderly=True)
    assert kinds(m.connect(60)) == [CreateConnection, MakeOffer]
    m = connected(machine())
    m.attempt_ended(OUR_NAME, "bye", orderly=True)
    assert kinds(m.offer_received(THEIR_NAME, THEIRS, ALL, 60)) == [CreateConnection, MakeAnswer]


def test_closing_is_for_good() -> None:
    m = connected(machine())
    assert m.close("done") == [SendBye(OUR_NAME, "done"), DropConnection(OUR_NAME)]
    assert m.state is PeerState.CLOSED
    assert m.connect(1) == []
    assert m.offer_received(THEIR_NAME, THEIRS, ALL, 1) == []
    assert m.candidate_received(THEIR_NAME, None) == []
    assert m.deadline is None


def test_what_the_engine_refuses_ends_the_attempt() -> None:
    m = offered(machine())
    assert m.operation_failed(OUR_NAME, 7, "of another time") == []
    assert kinds(m.operation_failed(OUR_NAME, 1, "bad SDP")) == [SendBye, DropConnection]
    assert m.outcome is not None
    assert m.outcome.reason == "bad SDP"


def test_abandoning_ends_whatever_there_is() -> None:
    m = connected(machine())
    assert m.abandon(OUR_NAME, "nonsense") == [SendBye(OUR_NAME, "nonsense"), DropConnection(OUR_NAME)]
    assert m.state is PeerState.FAILED


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (lambda: _started(machine()), "made no description within 30 s"),
        (lambda: offered(machine()), "no answer within 30 s"),
        (lambda: settled(machine()), "no path to the other side was found within 30 s"),
        (lambda: _opened(machine()), "no HELLO came within 30 s"),
    ],
)
def test_an_attempt_that_takes_too_long_fails_and_says_where_it_got_stuck(stage, words: str) -> None:  # type: ignore[no-untyped-def]
    m = stage()
    assert m.deadline == 30
    assert m.tick(29) == []
    assert kinds(m.tick(30)) == [SendBye, DropConnection]
    assert m.outcome is not None
    assert words in m.outcome.reason
    assert m.state is PeerState.FAILED


def _started(m: Negotiation) -> Negotiation:
    m.connect(0)
    return m


def _opened(m: Negotiation) -> Negotiation:
    settled(m).channel_opened(OUR_NAME)
    return m


# --- whole histories --------------------------------------------------------------------------------------------------

CAPABILITIES = st.sampled_from([ALL, NO_RESTART])
HISTORIES = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


@HISTORIES
@given(
    alice=CAPABILITIES,
    bob=CAPABILITIES,
    script=st.lists(st.integers(min_value=0, max_value=10_000), max_size=120),
)
def test_two_sides_always_come_to_rest_with_one_connection_or_none(
    alice: Capabilities, bob: Capabilities, script: list[int]
) -> None:
    """Whatever is lost, repeated, reordered, refused, killed: never stuck, and a last try always connects."""
    world = World(alice, bob)
    world.torment(script)
    world.settle()
    world.check_rest()
    # Offers are limited in time, and the history may have used them up.
    world.advance(ATTEMPT + HEAL)
    world.connect(world.halves[len(script) % 2])
    world.settle()
    world.check_rest()
    assert [half.machine.state for half in world.halves] == [PeerState.CONNECTED] * 2


@HISTORIES
@given(
    alice=CAPABILITIES,
    bob=CAPABILITIES,
    order=st.lists(st.integers(min_value=0, max_value=10_000), max_size=60),
)
def test_both_connecting_at_once_get_one_connection_in_whatever_order_messages_arrive(
    alice: Capabilities, bob: Capabilities, order: list[int]
) -> None:
    world = World(alice, bob)
    for half in world.halves:
        world.connect(half)
    for number in order:
        steps = world.peaceful()
        if steps:
            steps[number % len(steps)]()
    world.settle()
    world.check_rest()
    assert [half.machine.state for half in world.halves] == [PeerState.CONNECTED] * 2
    assert world.now == 0, "it took a time-out to get there"
