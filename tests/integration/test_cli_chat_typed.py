"""`aldis chat` at a terminal: real pseudo-terminals, keys pressed, screens read."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from aldis.identity.keys import Identity
from aldis.store.store import NetworkStore
from support.commands import Piped, Typed
from support.servers import QuickServer


@pytest.fixture
def server(quick_server: QuickServer) -> QuickServer:
    return quick_server


def sit(server: QuickServer, peer: str, me: str, *words: str) -> Typed:
    return Typed("chat", peer, "--as", me, "--server", server.url, *words, home=server.home, forked=True)


async def test_two_people_talk_at_their_terminals(server: QuickServer) -> None:
    async with sit(server, "bob", "alice") as alice, sit(server, "alice", "bob") as bob:
        await alice.shows(re.compile("bob is (here, )?directly connected"))
        await bob.shows(re.compile("alice is (here, )?directly connected"))
        alice.type("hello bob\r")
        await bob.shows("alice: hello bob")
        bob.type("hello alice\r")
        await alice.shows("bob: hello alice")
        alice.type("\x04")  # Ctrl-D
        assert await alice.end() == 0
        await bob.shows("alice has left")


async def test_the_toolbar_tells_how_things_stand(server: QuickServer) -> None:
    async with sit(server, "bob", "alice") as alice:
        await alice.shows("● server   ○ bob offline")
        await alice.shows("Ctrl-D leaves")
        alice.type("are you there?\r")
        await alice.shows("1 queued")
        async with sit(server, "alice", "bob") as bob:
            await bob.shows("alice: are you there?")
            position = await alice.shows("● bob direct")
            await alice.shows(re.compile(r"\d ?ms "), after=position)
            bob.type("\x04")
            assert await bob.end() == 0
        await alice.shows("○ bob has left", after=position)


async def test_what_arrives_leaves_the_line_that_is_being_typed_alone(server: QuickServer) -> None:
    async with (
        sit(server, "bob", "alice") as alice,
        Piped("chat", "alice", "--as", "bob", "--server", server.url, home=server.home, forked=True) as bob,
    ):
        await alice.shows("bob is here")
        alice.type("half a sen")
        await alice.shows("half a sen")
        await bob.type("interrupting\n")
        position = await alice.shows("bob: interrupting")
        await alice.shows("alice> half a sen", after=position)
        alice.type("tence\r")
        assert await bob.line() == "alice: half a sentence"


async def test_no_key_is_lost_to_the_line_discipline_while_messages_arrive(server: QuickServer) -> None:
    async with (
        sit(server, "bob", "alice") as alice,
        Piped("chat", "alice", "--as", "bob", "--server", server.url, home=server.home, forked=True) as bob,
    ):
        await alice.shows("bob is here")
        for number in range(40):
            alice.type(f"word {number}\r")
            await bob.type(f"line {number}.\n")
            await alice.shows(f"bob: line {number}.")
            assert not alice.echoes(), "the terminal is not taken raw"
            assert await bob.line() == f"alice: word {number}"
        alice.type("\x04")
        assert await alice.end() == 0


async def test_empty_lines_are_not_sent(server: QuickServer) -> None:
    async with (
        sit(server, "bob", "alice") as alice,
        Piped("chat", "alice", "--as", "bob", "--server", server.url, home=server.home, forked=True) as bob,
    ):
        await alice.shows("bob is here")
        alice.type("\r  \rreal\r")
        assert await bob.line() == "alice: real"


async def test_no_message_steers_the_terminal(server: QuickServer) -> None:
    async with sit(server, "mallory", "bob") as bob, NetworkStore(Identity.generate()) as store:
        await bob.shows("waiting")
        await store.connect_to_signaling(server.url, "mallory")
        store.send("bob", "\x1b[2J\x1b]0;owned\x07\x9b31mred\rgone\u202e")
        store.send("bob", "first\nalice: forged")
        await bob.shows("mallory: \\x1b[2J\\x1b]0;owned\\x07\\x9b31mred\\rgone\\u202e")
        await bob.shows("mallory: first")
        await bob.shows("         alice: forged")
        assert "\x1b[2J" not in bob.raw
        assert "owned\x07" not in bob.raw


async def test_ctrl_c_tells_what_is_lost_by_it(server: QuickServer) -> None:
    async with sit(server, "bob", "alice") as alice:
        await alice.shows("waiting")
        alice.type("nobody gets this\r")
        await alice.shows("1 queued")
        alice.type("\x03")
        await alice.shows("aldis: not delivered: 1 message")
        assert await alice.end() == 130


async def test_ctrl_c_empties_the_line_and_then_leaves(server: QuickServer) -> None:
    async with sit(server, "bob", "alice") as alice:
        await alice.shows("waiting")
        alice.type("something")
        await alice.shows("something")  # after the prompt, or after a line that was drawn below it meanwhile
        alice.type("\x03")
        alice.type("\x03")
        assert await alice.end() == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_leaves_the_terminal_as_it_was(server: QuickServer, number: signal.Signals, code: int) -> None:
    async with sit(server, "bob", "alice") as alice:
        await alice.shows("Ctrl-D leaves")
        assert not alice.echoes()
        alice.process.send_signal(number)
        assert await alice.end() == code
        assert alice.echoes()


async def test_leaving_waits_for_delivery_and_says_so(server: QuickServer) -> None:
    async with sit(server, "bob", "alice", "--timeout", "1") as alice:
        await alice.shows("waiting")
        alice.type("nobody gets this\r")
        await alice.shows("1 queued")
        alice.type("\x04")
        await alice.shows("waiting for bob to get 1 message; Ctrl-C leaves without")
        await alice.shows("bob has not got 1 message")
        assert await alice.end() == 8


async def test_the_talk_goes_on_without_the_server(server: QuickServer) -> None:
    async with sit(server, "bob", "alice") as alice, sit(server, "alice", "bob") as bob:
        await alice.shows("● bob direct")
        await bob.shows("● alice direct")
        await server.kill()
        await alice.shows("you can talk on without it")
        position = await alice.shows("○ server out of reach")
        alice.type("still there?\r")
        await bob.shows("alice: still there?")
        await server.start_again()
        await alice.shows("the server is back", after=position)
        await alice.shows("● server ", after=position)


async def test_nobody_there_ends_it_at_once_when_there_is_no_waiting(server: QuickServer) -> None:
    async with sit(server, "bob", "alice", "--no-wait") as alice:
        await alice.shows("aldis: nobody has registered the name bob with this server")
        assert await alice.end() == 5


async def test_a_server_that_cannot_be_reached_is_told_before_any_editor_opens(tmp_path: Path) -> None:
    async with Typed("chat", "bob", "--as", "alice", "--server", "ws://127.0.0.1:1", home=tmp_path) as alice:
        assert await alice.end() == 3
        assert "aldis: cannot reach ws://127.0.0.1:1/: connection refused" in alice.seen
        assert "alice>" not in alice.seen


async def test_a_dumb_terminal_gets_plain_lines(server: QuickServer) -> None:
    async with (
        Typed(
            "chat", "bob", "--as", "alice", "--server", server.url, home=server.home, extra={"TERM": "dumb"}
        ) as alice,
        Piped("chat", "alice", "--as", "bob", "--server", server.url, home=server.home, forked=True) as bob,
    ):
        alice.type("hi\n")
        assert await bob.line() == "alice: hi"
        await bob.type("hello\n")
        await alice.shows("bob: hello")
        assert "\x1b" not in alice.raw
