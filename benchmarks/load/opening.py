"""How long it takes from wanting a peer to having an open channel to it, on loopback: Aldis, and the bare engine.

The bare engine is two connections in one process that hand each other descriptions and candidates by function call: no
server, no proof, no hello. Aldis is two `NetworkStore`s in one process, both registered with an `aldis serve` in
another: discovery, signed offer and answer through the server, checked proofs and pins, ICE, DTLS, SCTP, hellos.
Each opening is between two fresh connections; the first of each kind, which loads the engine, is not counted.

Started by `benchmarks.run` inside `tools/netns.sh`: aioice never gathers 127.0.0.1, and real interfaces differ.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

import aiortc
import webrtc

from aldis.identity.keys import Identity
from aldis.store.store import NetworkStore
from benchmarks.load import servers
from benchmarks.load.process import choose_cores

PATIENCE: Final = 20.0  # seconds for one opening, of which none takes one


def note_time(opened: asyncio.Future[float]) -> None:
    """Say when a channel has opened. A second one changes nothing."""
    if not opened.done():
        opened.set_result(perf_counter())


def needed(description: webrtc.RTCSessionDescription | None) -> webrtc.RTCSessionDescription:
    """A description that is there by now."""
    assert description is not None
    return description


async def bare_wrtc() -> float:
    """Two wrtc connections, with trickle, until the offerer's channel is open."""
    began = perf_counter()
    offerer, answerer = webrtc.RTCPeerConnection(), webrtc.RTCPeerConnection()
    opened = asyncio.get_running_loop().create_future()
    arrived: asyncio.Queue[tuple[webrtc.RTCPeerConnection, webrtc.RTCIceCandidate | None]] = asyncio.Queue()
    offerer.on("icecandidate", lambda event: arrived.put_nowait((answerer, event.candidate)))
    answerer.on("icecandidate", lambda event: arrived.put_nowait((offerer, event.candidate)))
    channel = offerer.create_data_channel("bench")
    channel.on("open", lambda event: note_time(opened))
    try:
        await offerer.set_local_description(await offerer.create_offer())
        await answerer.set_remote_description(needed(offerer.local_description))
        await answerer.set_local_description(await answerer.create_answer())
        await offerer.set_remote_description(needed(answerer.local_description))

        async def pass_on() -> None:
            while True:
                target, candidate = await arrived.get()
                await target.add_ice_candidate(candidate)

        passing = asyncio.create_task(pass_on())
        try:
            return float(await asyncio.wait_for(opened, PATIENCE)) - began
        finally:
            passing.cancel()
            await asyncio.wait([passing])
    finally:
        for connection in (offerer, answerer):
            connection.close()
            connection.off()


async def bare_aiortc() -> float:
    """Two aiortc connections, which do not trickle, until the offerer's channel is open."""
    began = perf_counter()
    # An empty list: without one aiortc takes a public STUN server.
    offerer, answerer = (aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[])) for _ in range(2))
    opened = asyncio.get_running_loop().create_future()
    channel = offerer.createDataChannel("bench")
    channel.on("open", lambda: note_time(opened))
    try:
        await offerer.setLocalDescription(await offerer.createOffer())
        await answerer.setRemoteDescription(offerer.localDescription)
        await answerer.setLocalDescription(await answerer.createAnswer())
        await offerer.setRemoteDescription(answerer.localDescription)
        return float(await asyncio.wait_for(opened, PATIENCE)) - began
    finally:
        await asyncio.gather(offerer.close(), answerer.close())


async def through_aldis(engine: str, url: str) -> float:
    """Two stores, until `connect_to_peer` returns."""
    tag = Identity.generate().fingerprint
    alice, bob = (NetworkStore(Identity.generate(), engine=engine, ice_servers=[]) for _ in range(2))
    try:
        await alice.connect_to_signaling(url, f"alice-{tag}")
        await bob.connect_to_signaling(url, f"bob-{tag}")
        began = perf_counter()
        await alice.connect_to_peer(f"bob-{tag}", timeout=PATIENCE)
        return perf_counter() - began
    finally:
        await asyncio.gather(alice.disconnect(), bob.disconnect())


async def main(rounds: int) -> dict[str, object]:
    """Open `rounds` channels in each way, in turn."""
    with servers.started(servers.ALDIS, choose_cores().server) as server:
        url = f"ws://127.0.0.1:{server.port}"
        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "wrtc, bare": bare_wrtc,
            "wrtc, connect_to_peer": lambda: through_aldis("wrtc", url),
            "aiortc, bare": bare_aiortc,
            "aiortc, connect_to_peer": lambda: through_aldis("aiortc", url),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                seconds = await way()
                if number:
                    taken[name].append(seconds)
    return {"cases": [{"name": name, "seconds": seconds} for name, seconds in taken.items()]}


if __name__ == "__main__":
    json.dump(asyncio.run(main(int(sys.argv[1]))), sys.stdout)
