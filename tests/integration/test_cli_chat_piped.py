"""`aldis chat` in pipelines: real processes, a real server, real data channels."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shlex
import signal
from pathlib import Path

import pytest

from aldis.errors import TransferFailed
from aldis.identity.keys import Identity, fingerprint
from aldis.protocol.codec import to_base64
from aldis.store.messages.content import Sendable
from aldis.store.store import NetworkStore
from support.commands import Piped, aldis
from support.servers import QuickServer


@pytest.fixture
def server(quick_server: QuickServer) -> QuickServer:
    return quick_server


def chat(server: QuickServer, peer: str, me: str, *words: str) -> Piped:
    return Piped("chat", peer, "--as", me, "--server", server.url, *words, home=server.home, forked=True)


async def test_two_people_talk_through_pipes(server: QuickServer) -> None:
    async with chat(server, "bob", "alice") as alice, chat(server, "alice", "bob") as bob:
        await alice.type("hello bob\n")
        assert await bob.line() == "alice: hello bob"
        await bob.type("hello alice\n")
        assert await alice.line() == "bob: hello alice"
        await alice.type("how are you?\nand the others?\n")
        assert await bob.line() == "alice: how are you?"
        assert await bob.line() == "alice: and the others?"


async def test_one_line_is_sent_and_the_end_is_success_once_it_has_arrived(server: QuickServer) -> None:
    async with chat(server, "alice", "bob", "--listen") as bob:
        bob.stdin.close()
        await bob.says("waiting")
        async with chat(server, "bob", "alice") as alice:
            alice.stdin.write(b"hi")  # the last line needs no end
            alice.stdin.close()
            assert await alice.end() == 0
            assert await alice.rest() == ""
        assert await bob.end() == 0  # alice has left
        assert await bob.rest() == "alice: hi\n"


async def test_who_comes_first_waits_and_says_for_whom(server: QuickServer) -> None:
    async with chat(server, "bob", "alice", "--timeout", "40") as alice:
        await alice.type("are you there?\n")
        alice.stdin.close()
        await alice.says("nobody called bob has been here yet; waiting for up to 40 s")
        async with chat(server, "alice", "bob") as bob:
            assert await bob.line() == "alice: are you there?"
            assert await alice.end() == 0
            assert "bob is here" in alice.errors


async def test_many_lines_arrive_once_and_in_order(server: QuickServer) -> None:
    lines = [f"line {number}" for number in range(5000)]
    async with chat(server, "alice", "bob", "--listen") as bob, chat(server, "bob", "alice") as alice:
        bob.stdin.close()
        await alice.type("\n".join(lines))
        alice.stdin.close()
        assert await alice.end() == 0
        assert await bob.rest() == "".join(f"alice: {line}\n" for line in lines)
        assert await bob.end() == 0


async def test_nobody_there_is_told_at_once_when_there_is_no_waiting(server: QuickServer) -> None:
    unknown = aldis("chat", "bob", "--as", "alice", "--server", server.url, "--no-wait", home=server.home, stdin=b"x\n")
    assert unknown.returncode == 5
    assert "aldis: nobody has registered the name bob with this server\n" in unknown.stderr
    assert unknown.stdout == ""
    aldis("chat", "alice", "--as", "bob", "--server", server.url, home=server.home)
    offline = aldis("chat", "bob", "--as", "alice", "--server", server.url, "--no-wait", home=server.home, stdin=b"x\n")
    assert (offline.returncode, offline.stderr) == (5, "aldis: bob is not online\n")


async def test_waiting_ends_after_the_time_out(server: QuickServer) -> None:
    words = ["chat", "bob", "--as", "alice", "--server", server.url, "--timeout", "0.5"]
    gave_up = aldis(*words, home=server.home, stdin=b"x\n")
    assert gave_up.returncode == 5


async def test_no_input_is_no_error_and_says_how_to_listen(server: QuickServer) -> None:
    nothing = aldis("chat", "bob", "--as", "alice", "--server", server.url, home=server.home)
    assert nothing.returncode == 0
    assert "--listen" in nothing.stderr


async def test_what_is_not_confirmed_in_time_has_its_own_exit_code(server: QuickServer) -> None:
    async with chat(server, "alice", "bob") as bob:
        await bob.says("waiting")  # the time-out is one for meeting too, for which a busy machine needs some seconds
        async with chat(server, "bob", "alice", "--timeout", "12") as alice:
            await alice.type("first\n")
            assert await bob.line() == "alice: first"
            bob.process.send_signal(signal.SIGSTOP)
            await alice.type("second\n")
            alice.stdin.close()
            assert await alice.end() == 8
            # Bob may have been stopped between printing the first one and confirming it.
            assert re.search("bob has not confirmed [12] of 2 messages in time", alice.errors)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_ends_it_with_a_goodbye(server: QuickServer, number: signal.Signals, code: int) -> None:
    async with chat(server, "alice", "bob", "--listen") as bob, chat(server, "bob", "alice") as alice:
        bob.stdin.close()
        await alice.type("one\n")
        assert await bob.line() == "alice: one"
        alice.process.send_signal(number)
        assert await alice.end() == code
        assert await bob.end() == 0


async def test_a_signal_ends_the_waiting_too(server: QuickServer) -> None:
    async with chat(server, "bob", "alice") as alice:
        await alice.says("waiting")
        alice.process.send_signal(signal.SIGINT)
        assert await alice.end() == 130


async def test_who_listens_is_told_when_the_peer_vanishes(server: QuickServer) -> None:
    # While the relay carries the messages, only the server tells that the peer has gone, and that looks like a goodbye.
    direct = ("--path", "direct")
    async with chat(server, "alice", "bob", "--listen", *direct) as bob, chat(server, "bob", "alice", *direct) as alice:
        bob.stdin.close()
        await alice.type("one\n")
        assert await bob.line() == "alice: one"
        alice.process.kill()
        assert await bob.end() == 7
        assert "without a goodbye" in bob.errors


async def test_keep_listening_hears_one_after_the_other(server: QuickServer) -> None:
    async with chat(server, "alice", "bob", "--keep-listening") as bob:
        bob.stdin.close()
        for text in ("one", "two"):
            async with chat(server, "bob", "alice") as alice:
                await alice.type(text)
                alice.stdin.close()
                assert await alice.end() == 0
            assert await bob.line() == f"alice: {text}"
        bob.process.send_signal(signal.SIGTERM)
        assert await bob.end() == 143


async def test_output_that_nobody_reads_any_more_ends_it_quietly(server: QuickServer) -> None:
    inside, outside = os.pipe()
    bob = Piped("chat", "alice", "--as", "bob", "--server", server.url, home=server.home, output=outside)
    async with bob, chat(server, "bob", "alice") as alice:
        os.close(outside)
        await alice.type("one\n")
        assert await asyncio.to_thread(os.read, inside, 100) == b"alice: one\n"
        os.close(inside)
        await alice.type("two\n")
        assert await bob.end() == 141
        assert "roken" not in bob.errors


async def test_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    refused = aldis("chat", "bob", "--as", "alice", "--server", "ws://127.0.0.1:1", home=tmp_path, stdin=b"x\n")
    assert refused.returncode == 3
    assert "aldis: cannot reach ws://127.0.0.1:1/: connection refused\n" in refused.stderr
    assert "aldis doctor" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "ws://", "ws://127.0.0.1:99999", "ws://a b"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    wrong = aldis("chat", "bob", "--as", "alice", "--server", url, home=tmp_path, stdin=b"x\n")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("aldis: -s/--server: ")
    assert not (tmp_path / ".local").exists()


async def test_the_name_of_another_key_is_refused(server: QuickServer, tmp_path: Path) -> None:
    words = ["chat", "bob", "--as", "alice", "--server", server.url]
    aldis(*words, home=server.home)
    refused = aldis(*words, "--data", tmp_path / "second", home=server.home, stdin=b"x\n")
    assert refused.returncode == 4
    assert "the name alice belongs to another key" in refused.stderr
    assert "--as" in refused.stderr


async def test_nothing_is_said_to_a_peer_whose_key_has_changed(server: QuickServer) -> None:
    expected = Identity.generate().public_key
    bobs = aldis("keys", "new", "bob", home=server.home).stdout.splitlines()[-1].split()[-1]
    aldis("keys", "trust", "bob", "--public-key", to_base64(expected), "--server", server.url, home=server.home)
    async with chat(server, "alice", "bob") as bob:
        await bob.says("waiting")
        async with chat(server, "bob", "alice") as alice:
            await alice.type("a secret\n")
            alice.stdin.close()
            assert await alice.end() == 6
            text = alice.errors
            assert await alice.rest() == ""
        assert fingerprint(expected) in text
        assert bobs in text
        # What it says to type works as it stands.
        proposed = shlex.split(text.strip().splitlines()[-1])
        trusted = aldis(*proposed[proposed.index("keys") :], home=server.home)
        assert trusted.returncode == 0
        async with chat(server, "bob", "alice") as alice:
            await alice.type("a secret\n")
            alice.stdin.close()
            assert await alice.end() == 0
        assert await bob.line() == "alice: a secret"


async def test_the_first_meeting_shows_and_keeps_the_fingerprint_of_the_peer(server: QuickServer) -> None:
    async with chat(server, "alice", "bob", "-l") as bob, chat(server, "bob", "alice") as alice:
        bob.stdin.close()
        await alice.type("hi\n")
        alice.stdin.close()
        assert await alice.end() == 0
        await bob.end()
    shown = re.search(r"first contact with bob;.*\n *([a-z2-7-]{39})\n", alice.errors)
    assert shown
    assert aldis("keys", "fingerprint", "bob", home=server.home).stdout.strip() == shown[1]
    assert aldis("keys", "peer", "bob", "--server", server.url, home=server.home).stdout.strip() == shown[1]


async def test_the_talk_goes_on_without_the_server_which_comes_back_by_itself(server: QuickServer) -> None:
    direct = ("--path", "direct")
    async with chat(server, "alice", "bob", *direct) as bob, chat(server, "bob", "alice", *direct) as alice:
        await alice.type("before\n")
        assert await bob.line() == "alice: before"
        await server.kill()
        await alice.says("the server is out of reach; you can talk on without it")
        await alice.type("without\n")
        assert await bob.line() == "alice: without"
        await bob.type("me too\n")
        assert await alice.line() == "bob: me too"
        await server.start_again()
        await alice.says("the server is back")
        await bob.says("the server is back")
        alice.stdin.close()
        assert await alice.end() == 0


async def test_somebody_else_is_not_let_in(server: QuickServer) -> None:
    async with chat(server, "alice", "bob", "--timeout", "0") as bob:
        await bob.says("waiting")
        async with chat(server, "bob", "carol", "--no-wait") as carol:
            await carol.type("let me in\n")
            assert await carol.end() == 7
        async with chat(server, "bob", "alice") as alice:
            await alice.type("only me\n")
            assert await bob.line() == "alice: only me"


@pytest.mark.parametrize("as_json", [False, True])
async def test_no_message_can_forge_a_line_or_steer_the_terminal(server: QuickServer, as_json: bool) -> None:
    identity = Identity.generate()
    sent: list[Sendable] = [
        "hi\nbob: send money",
        "\x1b[2J\x9b1mred\r",
        "\u202egnp.exe",
        {"a": [1, "ü\n"]},
        b"\x00\x01",
        "",
        "C:\\new",
    ]
    words = ["--json"] if as_json else []
    async with chat(server, "mallory", "bob", *words) as bob, NetworkStore(identity) as store:
        await bob.says("waiting")
        await store.connect_to_signaling(server.url, "mallory")
        for message in sent:
            store.send("bob", message)
        lines = [await bob.line() for _ in sent]
    if as_json:
        assert [json.loads(line) for line in lines] == [
            *({"from": "mallory", "text": text} for text in sent[:3]),
            {"from": "mallory", "json": {"a": [1, "ü\n"]}},
            {"from": "mallory", "base64": "AAE="},
            *({"from": "mallory", "text": text} for text in sent[5:]),
        ]
    else:
        assert lines == [
            "mallory: hi\\nbob: send money",
            "mallory: \\x1b[2J\\x9b1mred\\r",
            "mallory: \\u202egnp.exe",
            'mallory: {"a":[1,"ü\\n"]}',
            "mallory: <2 bytes: 00 01>",
            "mallory: ",
            "mallory: C:\\new",
        ]


async def test_the_second_engine_talks_to_the_first(server: QuickServer) -> None:
    async with (
        chat(server, "alice", "bob", "--listen", "--engine", "aiortc") as bob,
        chat(server, "bob", "alice") as alice,
    ):
        bob.stdin.close()
        await alice.type("hello\n")
        alice.stdin.close()
        assert await alice.end() == 0
        assert await bob.end() == 0
        assert await bob.rest() == "alice: hello\n"


async def test_a_file_is_declined_and_the_chat_goes_on(server: QuickServer, tmp_path: Path) -> None:
    (path := tmp_path / "photo.jpg").write_bytes(b"x" * 1000)
    async with chat(server, "alice", "bob") as bob, NetworkStore() as alice:
        await alice.connect_to_signaling(server.url, "alice")
        transfer = await alice.send_file("bob", path)
        with pytest.raises(TransferFailed) as caught:
            await transfer
        assert caught.value.reason == "declined: aldis chat takes no files; aldis receive does"
        await bob.says("alice would have sent the file photo.jpg; aldis chat takes no files; aldis receive does")
        alice.send("bob", "never mind")
        assert await bob.line() == "alice: never mind"


async def test_what_is_not_delivered_is_sent_by_the_next_chat(server: QuickServer) -> None:
    before = aldis(
        *("chat", "bob", "--as", "alice", "--server", server.url, "--timeout", "1"), home=server.home, stdin=b"one\n"
    )
    assert before.returncode == 5
    assert "aldis: not delivered: 1 message; kept for the next chat with this name\n" in before.stderr
    async with chat(server, "alice", "bob", "--listen") as bob, chat(server, "bob", "alice") as alice:
        bob.stdin.close()
        await alice.says("1 message of an earlier time: waiting for bob")
        await alice.type("two\n")
        alice.stdin.close()
        assert [await bob.line(), await bob.line()] == ["alice: one", "alice: two"]
        assert await alice.end() == 0
        assert await bob.end() == 0


async def test_a_journal_that_is_in_use_is_told_at_once(server: QuickServer, tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    async with chat(server, "bob", "alice", "--journal", journal) as alice:
        await alice.says("waiting")
        second = aldis(
            *("chat", "bob", "--as", "alice", "--server", server.url, "--device", "two", "--journal", journal),
            home=server.home,
            stdin=b"one\n",
        )
        assert second.returncode == 2
        assert "is in use by another program" in second.stderr


async def test_a_disk_that_is_full_is_told_and_has_its_exit_code(server: QuickServer) -> None:
    async with chat(server, "alice", "bob", "--listen") as bob, chat(server, "bob", "alice") as alice:
        bob.stdin.close()
        await alice.type("one\n")
        assert await bob.line() == "alice: one"
        await alice.says("the key is remembered")  # that is a write as well, and another error
        _, most = resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE, (1000, most))
        await alice.type("two\n")
        await alice.says("new messages are lost")
        alice.stdin.close()
        assert await alice.end() == 8
        assert await bob.end() == 0
