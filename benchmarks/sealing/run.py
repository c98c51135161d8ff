"""The cost of a message of the sealed relay: `python -m benchmarks.sealing.run`, half a minute.

* The server: processor time of the hub, without a socket, for a sealed message beside an offer as long; both with ack.
* The clients: processor time of one frame, sealed and opened again, in Python and in Node. A message has one frame, or
  several as when a program sends faster than the line carries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from aldis.peer import sealing
from aldis.peer.sealing import Sealed, SessionKeys
from aldis.protocol import codec
from aldis.protocol.messages import Received, Relay
from benchmarks.load.dialects import AldisComplete
from benchmarks.micro.hub import NOW, Bench
from benchmarks.micro.timing import time_all

# Name, bytes of a frame, frames in a message. A frame of 100 B is a short message, one of 16 KiB a piece of a long one.
CASES: Final = (
    ("100 B, alone", 100, 1),
    ("100 B, 10 in a message", 100, 10),
    ("100 B, 100 in a message", 100, 100),
    ("16 KiB, alone", 16 * 1024, 1),
)
OFFER: Final = "an offer, and its ack"
SEALED: Final = "a sealed message as long, and its ack"


def server(seconds: float) -> dict[str, float]:
    """Microseconds of the hub for a message, by kind."""
    bench = Bench()
    alice, bob = AldisComplete("alice@example.com"), AldisComplete("bob@example.com")
    alices, bobs = bench.register(alice), bench.register(bob)
    offer = alice.offer(bob.user).decode()
    bare = len(codec.encode_text(Relay(bob.user, "", id=1)))
    # Base64 has four characters for three bytes.
    sealed = codec.encode_text(Relay(bob.user, "A" * ((len(offer) - bare) // 4 * 4), id=1))
    relayed = 0

    def relay(text: str) -> None:
        nonlocal relayed
        bench.hub.received(alices, text, NOW)
        relayed += 1
        if not relayed % alice.confirm_every:
            bench.hub.received(bobs, codec.encode_text(Received(count=relayed)), NOW)

    timed = time_all({OFFER: lambda: relay(offer), SEALED: lambda: relay(sealed)}, seconds)
    return {case.name: case.median_ns / 1000 for case in timed}


def python(seconds: float) -> dict[str, float]:
    """Microseconds for a frame that is sealed and opened again, by case."""
    session, keys = bytes(sealing.SESSION_BYTES), (bytes([1]) * 44, bytes([2]) * 44)
    ours, theirs = SessionKeys(session, *keys), SessionKeys(session, *reversed(keys))

    def there_and_back(size: int, count: int) -> Callable[[], object]:
        frames = [bytes(size)] * count
        numbers = iter(range(2**62))

        def once() -> object:
            sealed = sealing.read(ours.seal(next(numbers), frames))
            assert isinstance(sealed, Sealed)
            return theirs.open(sealed)

        return once

    timed = time_all({name: there_and_back(size, count) for name, size, count in CASES}, seconds)
    return {case.name: case.median_ns / 1000 / count for case, (_, _, count) in zip(timed, CASES, strict=True)}


def node(seconds: float) -> dict[str, float]:
    """As `python`, in Node."""
    script = Path(__file__).with_name("node.mjs")
    command = ["node", str(script), str(seconds), json.dumps(CASES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sealing.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number (default: %(default)s)")
    seconds = parser.parse_args(argv).seconds
    hub = server(seconds)
    for name, each in hub.items():
        print(f"server: {name:40} {each:6.2f} us")
    print(f"server: {'ratio':40} {hub[SEALED] / hub[OFFER]:6.2f}")
    ours, theirs = python(seconds), node(seconds)
    print(f"\n{'a frame, sealed and opened':40} {'Python':>9} {'Node':>9}")
    for name, _, _ in CASES:
        print(f"{name:40} {ours[name]:6.2f} us {theirs[name]:6.2f} us")


if __name__ == "__main__":
    main()
