"""What a person sees of a file that goes on after its window was loaded anew, or that nobody has saved yet."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

from playwright.async_api import expect

from browser.conftest import IN_BOTH
from browser.test_page_files import ON_DISK
from support.browser import Arrive
from support.page_windows import Window, windows

SIZE = 12_000_007
# What is sent is read up to here, and on when `openGate` is called. A window that is loaded anew has no gate.
GATE = """
() => {
  const gate = new Promise((resolve) => (window.openGate = resolve));
  const { arrayBuffer } = Blob.prototype;
  let left = 6_000_000;
  Blob.prototype.arrayBuffer = async function () {
    left -= this.size;
    if (left < 0) await gate;
    return arrayBuffer.call(this);
  };
}
"""
# As a browser without room: Chromium takes its time to heed a smaller quota.
NO_ROOM = """
() => {
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = function (value, key) {
    if (value instanceof Blob) throw new DOMException('there is no room', 'QuotaExceededError');
    return put.call(this, value, key);
  };
}
"""
# In the journal of this name, a transaction that lasts until `letGo` is called.
BUSY = """
async (name) => {
  const database = await new Promise((resolve) => {
    const opening = indexedDB.open(`aldis.journal.${name}`);
    opening.onsuccess = () => resolve(opening.result);
  });
  const rows = database.transaction('rows', 'readwrite').objectStore('rows');
  let isBusy = true;
  window.letGo = () => (isBusy = false);
  await new Promise((resolve) => {
    const look = () => {
      resolve();
      if (isBusy) rows.get('w').onsuccess = look;
      else database.close();
    };
    rows.get('w').onsuccess = look;
  });
}
"""
FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
# Until the browser has a copy of all of it; the window says so to nobody.
COPIED = """
async (blocks) => {
  const database = await new Promise((resolve) => {
    const opening = indexedDB.open('aldis.journal.alice');
    opening.onsuccess = () => resolve(opening.result);
  });
  const count = () => new Promise((resolve) => {
    const request = database.transaction('files').objectStore('files').count();
    request.onsuccess = () => resolve(request.result);
  });
  while ((await count()) < blocks) await new Promise(requestAnimationFrame);
  database.close();
}
"""


async def taken(arrive: Arrive, folder: Path, name: str = "film.bin") -> tuple[Window, Window, bytes]:
    """Bob has accepted a file of alice's, which stops in the middle."""
    source = folder / name  # another one in each test that saves it: Firefox does so into one folder
    source.write_bytes(os.urandom(SIZE))
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await alice.page.evaluate(GATE)
    await with_bob.send_file(source)
    with_alice = await bob.open("alice")
    await with_alice.button(f"Accept {name}").click()
    for conversation in (with_bob, with_alice):
        await expect(conversation.entry(name)).to_contain_text(re.compile(r"[456]\.\d MB of 12 MB"))
    await alice.page.evaluate(COPIED, -(-SIZE // 2**20))
    return alice, bob, source.read_bytes()


@IN_BOTH
async def test_a_file_goes_on_by_itself_when_its_senders_window_is_loaded_anew(arrive: Arrive, tmp_path: Path) -> None:
    alice, bob, content = await taken(arrive, tmp_path, "sent.bin")
    with_alice = bob.conversation("alice")
    # Nobody is asked whether they want to leave: nothing is lost.
    await alice.page.reload()
    with_bob = await alice.open("bob")
    await expect(with_bob.entry("sent.bin")).to_contain_text("12 MB · delivered")
    await expect(with_alice.entry("sent.bin")).to_contain_text("12 MB · received")
    for conversation in (with_bob, with_alice):  # one and the same, and not one that has failed besides
        await expect(conversation.log.get_by_role("article")).to_have_count(1)
    saved = await with_alice.save("sent.bin")
    assert sha256(saved.read_bytes()).digest() == sha256(content).digest()


@IN_BOTH
async def test_a_file_waits_for_its_recipient_and_is_there_until_it_is_saved(arrive: Arrive, tmp_path: Path) -> None:
    alice, bob, content = await taken(arrive, tmp_path, "waiting.bin")
    with_bob = alice.conversation("bob")
    await bob.page.close()
    await expect(with_bob.entry("waiting.bin")).to_contain_text("waits until bob is back")
    await alice.page.evaluate("openGate()")
    bob = Window(bob.person, await bob.person.context.new_page())
    await bob.start("bob")
    with_alice = await bob.open("alice")
    await expect(with_alice.entry("waiting.bin")).to_contain_text("12 MB · received")
    await expect(with_bob.entry("waiting.bin")).to_contain_text("12 MB · delivered")
    assert await bob.page.evaluate(ON_DISK) == []
    # It has arrived, and nobody has saved it.
    await bob.page.reload()
    with_alice = await bob.open("alice")
    await expect(with_alice.entry("waiting.bin")).to_contain_text("12 MB · received")
    saved = await with_alice.save("waiting.bin")
    assert sha256(saved.read_bytes()).digest() == sha256(content).digest()
    await expect(with_alice.button("Discard waiting.bin")).to_have_count(0)
    await with_alice.save("waiting.bin")  # once more
    await bob.page.reload()
    await (await bob.open("alice")).connected()
    await expect(bob.conversation("alice").log.get_by_role("article")).to_have_count(0)


async def test_what_the_sender_has_left_says_that_it_goes_on(arrive: Arrive, tmp_path: Path) -> None:
    alice, bob, _ = await taken(arrive, tmp_path)
    await alice.page.close()
    entry = bob.conversation("alice").entry("film.bin")
    await expect(entry).to_contain_text("goes on when alice is back")
    await expect(entry.get_by_role("button")).to_have_count(0)
    alice = Window(alice.person, await alice.person.context.new_page())
    await alice.start("alice")
    await expect(entry).to_contain_text("12 MB · received")
    await bob.conversation("alice").button("Discard film.bin").click()
    await expect(bob.conversation("alice").log.get_by_role("article")).to_have_count(0)
    await bob.page.reload()
    await (await bob.open("alice")).connected()
    await expect(bob.conversation("alice").log.get_by_role("article")).to_have_count(0)


@IN_BOTH
async def test_what_is_discarded_is_in_sight_until_a_reload_cannot_bring_it_back(
    arrive: Arrive, tmp_path: Path
) -> None:
    names = ("first.bin", "second.bin")
    for name in names:
        (tmp_path / name).write_bytes(os.urandom(5000))
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await with_bob.send_files(*(tmp_path / name for name in names))
    with_alice = await bob.open("alice")
    for name in names:
        await with_alice.button(f"Accept {name}").click()
        await expect(with_alice.entry(name)).to_contain_text("received")
    # Nothing can be written while another transaction goes on.
    await bob.page.evaluate(BUSY, "bob")
    await with_alice.button("Discard first.bin").click()
    await bob.page.evaluate(FRAMES)
    await expect(with_alice.log.get_by_role("article")).to_have_count(2)
    await bob.page.evaluate("letGo()")
    await expect(with_alice.log.get_by_role("article")).to_have_count(1)
    # The last moment of the page: it does not hear any more what became of it.
    await bob.page.evaluate(
        "addEventListener('pagehide', () => document.querySelector('[aria-label^=Discard]').click())"
    )
    await bob.page.reload()
    await (await bob.open("alice")).connected()
    await expect(with_alice.log.get_by_role("article")).to_have_count(0)


async def test_a_browser_without_room_says_to_keep_the_window_open(arrive: Arrive, tmp_path: Path) -> None:
    source = tmp_path / "film.bin"
    source.write_bytes(os.urandom(SIZE))
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await alice.page.evaluate(GATE)
    await with_bob.send_file(source)
    await bob.page.evaluate(NO_ROOM)
    with_alice = await bob.open("alice")
    await with_alice.button("Accept film.bin").click()
    await expect(with_alice.entry("film.bin")).to_contain_text("keep this window open")
    # Who leaves now would lose it, and is asked.
    async with bob.page.expect_event("dialog") as asked:
        await bob.page.evaluate("setTimeout(() => location.reload()); 0")
    await (await asked.value).dismiss()
    await alice.page.evaluate("openGate()")
    saved = await with_alice.save("film.bin")
    assert sha256(saved.read_bytes()).digest() == sha256(source.read_bytes()).digest()


async def test_a_second_window_takes_the_file_over(arrive: Arrive, tmp_path: Path) -> None:
    alice, bob, _ = await taken(arrive, tmp_path)
    second = Window(alice.person, await alice.person.context.new_page())
    await second.start("alice")
    await expect((await second.open("bob")).entry("film.bin")).to_contain_text("12 MB · delivered")
    await expect(alice.conversation("bob").entry("film.bin")).to_contain_text("goes on later")
    await expect(bob.conversation("alice").entry("film.bin")).to_contain_text("12 MB · received")
