"""Every pair of browsers: two people chat, send a file each way, and call each other with moving pictures."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from support.browser import BROWSERS, Arrive
from support.page_windows import Conversation, Window

SIZE = 300_007
# Pictures that are shown until three differ clearly from the first: one of ten of their pixels by a fourth of the
# range. The compression of a picture that stands still changes pixels by much less.
CHANGES = """
async (video) => {
  const [width, height] = [32, 24];
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  const shown = () => new Promise((resolve) => video.requestVideoFrameCallback((_, about) => resolve(about)));
  const picture = async () => {
    const { presentedFrames } = await shown();
    context.drawImage(video, 0, 0, width, height);
    return { presentedFrames, pixels: context.getImageData(0, 0, width, height).data };
  };
  const first = await picture();
  let different = 0;
  let last = first;
  while (different < 3) {
    last = await picture();
    const changed = last.pixels.filter((value, index) => Math.abs(value - first.pixels[index]) > 64);
    if (changed.length > width * height / 10) different++;
  }
  return last.presentedFrames - first.presentedFrames;
}
"""


async def pictures_change(*videos: Locator) -> None:
    """The pictures that come in move."""
    for video in videos:
        await expect(video).to_be_visible()
    for frames in await asyncio.gather(*(video.evaluate(CHANGES) for video in videos)):
        assert frames >= 3


async def calls(caller: Conversation, called: Conversation) -> None:
    """One calls with video, the other answers, both see each other; the called one hangs up."""
    await caller.button("Start a video call").click()
    await called.window.button("Accept with video").click()
    await pictures_change(
        *(conversation.call.get_by_label(f"Picture of {conversation.name}") for conversation in (caller, called))
    )
    # Tab stops at no picture.
    await caller.page.bring_to_front()
    await caller.button("Hide the connection").press("Tab")
    assert await caller.page.evaluate("document.activeElement.ariaLabel") == "Mute the microphone"
    await caller.delivers(f"during the call of {called.name}")
    await called.button("Hang up").click()
    for conversation in (caller, called):
        await expect(conversation.call).to_be_hidden()


async def sends_a_file(sender: Conversation, receiver: Conversation, path: Path) -> None:
    path.write_bytes(os.urandom(SIZE))
    sent = await sender.send_file(path)
    await receiver.button(f"Accept {path.name}").click()
    await expect(sent).to_contain_text("delivered")
    saved = await receiver.save(path.name)
    assert sha256(saved.read_bytes()).digest() == sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("called", BROWSERS)
@pytest.mark.parametrize("caller", BROWSERS)
async def test_two_people_chat_send_files_and_call_each_other(
    arrive: Arrive, caller: str, called: str, tmp_path: Path
) -> None:
    alice, bob = await asyncio.gather(
        Window(await arrive(caller)).start("alice"), Window(await arrive(called)).start("bob")
    )
    with_bob = await (await alice.talk_to("bob")).connected()
    with_alice = await bob.open("alice")
    await with_bob.delivers("hello", "and the second")
    await with_alice.delivers("🦊 it is me")
    await with_bob.heard("it is me")
    await with_alice.heard("hello", "and the second")
    await expect(with_bob.fact("Path")).to_have_text("direct")
    await sends_a_file(with_bob, with_alice, tmp_path / f"{caller} to {called}.bin")
    await sends_a_file(with_alice, with_bob, tmp_path / f"back from {called} to {caller}.bin")
    await calls(with_bob, with_alice)
    await calls(with_alice, with_bob)
    # Over the one connection that was there at first.
    for conversation in (with_bob, with_alice):
        await expect(conversation.fact("Reconnects")).to_have_text("0")
