"""One end of a stream, as a process: `python -m benchmarks.stream.worker WAY ROLE [URL] [FOLDER]`.

`WAY` is `bare` (a wrtc connection with a data channel and nothing else), `store`, `journal` (a store with a journal in
`FOLDER`), or `file` (a store that sends a file of so many bytes from `FOLDER`, and receives it there). `ROLE` is
`sender` or `receiver`. JSON lines come in and go out; the runner carries what two `bare` ends signal:

* in: `["signal", …]`, and for the sender `["send", count, size]`
* out: `["signal", …]`, `["ready"]`, `["done", seconds, processor, memory]`: from the first message to the last
  acknowledgement, the processor time of this process in that time, and the most memory that it ever had, in bytes
* at its end a receiver says `["memory", bytes]`
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import webrtc

from aldis.identity.keys import Identity
from aldis.store.files.transfer import Transfer
from aldis.store.messages.delivery import Delivery
from aldis.store.store import NetworkStore
from benchmarks.mesh.bare import description_of

# As the store does it: so much may wait in the engine.
BUFFER: Final = 1024 * 1024
LOW: Final = 256 * 1024
# Messages, and bytes, that wait in a store at most. More is sent when a quarter is left, a sixteenth of them at once.
QUEUE: Final = 4 * 1024
QUEUE_BYTES: Final = 32 * 1024 * 1024
SEED_BYTES: Final = 32
ACKNOWLEDGE: Final = b"all"


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


class Bare:
    """A wrtc connection with one channel. The receiver says at the end that all has come."""

    def __init__(self, *, offers: bool) -> None:
        self._connection = webrtc.RTCPeerConnection()
        self._connection.on("icecandidate", self._gathered)
        self._connection.on("datachannel", lambda event: self._use(event.channel))
        self._room, self._all = asyncio.Event(), asyncio.Event()
        self._expected = self._came = 0
        self._channel: webrtc.RTCDataChannel | None = None
        self._offers = offers
        self.ready = asyncio.Event()

    async def start(self) -> None:
        if self._offers:
            self._use(self._connection.create_data_channel("bench"))
            await self._connection.set_local_description(await self._connection.create_offer())
            self._say_description()

    def _say_description(self) -> None:
        made = description_of(self._connection)
        say("signal", "description", str(getattr(made.type, "value", made.type)), made.sdp)

    def _gathered(self, event: webrtc.RTCPeerConnectionIceEvent) -> None:
        found = event.candidate
        # The store's engine does not tell of ::1 where there is 127.0.0.1. Both use the same path.
        if found is not None and " ::1 " not in found.candidate:
            say("signal", "candidate", found.candidate, found.sdp_mid, found.sdp_m_line_index)

    async def signal(self, kind: str, *values: Any) -> None:
        if kind == "candidate":
            text, mid, index = values
            await self._connection.add_ice_candidate(webrtc.RTCIceCandidate(text, mid, index))
            return
        type_, sdp = values
        await self._connection.set_remote_description(webrtc.RTCSessionDescription(type_, sdp))
        if type_ == "offer":
            await self._connection.set_local_description(await self._connection.create_answer())
            self._say_description()

    def _use(self, channel: webrtc.RTCDataChannel) -> None:
        self._channel = channel
        channel.buffered_amount_low_threshold = LOW
        channel.on("bufferedamountlow", lambda _: self._room.set())
        channel.on("message", self._message)
        channel.on("open", lambda _: self.ready.set())
        if str(getattr(channel.ready_state, "value", channel.ready_state)) == "open":
            self.ready.set()

    def _message(self, event: webrtc.MessageEvent) -> None:
        data = event.data
        assert isinstance(data, bytes)
        if self._offers:
            self._all.set()
        elif data[:1] == b"#":
            self._expected, self._came = int(data[1:]), 0
        else:
            self._came += 1
            if self._came == self._expected:
                assert self._channel is not None
                self._channel.send(ACKNOWLEDGE)

    def prepare(self, size: int) -> None:
        """Nothing: what is sent comes from no disk."""

    async def send(self, count: int, size: int) -> None:
        assert self._channel is not None
        data = b"x" * size
        self._all.clear()
        self._channel.send(b"#%d" % count)
        for _ in range(count):
            if self._channel.buffered_amount > BUFFER - size:
                self._room.clear()
                await self._room.wait()
            self._channel.send(data)
        await self._all.wait()


class Stored:
    """A store, which knows by itself when all has come."""

    def __init__(self, role: str, url: str, **options: Any) -> None:
        # The same key in each round: the server binds the name to it.
        identity = Identity.from_seed(role.encode().ljust(SEED_BYTES))
        self._store = NetworkStore(identity, ice_servers=[], **options)
        self._role, self._url = role, url
        self.ready = asyncio.Event()

    async def start(self) -> None:
        self._store.on_message(lambda _: None)
        await self._store.connect_to_signaling(self._url, self._role)
        if self._role == "sender":
            await self._store.connect_to_peer("receiver")
        self.ready.set()

    async def signal(self, *_: Any) -> None:
        raise AssertionError("a store has signaling of its own")

    def prepare(self, size: int) -> None:
        """Nothing: what is sent comes from no disk."""

    async def send(self, count: int, size: int) -> None:
        data = b"x" * size
        most = min(QUEUE, QUEUE_BYTES // size)
        step = most // 16
        marks: deque[Delivery] = deque(maxlen=5)
        for number in range(count):
            delivery = self._store.send("receiver", data)
            if number % step == step - 1:
                marks.append(delivery)
                await asyncio.sleep(0)
                # As an application does that has much to send: only so much waits. It goes on, as the bare engine does,
                # when a quarter is left: if it waited for the last one, both ends would be idle in turn.
                if self._store.state.peers["receiver"].queued >= most:
                    await marks[0]
        await self._store.drain("receiver")


class Filed(Stored):
    """A store that sends files, and throws away what it has received."""

    def __init__(self, role: str, url: str, folder: Path) -> None:
        super().__init__(role, url)
        self._folder = folder
        self._store.on_file(self._take)

    def _take(self, transfer: Transfer) -> None:
        transfer.accept(self._folder)
        transfer.subscribe(self._clean)

    def _clean(self, transfer: Transfer) -> None:
        if transfer.path is not None:
            transfer.path.unlink(missing_ok=True)

    def prepare(self, size: int) -> None:
        """Write the file, to the disk. A hole in its place would cost the kernel more to read than a file does."""
        block = os.urandom(2**20)
        with (self._folder / "sent").open("wb") as file:
            for start in range(0, size, len(block)):
                file.write(block[: size - start])
            file.flush()
            os.fsync(file.fileno())

    async def send(self, count: int, size: int) -> None:
        await (await self._store.send_file("receiver", self._folder / "sent", name="received"))


def memory() -> int:
    """The most that this process ever had, in bytes (getrusage(2) counts KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def main(way: str, role: str, url: str = "", folder: str = "") -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    end: Bare | Stored
    match way:
        case "bare":
            end = Bare(offers=role == "sender")
        case "store":
            end = Stored(role, url)
        case "file":
            end = Filed(role, url, Path(folder))
        case _:
            end = Stored(role, url, journal=Path(folder) / f"{role}.journal")
    commands: dict[str, Callable[..., Awaitable[None]]] = {"signal": end.signal}

    async def work() -> None:
        await end.start()
        await end.ready.wait()
        say("ready")

    async def send(count: int, size: int) -> None:
        end.prepare(count * size)
        began, used = time.perf_counter(), time.process_time()
        await end.send(count, size)
        say("done", time.perf_counter() - began, time.process_time() - used, memory())

    commands["send"] = send
    starting = asyncio.create_task(work())
    while line := await reader.readline():
        name, *values = json.loads(line)
        await commands[name](*values)
    starting.cancel()
    say("memory", memory())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
