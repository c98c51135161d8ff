"""`aldis send` between two homes, in the middle of which the direct path is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.commands import COMMAND, Piped
from support.nat_lab import SERVER, Namespace, NatLab
from support.patience import PATIENCE

MEGABYTE = 1024 * 1024
# Takes about 5 s on a line of 20 Mbit/s.
SIZE = 12 * MEGABYTE
BEGUN = 2 * MEGABYTE
_SLOW = "tc qdisc add dev eth0 root tbf rate 20mbit burst 64kb latency 200ms"
_CUT = "nft 'add table ip cut; add chain ip cut out { type filter hook output priority 0 ; }; "
_CUT += "add rule ip cut out meta l4proto udp drop'"


@pytest.fixture
def lab() -> Iterator[NatLab]:
    with NatLab() as made:
        yield made


def inside(where: Namespace, home: Path, *words: str | Path) -> Piped:
    # A socket on 127.0.0.1, as tools/netns.sh wants it, finds no way out.
    extra = {"WRTC_ALLOW_LOOPBACK": ""}
    return Piped(*words, home=home, extra=extra, command=where.inside(*COMMAND))


@asynccontextmanager
async def serving(lab: NatLab, tmp_path: Path) -> AsyncIterator[str]:
    words = ("serve", "--host", "0.0.0.0", "--port", "8080", "--data", ":memory:")
    async with inside(lab.internet, tmp_path / "server", *words) as server:
        await server.says("serving")
        yield f"ws://{SERVER}:8080"


@asynccontextmanager
async def under_way(lab: NatLab, tmp_path: Path, *words: str) -> AsyncIterator[tuple[Namespace, Piped, Piped]]:
    """A file of which some has arrived: the sender's machine, and both programs."""
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(SIZE))
    here, there = lab.home(), lab.home()
    here.sh(_SLOW)
    async with serving(lab, tmp_path) as url:
        receive = ("receive", "--as", "bob", "--from", "alice", "--server", url, "-")
        send: tuple[str | Path, ...] = ("send", path, "bob", "--as", "alice", "--server", url, *words)
        async with inside(there, tmp_path / "b", *receive) as bob, inside(here, tmp_path / "a", *send) as alice:
            async with asyncio.timeout(PATIENCE):
                assert await bob.stdout.readexactly(BEGUN) == path.read_bytes()[:BEGUN]
            yield here, alice, bob


async def test_a_file_waits_for_the_next_direct_path_and_goes_on(lab: NatLab, tmp_path: Path) -> None:
    async with under_way(lab, tmp_path) as (machine, alice, bob):
        machine.sh(_CUT)
        await alice.says("there is no direct connection to bob now; the rest waits for one")
        machine.sh("nft delete table ip cut")
        async with asyncio.timeout(PATIENCE):
            assert await bob.stdout.read() == (tmp_path / "a.bin").read_bytes()[BEGUN:]
        assert await alice.end() == 0
        assert await bob.end() == 0


async def test_a_file_for_which_no_direct_path_comes_back_ends_in_time(lab: NatLab, tmp_path: Path) -> None:
    async with under_way(lab, tmp_path, "--timeout", "12") as (machine, alice, _):
        machine.sh(_CUT)
        assert await alice.end() == 8
        assert "no direct connection has come back; the same command goes on with the rest" in alice.errors
