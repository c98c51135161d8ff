"""The name on the page: which one is offered, what is said of one that cannot be, and that it stays."""

from __future__ import annotations

from playwright.async_api import expect

from support.browser import Arrive
from support.page_windows import Window, window

# Until no tab of this browser holds a name: the browser tells nobody when a tab that was closed is gone.
FREE = """
async () => {
  const isName = ({ name }) => name.startsWith('aldis.name.');
  while ((await navigator.locks.query()).held.some(isName)) await new Promise(requestAnimationFrame);
}
"""


async def test_a_second_window_is_not_offered_the_name_of_the_first(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    link = await alice.invitation()
    second = Window(alice.person, await alice.person.context.new_page())
    field = second.page.get_by_label("Your name")
    for address in ("/", link):
        await second.page.goto(address)
        await second.page.reload()
        await expect(field).to_be_focused()
        await expect(field).to_have_value("")
    await second.choose("bob")
    await second.conversation("alice").connected()
    await expect(alice.server).to_have_text("Server connected")
    await second.button("Change name").click()
    await expect(field).to_have_value("bob")  # which is to be changed
    await second.page.close()
    await alice.page.close()

    # Nobody has either now.
    third = Window(alice.person, await alice.person.context.new_page())
    await third.page.goto("/")
    await third.page.evaluate(FREE)
    await third.page.reload()
    await expect(third.page.get_by_label("Your name")).to_have_value("bob")  # the last one: a good guess
    await third.page.goto(link.replace("#alice", "#bob"))
    await third.page.reload()
    await expect(third.page.get_by_role("heading", name="bob invites you")).to_be_visible()
    await expect(third.page.get_by_label("Your name")).to_be_focused()
    await expect(third.page.get_by_label("Your name")).to_have_value("")


async def test_a_name_with_spaces_becomes_one_without_by_a_button(arrive: Arrive) -> None:
    alice = await window(arrive)
    await alice.page.goto("/")
    await alice.choose(" Alice  Liddell")
    await alice.button("How about “Alice-Liddell”?").press("Enter")
    field = alice.page.get_by_label("Your name")
    await expect(field).to_have_value("Alice-Liddell")
    await expect(field).to_be_focused()
    await expect(alice.page.get_by_text("Others find you by this name.")).to_be_visible()
    await alice.button("Start").click()
    await expect(alice.server).to_have_text("Server connected")
    await alice.talk_to("Bob\tDylan")
    await alice.button("How about “Bob-Dylan”?").click()
    await expect(alice.page.get_by_label("Talk to")).to_have_value("Bob-Dylan")
    await expect(alice.button("How about “Bob-Dylan”?")).to_be_hidden()
    # What is wrong besides the spaces makes no better name.
    await alice.talk_to("a / b")
    await expect(alice.page.get_by_text("no “/”")).to_be_visible()
    await expect(alice.page.get_by_role("button", name="How about")).to_be_hidden()


async def test_the_browser_is_asked_to_keep_the_key_of_a_name_and_may_refuse(arrive: Arrive) -> None:
    alice = await window(arrive)
    await alice.page.add_init_script("""
      window.asked = 0;
      StorageManager.prototype.persist = async () => { window.asked += 1; throw new TypeError('no'); };
    """)
    await alice.page.goto("/")
    assert await alice.page.evaluate("window.asked") == 0
    await alice.choose("alice")
    await expect(alice.server).to_have_text("Server connected")
    assert await alice.page.evaluate("window.asked") == 1


async def test_a_link_that_leads_nowhere_closes_no_conversation_and_is_put_away(arrive: Arrive) -> None:
    alice, bob = await window(arrive, "alice"), await window(arrive, "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    own = (await bob.invitation()).partition("#")[2].replace("bob", "alice")
    for fragment, words in (("bob~abcd", "This invitation is incomplete"), (own, "This is your own invitation")):
        await alice.page.evaluate("(hash) => { location.hash = hash; }", fragment)
        notice = alice.page.get_by_role("alert").filter(has_text=words)
        await expect(notice).to_be_visible()
        await expect(with_bob.field).to_be_visible()
        assert "#" not in alice.page.url
        await notice.get_by_role("button", name="I have read this").click()
        await expect(notice).to_be_hidden()
        await expect(with_bob.field).to_be_focused()
    await with_bob.delivers("still here")
    await alice.page.reload()
    await with_bob.connected()
