"""Two connections of a bare engine in one process that hand each other descriptions and candidates by function call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiortc
import webrtc

PATIENCE: Final = 60.0  # seconds for one connection


async def connect_bare(engine: str) -> Callable[[], Awaitable[None]]:
    """Return when the offerer's channel is open. What is returned closes both ends."""
    return await (_wrtc() if engine == "wrtc" else _aiortc())


async def _wrtc() -> Callable[[], Awaitable[None]]:
    ends = offerer, answerer = webrtc.RTCPeerConnection(), webrtc.RTCPeerConnection()
    opened = asyncio.get_running_loop().create_future()
    arrived: asyncio.Queue[tuple[webrtc.RTCPeerConnection, webrtc.RTCIceCandidate | None]] = asyncio.Queue()
    offerer.on("icecandidate", lambda event: arrived.put_nowait((answerer, event.candidate)))
    answerer.on("icecandidate", lambda event: arrived.put_nowait((offerer, event.candidate)))
    channel = offerer.create_data_channel("bench")
    channel.on("open", lambda event: _done(opened))

    async def pass_on() -> None:
        left = len(ends)
        while left:
            target, candidate = await arrived.get()
            left -= candidate is None  # the last one of an end
            await target.add_ice_candidate(candidate)

    await offerer.set_local_description(await offerer.create_offer())
    await answerer.set_remote_description(description_of(offerer))
    await answerer.set_local_description(await answerer.create_answer())
    await offerer.set_remote_description(description_of(answerer))
    # Also the candidates that come after the channel is open: each pair of them is checked as long as the connection
    # lives, and that is most of what an idle connection costs.
    passing = asyncio.create_task(pass_on())

    async def close() -> None:
        passing.cancel()
        await asyncio.wait([passing])
        for end in ends:
            end.close()
            end.off()

    try:
        async with asyncio.timeout(PATIENCE):
            await opened
    except BaseException:
        await close()
        raise
    return close


async def _aiortc() -> Callable[[], Awaitable[None]]:
    # An empty list: without one aiortc takes a public STUN server.
    ends = offerer, answerer = [aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[])) for _ in range(2)]
    opened = asyncio.get_running_loop().create_future()
    channel = offerer.createDataChannel("bench")
    channel.on("open", lambda: _done(opened))

    async def close() -> None:
        await asyncio.gather(*(end.close() for end in ends))

    await offerer.setLocalDescription(await offerer.createOffer())
    await answerer.setRemoteDescription(offerer.localDescription)
    await answerer.setLocalDescription(await answerer.createAnswer())
    await offerer.setRemoteDescription(answerer.localDescription)
    async with asyncio.timeout(PATIENCE):
        await opened
    return close


def _done(opened: asyncio.Future[None]) -> None:
    if not opened.done():
        opened.set_result(None)


def description_of(connection: webrtc.RTCPeerConnection) -> webrtc.RTCSessionDescription:
    description = connection.local_description
    assert description is not None
    return description
