"""Check, build, install and try a release: everything except the upload. `make release` runs it.

It fails when versions differ, when something is not committed, or when the changelog does not name the version. Then it
builds each file that users download into dist/, installs each into a separate environment, and does there what a user
does first: run a server, and two programs that talk. The installed versions are those of the locks.

`--trial` skips the checks that only apply to a release: the clean tree and the changelog.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
PATIENCE: Final = 60.0  # seconds for one step of a job; none takes ten
# Registers a name in Node, which has no WebRTC, with the SDK as npm installs it.
SDK_JOB: Final = """
import { Identity, SignalingClient } from '@aldis/client';
const client = new SignalingClient(process.argv[2], 'alice');
await client.connect();
await client.register(await Identity.generate());
const { online } = await client.discover('alice');
await client.close();
if (!online) throw new Error('registered, and not online');
"""


class Failure(Exception):
    """A problem to solve before a release; the text says what it is."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Each place where the version is written, and the version there."""
    package = json.loads((root / "sdk/package.json").read_text("utf-8"))
    lock = json.loads((root / "sdk/package-lock.json").read_text("utf-8"))
    module = re.search(r'^VERSION: Final = "(.+)"$', (root / "src/aldis/version.py").read_text("utf-8"), re.MULTILINE)
    return {
        "pyproject.toml": tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"],
        "src/aldis/version.py": module[1] if module else "none",
        "sdk/package.json": package["version"],
        "sdk/package-lock.json": lock["version"],
        "sdk/package-lock.json, packages": lock["packages"][""]["version"],
    }


def agreed_version(root: Path = ROOT) -> str:
    """The version, which must be the same in all places."""
    places = versions(root)
    if len(set(places.values())) != 1:
        raise Failure("the versions differ: " + ", ".join(f"{version} in {place}" for place, version in places.items()))
    return places["pyproject.toml"]


def check_finished(version: str, root: Path = ROOT) -> None:
    """Fail when work is left before this tree is a release, and report all of it."""
    problems = []
    if not re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text("utf-8"), re.M
    ):
        problems.append(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'")
    if run("git", "status", "--porcelain", cwd=root):
        problems.append("not everything is committed")
    if f"v{version}" in run("git", "tag", "--list", cwd=root).split():
        problems.append(f"the tag v{version} exists: this version was released")
    if problems:
        raise Failure("; ".join(problems))


def run(*words: str | Path, cwd: Path = ROOT, extra: dict[str, str] | None = None) -> str:
    """Run a command and return its output. A failure shows all of the output."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("ALDIS_", "PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=own | (extra or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failure(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    print(f"release: {text}", flush=True)


def build(version: str) -> list[Path]:
    """Build all files of the release into dist/: two of each Python distribution, and the npm tarball."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    for source in (ROOT, ROOT / "packaging" / "server"):
        # The wheel is built from the sdist, so an sdist that lacks a file fails here.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, source)
    run("npm", "pack", "--silent", "--pack-destination", DIST, cwd=ROOT / "sdk")
    names = [f"aldis-{version}", f"aldis_server-{version}"]
    expected = {f"{name}{end}" for name in names for end in ("-py3-none-any.whl", ".tar.gz")}
    expected.add(f"aldis-client-{version}.tgz")
    found = {path.name for path in DIST.iterdir() if path.name != ".gitignore"}
    if found != expected:
        raise Failure(f"dist/ has {sorted(found)}, and should have {sorted(expected)}")
    return sorted(DIST / name for name in expected)


def pinned_versions(folder: Path) -> Path:
    """The versions of the locks without their hashes, in the form of pip's constraints."""
    lock = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?(==[^ ;\n]+)", lock, re.MULTILINE)
    path = folder / "versions.txt"
    path.write_text("".join(f"{name}{version}\n" for name, version in pins))
    return path


def install(file: Path, extra: str, folder: Path) -> Path:
    """Make a new environment with one file of the release. Returns its command `aldis`."""
    constraint = str(pinned_versions(folder))
    run(sys.executable, "-m", "venv", folder / "environment")
    python = folder / "environment" / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    run(*pip, f"{file}{extra}", extra={"PIP_CONSTRAINT": constraint}, cwd=folder)
    return python.with_name("aldis")


def in_a_network_of_its_own(*words: str | Path, cwd: Path) -> None:
    run(ROOT / "tools" / "netns.sh", *words, cwd=cwd)


def talk(aldis: Path, engine: str) -> None:
    """Run a server and two programs that talk, in an empty folder."""
    with Server(aldis) as url:
        common = ("--server", url, "--engine", engine)
        words = [str(aldis), "chat", "alice", "--as", "bob", "--listen", "--data", "bob", *common]
        listening = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        words = [str(aldis), "chat", "bob", "--as", "alice", "--data", "alice", *common]
        subprocess.run(words, input="hello\n", text=True, timeout=PATIENCE, check=True)
        heard, _ = listening.communicate(timeout=PATIENCE)
        if (heard, listening.returncode) != ("alice: hello\n", 0):
            raise Failure(f"bob heard {heard!r}, exit code {listening.returncode}")


def register(aldis: Path) -> None:
    """Run a server, and register there with the SDK in Node, in the folder where the package is installed."""
    Path("job.mjs").write_text(SDK_JOB)
    with Server(aldis) as url:
        subprocess.run(["node", "--experimental-websocket", "job.mjs", url], timeout=PATIENCE, check=True)


class Server:
    """`aldis serve` on a free port; as a context manager it gives the address."""

    def __init__(self, aldis: Path) -> None:
        words = [str(aldis), "serve", "--port", "0", "--admin-port", "none", "--data", ":memory:"]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self) -> str:
        said = ""
        for line in self._process.stdout or ():
            said += line
            if found := re.search(r"ws://127\.0\.0\.1:\d+", line):
                return found[0]
        raise Failure(f"the server does not start: {said}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)


def try_out(files: Sequence[Path]) -> None:
    """Install each file in an empty environment, and do the main job there."""
    with tempfile.TemporaryDirectory(prefix="aldis-release-") as name:
        place = Path(name)
        for file in files:
            folder = place / file.name
            folder.mkdir()
            say(f"install {file.name}, and use it")
            if file.suffix == ".tgz":
                server = place / f"aldis-{agreed_version()}-py3-none-any.whl" / "environment" / "bin" / "aldis"
                (folder / "package.json").write_text("{}")
                run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", file, cwd=folder)
                in_a_network_of_its_own(sys.executable, __file__, "--register", server, cwd=folder)
            else:
                extra, engine = ("[aiortc]", "aiortc") if file.name.startswith("aldis_server") else ("", "wrtc")
                aldis = install(file, extra, folder)
                in_a_network_of_its_own(sys.executable, __file__, "--talk", aldis, "--engine", engine, cwd=folder)


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build and try a release; no upload.")
    parser.add_argument("--trial", action="store_true", help="also where the tree or the changelog is not ready")
    parser.add_argument("--talk", metavar="ALDIS", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--register", metavar="ALDIS", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    try:
        if options.talk:
            talk(options.talk, options.engine)
        elif options.register:
            register(options.register)
        else:
            version = agreed_version()
            say(f"version {version}, the same in all places")
            if not options.trial:
                check_finished(version)
            files = build(version)
            # The wheel of `aldis` first, because the test of the SDK uses its server.
            try_out(sorted(files, key=lambda file: (file.suffix == ".tgz", file.name)))
            say("all of it works. Still to do, by hand: tag, push, upload. The files:")
            for file in files:
                print(f"  dist/{file.name}  {file.stat().st_size:,} bytes")
    except Failure as failure:
        print(f"release: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
