"""Video calls on the page: the pictures move, the buttons do what they say, and every end is told."""

from __future__ import annotations

import asyncio

from playwright.async_api import Locator, expect

from support.browser import Arrive
from support.page_windows import Conversation, Window, windows

MOVES = """
async (video) => {
  for (let count = 0; count < 5; count++) await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
  return [video.videoWidth, video.videoHeight, video.currentTime, video.paused];
}
"""
ENABLED = "(video) => video.srcObject.getAudioTracks().map((track) => [track.enabled, track.readyState])"


async def moves(*videos: Locator) -> None:
    """Pictures come in, and are shown."""
    for video in videos:
        await expect(video).to_be_visible()
    for width, height, time, paused in await asyncio.gather(*(video.evaluate(MOVES) for video in videos)):
        assert width >= 160
        assert height >= 120
        assert time > 0
        assert not paused


async def talking(arrive: Arrive) -> tuple[Window, Window, Conversation, Conversation]:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await alice.talk_to("bob")
    await with_bob.connected()
    return alice, bob, with_bob, await bob.open("alice")


async def test_a_video_call_shows_moving_pictures_at_both_ends(arrive: Arrive) -> None:
    alice, bob, with_bob, with_alice = await talking(arrive)
    await with_bob.button("Start a video call").click()
    await expect(with_bob.call).to_contain_text("Calling bob…")
    await expect(with_bob.button("Start a video call")).to_be_disabled()
    await expect(bob.ringing("alice")).to_contain_text("Video call")
    await expect(bob.page).to_have_title("☎ alice is calling")
    await bob.button("Accept with video").click()
    await expect(bob.ringing("alice")).to_be_hidden()
    for conversation, person in ((with_bob, "bob"), (with_alice, "alice")):
        await expect(conversation.call).to_contain_text(f"In a call with {person}")
    pictures = {
        conversation: conversation.call.get_by_label(f"Picture of {conversation.name}")
        for conversation in (with_bob, with_alice)
    }
    ours = with_bob.call.get_by_label("Your own picture")
    await moves(*pictures.values(), ours, with_alice.call.get_by_label("Your own picture"))
    await with_bob.delivers("while we talk")
    await with_alice.heard("while we talk")

    await with_bob.button("Mute the microphone").click()
    assert await ours.evaluate(ENABLED) == [[False, "live"]]
    await with_bob.button("Unmute the microphone").click()
    assert await ours.evaluate(ENABLED) == [[True, "live"]]

    await with_bob.button("Turn the camera off").click()
    await expect(ours).to_be_hidden()
    await expect(pictures[with_alice]).to_be_hidden()
    await moves(pictures[with_bob])
    await with_bob.button("Turn the camera on").click()
    await moves(pictures[with_alice], ours)

    # Another conversation, and back: the call goes on.
    await alice.talk_to("carol")
    await alice.open("bob")
    await moves(pictures[with_bob])

    tracks = await ours.evaluate_handle("(video) => video.srcObject.getTracks()")
    await with_alice.button("Hang up").click()
    for conversation in (with_bob, with_alice):
        await expect(conversation.call).to_be_hidden()
        await expect(conversation.log).to_contain_text("Call ended after 0:")
        await expect(conversation.button("Start a video call")).to_be_enabled()
    # Microphone and camera are let go of.
    assert set(await tracks.evaluate("(tracks) => tracks.map((track) => track.readyState)")) == {"ended"}
    await with_bob.delivers("and after")


async def test_a_call_can_be_declined_given_up_and_be_without_pictures(arrive: Arrive) -> None:
    _, bob, with_bob, with_alice = await talking(arrive)
    await with_bob.button("Start a video call").click()
    await bob.button("Decline").click()
    await expect(with_bob.log).to_contain_text("bob declined the call")
    await expect(with_alice.log).to_contain_text("You declined the call")

    await with_bob.button("Start an audio call").click()
    await expect(bob.ringing("alice")).to_contain_text("Audio call")
    await bob.page.keyboard.press("Escape")  # which declines, too
    await expect(bob.ringing("alice")).to_be_hidden()
    await expect(with_bob.log.get_by_text("bob declined the call")).to_have_count(2)

    await with_bob.button("Start an audio call").click()
    await expect(bob.ringing("alice")).to_be_visible()
    await with_bob.button("Hang up").click()
    await expect(bob.ringing("alice")).to_be_hidden()
    await expect(with_alice.log).to_contain_text("Missed call from alice")
    await expect(with_bob.log).to_contain_text("Call ended without an answer")

    await with_alice.button("Start an audio call").click()
    # What is offered first is what was asked for.
    await expect(with_bob.window.button("Accept with audio only")).to_have_class("primary")
    await expect(with_bob.window.button("Accept with video")).not_to_have_class("primary")
    await with_bob.window.button("Accept with audio only").click()
    for conversation, person in ((with_bob, "bob"), (with_alice, "alice")):
        await expect(conversation.call).to_contain_text(f"In a call with {person}")
        await expect(conversation.call.get_by_label(f"Picture of {person}")).to_be_hidden()
    await with_alice.button("Turn the camera on").click()
    await moves(with_bob.call.get_by_label("Picture of bob"))
    await with_bob.button("Hang up").click()
    await expect(with_alice.call).to_be_hidden()


async def test_a_third_person_hears_that_one_is_busy(arrive: Arrive) -> None:
    _, bob, with_bob, with_alice = await talking(arrive)
    await with_bob.button("Start a video call").click()
    await bob.button("Accept with video").click()
    await expect(with_alice.call).to_contain_text("In a call with alice")
    (carol,) = await windows(arrive, "carol")
    carol_with_bob = await (await carol.talk_to("bob")).connected()
    await carol_with_bob.button("Start a video call").click()
    await expect(carol_with_bob.log).to_contain_text("bob is in another call")
    await moves(with_alice.call.get_by_label("Picture of alice"))


async def test_a_call_ends_with_the_window_of_the_other(arrive: Arrive) -> None:
    _, bob, with_bob, with_alice = await talking(arrive)
    await with_bob.button("Start a video call").click()
    await bob.button("Accept with video").click()
    await moves(with_bob.call.get_by_label("Picture of bob"), with_alice.call.get_by_label("Picture of alice"))
    await bob.page.close()
    await expect(with_bob.call).to_be_hidden()
    await expect(with_bob.log).to_contain_text("Call ended after 0:")


async def test_a_call_that_was_not_allowed_is_tried_again(arrive: Arrive) -> None:
    alice, bob, with_bob, _ = await talking(arrive)
    # This Chromium allows it to everybody, so somebody has to say no in its place, once.
    await alice.page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => {
        delete navigator.mediaDevices.getUserMedia;
        throw new DOMException('', 'NotAllowedError');
      };
    }""")
    await with_bob.button("Start a video call").click()
    await expect(with_bob.call).to_contain_text("The browser may not use the microphone or camera")
    await with_bob.button("Try again").press("Enter")
    await expect(bob.ringing("alice")).to_contain_text("Video call")
    await expect(with_bob.call).to_be_focused()
    await bob.button("Accept with audio only").click()
    clock = with_bob.call.get_by_text("0:0")
    await expect(clock).to_be_visible()
    with_pictures = await with_bob.call.evaluate("(call) => call.clientHeight")
    await with_bob.button("Turn the camera off").click()
    # Words need less room than pictures.
    await expect(with_bob.call.get_by_label("Your own picture")).to_be_hidden()
    await expect(clock).to_be_visible()
    assert await with_bob.call.evaluate("(call) => call.clientHeight") < 0.7 * with_pictures
