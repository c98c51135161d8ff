"""Video calls: pictures are decoded at the other end, whatever becomes of the connection in between."""

from __future__ import annotations

import asyncio

from browser.conftest import IN_BOTH, Arrive
from support.server_process import ServerProcess
from support.stores import contents, stores
from support.tabs import Tab, tabs

ANSWER = """
window.calls = [];
store.onCall(async (call) => {
  window.call = call;
  calls.push(call);
  call.subscribe(changed);
  call.accept(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
});
"""
CALL = """
window.camera ??= await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
window.call = await store.call(userId, camera);
call.subscribe(changed);
"""
SHOW = """
window.video ??= document.body.appendChild(document.createElement('video'));
video.muted = true;
video.srcObject = call.remoteStream;
await video.play();
"""
# Pictures of the connection that is there now: decoded so far, and then more than that.
PICTURES = """
const decoded = async () => {
  const reports = await Promise.all(wires.map((wire) => wire.getStats()));
  return reports.flatMap((report) => [...report.values()])
    .filter(({ type, kind }) => type === 'inbound-rtp' && kind === 'video')
    .reduce((sum, { framesDecoded = 0 }) => sum + framesDecoded, 0);
};
const picture = () => new Promise((resolve) => video.requestVideoFrameCallback(resolve));
const before = await decoded();
while ((await decoded()) < before + 5) await picture();
return [video.videoWidth, video.videoHeight];
"""


async def see_each_other(*both: Tab) -> None:
    """Both sides decode the other's pictures."""
    for tab in both:
        await tab.until("globalThis.call?.state === 'connected' && call.remoteStream.getTracks().length === 2")
        await tab.run(SHOW)
    for width, height in await asyncio.gather(*(tab.run(PICTURES) for tab in both)):
        assert width >= 160
        assert height >= 120


@IN_BOTH
async def test_a_video_call_shows_moving_pictures_at_both_ends_and_can_be_repeated(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(ANSWER)
    await alice.run("await store.connectToPeer('bob');")
    for caller, called in ((alice, bob), (alice, bob)):
        await caller.run(CALL, userId=called.name)
        await see_each_other(alice, bob)
        assert await called.get("[call.direction, call.audio, call.video, call.userId]") == ["in", True, True, "alice"]
        await caller.sends(called.name, "during the call")
        assert await called.contents(1) == ["during the call"]
        await called.run("call.end('dinner is ready');")
        await caller.until("call.state === 'ended'")
        for tab in (alice, bob):
            ended = await tab.get("[call.state, call.reason, call.error, call.remoteStream.getTracks().length]")
            assert ended == ["ended", "dinner is ready", None, 0]
    assert await bob.get("calls.length") == 2
    # All over the one connection that was there before.
    for tab, peer in ((alice, "bob"), (bob, "alice")):
        assert await tab.get(f"[wires.length, store.state.peers.{peer}.connections]") == [1, 1]
        assert await tab.get("wires[0].getSenders().every(({ track }) => track === null)")


@IN_BOTH
async def test_a_call_goes_on_over_a_connection_that_takes_the_place_of_a_lost_one(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(ANSWER)
    await alice.run(CALL, userId="bob")
    await see_each_other(alice, bob)
    stream = "window.stream = call.remoteStream;"
    for tab in (alice, bob):
        await tab.run(stream)
    await alice.run("wires.at(-1).close();")
    for tab, peer in ((alice, "bob"), (bob, "alice")):
        await tab.until(f"peers.{peer}.connections === 2 && peers.{peer}.state === 'connected'")
    await see_each_other(alice, bob)
    for tab in (alice, bob):
        assert await tab.get("stream === call.remoteStream")
    await alice.run("call.end();")
    await bob.until("call.state === 'ended'")


@IN_BOTH
async def test_both_may_change_what_they_send_at_once_in_the_middle_of_a_call(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(ANSWER)
    await alice.run(CALL, userId="bob")
    await see_each_other(alice, bob)
    for _ in range(2):
        change = "call.replaceStream(new MediaStream(call.localStream.getAudioTracks()));"
        await asyncio.gather(*(tab.run(f"window.whole = call.localStream; {change}") for tab in (alice, bob)))
        for tab in (alice, bob):
            await tab.until("call.remoteStream.getTracks().length === 1")
        await asyncio.gather(*(tab.run("call.replaceStream(whole);") for tab in (alice, bob)))
        await see_each_other(alice, bob)


async def test_a_call_that_nobody_wants_is_declined_and_one_that_is_declined_sends_nothing(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await alice.run(CALL, userId="bob")
    await alice.until("call.state === 'ended'")
    assert await alice.get("call.reason") == "no calls here"
    await bob.run("store.onCall((call) => call.decline('not now'));")
    await alice.run(CALL, userId="bob")
    await alice.until("call.state === 'ended'")
    assert await alice.get("call.reason") == "not now"
    assert await alice.get("wires.flatMap((wire) => wire.getTransceivers()).length") == 0


async def test_two_who_call_each_other_at_once_are_in_one_call(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    for tab in (alice, bob):
        await tab.run("store.onCall((call) => window.other = call);")
    await alice.run("await store.connectToPeer('bob');")
    await bob.connected("alice")
    await asyncio.gather(alice.run(CALL, userId="bob"), bob.run(CALL, userId="alice"))
    # Whoever was quick enough to be heard first rings; who rings is answered.
    for tab, peer in ((alice, "bob"), (bob, "alice")):
        await tab.run(
            "if (globalThis.other?.state === 'ringing') { window.call = await store.call(peer, camera); }", peer=peer
        )
    await see_each_other(alice, bob)
    await bob.run("call.end();")
    await alice.until("call.state === 'ended'")


@IN_BOTH
async def test_a_python_program_takes_no_calls_and_is_not_harmed_by_one(arrive: Arrive, server: ServerProcess) -> None:
    async with stores(f"ws://127.0.0.1:{server.port}", "bob") as (bob,):
        (alice,) = await tabs(arrive, "alice")
        # Not connected yet: it turns out when they are.
        await alice.run("window.call = await store.call('bob', null); call.subscribe(changed);")
        await alice.until("call.state === 'ended'")
        assert await alice.get("[call.error.name, call.error.feature]") == ["FeatureMissing", "calls"]
        error = await alice.fails("store.call('bob', null)")
        assert (error["name"], error["userId"], error["feature"]) == ("FeatureMissing", "bob", "calls")
        assert await alice.get("store.state.peers.bob.features") == ["files", "files-2", "files-3", "bundles"]
        await alice.sends("bob", "then let us write")
        assert await contents(bob, 1) == ["then let us write"]
        bob.send("alice", "gladly")
        assert await alice.contents(1) == ["gladly"]
