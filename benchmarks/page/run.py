"""How soon the page is usable over lines as phones have them:

    tools/netns.sh .venv/bin/python -m benchmarks.page.run

A real server with TLS, a real Chromium with the screen of a phone, and a line between them that is as long as it says
(`line.py`). Usable is when the name can be typed in, by the browser's own clock, from the start of the navigation. The
first visit is with an empty cache; the next is a reload, with the cache that it left.

What is compared in each round: the page as it is served; the same page with all that it loads later in one script; and,
with `--beside NAME=FOLDER`, the page of another checkout. A ratio is taken within a round, and the median of all rounds
counts.

It tells what it has found; it keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Browser, async_playwright

from benchmarks.page.line import FAR, Line, SlowLine

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import USABLE  # noqa: E402
from support.certificates import Certificates, make_certificates  # noqa: E402
from support.ports import free_port  # noqa: E402

LINES: Final = {
    line.name: line
    for line in (
        Line("near", 50, down=20e6, up=10e6),
        Line("far", 100, down=10e6, up=5e6),
        Line("poor", 150, down=1.6e6, up=0.75e6),  # Lighthouse's "slow 4G"
    )
}
OURS: Final = "as it is"
LEAST: Final = "one file"
FLAGS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
PHONE: Final[dict[str, Any]] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

# `aldis serve`, with the files of any folder.
_SERVER: Final = """
import sys
from pathlib import Path
from aldis.server import pages
try:
    from aldis.server.process import run
except ImportError:  # a checkout that is older than this module
    from aldis.server.app import run
from aldis.server.config import load_config
port, cert, key, web = sys.argv[1:]
pages.files = lambda package: Path(web).parent
settings = dict(host="0.0.0.0", port=int(port), admin_port=0, data=":memory:", tls_cert=cert, tls_key=key)
sys.exit(run(load_config(settings, {}, None)))
"""
# What went over the line: requests that the cache did not answer, and those that needed a connection of their own.
_ASKED: Final = """(() => {
  const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
  const asked = all.filter((entry) => entry.transferSize > 0);
  return {
    requests: asked.length,
    connections: asked.filter((entry) => entry.connectEnd > entry.connectStart).length,
    bytes: asked.reduce((sum, entry) => sum + entry.transferSize, 0),
  };
})()"""


@dataclass(frozen=True, slots=True)
class Site:
    """A server that is running, and its name in the tables."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Load:
    """One load of the page."""

    usable: float
    requests: int
    connections: int
    bytes: int


def one_file(page: Path, folder: Path) -> Path:
    """All of the page in one script and one style sheet, beside `index.html`: nothing is loaded later."""
    folder.mkdir(parents=True)
    esbuild = ROOT / "sdk" / "node_modules" / ".bin" / "esbuild"
    for source in ("main.js", "look/look.css"):
        options = ["--bundle", "--format=esm", "--minify", "--preserve-symlinks", "--log-level=error"]
        command = [esbuild, page / source, *options, f"--outfile={folder / Path(source).name}"]
        modules = {"NODE_PATH": str(ROOT / "sdk" / "node_modules")}
        subprocess.run(list(map(str, command)), check=True, env={**os.environ, **modules})
    index = (page / "index.html").read_text()
    (folder / "index.html").write_text(index.replace('"look/look.css"', '"look.css"'))
    shutil.copy(page / "icon.svg", folder)
    return folder


async def serve(stack: AsyncExitStack, name: str, source: Path, web: Path, files: Certificates) -> Site:
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVER, str(port), str(files.cert), str(files.key), str(web)),
        env={**os.environ, "PYTHONPATH": str(source)},
        stderr=asyncio.subprocess.PIPE,
    )

    async def end() -> None:
        if server.returncode is None:
            server.kill()
        await server.wait()

    stack.push_async_callback(end)
    assert server.stderr is not None
    said = b""
    while b"serving" not in said:
        line = await server.stderr.readline()
        if not line:
            raise SystemExit(f"{name}: the server has not started:\n{said.decode()}")
        said += line
    return Site(name, port)


async def visit(chromium: Browser, site: Site, slower: float) -> tuple[Load, Load]:
    """Somebody's first visit, and a reload."""
    context = await chromium.new_context(locale="en-GB", **PHONE)
    try:
        await context.add_init_script(USABLE)
        page = await context.new_page()
        if slower != 1:
            debugger = await context.new_cdp_session(page)
            await debugger.send("Emulation.setCPUThrottlingRate", {"rate": slower})

        async def load(navigation: Any) -> Load:
            await navigation
            usable = await page.evaluate("window.usable")
            return Load(usable, **await page.evaluate(_ASKED))

        first = await load(page.goto(f"https://{FAR}:{site.port}/"))
        return first, await load(page.reload())
    finally:
        await context.close()


def trusting(files: Certificates) -> str:
    """Chromium's flag for this certificate. It keeps nothing in its cache that came with one that it merely bears."""
    key = x509.load_pem_x509_certificate(files.cert.read_bytes()).public_key()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest.finalize()).decode()}"


async def measure(lines: Sequence[Line], rounds: int, slower: float, beside: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = make_certificates(Path(place), host=FAR)
        page = ROOT / "src" / "aldis" / "web"
        async with AsyncExitStack() as stack:
            least = one_file(page / "src" / "page", Path(place) / "least" / "web")
            sites = [
                await serve(stack, OURS, ROOT / "src", page, files),
                await serve(stack, LEAST, ROOT / "src", least, files),
            ]
            for name, folder in beside.items():
                sites.append(await serve(stack, name, folder / "src", folder / "src" / "aldis" / "web", files))
            playwright = await stack.enter_async_context(async_playwright())
            chromium = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=[*FLAGS, trusting(files)],
            )
            stack.push_async_callback(chromium.close)
            for line in lines:
                loads: dict[str, list[tuple[Load, Load]]] = defaultdict(list)
                with SlowLine(line, [site.port for site in sites]):
                    for number in range(rounds):
                        for site in sites if number % 2 else reversed(sites):
                            loads[site.name].append(await visit(chromium, site, slower))
                tell(line, loads)


def tell(line: Line, loads: dict[str, list[tuple[Load, Load]]]) -> None:
    print(f"\n{line.name}: {line.round_trip:g} ms there and back, {line.down / 1e6:g} Mbit/s down, with TLS")
    for number, what in enumerate(("first visit", "reload")):
        print(f"  {what:12} {'usable, ms':>24} {'against one file':>18} {'requests':>9} {'connections':>12} {'KB':>6}")
        for name in loads:
            own = [load[number] for load in loads[name]]
            times = [load.usable for load in own]
            ratios = [load.usable / least[number].usable for load, least in zip(own, loads[LEAST], strict=True)]
            spread = f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})"
            last = own[-1]
            counts = f"{last.requests:9} {last.connections:12} {last.bytes / 1000:6.1f}"
            print(f"  {name:12} {spread:>24} {median(ratios):>18.2f} {counts}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page.run", description=__doc__.partition(":")[0])
    parser.add_argument("--lines", default=",".join(LINES), help="of %(default)s: those to measure over")
    parser.add_argument("--rounds", type=int, default=5, help="how often each page is visited (%(default)s)")
    parser.add_argument("--cpu", type=float, default=1, help="how many times slower the browser's processor shall be")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=FOLDER", help="another checkout")
    options = parser.parse_args()
    beside = {name: Path(folder) for name, _, folder in (one.partition("=") for one in options.beside)}
    lines = [LINES[name] for name in options.lines.split(",")]
    asyncio.run(measure(lines, options.rounds, options.cpu, beside))


if __name__ == "__main__":
    main()
