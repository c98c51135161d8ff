"""The page when things go wrong: it says what, in plain words, and goes on as far as that can be."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from playwright.async_api import Browser, WebSocketRoute, expect

from aldis.client.client import SignalingClient
from aldis.identity.keys import Identity
from browser.conftest import IN_BOTH
from support.browser import NO_SERVER, Arrive, Person
from support.page_windows import Window, window, windows
from support.server_process import ServerProcess
from support.stores import QUICK, read, stores, until_peer


@IN_BOTH
async def test_a_reload_in_mid_chat_comes_back_by_itself(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    await with_bob.delivers("before")
    with_alice = await bob.open("alice")
    await with_alice.button("They are the same").click()
    fingerprint = await alice.fingerprint()
    await alice.page.reload()
    await expect(alice.server).to_have_text("Server connected")
    assert await alice.fingerprint() == fingerprint
    await with_bob.connected()  # the same conversation, and nobody did anything
    await expect(with_alice.region.get_by_text("verified by you")).to_be_visible()
    await with_bob.delivers("after")
    await with_alice.heard("before", "after")
    await with_alice.delivers("welcome back")
    await with_bob.heard("welcome back")


async def test_a_name_of_somebody_elses_key_is_refused_in_plain_words(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    mallory = await window(arrive)
    await mallory.page.goto("/")
    await mallory.choose("alice")
    await expect(mallory.alert).to_contain_text("This name is taken")
    await expect(mallory.alert).to_contain_text("Choose another one")
    await expect(mallory.page.get_by_label("Your name")).to_be_focused()
    await expect(alice.server).to_have_text("Server connected")
    await mallory.page.reload()  # which does not try once more
    await expect(mallory.page.get_by_label("Your name")).to_be_visible()
    await mallory.start("mallory")
    await (await (await mallory.talk_to("alice")).connected()).delivers("hello")


async def test_a_second_tab_with_the_name_takes_over_and_the_first_can_take_it_back(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_alice = await bob.talk_to("alice")
    with_carol = await alice.talk_to("carol")
    await with_carol.say("for later")
    await (await alice.open("bob")).connected()
    second = Window(alice.person, await alice.person.context.new_page())
    await second.start("alice")
    assert await second.fingerprint() == await alice.fingerprint()
    await expect(alice.alert).to_contain_text("Your name is in use in another window")
    await expect(alice.server).to_have_text("Server not connected")
    await (await (await second.open("bob")).connected()).delivers("from the second")
    await with_alice.heard("from the second")

    await alice.open("carol")
    # What waits is the second one's now, and will be the first one's again.
    await expect((await second.open("carol")).entry("for later")).to_contain_text("waiting for carol")
    await alice.button("Use it here").click()
    await expect(alice.alert).to_be_hidden()
    await expect(second.alert).to_contain_text("Your name is in use in another window")
    with_bob = await alice.open("bob")
    await with_bob.connected()
    await with_bob.delivers("from the first")
    await with_alice.heard("from the first")
    await second.page.close()
    await with_alice.delivers("I see")
    await with_bob.heard("I see")


async def test_a_name_is_taken_back_once_and_what_waits_with_it(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    # How many connections to the server the page has begun.
    await alice.page.evaluate("""() => {
      window.begun = 0;
      window.WebSocket = class extends WebSocket { constructor(...how) { super(...how); window.begun += 1; } };
    }""")
    with_carol = await alice.talk_to("carol")
    await with_carol.say("for later")
    second = Window(alice.person, await alice.person.context.new_page())
    await second.start("alice")
    await expect(alice.alert).to_contain_text("Your name is in use in another window")
    await second.page.close()
    twice = "(button) => { button.click(); button.click(); }"
    await alice.button("Use it here").evaluate(twice)
    await expect(alice.server).to_have_text("Server connected")
    await expect(alice.page.get_by_role("alert").filter(has_text="Your name is in use")).to_have_count(0)
    assert await alice.page.evaluate("window.begun") == 1
    await expect(with_carol.entry("for later")).to_contain_text("waiting for carol")
    await with_carol.say("the newest")
    await expect(with_carol.log.get_by_role("article")).to_have_count(2)  # the newest is still there
    carol = await window(arrive, "carol")
    with_alice = await carol.open("alice")
    # In their order, and once.
    await with_alice.heard("for later", "the newest")
    await with_carol.delivers("the last")
    await with_alice.heard("the last")
    await expect(with_alice.entry("for later")).to_have_count(1)


async def test_who_changes_the_name_is_not_told_what_becomes_of_the_one_before(arrive: Arrive) -> None:
    alice = await window(arrive)
    # Goodbye takes as long as it may: the name before is still leaving while the next one is there.
    await alice.page.goto("/")
    await alice.page.evaluate("""() => {
      const { close } = WebSocket.prototype;
      WebSocket.prototype.close = function (...reason) {
        WebSocket.prototype.close = close;
        this.addEventListener('close', () => setTimeout(() => { window.left = true; }));
        window.leave = () => this.close(...reason);
      };
    }""")
    await alice.choose("alice")
    await expect(alice.server).to_have_text("Server connected")
    await alice.button("Change name").click()
    await alice.choose("alicia")
    await expect(alice.server).to_have_text("Server connected")
    await alice.page.evaluate("window.leave()")
    await alice.page.evaluate("async () => { while (!window.left) await new Promise(requestAnimationFrame); }")
    await expect(alice.server).to_have_text("Server connected")
    await expect(alice.alert).to_be_hidden()
    await expect(alice.page).to_have_title("alicia · Aldis")


@IN_BOTH
async def test_a_chat_goes_on_without_the_server(arrive: Arrive, server: ServerProcess, tmp_path: Path) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    for person in (alice, bob):
        person.person.tolerate(NO_SERVER)  # which the browser says itself
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    with_alice = await bob.open("alice")
    server.signal(signal.SIGKILL)
    await server.wait()
    for person in (alice, bob):
        await expect(person.server).to_have_text("Server reconnecting…")
    await with_bob.delivers("without a server")
    await with_alice.heard("without a server")
    with_carol = await alice.talk_to("carol")
    await expect(await with_carol.say("when you are there")).to_contain_text("waiting for carol")
    await expect(alice.alert).to_contain_text("The server is away")
    async with ServerProcess(tmp_path, port=server.port) as again:
        for person in (alice, bob):
            await expect(person.server).to_have_text("Server connected")
        await expect(alice.page.get_by_text("The server is away")).to_be_hidden()
        await alice.open("bob")
        await with_bob.connected()
        await expect(with_bob.fact("Reconnects")).to_have_text("0")
        carol = await window(arrive, "carol")
        await (await carol.open("alice")).heard("when you are there")
        for person in (alice, bob, carol):
            await person.person.leave()
        assert await again.stop() == 0
        again.assert_clean_log()


async def limit(alice: Window, *, most: int) -> None:
    """The server limits so many offers of hers, as far as her page can see."""
    left = most

    async def come(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def said(text: str | bytes) -> None:
            nonlocal left
            message = json.loads(text)
            if message["type"] == "offer" and left:
                left -= 1
                error = {"type": "error", "message": "enough from you waits for bob", "code": "rate-limited"}
                socket.send(json.dumps({**error, "temporary": True, "retryAfter": 2, "re": message["id"]}))
            else:
                server.send(text)

        socket.on_message(said)

    await alice.page.route_web_socket(re.compile("^ws"), come)


# Keeps what each alert has said, and the number of its buttons: one that is there for 3 s can be gone before somebody
# looks.
KEEP_ALERTS = """
globalThis.alerts = [];
new MutationObserver(() => {
  for (const alert of document.querySelectorAll('[role=alert]'))
    alerts.push([alert.textContent, alert.querySelectorAll('button').length]);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


async def test_a_call_that_the_server_limits_waits_and_the_page_says_for_how_long(arrive: Arrive) -> None:
    alice, bob = await window(arrive), await window(arrive)
    await limit(alice, most=1)
    await alice.page.add_init_script(KEEP_ALERTS)
    await alice.start("alice")
    await bob.start("bob")
    await (await alice.talk_to("bob")).connected()
    await expect(alice.page.get_by_role("alert").filter(has_text="Too many calls to bob")).to_be_hidden()
    said = [alert for alert in await alice.page.evaluate("alerts") if "Too many calls to bob" in alert[0]]
    assert said
    assert all("Trying again in 3 s." in text and not buttons for text, buttons in said)


async def test_a_server_that_is_not_there_is_told_of(arrive: Arrive, server: ServerProcess) -> None:
    alice = await window(arrive)
    await alice.page.goto("/")
    await server.stop()
    alice.person.tolerate(NO_SERVER)
    await alice.choose("alice")
    await expect(alice.alert).to_contain_text("The server is out of reach")
    await expect(alice.alert).to_contain_text("Check that it runs")
    await expect(alice.button("Start")).to_be_enabled()


async def test_a_changed_key_is_shown_and_nothing_goes_out_before_it_is_accepted(
    arrive: Arrive, server: ServerProcess
) -> None:
    url = f"ws://127.0.0.1:{server.port}"
    before, after = Identity.generate(), Identity.generate()
    alice = await window(arrive, "alice")
    async with stores(url, "bob", identity=before) as (bob,):
        with_bob = await alice.talk_to("bob")
        await with_bob.connected()
        await with_bob.button("They are the same").click()
    await expect(with_bob.presence).to_have_text("offline")
    earlier = await with_bob.say("for the bob I know")
    await expect(earlier).to_contain_text("waiting for bob")
    async with SignalingClient(url, "bob") as client:
        await client.register(before)
        await client.rotate(after)
    async with stores(url, "bob", identity=after, timing=QUICK) as (bob,):
        warning = with_bob.alert.filter(has_text="bob has another key than before")
        await expect(warning).to_be_visible()
        codes = warning.get_by_role("code")
        await expect(codes).to_have_count(2)
        assert ["".join(text.split()) for text in await codes.all_inner_texts()] == [
            before.fingerprint,
            after.fingerprint,
        ]
        await expect(with_bob.region.get_by_text("verified by you")).to_be_hidden()
        await expect(earlier).to_contain_text("It did not arrive. bob has another key than before.")
        # Nothing can be said meanwhile, and nothing invites to.
        await expect(with_bob.field).to_be_disabled()
        await expect(with_bob.button("Send files")).to_be_disabled()
        await expect(with_bob.button("Connect now")).to_be_hidden()
        # Not if bob asks for it either: what he gets is no answer.
        bob.send("alice", "let me in")
        await until_peer(bob, "alice", lambda view: view.error is not None, "the refusal")
        assert bob.state.peers["alice"].connections == 0
        await expect(earlier).to_contain_text("not delivered")
        accept = with_bob.button("Accept the new key")
        await expect(accept).to_be_disabled()
        await warning.get_by_role("checkbox").check()
        # When the browser keeps nothing any more, that is said, and nothing has been decided.
        await alice.page.evaluate("""() => {
            const { transaction } = IDBDatabase.prototype;
            IDBDatabase.prototype.transaction = () => { throw new DOMException('', 'QuotaExceededError'); };
            window.mend = () => Object.assign(IDBDatabase.prototype, { transaction });
        }""")
        await accept.click()
        await expect(with_bob.alert).to_contain_text("Your key cannot be kept here")
        await alice.page.evaluate("window.mend()")
        await with_bob.button("Connect now").click()
        await warning.get_by_role("checkbox").check()
        await accept.click()
        await with_bob.connected()
        await expect(warning).to_be_hidden()
        await with_bob.heard("let me in")
        await earlier.get_by_role("button", name="Send again").click()
        await expect(earlier.get_by_text("not delivered")).to_be_hidden()
        (message,) = await read(bob, 1)
        assert message.content == "for the bob I know"
        await with_bob.delivers("and for you")
        # It is another key: nobody has vouched for it yet.
        await expect(with_bob.button("They are the same")).to_be_visible()


async def test_an_invitation_of_another_key_is_refused_in_words(arrive: Arrive) -> None:
    alice, mallory = await windows(arrive, "alice", "mallory")
    link = (await alice.invitation()).replace(await alice.fingerprint(), await mallory.fingerprint())
    bob = await window(arrive)
    await bob.page.goto(link)
    await bob.choose("bob")
    with_alice = bob.conversation("alice")
    refusal = with_alice.alert.filter(has_text="This is not the alice of the invitation")
    await expect(refusal).to_be_visible()
    shown = ["".join(text.split()) for text in await refusal.get_by_role("code").all_inner_texts()]
    assert shown == [await mallory.fingerprint(), await alice.fingerprint()]
    await expect(with_alice.field).to_be_disabled()
    await expect(with_alice.button("Connect now")).to_be_hidden()
    await expect(with_alice.region.get_by_text("stays between you")).to_be_hidden()
    await expect(with_alice.region.get_by_role("heading", name="alice").first).to_be_focused()
    # What is expected of this name holds after a reload, too.
    await bob.page.reload()
    await expect(refusal).to_be_visible()
    await expect(alice.listed("bob")).to_be_hidden()


async def test_a_link_with_another_fingerprint_warns_whoever_is_connected_and_undoes_nothing(
    arrive: Arrive, server: ServerProcess
) -> None:
    alice = await window(arrive, "alice")
    bobs, stranger = Identity.generate(), Identity.generate().fingerprint
    async with stores(f"ws://127.0.0.1:{server.port}", "bob", identity=bobs):
        with_bob = await (await alice.talk_to("bob")).connected()
        await with_bob.button("They are the same").click()
        sure = with_bob.region.get_by_text("verified by you")
        await expect(sure).to_be_visible()
        # Any page can have a link to this one.
        await alice.page.evaluate("hash => { location.hash = hash; }", f"bob~{stranger}")
        warning = with_bob.alert.filter(has_text="This link means another bob than the one you know")
        await expect(warning).to_be_visible()
        shown = ["".join(text.split()) for text in await warning.get_by_role("code").all_inner_texts()]
        assert shown == [stranger, bobs.fingerprint]
        await expect(sure).to_be_visible()
        await with_bob.delivers("still you")
        await expect(warning).to_be_visible()
        await with_bob.button("I have read this").click()
        await expect(warning).to_be_hidden()
        await alice.page.reload()
        await with_bob.connected()
        await expect(sure).to_be_visible()
        # The right one takes nothing away, either.
        await alice.page.evaluate("hash => { location.hash = hash; }", f"bob~{bobs.fingerprint}")
        await with_bob.delivers("and you")
        await expect(sure).to_be_visible()


async def test_an_invitation_outlives_a_reload_whatever_the_server_keeps_to_itself(
    arrive: Arrive, server: ServerProcess
) -> None:
    bob = await window(arrive)
    await bob.page.goto(f"/#alice~{Identity.generate().fingerprint}")
    await bob.choose("bob")
    with_alice = bob.conversation("alice")
    await expect(with_alice.alert).to_contain_text("Nobody is called alice here yet")
    await bob.page.evaluate("history.replaceState(null, '')")  # the next time it opens with the list
    # A server that is up to no good: it says nothing of who is online.
    await bob.page.add_init_script("""
      const isSaid = ({ data }) => JSON.parse(data).type !== 'presence';
      window.WebSocket = class extends WebSocket {
        set onmessage(take) { super.onmessage = (event) => isSaid(event) && take(event); }
      };""")
    await bob.page.reload()
    await expect(bob.server).to_have_text("Server connected")
    async with stores(f"ws://127.0.0.1:{server.port}", "alice", timing=QUICK) as (forger,):
        forger.send("bob", "it is me, alice")
        await until_peer(forger, "bob", lambda view: view.error is not None, "the refusal")
        assert forger.state.peers["bob"].connections == 0
        await bob.open("alice")
        warning = with_alice.alert.filter(has_text="This is not the alice of the invitation")
        await expect(warning).to_be_visible()
        await expect(with_alice.entry("it is me")).to_be_hidden()
        assert forger.state.peers["bob"].connections == 0


async def test_an_invitation_that_lacks_a_part_says_so(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    link = await alice.invitation()
    bob = await window(arrive)
    await bob.page.goto(link[:-3])
    await expect(bob.alert).to_contain_text("This invitation is incomplete")
    await bob.choose("bob")  # it is no hindrance
    await expect(bob.server).to_have_text("Server connected")
    # The whole link, in the window that is there already.
    await bob.page.evaluate("link => { location.href = link; }", link)
    await bob.conversation("alice").connected()
    # One's own.
    await alice.page.evaluate("link => { location.href = link; }", link)
    await expect(alice.alert).to_contain_text("This is your own invitation")


async def test_an_address_without_security_says_what_to_do(chromium: Browser, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, host="0.0.0.0") as server:
        person = await Person.arrive(chromium, f"http://10.77.0.1:{server.port}")
        person.tolerate("Cross-Origin-Opener-Policy header has been ignored")  # which is the browser's word for it
        await person.page.goto("/")
        alert = Window(person).alert
        await expect(alert).to_contain_text("This page needs a secure address")
        await expect(alert).to_contain_text("Use an https address, or open it on the machine of the server itself")
        await expect(person.page.get_by_label("Your name")).to_be_hidden()
        assert person.complaints == []
        await person.leave()
