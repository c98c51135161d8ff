"""Seal keys: which is published, how long an earlier one opens handshakes, and whose signature counts."""

from __future__ import annotations

import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aldis.identity import proofs
from aldis.identity.keys import Identity, verify
from aldis.identity.seal_keys import MOST_KEYS, OLD_KEY_SECONDS, PublishedSealKey, SealKeys, checked_seal_key

ALICE = Identity.from_seed(bytes(range(32)))
MALLORY = Identity.from_seed(bytes(range(1, 33)))


def registered(keys: SealKeys, now: float, *, resuming: bool = False) -> PublishedSealKey:
    published = keys.to_register(ALICE, resuming=resuming)
    keys.registered(now)
    return published


def test_a_key_is_signed_for_its_user_and_device() -> None:
    published = SealKeys("alice", "phone").to_register(ALICE, resuming=False)
    assert verify(ALICE.public_key, published.signature, proofs.seal("alice", "phone", published.public_key))
    assert checked_seal_key(published, ALICE.public_key, "alice", "phone") == published.public_key
    assert checked_seal_key(published, ALICE.public_key, "alice", "main") is None
    assert checked_seal_key(published, ALICE.public_key, "bob", "phone") is None
    assert checked_seal_key(published, MALLORY.public_key, "alice", "phone") is None
    assert checked_seal_key(None, ALICE.public_key, "alice", "phone") is None


def test_a_key_of_another_kind_is_no_key_though_it_is_signed() -> None:
    hybrid = bytes(1216)
    published = PublishedSealKey(hybrid, ALICE.sign(proofs.seal("alice", "main", hybrid)))
    assert checked_seal_key(published, ALICE.public_key, "alice", "main") is None


def test_the_private_key_agrees_with_whoever_has_the_published_one() -> None:
    keys = SealKeys("alice", "main")
    published = registered(keys, 0.0)
    pair = keys.find(published.public_key, 0.0)
    assert pair is not None
    other = X25519PrivateKey.generate()
    assert pair.private.exchange(other.public_key()) == other.exchange(pair.private.public_key())


def test_each_registration_has_a_new_key_unless_it_resumes() -> None:
    keys = SealKeys("alice", "main")
    assert keys.current is None
    first = registered(keys, 0.0)
    assert registered(keys, 1.0, resuming=True) == first
    second = registered(keys, 2.0)
    assert second.public_key != first.public_key
    assert keys.current is not None
    assert keys.current.public_key == second.public_key


def test_a_registration_that_failed_shows_its_key_again_and_fills_no_room() -> None:
    keys = SealKeys("alice", "main")
    first = keys.to_register(ALICE, resuming=False)
    assert keys.to_register(ALICE, resuming=False) == first
    # After a rotation whose outcome was unknown, another identity signs it.
    signed = keys.to_register(MALLORY, resuming=False)
    assert checked_seal_key(signed, MALLORY.public_key, "alice", "main") == first.public_key


def test_an_earlier_key_opens_handshakes_for_a_minute_from_when_another_one_is_shown() -> None:
    keys = SealKeys("alice", "main")
    first = registered(keys, 0.0)
    pair, second = keys.to_publish(ALICE)
    assert keys.find(first.public_key, 1000.0) is not None  # the server still shows it
    keys.published(pair, 1000.0)
    assert keys.find(first.public_key, 1000.0 + OLD_KEY_SECONDS - 0.001) is not None
    assert keys.find(first.public_key, 1000.0 + OLD_KEY_SECONDS) is None
    assert keys.find(second.public_key, 1e9) is not None
    assert keys.find(bytes(32), 0.0) is None


def test_few_keys_are_kept_however_often_another_one_is_made() -> None:
    keys = SealKeys("alice", "main")
    made = [registered(keys, 0.0) for _ in range(100)]
    assert [keys.find(one.public_key, 0.0) is not None for one in made].count(True) == MOST_KEYS


def test_a_key_that_could_not_be_published_is_tried_again_and_the_published_one_stays() -> None:
    keys = SealKeys("alice", "main")
    published = registered(keys, 0.0)
    tries = [keys.to_publish(ALICE) for _ in range(10)]
    assert len({seal_key.public_key for _, seal_key in tries}) == 1
    assert keys.current is not None
    assert keys.current.public_key == published.public_key
    assert keys.find(published.public_key, 1e9) is keys.current
    pair, seal_key = tries[-1]
    keys.published(pair, 1e9)
    assert keys.current is pair
    assert keys.to_publish(ALICE)[1].public_key != seal_key.public_key


def test_the_published_key_stays_among_many_earlier_ones_while_another_one_waits() -> None:
    keys = SealKeys("alice", "main")
    for _ in range(MOST_KEYS):
        published = registered(keys, 0.0)
    _, waiting = keys.to_publish(ALICE)
    assert keys.find(published.public_key, 0.0) is keys.current
    assert keys.find(waiting.public_key, 0.0) is not None  # the server may have taken it, and its answer is lost


def test_a_session_resumes_with_the_published_key_and_not_with_one_that_waits() -> None:
    keys = SealKeys("alice", "main")
    published = registered(keys, 0.0)
    keys.to_publish(ALICE)
    assert registered(keys, 1.0, resuming=True) == published
    assert keys.find(published.public_key, 1e9) is keys.current


def test_an_expired_key_is_forgotten_though_no_handshake_comes() -> None:
    keys = SealKeys("alice", "main")
    registered(keys, 0.0)
    assert keys.current is not None
    private = keys.current.private
    references = sys.getrefcount(private)
    assert keys.next_expiry is None
    pair, _ = keys.to_publish(ALICE)
    keys.published(pair, 1000.0)
    end = 1000.0 + OLD_KEY_SECONDS
    assert keys.next_expiry == end
    keys.purge(end - 0.001)
    assert sys.getrefcount(private) == references
    keys.purge(end)
    assert sys.getrefcount(private) == references - 1  # ours
    again: float | None = keys.next_expiry
    assert again is None


def test_at_the_end_all_keys_are_forgotten() -> None:
    keys = SealKeys("alice", "main")
    published = registered(keys, 0.0)
    keys.to_publish(ALICE)
    keys.clear()
    assert keys.current is None
    assert keys.find(published.public_key, 0.0) is None


def test_the_signal_of_a_registration_without_a_key_changes_nothing() -> None:
    keys = SealKeys("alice", "main")
    keys.registered(0.0)
    assert keys.current is None
