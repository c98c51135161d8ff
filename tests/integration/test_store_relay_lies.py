"""A server between stores that only have the relay lies about sessions and devices, and keeps back what it likes.

A lie costs time, and nothing else: no message is lost, doubled, reordered, or handed to another device.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aldis.peer.sealing import HANDSHAKE
from aldis.protocol.codec import to_base64url
from support.evil_server import EvilServer, Message, evil_server
from support.relay_scene import (
    EACH_LANGUAGE,
    Languages,
    Talker,
    accept_key,
    cannot_reach,
    is_kind,
    relay_store,
    scene,
    sealed,
)
from support.stores import contents, identities

COUNT = 30


def session_of(message: Message) -> bytes:
    return sealed(message)[2:18]


def bye_to(message: Message, code: str | None, **more: object) -> Message:
    """What the recipient of a sealed message would say to refuse its session."""
    told: Message = {"type": "bye", "from": message["to"], "to": message["from"], "reason": "a lie"}
    return {**told, "connection": to_base64url(session_of(message)), **({"code": code} if code else {}), **more}


# --- what the server says in the name of the other side -------------------------------------------------------------


@EACH_LANGUAGE
@pytest.mark.parametrize("code", ["seal-unknown", "rate-limited", "bad-proof", None])
async def test_a_session_that_is_said_to_be_unknown_is_begun_anew(code: str | None, languages: Languages) -> None:
    async with scene(languages) as it:
        lies = 0

        def lie(message: Message) -> list[Message]:
            nonlocal lies
            if message["type"] != "relay" or lies == 3:
                return [message]
            lies += 1
            return [message, bye_to(message, code)]

        it.server.tamper = lie
        for number in range(COUNT):
            it.alice.send("bob", number)
            it.bob.send("alice", number)
        assert await contents(it.bob, COUNT) == list(range(COUNT))
        assert await contents(it.alice, COUNT) == list(range(COUNT))
        assert lies


@EACH_LANGUAGE
async def test_a_bye_that_comes_late_ends_no_later_session(languages: Languages) -> None:
    async with scene(languages) as it:
        sessions: list[Message] = []

        def note(message: Message) -> list[Message]:
            if is_kind(message, HANDSHAKE):
                sessions.append(message)
            return [message]

        it.server.tamper = note
        await it.alice.send("bob", "a")
        await it.alice.disconnect_from_peer("bob")
        await it.alice.send("bob", "b")
        began = len(sessions)
        for message in sessions[:-1]:
            for code in ("seal-unknown", "no-relay", "not-accepted"):
                await it.server.deliver(bye_to(message, code))
        await it.alice.send("bob", "c")
        assert await contents(it.bob, 3) == ["a", "b", "c"]
        assert len(sessions) == began


@EACH_LANGUAGE
async def test_a_session_that_is_refused_for_good_is_told_and_begun_when_the_other_side_speaks(
    languages: Languages,
) -> None:
    async with scene(languages) as it:
        it.server.tamper = lambda message: (
            [bye_to(message, "not-accepted")] if is_kind(message, HANDSHAKE) else [message]
        )
        it.alice.send("bob", "a")
        await cannot_reach(it.alice, "bob")
        it.server.tamper = lambda message: [message]
        await it.bob.send("alice", "hello")
        assert await contents(it.bob, 1) == ["a"]
        assert await contents(it.alice, 1) == ["hello"]


@EACH_LANGUAGE
async def test_presence_that_goes_and_comes_loses_and_doubles_nothing(languages: Languages) -> None:
    async with scene(languages) as it:
        told = 0

        def flap(message: Message) -> list[Message]:
            nonlocal told
            told += 1
            if told % 3 or told > 15:
                return [message]
            user_id = message["from"]
            away: Message = {"type": "presence", "to": message["to"], "userId": user_id, "online": False, "devices": []}
            return [message, away, {**away, **it.server.presence(user_id)}]

        it.server.tamper = flap
        for number in range(COUNT):
            it.alice.send("bob", number)
            it.bob.send("alice", number)
        assert await contents(it.bob, COUNT) == list(range(COUNT))
        assert await contents(it.alice, COUNT) == list(range(COUNT))
        assert told >= 3


# --- what the server keeps back -------------------------------------------------------------------------------------


@EACH_LANGUAGE
async def test_a_handshake_that_was_kept_back_brings_nothing_twice(languages: Languages) -> None:
    """It is of a session that its sender has given up since, and was never seen."""
    async with scene(languages) as it:
        held: list[Message] = []

        def hold(message: Message) -> list[Message]:
            if not is_kind(message, HANDSHAKE):
                return [message]
            held.append(message)
            return [] if len(held) == 1 else [message]

        it.server.tamper = hold
        for number in range(3):
            it.alice.send("bob", number)
        assert await contents(it.bob, 3) == [0, 1, 2]
        assert len(held) > 1
        await it.server.deliver(held[0])
        for number in range(3, 6):
            it.alice.send("bob", number)
            it.bob.send("alice", number)
        assert await contents(it.bob, 3) == [3, 4, 5]
        assert await contents(it.alice, 3) == [3, 4, 5]


@EACH_LANGUAGE
async def test_what_was_said_to_a_program_that_has_ended_is_worth_nothing_for_the_next_one(
    languages: Languages,
) -> None:
    keys = identities("alice", "bob")
    ours, theirs = languages
    async with evil_server(relay=True) as server, relay_store(ours, server, "alice", keys["alice"]) as alice:
        await accept_key(alice, "bob", keys["bob"].public_key)
        noted: list[Message] = []

        def note(message: Message) -> list[Message]:
            if message["type"] == "relay" and message["to"] == "bob":
                noted.append(message)
            return [message]

        server.tamper = note
        async with relay_store(theirs, server, "bob", keys["bob"]) as bob:
            await alice.send("bob", "one")
            await alice.send("bob", "two")
            assert await contents(bob, 2) == ["one", "two"]
        said = list(noted)
        async with relay_store(theirs, server, "bob", keys["bob"]) as bob:
            for message in said:
                await server.deliver(message)
            await server.deliver({"type": "presence", "to": "alice", **server.presence("bob")})
            await alice.send("bob", "three")
            assert await contents(bob, 1) == ["three"]


# --- a server that is slow ------------------------------------------------------------------------------------------


@EACH_LANGUAGE
async def test_no_session_is_lost_while_the_server_lets_a_sender_wait(languages: Languages) -> None:
    """It waits for longer than nothing may come. Both sides would begin anew again and again, and get nowhere."""
    async with scene(languages) as it:
        refused = 0

        def refuse(message: Message) -> float:
            nonlocal refused
            if is_kind(message, HANDSHAKE) or message["to"] == "alice/main" or refused == 2:
                return 0
            refused += 1
            return 2.5

        await it.alice.send("bob", 0)
        it.server.refuse = refuse
        for number in range(1, COUNT):
            it.alice.send("bob", number)
        assert await contents(it.bob, COUNT) == list(range(COUNT))
        await it.bob.send("alice", "back")
        assert refused == 2
        assert len([message for message in it.server.relayed if is_kind(message, HANDSHAKE)]) == 1


@EACH_LANGUAGE
async def test_a_server_that_takes_nothing_for_long_is_named_in_the_error(languages: Languages) -> None:
    async with scene(languages) as it:
        it.server.refuse = lambda message: 600
        it.alice.send("bob", "hello")
        await cannot_reach(it.alice, "bob", "the server did not take a message: .*too much")


# --- several devices of one user ------------------------------------------------------------------------------------


@asynccontextmanager
async def two_devices(languages: Languages) -> AsyncIterator[tuple[EvilServer, Talker, Talker, Talker]]:
    """The server, alice, and bob's two devices: `main`, and `phone`, which came last."""
    keys = identities("alice", "bob")
    ours, theirs = languages
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(evil_server(relay=True))
        devices: list[Talker] = []
        for language, address in ((ours, "alice"), (theirs, "bob"), (theirs, "bob/phone")):
            user_id = address.partition("/")[0]
            devices.append(await stack.enter_async_context(relay_store(language, server, address, keys[user_id])))
            other = "bob" if user_id == "alice" else "alice"
            await accept_key(devices[-1], other, keys[other].public_key)
        alice, main, phone = devices
        yield server, alice, main, phone


@EACH_LANGUAGE
async def test_each_device_of_a_user_has_a_session_and_an_order_of_its_own(languages: Languages) -> None:
    async with two_devices(languages) as (server, alice, main, phone):
        for number in range(COUNT):
            alice.send("bob/main", f"main {number}")
            alice.send("bob/phone", f"phone {number}")
            main.send("alice", f"of main {number}")
            phone.send("alice", f"of phone {number}")
        assert await contents(main, COUNT) == [f"main {number}" for number in range(COUNT)]
        assert await contents(phone, COUNT) == [f"phone {number}" for number in range(COUNT)]
        received = await contents(alice, 2 * COUNT)
        assert [text for text in received if "main" in str(text)] == [f"of main {number}" for number in range(COUNT)]
        assert [text for text in received if "phone" in str(text)] == [f"of phone {number}" for number in range(COUNT)]
        sessions = {session_of(message) for message in server.relayed if is_kind(message, HANDSHAKE)}
        assert len(sessions) >= 2


@EACH_LANGUAGE
async def test_what_is_for_one_device_is_worth_nothing_for_another(languages: Languages) -> None:
    async with two_devices(languages) as (server, alice, main, phone):
        other = {"bob": "bob/phone", "bob/phone": "bob"}

        def mix(message: Message) -> list[Message]:
            """Each device gets what is for the other one, too, and says all in the other's name, too."""
            copies = [{**message, key: other[message[key]]} for key in ("from", "to") if message[key] in other]
            return [*copies, message] if message["type"] == "relay" else [message]

        server.tamper = mix
        for number in range(COUNT):
            alice.send("bob/main", f"main {number}")
            alice.send("bob/phone", f"phone {number}")
            main.send("alice", f"of main {number}")
        assert await contents(main, COUNT) == [f"main {number}" for number in range(COUNT)]
        assert await contents(phone, COUNT) == [f"phone {number}" for number in range(COUNT)]
        assert await contents(alice, COUNT) == [f"of main {number}" for number in range(COUNT)]


@EACH_LANGUAGE
async def test_devices_whose_names_the_server_swaps_get_nothing(languages: Languages) -> None:
    async with two_devices(languages) as (server, alice, main, phone):
        other = {"bob": "bob/phone", "bob/phone": "bob"}
        server.tamper = lambda message: [{**message, "to": other.get(message["to"], message["to"])}]
        alice.send("bob/main", "for main")
        alice.send("bob/phone", "for the phone")
        await cannot_reach(alice, "bob/main")
        server.tamper = lambda message: [message]
        assert await contents(main, 1) == ["for main"]
        assert await contents(phone, 1) == ["for the phone"]
