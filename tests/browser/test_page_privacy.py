"""Who may see and call somebody, and who is blocked, chosen on the page and kept by the server."""

from __future__ import annotations

from playwright.async_api import expect

from support.browser import NO_SERVER, Arrive
from support.page_windows import Conversation, Window, windows
from support.server_process import ServerProcess


async def block(conversation: Conversation) -> None:
    """Block somebody in the panel beside the conversation."""
    if not await conversation.panel.is_visible():
        await conversation.button("Show the connection").click()
    await conversation.panel.get_by_role("button", name="Block…").click()
    await expect(conversation.panel).to_contain_text("They are not told that they are blocked.")
    await expect(conversation.panel.get_by_role("button", name="Cancel")).to_be_focused()
    await conversation.panel.get_by_role("button", name="Block", exact=True).click()
    await expect(conversation.presence).to_have_text("blocked")


async def test_somebody_who_is_blocked_sees_us_leave_and_hears_nothing(arrive: Arrive) -> None:
    alice, mallory = await windows(arrive, "alice", "mallory")
    theirs = await (await mallory.talk_to("alice")).connected()
    await theirs.delivers("hello")
    ours = await alice.open("mallory")
    await ours.heard("hello")
    await block(ours)
    await expect(ours.alert).to_contain_text("You have blocked mallory")
    await expect(ours.field).to_be_disabled()
    await expect(alice.listed("mallory")).to_contain_text("blocked")
    await expect(theirs.presence).to_have_text("offline")
    await expect(await theirs.say("are you there?")).not_to_contain_text("delivered")
    # It is the server that keeps it, for this name.
    await alice.page.reload()
    ours = await alice.open("mallory")
    await expect(ours.presence).to_have_text("blocked")
    await expect(mallory.page.get_by_text("blocked").filter(visible=True)).to_have_count(0)
    await ours.alert.get_by_role("button", name="Unblock").click()
    await ours.connected()
    await ours.heard("are you there?")
    await expect(ours.field).to_be_enabled()
    await ours.delivers("I am")


async def test_a_block_can_be_thought_better_of_before_and_ended_in_the_dialog(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    ours = await (await alice.talk_to("bob")).connected()
    await ours.panel.get_by_role("button", name="Block…").click()
    await ours.panel.get_by_role("button", name="Cancel").press("Enter")
    await expect(ours.panel.get_by_role("button", name="Block…")).to_be_focused()
    await ours.connected()
    await block(ours)
    dialog = await alice.open_privacy()
    await dialog.get_by_role("button", name="Unblock bob").click()
    await expect(dialog).to_contain_text("Nobody is blocked.")
    await dialog.get_by_role("button", name="Close").click()
    await ours.connected()
    await (await bob.open("alice")).connected()


async def test_what_the_server_could_not_be_told_is_said_and_a_block_told_when_it_is_back(
    arrive: Arrive, server: ServerProcess
) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    ours = await (await alice.talk_to("bob")).connected()
    for window in (alice, bob):
        window.person.tolerate(NO_SERVER)
    server.settings["port"] = server.port
    await server.stop()
    await expect(alice.server).not_to_have_text("Server connected")
    await ours.panel.get_by_role("button", name="Add to your contacts").click()
    await block(ours)
    await expect(ours.panel.get_by_role("button", name="Add to your contacts")).to_have_count(0)
    await expect(ours.log).to_contain_text("The server does not answer. Try again in a moment.")
    await expect(ours.log).to_contain_text("The server does not know of this block yet.")
    await server.start()
    await expect(alice.server).to_have_text("Server connected")
    theirs = await bob.open("alice")
    await expect(theirs.presence).to_have_text("offline")
    await alice.page.reload()
    await expect((await alice.open("bob")).presence).to_have_text("blocked")


async def test_only_contacts_see_who_wants_it_so_and_on_all_devices(arrive: Arrive) -> None:
    alice, bob, eve = await windows(arrive, "alice", "bob", "eve")
    seen = [await window.talk_to("alice") for window in (bob, eve)]
    for conversation in seen:
        await conversation.connected()
    dialog = await alice.open_privacy()
    everybody, contacts, nobody = (dialog.get_by_role("radio", name=name) for name in ("Every", "Only", "Nobody"))
    await expect(everybody).to_be_checked()
    await expect(dialog).to_contain_text("You have no contacts yet.")
    await dialog.get_by_label("Add a contact").fill("alice")
    await dialog.get_by_role("button", name="Add").click()
    await expect(dialog.get_by_role("alert").filter(has_text="your own name")).to_be_visible()
    await dialog.get_by_label("Add a contact").fill("bob")
    await dialog.get_by_role("button", name="Add").click()
    await expect(dialog.get_by_role("button", name="Remove bob from your contacts")).to_be_visible()
    await contacts.check()
    await expect(contacts).to_be_checked()
    stranger = Window(await arrive())
    await stranger.start("stranger")
    await expect((await stranger.talk_to("alice")).presence).to_have_text("offline")
    await nobody.check()
    await expect(nobody).to_be_checked()
    await alice.page.reload()
    dialog = await alice.open_privacy()
    await expect(dialog.get_by_role("radio", name="Nobody")).to_be_checked()
    await dialog.get_by_role("button", name="Remove bob from your contacts").click()
    await expect(dialog).to_contain_text("You have no contacts yet.")
    await dialog.get_by_role("radio", name="Every").check()
    await dialog.get_by_role("button", name="Close").click()
    await expect(stranger.conversation("alice").presence).to_have_text("connected")
