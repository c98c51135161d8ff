"""Two builds of the servers side by side: a cluster is upgraded, and taken back, while clients exchange numbers.

    .venv/bin/python -m benchmarks.cluster.upgrade                   # from the oldest build with the same messages
    .venv/bin/python -m benchmarks.cluster.upgrade --from v0.1.0     # from that revision of this repository
    .venv/bin/python -m benchmarks.cluster.upgrade --packages FOLDER # from the packages in that folder, without git

Three servers of the older build begin. One after the other drains, ends, and starts again as the build of this folder;
in between, a server of each build is killed, Redis is restarted, and an operator bans and frees a user at one build and
looks at the other. Then they go back to the older build. Each step is judged as an event of `benchmarks.cluster.chaos`:
no acknowledged message is lost, none comes twice, and within ten seconds all servers and watchers know who is online.

Needs git, and what `benchmarks.cluster.chaos` needs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from aldis.client.client import SignalingClient
from aldis.errors import AldisError
from aldis.identity.keys import Identity
from benchmarks.cluster.chaos import HEAD, PATIENCE, Outcome, add_options, carry_out, enter, happen, tell
from benchmarks.cluster.events import Event, kill_master
from benchmarks.cluster.world import Node, World

ROOT: Final = Path(__file__).parents[2]
MESSAGES: Final = "src/aldis/cluster/messages.py"
MIXED_SECONDS: Final = 3.0
# Between two looks at what another server does.
_LOOK_SECONDS: Final = 0.05
_DOWN_SECONDS: Final = 2.0


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True).stdout


def oldest_revision() -> str:
    """The first one whose nodes send messages of the format of today."""
    found = git("log", "--reverse", "--format=%h", "--", MESSAGES).decode().split()
    wanted = _format((ROOT / MESSAGES).read_text(encoding="utf-8"))
    return next(each for each in found if _format(git("show", f"{each}:{MESSAGES}").decode()) == wanted)


def _format(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("FORMAT: Final"))


def unpack(revision: str, folder: Path) -> Path:
    """Bring the packages of a revision into a folder."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", revision, "src", "sdk/src"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


async def _change(node: Node, source: Path | None) -> str:
    code = await node.server.stop()
    assert code == 0, f"{node.name} has ended with {code}"
    node.source = source
    await node.start()
    return f"{node.name} has drained, and runs the {_build(source)} build"


def _build(source: Path | None) -> str:
    return "new" if source is None else "old"


def changing(number: int, source: Path | None) -> Event:
    """A server drains, ends, and is started as another build."""

    async def event(world: World, chance: random.Random) -> str:
        return await _change(world.nodes[number], source)

    return event


def killing(number: int) -> Event:
    """The others remove the users of a server of another build."""

    async def event(world: World, chance: random.Random) -> str:
        node = world.nodes[number]
        node.server.signal(signal.SIGKILL)
        await node.server.wait()
        await asyncio.sleep(_DOWN_SECONDS)
        await node.start()
        return f"{node.name}, {_build(node.source)}, was killed, and away for {_DOWN_SECONDS:.0f} s"

    return event


async def side_by_side(world: World, chance: random.Random) -> str:
    """Messages and presence, and what an operator does at one build and sees at the other."""
    old = next(node for node in world.nodes if node.source is not None)
    new = next(node for node in world.nodes if node.source is None)
    for one, other in ((old, new), (new, old)):
        await _ban(one, other, f"banned-{chance.randrange(1_000_000)}")
    await asyncio.sleep(MIXED_SECONDS)
    return "both builds ran side by side; an operator has banned a user at each, and freed it at the other"


async def _ban(one: Node, other: Node, name: str) -> None:
    """Ban a user who is at `other`, and free it there."""
    identity = Identity.generate()
    async with SignalingClient(f"ws://127.0.0.1:{other.port}", name) as client:
        await client.register(identity)
        await _until(lambda: _listed(one, name), f"{one.name} does not list {name}")
        told = await one.operator("POST", "/api/v1/bans", {"kind": "user", "value": name, "reason": "test"})
        assert told["sessions"] == 1, f"{one.name} has ended {told['sessions']} sessions of {name}"
    for node in (one, other):
        assert await _refused(node, name, identity), f"{name} may register at {node.name}"
    await other.operator("DELETE", f"/api/v1/bans?kind=user&value={name}")
    for node in (one, other):
        assert not await _refused(node, name, identity), f"{name} may not register at {node.name}"


async def _listed(node: Node, name: str) -> bool:
    told = await node.operator("GET", f"/api/v1/users?prefix={name}")
    return not told["silentNodes"] and any(each["user"] == name for each in told["users"])


async def _refused(node: Node, name: str, identity: Identity) -> bool:
    client = SignalingClient(f"ws://127.0.0.1:{node.port}", name)
    try:
        await client.connect()
        await client.register(identity)
    except AldisError:
        return True
    finally:
        await client.close()
    return False


async def _until(condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(otherwise) from None


def steps(old: Path) -> dict[str, Event]:
    """What happens, in this order."""
    return {
        "first-new": changing(0, None),
        "side-by-side": side_by_side,
        "kill-old": killing(1),
        "kill-new": killing(0),
        "redis": kill_master,
        "second-new": changing(1, None),
        "all-new": changing(2, None),
        "first-back": changing(0, old),
        "side-by-side-again": side_by_side,
        "second-back": changing(1, old),
        "all-back": changing(2, old),
    }


async def run(options: argparse.Namespace) -> list[Outcome]:
    """Do all steps."""
    chance, outcomes = random.Random(options.seed), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-upgrade-")))
        if options.packages is None:
            revision = options.revision or oldest_revision()
            print(f"from {revision}", file=sys.stderr, flush=True)
            old = unpack(revision, folder / "old")
        else:
            old = options.packages.resolve()
        async with World(folder, source=old) as world:
            crowds = await enter(stack, world, options)
            print(HEAD, flush=True)
            for name, step in list(steps(old).items())[: options.steps]:
                outcomes.append(await happen(name, step, world, crowds, chance, options))
                tell(outcomes[-1], world, options.logs)
    return outcomes


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster.upgrade", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--from", dest="revision", help="a revision of this repository; default: see above")
    parser.add_argument("--packages", type=Path, help="a folder with the packages of the other build, in place of that")
    parser.add_argument("--steps", type=int, help="do only so many")
    parser.add_argument("--clients", type=int, default=150, help="at least 20 (%(default)s)")
    parser.add_argument("--rate", type=float, default=150.0, help="messages a second of all clients (%(default)s)")
    add_options(parser)
    options = parser.parse_args(words)
    return carry_out(run(options), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
