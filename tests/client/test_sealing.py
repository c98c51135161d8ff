"""When a client publishes another sealing key."""

from __future__ import annotations

from aldis.client.effects import Effect, SealKeyDue
from aldis.client.sealing import RENEWAL_SECONDS, RETRY_SECONDS, SealKeySchedule, wire
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol import messages as m

KEY = m.SealKey("3q2+7w==", "c2lnbmF0dXJl")
RELAYS = m.Limits(65536, 10000, 30.0, relay=True)
TICKET = m.ResumeTicket("s", "x", 0)


def schedule() -> tuple[SealKeySchedule, list[Effect]]:
    effects: list[Effect] = []
    return SealKeySchedule(effects), effects


def test_a_key_on_the_wire_is_in_base64() -> None:
    assert wire(PublishedSealKey(b"\xde\xad\xbe\xef", b"signature")) == KEY


def test_nothing_is_due_without_a_key_and_where_nothing_is_relayed() -> None:
    keys, effects = schedule()
    keys.registered(m.Register("alice", "key"), RELAYS, 0.0, resumed=False)
    keys.registered(m.Register("alice", "key", seal_key=KEY), None, 0.0, resumed=False)
    keys.registered(m.Register("alice", "key", seal_key=KEY), m.Limits(65536, 10000, 30.0), 0.0, resumed=False)
    keys.rotated(0.0)
    keys.look(1e9)
    assert (keys.due, effects) == (None, [])


def test_a_key_that_is_published_only_after_the_registration_is_renewed_as_well() -> None:
    keys, _ = schedule()
    keys.registered(m.Register("alice", "key"), RELAYS, 0.0, resumed=False)
    keys.published(5.0)
    assert keys.due == 5.0 + RENEWAL_SECONDS


def test_another_key_is_due_each_hour_and_after_a_minute_when_that_failed() -> None:
    keys, effects = schedule()
    keys.registered(m.Register("alice", "key", seal_key=KEY), RELAYS, 0.0, resumed=False)
    keys.look(RENEWAL_SECONDS - 1)
    assert (keys.due, effects) == (RENEWAL_SECONDS, [])
    keys.look(RENEWAL_SECONDS)
    assert (keys.due, effects) == (RENEWAL_SECONDS + RETRY_SECONDS, [SealKeyDue()])
    keys.published(4000.0)
    assert keys.due == 4000.0 + RENEWAL_SECONDS


def test_a_resumed_session_keeps_its_key_and_one_that_is_over_does_not() -> None:
    keys, effects = schedule()
    request = m.Register("alice", "key", seal_key=KEY, resume=TICKET)
    keys.registered(request, RELAYS, 10.0, resumed=True)
    assert (keys.due, effects) == (10.0 + RENEWAL_SECONDS, [])
    keys.registered(request, RELAYS, 20.0, resumed=True)
    assert (keys.due, effects) == (10.0 + RENEWAL_SECONDS, [])
    keys.registered(request, RELAYS, 30.0, resumed=False)
    assert (keys.due, effects) == (30.0 + RETRY_SECONDS, [SealKeyDue()])


def test_after_a_rotation_another_key_is_due_at_once() -> None:
    keys, effects = schedule()
    keys.registered(m.Register("alice", "key", seal_key=KEY), RELAYS, 0.0, resumed=False)
    keys.rotated(5.0)
    assert effects == [SealKeyDue()]
