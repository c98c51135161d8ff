"""Two people meet on the page, and talk; and somebody talks to a Python program without seeing a difference."""

from __future__ import annotations

import asyncio
import os
import re
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.async_api import expect

from aldis.store.files.transfer import Transfer
from support.browser import PATIENCE, Arrive
from support.page_windows import points, window, windows
from support.server_process import ServerProcess
from support.stores import read, stores

SIZE = 1_500_007
WITH_A_RANGE = re.compile(r"now [\d.]+ ms, between [\d.]+ ms and [\d.]+ ms$")
SOME_BYTES = re.compile(r"^[1-9][\d.]* (bytes|kB)$")
SOME_100_KILOBYTES = re.compile(r"^[3-9]\d\d kB$")


async def test_two_people_meet_by_an_invitation_and_talk(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    bob = await window(arrive)
    await bob.page.goto(await alice.invitation())
    await expect(bob.page.get_by_role("heading", name="alice invites you")).to_be_visible()
    assert await bob.shown_fingerprint(bob.page.get_by_role("region", name="Welcome")) == await alice.fingerprint()
    await bob.choose("bob")
    with_alice = await bob.conversation("alice").connected()
    await expect(with_alice.region.get_by_text("verified by the invitation")).to_be_visible()
    assert "#" not in bob.page.url  # a reload is no second invitation
    # On the other side, who has shown the invitation sees who has come. Nobody has vouched for his key there.
    with_bob = await alice.conversation("bob").connected()
    await expect(with_bob.region.get_by_text("verified", exact=False)).to_be_hidden()

    await alice.talk_to("carol")
    await with_alice.delivers("Hello alice!")
    await expect(alice.listed("bob")).to_contain_text("1 unread")
    await expect(alice.page).to_have_title("(1) alice · Aldis")
    await with_alice.delivers("Are you there?")
    await expect(alice.listed("bob")).to_contain_text("2 unread")
    await alice.open("bob")
    await with_bob.heard("Hello alice!", "Are you there?")
    await expect(alice.listed("bob").get_by_text("unread")).to_be_hidden()
    await expect(alice.page).to_have_title("alice · Aldis")
    await with_bob.button("They are the same").click()
    await expect(with_bob.region.get_by_text("verified by you")).to_be_visible()

    await with_bob.delivers("Yes: https://example.org/?a=<b>&c.", "two\nlines")
    await with_alice.heard("two\nlines")
    link = with_alice.entry("Yes").get_by_role("link")
    await expect(link).to_have_attribute("href", "https://example.org/?a=")
    await expect(link).to_have_attribute("rel", "noopener noreferrer")

    await bob.page.close()
    await expect(with_bob.presence).to_have_text("offline")
    await expect(alice.listed("bob")).to_contain_text("offline")


async def test_who_was_not_invited_comes_on_the_list_and_no_further(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    await (await bob.talk_to("alice")).connected()
    await expect(alice.listed("bob")).to_contain_text("connected")
    await expect(alice.page.get_by_role("heading", name="Invite somebody")).to_be_visible()
    # Once the invitation has been given to somebody, whoever comes next is taken for them.
    link = alice.page.get_by_role("textbox", name="Invitation link")
    await link.press("ControlOrMeta+c")
    await alice.page.evaluate("document.activeElement.blur()")
    carol = await window(arrive)
    await carol.page.goto(await link.input_value())
    await carol.choose("carol")
    await alice.conversation("carol").connected()


async def test_what_is_said_to_somebody_who_is_away_waits_for_them(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    await bob.page.goto("about:blank")
    await expect(with_bob.presence).to_have_text("offline")
    for text in ("first", "second"):
        await expect(await with_bob.say(text)).to_contain_text("waiting for bob")

    # To somebody who never was there, too.
    with_carol = await alice.talk_to("carol")
    await expect(with_carol.alert).to_contain_text("Nobody is called carol here yet")
    await expect(await with_carol.say("for carol")).to_contain_text("waiting for carol")

    await bob.page.goto("/")  # it remembers the name
    with_alice = await bob.open("alice")
    await with_alice.heard("first", "second")
    await expect(alice.listed("bob")).to_contain_text("connected")
    await alice.open("bob")
    for text in ("first", "second"):
        await expect(with_bob.entry(text)).to_contain_text("delivered")

    carol = await window(arrive, "carol")
    await (await carol.open("alice")).heard("for carol")
    await alice.open("carol")
    await expect(with_carol.entry("for carol")).to_contain_text("delivered")
    await expect(with_carol.alert).to_be_hidden()


async def test_a_name_that_cannot_be_one_is_refused_as_it_is_typed(arrive: Arrive) -> None:
    alice = await window(arrive)
    await alice.page.goto("/")
    field = alice.page.get_by_label("Your name")
    for name, words in (("", "Type a name."), ("a b", "How about “a-b”?"), ("a/b", "no “/”")):
        await alice.choose(name)
        await expect(field).to_be_focused()
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(re.escape(words)))
    await alice.start("Zoë~🦊")  # whatever else somebody is called
    await alice.talk_to("Zoë~🦊")
    await expect(alice.page.get_by_text("That is your own name.")).to_be_visible()
    bob = await window(arrive)
    await bob.page.goto(await alice.invitation())
    await bob.choose("bob")
    await (await bob.conversation("Zoë~🦊").connected()).delivers("🦊")


async def test_a_name_from_right_to_left_does_not_turn_the_sentence_around(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    with_them = await alice.talk_to("שלום")
    # Isolated: FIRST STRONG ISOLATE before, POP DIRECTIONAL ISOLATE behind.
    await expect(with_them.alert).to_contain_text("Nobody is called \u2068שלום\u2069 here yet")
    await expect(await with_them.say("hello")).to_contain_text("waiting for \u2068שלום\u2069")


@pytest.mark.parametrize("initiator", ["page", "python"])
async def test_the_page_talks_to_a_python_program(
    arrive: Arrive, server: ServerProcess, initiator: str, tmp_path: Path
) -> None:
    source, taken = tmp_path / "source.bin", tmp_path / "taken"
    source.write_bytes(os.urandom(SIZE))
    taken.mkdir()
    alice = await window(arrive, "alice")
    async with stores(f"ws://127.0.0.1:{server.port}", "bob") as (bob,):
        offered: asyncio.Queue[Transfer] = asyncio.Queue()
        bob.on_file(offered.put_nowait)
        if initiator == "page":
            with_bob = await alice.talk_to("bob")
        else:
            # Whoever comes does not interrupt somebody who is about to type.
            field = alice.page.get_by_label("Talk to")
            await field.focus()
            await bob.connect_to_peer("alice")
            await expect(alice.listed("bob")).to_contain_text("connected")
            await expect(field).to_be_focused()
            await expect(alice.conversation("bob").region).to_be_hidden()
            with_bob = await alice.open("bob")
        await with_bob.connected()
        await with_bob.delivers("from the page")
        (message,) = await read(bob, 1)
        assert (message.sender, message.content) == ("alice", "from the page")
        for content in ("from Python", {"temperature": 21}, b"12345"):
            await bob.send("alice", content)
        await with_bob.heard("from Python", '"temperature": 21', "5 bytes of data")
        # It has no calls, and the page offers none.
        await expect(with_bob.button("Start a video call")).to_be_hidden()

        sent = await with_bob.send_file(source)
        await expect(sent).to_contain_text("waiting for bob to accept")
        async with asyncio.timeout(PATIENCE):
            transfer = await offered.get()
            transfer.accept(taken)
            await transfer
        await expect(sent).to_contain_text("1.5 MB · delivered")
        assert sha256((taken / "source.bin").read_bytes()).digest() == sha256(source.read_bytes()).digest()

        sending = await bob.send_file("alice", source, name="from python.bin")
        got = with_bob.entry("from python.bin")
        await with_bob.button("Accept from python.bin").click()
        await expect(got).to_contain_text("1.5 MB · received")
        async with asyncio.timeout(PATIENCE):
            await sending
        path = await with_bob.save("from python.bin")
        assert sha256(path.read_bytes()).digest() == sha256(source.read_bytes()).digest()


async def test_a_file_is_offered_and_taken_or_declined_or_cancelled(arrive: Arrive, tmp_path: Path) -> None:
    names = ("taken.bin", "declined.bin", "taken back.bin", "stopped.bin")
    paths = [tmp_path / name for name in names]
    for path in paths[:3]:
        path.write_bytes(os.urandom(SIZE))
    with paths[3].open("wb") as file:
        file.truncate(2_000_000_000)  # holes: nothing of it is on a disk, and nobody waits for its end
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    with_alice = await bob.open("alice")

    sent = [await with_bob.send_file(path) for path in paths]
    got = [with_alice.entry(name) for name in names]
    await expect(got[0]).to_contain_text("1.5 MB")
    await with_alice.button("Accept taken.bin").click()
    await expect(sent[0]).to_contain_text("1.5 MB · delivered")
    saved = await with_alice.save("taken.bin")
    await expect(got[0]).to_contain_text("1.5 MB · saved")
    await expect(with_alice.button("Save again taken.bin")).to_be_visible()
    assert sha256(saved.read_bytes()).digest() == sha256(paths[0].read_bytes()).digest()

    await with_alice.button("Decline declined.bin").click()
    await expect(sent[1]).to_contain_text("bob did not want it")
    await expect(got[1]).to_contain_text("you declined it")

    await with_bob.button("Cancel taken back.bin").click()
    for entry in (sent[2], got[2]):
        await expect(entry).to_contain_text("cancelled")

    await with_alice.button("Accept stopped.bin").click()
    for entry in (sent[3], got[3]):
        await expect(entry.get_by_role("progressbar", name="Progress of stopped.bin")).to_be_visible()
        await expect(entry).to_contain_text("MB of 2.0 GB")
    await with_alice.delivers("during the file")
    await with_bob.heard("during the file")
    await with_alice.button("Cancel stopped.bin").click()
    await expect(got[3]).to_contain_text("2.0 GB · cancelled")
    await expect(sent[3]).to_contain_text("2.0 GB · bob cancelled it")
    for entry in (sent[3], got[3]):
        await expect(entry.get_by_role("button")).to_have_count(0)


async def test_the_page_says_by_which_ways_others_are_reached(arrive: Arrive) -> None:
    alice, _ = await windows(arrive, "alice", "bob")
    panel = (await (await alice.talk_to("bob")).connected()).panel
    await panel.get_by_role("button", name="What works from here?").click()
    # Nobody is reached that way, so the page does not say that it works.
    sealed = "^Sealed, through this server: allowed, not in use now, for messages and small files"
    said = ("^Direct connections: inside this network", "^TURN server: this server has none", sealed)
    await expect(panel.get_by_role("listitem")).to_have_text([re.compile(text) for text in said])


async def test_the_connection_panel_tells_how_it_runs(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    panel = with_bob.panel
    await expect(panel).to_be_visible()  # where there is room, it is there
    for fact, value in (("Path", "direct"), ("Protocol", "UDP"), ("Reconnects", "0")):
        await expect(with_bob.fact(fact)).to_have_text(value)
    await expect(with_bob.fact("Quality")).to_have_text(re.compile(r"^(good|(fair|poor): .+)$"))
    chart = panel.get_by_role("img", name="Round-trip time of the last minute: now ")
    await expect(chart).to_have_accessible_name(WITH_A_RANGE)
    line = chart.locator("path").last
    await expect(line).to_have_attribute("d", points(3))
    await expect(with_bob.fact("Sent")).to_have_text(SOME_BYTES)
    # The bytes grow by what is said.
    await with_bob.delivers(*(f"{number} {'x' * 60_000}" for number in range(5)))  # more of each is not shown
    await expect(with_bob.fact("Sent")).to_have_text(SOME_100_KILOBYTES)
    with_alice = await bob.open("alice")
    await expect(with_alice.fact("Received")).to_have_text(SOME_100_KILOBYTES)
    # Both see the same two keys.
    both = {await alice.fingerprint(), await bob.fingerprint()}
    for conversation in (with_bob, with_alice):
        codes = conversation.panel.get_by_role("code")
        assert {"".join(text.split()) for text in await codes.all_inner_texts()} == both
    await with_bob.button("Hide the connection").click()
    await expect(panel).to_be_hidden()
    await with_bob.button("Show the connection").click()
    await expect(panel).to_be_visible()
    await bob.page.close()
    await expect(with_bob.fact("Path")).to_have_text("not connected")
    await expect(panel.get_by_role("img", name="not connected")).to_be_visible()
    await with_bob.button("Remove from the list").click()
    await expect(alice.listed("bob")).to_be_hidden()
    await alice.page.reload()
    await expect(alice.server).to_have_text("Server connected")
    await expect(alice.page.get_by_role("region", name="How to begin")).to_be_visible()
    await expect(alice.listed("bob")).to_be_hidden()
