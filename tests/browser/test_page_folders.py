"""The page sends folders: chosen, or dropped on the conversation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.conftest import IN_BOTH
from support.browser import Arrive
from support.page_windows import Conversation, Window, windows

# Drops a folder as a file manager does, with what it has in it. A test cannot take hold of one.
DROP = """
([area, tree]) => {
  const entry = (name, content) => ({
    name,
    isDirectory: typeof content === 'object',
    file: (take) => take(new File([content], name)),
    createReader() {
      const left = Object.entries(content).map(([name, each]) => entry(name, each));
      return { readEntries: (take) => take(left.splice(0, 2)) };
    },
  });
  const items = Object.entries(tree).map(([name, content]) => ({
    kind: 'file',
    webkitGetAsEntry: () => entry(name, content),
    getAsFile: () => new File([content], name),
  }));
  const event = new Event('drop', { bubbles: true, cancelable: true });
  event.dataTransfer = { items, files: items, types: ['Files'] };
  area.dispatchEvent(event);
}
"""


def a_tree(folder: Path) -> Path:
    tree = folder / "trip"
    (tree / "deep").mkdir(parents=True)
    (tree / "a.txt").write_text("aa")
    (tree / "deep" / "b.txt").write_text("bbb")
    return tree


async def drop(conversation: Conversation, tree: Mapping[str, object]) -> None:
    await conversation.log.evaluate(f"(area, tree) => ({DROP})([area, tree])", dict(tree))


async def two(arrive: Arrive) -> tuple[Window, Conversation, Conversation]:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    return bob, with_bob, await bob.open("alice")


async def arrives(with_alice: Conversation, name: str, *paths: str) -> None:
    await with_alice.button(f"Accept {name}").click()
    files = with_alice.entry(name).get_by_role("list", name=f"Files in {name}").get_by_role("listitem")
    await expect(files).to_have_count(len(paths))
    for path in paths:
        await expect(files.filter(has_text=path)).to_have_count(1)


# In Firefox, nothing that drives it can choose a folder.
async def test_a_folder_is_chosen_and_arrives_as_one(arrive: Arrive, tmp_path: Path) -> None:
    _, with_bob, with_alice = await two(arrive)
    sent = await with_bob.send_folder(a_tree(tmp_path))
    await expect(sent.get_by_role("heading", name="You send a folder")).to_be_attached()
    await arrives(with_alice, "trip", "a.txt", "deep/b.txt")
    await expect(sent).to_contain_text("delivered")


@IN_BOTH
async def test_folders_and_files_are_dropped_together(arrive: Arrive) -> None:
    _, with_bob, with_alice = await two(arrive)
    tree = {"trip": {"one": "1", "two": "2", "three": "3", "deep": {"four": "4", "er": {"five": "5"}}}, "note.txt": "6"}
    await drop(with_bob, tree)
    await expect(with_bob.entry("note.txt")).to_be_visible()
    await arrives(with_alice, "trip", "one", "two", "three", "deep/four", "deep/er/five")


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"trip": {}}, "trip: There is no file in this folder."),
        ({"trip": {"a:": "1", "a?": "2"}}, "trip: This folder cannot be sent. Other systems cannot take a?: two"),
    ],
)
async def test_a_folder_that_cannot_be_sent_says_why(arrive: Arrive, tree: Mapping[str, object], words: str) -> None:
    _, with_bob, _ = await two(arrive)
    await drop(with_bob, tree)
    await expect(with_bob.log.get_by_text(words)).to_be_visible()
