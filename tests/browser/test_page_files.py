"""A file that comes, and that the journal does not keep, is written to the disk, to be saved from there; and nothing of
it is left for the next visit. What the journal keeps is in `test_page_kept_files`."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from playwright.async_api import Page, expect

from browser.conftest import IN_BOTH
from support.browser import Arrive, Person
from support.page_windows import Window, windows

SIZE = 20_000_003
# What there is in the page's folder on the disk: the size of each file.
ON_DISK = """
async () => {
  const sizes = [];
  const walk = async (folder) => {
    for await (const entry of folder.values()) {
      if (entry.kind === 'directory') await walk(entry);
      else sizes.push((await entry.getFile()).size);
    }
  };
  await walk(await navigator.storage.getDirectory());
  return sizes;
}
"""
# Until nothing but an empty folder is there; the browser tells nobody when it removes something.
CLEAN = f"async () => {{ while ((await ({ON_DISK})()).length) await new Promise(requestAnimationFrame); }}"


def without(arrive: Arrive, script: str) -> Arrive:
    """People whose browsers run this first."""

    async def arrive_without(browser: str | None = None) -> Person:
        person = await arrive(browser)
        await person.context.add_init_script(script)
        return person

    return arrive_without


def without_journal(arrive: Arrive) -> Arrive:
    """People whose browsers keep keys, but no journal."""
    return without(
        arrive,
        """
        const { open } = IDBFactory.prototype;
        IDBFactory.prototype.open = function (name, ...more) {
          if (name.startsWith('aldis.journal.')) throw new DOMException('', 'SecurityError');
          return open.call(this, name, ...more);
        };
        """,
    )


async def offered(arrive: Arrive, folder: Path, size: int) -> tuple[Window, Window, Path]:
    """Alice offers bob a file."""
    source = folder / "film.bin"
    source.write_bytes(os.urandom(size))
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await with_bob.send_file(source)
    await bob.open("alice")
    return alice, bob, source


async def limit(page: Page, quota: int) -> None:
    """Give the page no more than so many bytes of the disk; what the browser promises beforehand does not change."""
    tools = await page.context.new_cdp_session(page)
    origin = await page.evaluate("location.origin")
    await tools.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": quota})


@IN_BOTH
async def test_a_file_goes_to_the_disk_and_is_gone_after_the_visit(arrive: Arrive, tmp_path: Path) -> None:
    _, bob, source = await offered(without_journal(arrive), tmp_path, SIZE)
    with_alice = bob.conversation("alice")
    await with_alice.button("Accept film.bin").evaluate("(button) => { button.click(); button.click(); }")
    await expect(with_alice.entry("film.bin")).to_contain_text("20 MB · received")
    assert await bob.page.evaluate(ON_DISK) == [SIZE]
    saved = await with_alice.save("film.bin")
    assert sha256(saved.read_bytes()).digest() == sha256(source.read_bytes()).digest()

    # Another window of the same browser leaves it alone.
    second = Window(bob.person, await bob.person.context.new_page())
    await second.start("robert")
    assert await second.page.evaluate(ON_DISK) == [SIZE]
    await second.page.close()
    assert sha256((await with_alice.save("film.bin")).read_bytes()).digest() == sha256(source.read_bytes()).digest()

    await bob.page.reload()
    await expect(bob.server).to_have_text("Server connected")
    await bob.page.evaluate(CLEAN)


async def test_nothing_is_left_of_a_file_that_is_not_taken_after_all(arrive: Arrive) -> None:
    # Chromium says that a file is aborted before it lets go of it, and until then it cannot be removed. Here it never
    # lets go of it.
    script = "FileSystemWritableFileStream.prototype.abort = () => Promise.resolve();"
    bob = Window(await without(arrive, script)())
    await bob.page.goto("/")
    states = await bob.page.evaluate("""async () => {
      const [{ Session }, { sinkOnDisk }] = await Promise.all([
        import('/src/page/session.js'), import('/src/page/disk.js')]);
      const transfer = { state: 'offered', accept: () => { throw new Error('it was taken back'); } };
      const taking = new Session(() => {}, () => {}).take({ taking: false, transfer });
      transfer.state = 'cancelled'; // while the disk opens
      await taking;
      const writer = (await sinkOnDisk(() => {})).getWriter();
      await writer.write(new Uint8Array(1000));
      await writer.abort(); // as when it is cancelled in the middle
      return transfer.state;
    }""")
    assert states == "cancelled"
    assert await bob.page.evaluate(ON_DISK) == []


async def test_without_such_a_folder_a_file_is_kept_in_memory(arrive: Arrive, tmp_path: Path) -> None:
    refuse = "() => Promise.reject(new DOMException('', 'SecurityError'))"
    arrive_without = without(without_journal(arrive), f"StorageManager.prototype.getDirectory = {refuse};")
    _, bob, source = await offered(arrive_without, tmp_path, 1_500_007)
    with_alice = bob.conversation("alice")
    await with_alice.button("Accept film.bin").click()
    await expect(with_alice.entry("film.bin")).to_contain_text("1.5 MB · received")
    # Who leaves now would lose it, and is asked.
    async with bob.page.expect_event("dialog") as asked:
        await bob.page.evaluate("setTimeout(() => location.reload()); 0")
    question = await asked.value
    assert question.type == "beforeunload"
    await question.dismiss()
    saved = await with_alice.save("film.bin")
    assert sha256(saved.read_bytes()).digest() == sha256(source.read_bytes()).digest()


async def test_a_full_disk_is_told_in_plain_words(arrive: Arrive, tmp_path: Path) -> None:
    alice, bob, _ = await offered(without_journal(arrive), tmp_path, SIZE)
    with_bob, with_alice = alice.conversation("bob"), bob.conversation("alice")
    await limit(bob.page, 5_000_000)
    await with_alice.button("Accept film.bin").click()
    await expect(with_alice.entry("film.bin")).to_contain_text("The file did not arrive.")
    for conversation in (with_alice, with_bob):
        await expect(conversation.entry("film.bin")).to_contain_text("not enough room on the disk")
    assert await bob.page.evaluate(ON_DISK) == []
