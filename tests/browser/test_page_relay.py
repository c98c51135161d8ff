"""The page where no direct connection comes about: what is said goes sealed through the server, as the page says."""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import expect

from browser.conftest import IN_BOTH, Arrive
from support.page_windows import Window

# Attempts come to nothing, and nobody is told: as behind two routers that let nothing through.
NO_PATH = "RTCPeerConnection.prototype.setLocalDescription = () => new Promise(() => {});"


async def start(arrive: Arrive, name: str) -> Window:
    person = await arrive()
    await person.context.add_init_script(NO_PATH)
    return await Window(person).start(name)


@IN_BOTH
async def test_the_page_says_that_messages_go_sealed_through_the_server(arrive: Arrive) -> None:
    alice, bob = await asyncio.gather(start(arrive, "alice"), start(arrive, "bob"))
    with_bob = await alice.talk_to("bob")
    await with_bob.say("hello")
    with_alice = await bob.open("alice")
    await with_alice.heard("hello")
    await with_alice.delivers("back")
    for conversation in (with_bob, with_alice):
        await expect(conversation.presence).to_have_text("through the server")
        await expect(conversation.fact("Path")).to_have_text("through the server, sealed")
        await expect(conversation.fact("Protocol")).to_have_text("–")
        await expect(conversation.button("Start an audio call")).to_be_disabled()
        title = "A call needs a direct connection, or a TURN server"
        await expect(conversation.button("Start a video call")).to_have_attribute("title", title)
    await with_bob.panel.get_by_role("button", name="What works from here?").click()
    await expect(with_bob.panel.get_by_role("listitem").last).to_have_text(
        "Sealed, through this server: works, for messages and small files."
    )


async def test_a_large_file_says_that_it_waits_for_a_direct_connection(arrive: Arrive, tmp_path: Path) -> None:
    film = tmp_path / "film.bin"
    film.write_bytes(bytes(2_000_000))
    alice, bob = await asyncio.gather(start(arrive, "alice"), start(arrive, "bob"))
    with_bob = await alice.talk_to("bob")
    await with_bob.delivers("hello")
    await bob.open("alice")
    await expect(await with_bob.send_file(film)).to_contain_text("2.0 MB · waits for a direct connection")
