"""What a call shows when tracks change before the other side has heard of the change before: signaling is slow here."""

from __future__ import annotations

import asyncio

import pytest

from browser.conftest import IN_BOTH, Arrive
from browser.test_sdk_calls import CALL, see_each_other
from support.tabs import Tab

# `hold()`: what the server says waits, until `release()`. What goes from page to page does not.
HELD_LINE = """
const waiting = [];
let line = null;
let held = false;
window.WebSocket = class extends WebSocket {
  constructor(...options) {
    super(...options);
    line = this;
    this.addEventListener('message', (event) => {
      if (!held || event.released) return;
      event.stopImmediatePropagation();
      waiting.push(event.data);
    });
  }
};
window.hold = () => { held = true; };
window.release = () => {
  held = false;
  for (const data of waiting.splice(0)) {
    line.dispatchEvent(Object.assign(new MessageEvent('message', { data }), { released: true }));
  }
};
"""
READY = """
window.camera = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
window.sound = new MediaStream(camera.getAudioTracks());
window.pictures = new MediaStream(camera.getVideoTracks());
window.offers = 0;
const { createOffer } = RTCPeerConnection.prototype;
Wire.prototype.createOffer = async function (...options) {
  const offer = await createOffer.apply(this, options);
  offers++;
  changed();
  return offer;
};
window.kinds = () => call.remoteStream.getTracks().map(({ kind }) => kind).sort().join();
store.onCall((call) => {
  window.call = call;
  call.subscribe(changed);
  call.accept(camera);
});
"""
# Packets of sound that have come in, and then more than that.
SOUND = """
const packets = async () => {
  const reports = await Promise.all(wires.map((wire) => wire.getStats()));
  return reports.flatMap((report) => [...report.values()])
    .filter(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio')
    .reduce((sum, { packetsReceived = 0 }) => sum + packetsReceived, 0);
};
const before = await packets();
while ((await packets()) < before + 5) await new Promise(requestAnimationFrame);
"""


async def in_a_call(arrive: Arrive) -> tuple[Tab, Tab]:
    async def ready(name: str) -> Tab:
        tab = await Tab(await arrive()).open()
        await tab.run(HELD_LINE)
        await tab.start(name)
        await tab.run(READY)
        return tab

    alice, bob = await asyncio.gather(ready("alice"), ready("bob"))
    await bob.run(CALL, userId="alice")
    await see_each_other(alice, bob)
    return alice, bob


async def offers_sound_off(tab: Tab) -> None:
    """An offer is on its way, whose answer does not come."""
    await tab.run("hold(); window.before = offers; call.replaceStream(pictures);")
    await tab.until("offers > before")


async def in_touch(*both: Tab) -> None:
    """Both see and hear the other."""
    await see_each_other(*both)
    await asyncio.gather(*(tab.run(SOUND) for tab in both))


@IN_BOTH
async def test_a_second_picture_stands_beside_the_first(arrive: Arrive) -> None:
    alice, bob = await in_a_call(arrive)
    await bob.run("""
        window.screen2 = camera.getVideoTracks()[0].clone();
        call.replaceStream(new MediaStream([...camera.getTracks(), screen2]));
    """)
    await alice.until("kinds() === 'audio,video,video'")
    await bob.run("call.replaceStream(new MediaStream([...sound.getTracks(), screen2]));")
    await alice.until("kinds() === 'audio,video'")
    await bob.run("call.replaceStream(new MediaStream([...camera.getTracks(), screen2]));")
    await alice.until("kinds() === 'audio,video,video'")


@IN_BOTH
async def test_a_camera_that_goes_on_again_comes_back_once(arrive: Arrive) -> None:
    alice, bob = await in_a_call(arrive)
    await alice.run("window.seen = []; call.subscribe(() => seen.at(-1) === kinds() || seen.push(kinds()));")
    await bob.run("call.replaceStream(sound);")
    await alice.until("kinds() === 'audio'")
    await bob.run("wires[0].addEventListener('signalingstatechange', changed);")
    await bob.until("wires[0].getTransceivers().some((each) => each.currentDirection === 'recvonly')")
    await bob.run("call.replaceStream(new MediaStream(camera.getTracks()));")
    await in_touch(alice, bob)
    await bob.run("call.replaceStream(pictures);")
    await alice.until("kinds() === 'video'")
    assert await alice.get("seen") == ["audio,video", "audio", "audio,video", "video"]


@IN_BOTH
async def test_what_goes_off_and_on_while_an_offer_is_out_is_seen_and_heard(arrive: Arrive) -> None:
    alice, bob = await in_a_call(arrive)
    await offers_sound_off(bob)
    for stream in ("null", "new MediaStream(camera.getTracks())"):
        await bob.run(f"call.replaceStream({stream});")
    await bob.run("release();")
    await in_touch(alice, bob)


@pytest.mark.parametrize("ends", ["alice", "bob"])
@pytest.mark.parametrize("calls", ["alice", "bob"])
@IN_BOTH
async def test_a_call_right_after_a_call_is_seen_and_heard_while_an_offer_is_out(
    arrive: Arrive, ends: str, calls: str
) -> None:
    people = {tab.name: tab for tab in await in_a_call(arrive)}
    await offers_sound_off(people["bob"])
    await people[ends].run("call.end();")
    await people[calls].until("call.state === 'ended'")
    other = "bob" if calls == "alice" else "alice"
    await people[calls].run(CALL, userId=other)
    await people[calls].until("call.state !== 'ringing'")
    await people["bob"].run("release();")
    await in_touch(*people.values())


@IN_BOTH
async def test_a_call_shows_no_picture_of_the_call_before(arrive: Arrive) -> None:
    alice, bob = await in_a_call(arrive)
    await alice.run("hold();")
    await bob.run("call.end(); camera = sound;")
    await bob.run(CALL, userId="alice")
    await alice.until("call.state === 'connected' && kinds() === 'audio'")
    # The camera that was offered goes off while it rings.
    await bob.run("""
        call.end();
        camera = new MediaStream([...sound.getTracks(), ...pictures.getTracks()]);
        window.call = await store.call('alice', camera);
        call.subscribe(changed);
        call.replaceStream(sound);
    """)
    await alice.until("call.video && call.state === 'connected' && kinds() === 'audio'")
    await alice.run("release();")
    await bob.run("call.replaceStream(camera);")
    await in_touch(alice, bob)
