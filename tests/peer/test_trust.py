"""What a signature has to cover, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import PeerKeyChanged, ProofInvalid
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.trust import MAX_NONCES, MAX_PEERS, Trust
from aldis.protocol.codec import to_base64
from aldis.protocol.messages import Proof

NAME = "n" * 22
OFFER = "v=0 the offer"
ANSWER = "v=0 the answer"


class World:
    def __init__(self) -> None:
        self.pins = MemoryPins()
        self.identity = {user: Identity.generate() for user in ("alice", "bob", "mallory")}
        self.alice = Trust(self.identity["alice"], "alice", "s", MemoryPins())
        self.bob = Trust(self.identity["bob"], "bob", "s", self.pins)
        self.mallory = Trust(self.identity["mallory"], "alice", "s", MemoryPins())  # says that she is alice


@pytest.fixture
def world() -> World:
    return World()


def test_an_offer_and_its_answer_pass_and_pin_the_keys(world: World) -> None:
    offer = world.alice.sign_offer("bob", NAME, OFFER)
    world.bob.check_offer("alice", NAME, OFFER, offer)
    assert world.pins.find("s", "alice") == world.identity["alice"].public_key
    answer = world.bob.sign_answer("alice", NAME, ANSWER, offer_sdp=OFFER, nonce=offer.nonce)
    world.alice.check_answer("bob", NAME, ANSWER, answer, offer_sdp=OFFER, nonce=offer.nonce)


def test_an_answer_passes_as_often_as_it_comes(world: World) -> None:
    """Its nonce is the offer's; whether it is still wanted is for the negotiation to say."""
    offer = world.alice.sign_offer("bob", NAME, OFFER)
    answer = world.bob.sign_answer("alice", NAME, ANSWER, offer_sdp=OFFER, nonce=offer.nonce)
    for _ in range(2):
        world.alice.check_answer("bob", NAME, ANSWER, answer, offer_sdp=OFFER, nonce=offer.nonce)


@pytest.mark.parametrize(
    ("sender", "name", "sdp"),
    [("carol", NAME, OFFER), ("alice", "m" * 22, OFFER), ("alice", NAME, OFFER + " ")],
    ids=["another sender", "another connection", "another description"],
)
def test_an_offer_that_was_altered_is_refused_and_pins_nothing(world: World, sender: str, name: str, sdp: str) -> None:
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    with pytest.raises(ProofInvalid, match="signature"):
        world.bob.check_offer(sender, name, sdp, proof)
    assert world.pins.find("s", sender) is None
    world.bob.check_offer("alice", NAME, OFFER, proof)  # and the true one still passes


def test_an_offer_to_somebody_else_is_refused(world: World) -> None:
    with pytest.raises(ProofInvalid, match="signature"):
        world.bob.check_offer("alice", NAME, OFFER, world.alice.sign_offer("carol", NAME, OFFER))


def test_an_answer_is_no_offer_and_an_offer_no_answer(world: World) -> None:
    offer = world.alice.sign_offer("bob", NAME, OFFER)
    answer = world.bob.sign_answer("alice", NAME, ANSWER, offer_sdp=OFFER, nonce=offer.nonce)
    with pytest.raises(ProofInvalid):
        world.alice.check_offer("bob", NAME, ANSWER, answer)
    with pytest.raises(ProofInvalid):
        world.bob.check_answer("alice", NAME, OFFER, offer, offer_sdp=OFFER, nonce=offer.nonce)


@pytest.mark.parametrize("changed", ["sdp", "offer_sdp", "name", "nonce", "sender"])
def test_an_answer_that_was_altered_or_belongs_elsewhere_is_refused(world: World, changed: str) -> None:
    offer = world.alice.sign_offer("bob", NAME, OFFER)
    answer = world.bob.sign_answer("alice", NAME, ANSWER, offer_sdp=OFFER, nonce=offer.nonce)
    another = world.alice.sign_offer("bob", NAME, OFFER).nonce
    with pytest.raises(ProofInvalid):
        world.alice.check_answer(
            "carol" if changed == "sender" else "bob",
            "m" * 22 if changed == "name" else NAME,
            ANSWER + "x" if changed == "sdp" else ANSWER,
            answer,
            offer_sdp=OFFER + "x" if changed == "offer_sdp" else OFFER,
            nonce=another if changed == "nonce" else offer.nonce,
        )


def test_an_offer_with_the_key_of_another_is_refused_once_a_key_is_pinned(world: World) -> None:
    world.bob.check_offer("alice", NAME, OFFER, world.alice.sign_offer("bob", NAME, OFFER))
    with pytest.raises(PeerKeyChanged) as caught:
        world.bob.check_offer("alice", NAME, OFFER, world.mallory.sign_offer("bob", NAME, OFFER))
    assert caught.value.pinned == world.identity["alice"].public_key
    assert caught.value.offered == world.identity["mallory"].public_key
    # A person decides that the new key is right.
    world.pins.accept("s", "alice", world.identity["mallory"].public_key)
    world.bob.check_offer("alice", NAME, OFFER, world.mallory.sign_offer("bob", NAME, OFFER))


def test_an_answer_with_the_key_of_another_is_refused(world: World) -> None:
    world.alice._pins.pin("s", "bob", world.identity["bob"].public_key)
    offer = world.alice.sign_offer("bob", NAME, OFFER)
    false_bob = Trust(world.identity["mallory"], "bob", "s", MemoryPins())
    answer = false_bob.sign_answer("alice", NAME, ANSWER, offer_sdp=OFFER, nonce=offer.nonce)
    with pytest.raises(PeerKeyChanged):
        world.alice.check_answer("bob", NAME, ANSWER, answer, offer_sdp=OFFER, nonce=offer.nonce)


def test_a_key_under_which_the_signature_is_wrong_is_never_said_to_have_changed(world: World) -> None:
    """Otherwise anybody could make people accept new keys, by naming one that they like."""
    world.bob.check_offer("alice", NAME, OFFER, world.alice.sign_offer("bob", NAME, OFFER))
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    proof.public_key = to_base64(world.identity["mallory"].public_key)
    with pytest.raises(ProofInvalid):
        world.bob.check_offer("alice", NAME, OFFER, proof)


def test_an_offer_is_taken_once(world: World) -> None:
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    world.bob.check_offer("alice", NAME, OFFER, proof)
    with pytest.raises(ProofInvalid, match="used before"):
        world.bob.check_offer("alice", NAME, OFFER, proof)


def test_others_cannot_push_an_offer_out_of_the_memory(world: World) -> None:
    """Unproven offers leave no trace, and each proven one only pushes out those of the same peer."""
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    world.bob.check_offer("alice", NAME, OFFER, proof)
    carol = Trust(Identity.generate(), "carol", "s", MemoryPins())
    for _ in range(MAX_NONCES + 10):
        world.bob.check_offer("carol", NAME, OFFER, carol.sign_offer("bob", NAME, OFFER))
        with pytest.raises(ProofInvalid):
            world.bob.check_offer("alice", NAME, "forged", carol.sign_offer("bob", NAME, OFFER))
    with pytest.raises(ProofInvalid, match="used before"):
        world.bob.check_offer("alice", NAME, OFFER, proof)


def test_the_memory_is_bounded(world: World) -> None:
    for _ in range(MAX_NONCES + 10):
        world.bob.check_offer("alice", NAME, OFFER, world.alice.sign_offer("bob", NAME, OFFER))
    assert len(world.bob._nonces["alice"]) == MAX_NONCES
    identity = Identity.generate()
    for number in range(MAX_PEERS + 10):
        sender = Trust(identity, f"user{number}", "s", MemoryPins())
        world.bob.check_offer(f"user{number}", NAME, OFFER, sender.sign_offer("bob", NAME, OFFER))
    assert len(world.bob._nonces) == MAX_PEERS


@pytest.mark.parametrize("name", [None, "", "a\x00b", "n" * 129, "with space"])
def test_a_connection_name_that_cannot_be_signed_is_refused(world: World, name: str | None) -> None:
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    with pytest.raises(ProofInvalid, match="names no connection"):
        world.bob.check_offer("alice", name, OFFER, proof)
    with pytest.raises(ProofInvalid, match="names no connection"):
        world.bob.check_answer("alice", name, OFFER, proof, offer_sdp=OFFER, nonce=proof.nonce)


def test_no_proof_is_no_proof(world: World) -> None:
    with pytest.raises(ProofInvalid, match="no proof"):
        world.bob.check_offer("alice", NAME, OFFER, None)
    with pytest.raises(ProofInvalid, match="no proof"):
        world.bob.check_answer("alice", NAME, ANSWER, None, offer_sdp=OFFER, nonce="")


@given(field=st.sampled_from(["public_key", "nonce", "signature"]), value=st.text(max_size=100))
def test_a_field_of_nonsense_is_refused(field: str, value: str) -> None:
    world = World()
    proof = world.alice.sign_offer("bob", NAME, OFFER)
    fields = {name: getattr(proof, name) for name in proof.__struct_fields__}
    with pytest.raises(ProofInvalid):
        world.bob.check_offer("alice", NAME, OFFER, Proof(**{**fields, field: value}))
    assert world.pins.find("s", "alice") is None


def test_pins_of_another_server_count_for_nothing(world: World) -> None:
    world.bob.check_offer("alice", NAME, OFFER, world.alice.sign_offer("bob", NAME, OFFER))
    elsewhere = Trust(world.identity["bob"], "bob", "another server", world.pins)
    elsewhere.check_offer("alice", NAME, OFFER, world.mallory.sign_offer("bob", NAME, OFFER))
    assert world.pins.find("s", "alice") != world.pins.find("another server", "alice")
