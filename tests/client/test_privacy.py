"""Who may see a client's user, and who may call: asked of the real hub, and told again after every loss."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.client.events import Closed, Disconnected, PresenceChanged, PrivacyChanged, Registered, SignalingEvent
from aldis.client.machine import ClientMachine
from aldis.errors import InvalidAddress, RequestFailed, StateError
from aldis.protocol import messages as m
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange
from support.hub_pair import HubPair, PairedClient
from support.machine_bench import identity_of

BLOCKS_BOB = Privacy(blocked=frozenset({"bob"}))


def change(client: PairedClient, **fields: Any) -> Any:
    lists: dict[str, Any] = {name: v if isinstance(v, str) else frozenset(v) for name, v in fields.items()}
    return client.call(lambda machine, now: machine.change_privacy(PrivacyChange(**lists), now))


def told(client: PairedClient) -> list[SignalingEvent]:
    return [event for event in client.take_events() if not isinstance(event, Disconnected)]


def test_a_change_is_told_to_all_devices() -> None:
    pair = HubPair()
    laptop, phone, bob = pair.client("alice", device="laptop"), pair.client("alice", device="phone"), pair.client("bob")
    bob.call(lambda machine, now: machine.watch(["alice"], now)[0])
    bob.take_events()
    assert change(laptop, block={"bob"}) == laptop.machine.privacy == BLOCKS_BOB
    assert told(laptop) == told(phone) == [PrivacyChanged(BLOCKS_BOB)]
    assert [event.online for event in bob.take_events() if isinstance(event, PresenceChanged)] == [False]
    assert change(laptop) == BLOCKS_BOB
    assert told(laptop) == told(phone) == []
    both = change(phone, presence="contacts", offers="hidden", add_contacts={"carol"}, unblock={"bob"})
    assert both == Privacy("contacts", "hidden", frozenset({"carol"}))
    assert told(laptop) == told(phone) == [PrivacyChanged(both)]


def test_a_message_to_a_blocked_user_is_refused() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    pair.client("bob")
    change(alice, block={"bob"})
    with pytest.raises(RequestFailed) as caught:
        alice.call(lambda machine, now: machine.relay(m.Bye("bob"), now))
    assert (caught.value.code, caught.value.temporary) == ("blocked", False)


@pytest.mark.parametrize("end", ["lost", "crashed", "restarted"])
def test_what_was_changed_meanwhile_is_known_again_before_the_registration_is_told(end: str) -> None:
    pair = HubPair()
    laptop = pair.client("alice", device="laptop")
    match end:
        case "lost":
            laptop.cut()
            change(pair.client("alice", device="phone"), block={"bob"})
        case "crashed":
            pair.crash()
            pair.privacies["alice"] = BLOCKS_BOB
            pair.start()
        case _:
            pair.privacies["alice"] = BLOCKS_BOB
            pair.restart()
    laptop.take_events()
    pair.pass_time(30)
    events = told(laptop)
    assert laptop.machine.privacy == BLOCKS_BOB
    changed, registered = (next(n for n, e in enumerate(events) if isinstance(e, kind)) for kind in KINDS)
    assert changed < registered


KINDS = (PrivacyChanged, Registered)


def test_a_privacy_that_was_reset_meanwhile_is_the_default_again() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    change(alice, block={"bob"})
    pair.crash()
    pair.privacies.clear()
    pair.start()
    pair.pass_time(30)
    assert alice.machine.privacy == DEFAULT_PRIVACY


def test_calls_that_make_no_sense_change_nothing() -> None:
    pair = HubPair()
    early = pair.client("alice", register=False)
    with pytest.raises(StateError):
        change(early, block={"bob"})
    alice = pair.client("alice", identity=identity_of("alice"))
    with pytest.raises(InvalidAddress):
        change(alice, block={"b o b"})
    for fields in ({"block": {"alice"}}, {"block": {"bob"}, "unblock": {"bob"}}):
        with pytest.raises(RequestFailed) as caught:
            change(alice, **fields)
        assert caught.value.code == "invalid-field"
    assert alice.machine.privacy == DEFAULT_PRIVACY
    assert told(alice) == []


def test_a_word_of_a_newer_server_is_kept() -> None:
    pair = HubPair()
    alice = pair.client("alice")
    alice.do(lambda machine, now: _news(machine, now))
    assert alice.machine.privacy.presence == "friends of friends"
    assert not any(isinstance(event, Closed) for event in alice.events)


def _news(machine: ClientMachine, now: float) -> None:
    machine.received(
        '{"type":"privacy","presence":"friends of friends","offers":"public","contacts":[],"blocked":[]}', now
    )
