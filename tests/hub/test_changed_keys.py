"""Whoever is registered with a key to which the name is not bound ends, in whatever order the directory answers."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aldis.backends.base import DirectoryAnswer, Question
from aldis.hub.name_queue import NameAccess, NameQueues
from aldis.hub.stages import Stage
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from support.hub_world import Client, World, identity_of

OLD = identity_of("alice")
NEW, THIRD = (Identity.from_seed(letter * 32) for letter in (b"n", b"t"))


def rotation(new: Identity = NEW, old: Identity = OLD, user_id: str = "alice") -> dict[str, Any]:
    signature = old.sign(proofs.rotation(user_id, new.public_key))
    return {"type": "rotate", "newPublicKey": to_base64(new.public_key), "signature": to_base64(signature), "id": 7}


def only_the_bound_key_is_registered(world: World) -> None:
    for session in world.hub._presence.sessions():
        bound = world.keys.get(session.user_id)
        if not session.dialect.proves:
            assert bound is None
        else:
            assert bound is not None
            assert session.key == to_base64(bound), session.stage


@pytest.mark.parametrize(
    "leave",
    [
        lambda world, alice: alice.lose(clean=True),
        lambda world, alice: alice.lose(),
        lambda world, alice: (alice.lose(), world.pass_time(40)),
        lambda world, alice: [alice.send(type="ping") for _ in range(300)],
    ],
    ids=["on purpose", "lost", "lost and not resumed", "thrown out"],
)
def test_a_rotation_ends_the_old_key_though_its_asker_has_gone(leave: Any) -> None:
    world = World()
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    lost = world.client("alice", device="lost")
    world.directory_waits = True
    alice.send(**rotation())
    lost.lose()
    leave(world, alice)
    world.hub.heard(phone.session, world.now)
    world.answer()
    if phone.closed is None or phone.closed[0] != 4003:  # it did not answer a ping in those 40 s
        assert phone.closed == (4501, "the key of this name was rotated")
    assert lost.session.stage is Stage.CLOSED
    only_the_bound_key_is_registered(world)


def test_who_asked_for_a_rotation_and_was_lost_resumes_with_the_new_key() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    alice.send(**rotation())
    alice.lose()
    bob.send(type="bye", to="alice", reason="meanwhile")
    world.answer()
    world.directory_waits = False
    back = world.connect()
    assert back.register("alice", resume=alice.ticket(0))["code"] == "key-mismatch"
    assert back.register("alice", identity=NEW, resume=alice.ticket(0))["resumed"] is True
    assert back.inbox[-1]["reason"] == "meanwhile"


def test_a_registration_with_the_old_key_waits_for_the_rotation_and_is_refused() -> None:
    world = World()
    alice = world.client("alice")
    world.directory_waits = True
    alice.send(**rotation())
    phone = world.connect()
    phone.register("alice", device="phone")
    assert len(world.questions) == 1, "one of the two would be answered with what the other changes"
    world.answer()
    assert phone.inbox[-1]["code"] == "key-mismatch"
    only_the_bound_key_is_registered(world)


def test_of_two_rotations_that_cross_one_counts_and_the_other_one_ends() -> None:
    world = World()
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    world.directory_waits = True
    alice.send(**rotation())
    phone.send(**rotation(THIRD))
    world.answer()
    assert alice.take_one() == {"type": "rotated", "publicKey": to_base64(NEW.public_key), "re": 7}
    assert phone.closed == (4501, "the key of this name was rotated")
    only_the_bound_key_is_registered(world)


def test_a_rotation_that_failed_may_have_taken_effect_and_is_looked_up() -> None:
    world = World()
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    world.directory_waits = True
    alice.send(**rotation())
    (question,) = world.questions
    world.questions.clear()
    world.look_up(question)  # it took effect, and the answer was lost
    world.hub.failed(question, world.now)
    assert alice.take_one()["code"] == "internal"
    alice.send(**rotation())
    assert (error := alice.take_one())["code"] == "internal"
    assert error["temporary"] is True
    world.directory_fails = True
    world.pass_time(3)
    world.answer()
    assert phone.closed is None, "the directory still does not say"
    world.directory_fails = world.directory_waits = False
    world.pass_time(1)
    world.answer()
    assert phone.closed == (4501, "the key of this name was rotated")
    alice.send(**rotation())
    assert alice.take_one() == {"type": "rotated", "publicKey": to_base64(NEW.public_key), "re": 7}
    only_the_bound_key_is_registered(world)


def test_a_rotation_that_failed_and_did_nothing_ends_nobody() -> None:
    world = World()
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    world.directory_fails = True
    alice.send(**rotation())
    world.directory_fails = False
    world.pass_time(1)
    world.answer()
    assert alice.closed is phone.closed is None
    alice.take()
    alice.send(**rotation())
    assert alice.take_one()["type"] == "rotated"


def test_a_release_ends_all_connections_of_the_name_and_frees_it() -> None:
    world = World()
    alice, lost, bob = world.client("alice"), world.client("alice", device="lost"), world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    lost.lose()
    bob.take()
    outcomes: list[bool | None] = []
    world.hub.release("alice", outcomes.append)
    world.settle()
    assert outcomes == [True]
    assert alice.closed == (4501, "the name was released")
    assert [m["online"] for m in bob.take()][-1] is False
    assert not world.hub.online("alice")
    assert world.connect().register("alice", identity=NEW)["type"] == "registered"
    world.hub.release("nobody", outcomes.append)
    world.answer()
    world.directory_fails = True
    world.hub.release("alice", outcomes.append)
    world.settle()
    assert outcomes == [True, False, None]


def test_what_another_process_did_to_a_name_counts_as_soon_as_it_is_asked_for() -> None:
    world = World()
    alice = world.client("alice")
    world.keys["alice"] = NEW.public_key  # released and bound again, in the same file
    phone = world.connect()
    assert phone.register("alice", device="phone", identity=NEW)["type"] == "registered"
    assert alice.closed == (4501, "the key of this name was rotated")


@pytest.mark.parametrize("fails", [False, True])
def test_a_claim_that_bound_the_name_and_admitted_nobody_ends_a_classic_client_all_the_same(fails: bool) -> None:
    world = World(auth="open")
    world.directory_waits = True
    squatter, alice = world.connect(classic=True), world.connect()
    squatter.send(type="register", userId="alice", publicKey="x")
    alice.register("alice")
    look = world.questions.pop()
    world.hub.answered(look, None, world.now)
    (claim,) = world.questions
    world.questions.clear()
    bound = world.look_up(claim)
    if fails:
        world.hub.failed(claim, world.now)
        world.directory_waits = False
        world.pass_time(1)
        world.answer()
    else:
        alice.lose()
        world.hub.answered(claim, bound, world.now)
    assert squatter.closed == (4001, "the owner of the name has registered")


def test_a_sealing_key_goes_with_the_key_that_has_signed_it() -> None:
    world = World()
    seal_key = b"s" * 32
    signature = OLD.sign(proofs.seal("alice", "main", seal_key))
    fields = {"publicKey": to_base64(seal_key), "signature": to_base64(signature)}
    alice = world.client("alice", sealKey=fields)
    alice.send(**rotation())
    alice.take()
    alice.send(type="discover", userId="alice")
    assert alice.take_one()["devices"] == [{"device": "main"}]


class Chaos:
    """A directory that acts on questions and answers them in any order, or fails before or after it has acted."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed=seed, auth="open", resume_window=5.0, registration_seconds=1e9)
        self.world.directory_waits = True
        self.answers: list[tuple[Question, DirectoryAnswer, bool]] = []
        self.clients: list[Client] = []
        self.keys = [OLD, NEW, THIRD]

    def step(self) -> None:
        rng, world = self.rng, self.world
        match rng.randrange(12):
            case 0 | 1:
                self.register()
            case 2 | 3 | 4 if self.clients:
                client = rng.choice(self.clients)
                client.send(**rotation(rng.choice(self.keys), client.identity))
            case 5 if self.clients:
                rng.choice(self.clients).lose(clean=rng.random() < 0.5)
            case 6:
                world.hub.release("alice", lambda outcome: None)
            case 7:
                world.pass_time(1)
                for client in self.clients:
                    world.hub.heard(client.session, world.now)
            case 8 | 9 if world.questions:
                self.act(rng.random() < 0.2)
            case _ if self.answers:
                self.deliver()
        self.clients = [client for client in self.clients if client.session.connection is not None]

    def register(self) -> None:
        rng, world = self.rng, self.world
        if rng.random() < 0.15:
            client = world.connect(classic=True)
            client.send(type="register", userId="alice", publicKey="x")
        else:
            client = world.connect()
            more: dict[str, Any] = {}
            known = [other for other in self.clients if other.registered and "session" in other.registered]
            if known and rng.random() < 0.3:
                more["resume"] = rng.choice(known).ticket(0)
            client.register("alice", device=rng.choice("abc"), identity=rng.choice(self.keys), **more)
        self.clients.append(client)

    def act(self, fails: bool) -> None:
        question = self.world.questions.pop(self.rng.randrange(len(self.world.questions)))
        if fails and self.rng.random() < 0.5:
            self.answers.append((question, None, True))
        else:
            self.answers.append((question, self.world.look_up(question), fails))

    def deliver(self) -> None:
        question, answer, failed = self.answers.pop(self.rng.randrange(len(self.answers)))
        if failed:
            self.world.hub.failed(question, self.world.now)
        else:
            self.world.hub.answered(question, answer, self.world.now)
        for client in self.clients:
            for message in client.inbox:
                if message["type"] == "registered" and message["success"]:
                    client.registered = message

    def settle(self) -> None:
        for _ in range(3):
            while self.world.questions or self.answers:
                while self.world.questions:
                    self.act(False)
                while self.answers:
                    self.deliver()
            self.world.hub.tick(self.world.now)
            self.world.work()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_after_all_answers_only_the_bound_key_is_registered(seed: int, steps: int) -> None:
    chaos = Chaos(seed)
    for _ in range(steps):
        chaos.step()
    chaos.settle()
    only_the_bound_key_is_registered(chaos.world)
    assert chaos.world.hub.pending == 0
    assert not chaos.world.hub._lookups._queues
    assert not [client for client in chaos.clients if client.session.waiting], "nobody waits for ever"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NameAccess), st.booleans()), max_size=30), st.randoms(use_true_random=False))
def test_questions_about_a_name_start_in_order_and_one_that_changes_its_binding_runs_alone(
    entries: list[tuple[NameAccess, bool]], rng: random.Random
) -> None:
    running: list[int] = []
    begun: list[int] = []

    def start(index: int) -> bool:
        kind, wanted = entries[index]
        if wanted:
            assert all(entries[other][0] is kind is not NameAccess.ALONE for other in running)
            running.append(index)
        begun.append(index)
        return wanted

    queues = NameQueues(start)
    for index, (kind, _) in enumerate(entries):
        queues.put("alice", kind, index)
        if running and rng.random() < 0.4:
            running.pop(rng.randrange(len(running)))
            queues.done("alice")
    while running:
        running.pop(rng.randrange(len(running)))
        queues.done("alice")
    assert begun == list(range(len(entries)))
    assert len(queues) == 0


async def test_a_server_releases_a_name_for_its_operator(tmp_path: Any) -> None:
    from aldis.server.app import SignalingServer
    from support.raw_websocket import RawClient
    from support.settings import config

    async with SignalingServer(config(data=str(tmp_path))) as server:
        async with await RawClient.connect(server.port) as alice:
            await alice.register("alice", OLD)
            async with asyncio.timeout(10):
                assert await server.release("alice") is True
            assert await alice.wait_closed() == (4501, "the name was released")
        assert await server.release("alice") is False
        async with await RawClient.connect(server.port) as heir:
            assert (await heir.register("alice", NEW))["success"] is True
