"""The layers of docs/architecture.md, held by a test: imports point down only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.layers import MAX_LINES, Rules, check

SOURCE = Path(__file__).parent.parent / "src"
# One list for both languages; sdk/test/layers.test.js reads it too.
PURITY = json.loads((Path(__file__).parent / "purity.json").read_text(encoding="utf-8"))

ALDIS = Rules(
    layers={
        "errors": 0,
        "version": 0,
        "settings": 0,
        "sqlite_files": 0,
        "environment": 1,
        "protocol": 1,
        "identity": 1,
        "hub": 2,
        "backends": 2,
        "tcp_segments": 2,
        "cluster": 3,
        "client": 3,
        "server": 4,
        "peer": 4,
        "store": 5,
        "cli": 6,
        "__main__": 7,
        "_pyinstaller": 7,
    },
    # The hub puts its questions in the words of `backends.base`, and knows no backend.
    sideways={"hub": frozenset({"backends.base"}), "settings": frozenset({"errors"})},
    pure=frozenset(name.rstrip("/").replace("/", ".") for name in PURITY["both"] + PURITY["python"]),
    outside=frozenset(PURITY["forbidden"]["python"]),
    exceptions=frozenset(name.replace("/", ".") for name in PURITY["exceptions"]),
    reserved={
        "webrtc": frozenset({"peer.engines.wrtc"}),
        "aiortc": frozenset({"peer.engines.aiortc"}),
        "aioice": frozenset({"peer.engines.aiortc", "peer.engines.aiortc_consent", "peer.engines.aiortc_ice"}),
        # JSON on the wire is the codec's and the channel's; `store.messages.content` reads and writes those of
        # the application, the command line, the admin API and the hooks write for other programs, tokens and their keys
        # are JSON (RFC 7519), and the files of bans and of certificates are the server's own.
        "json": frozenset(
            {
                "store.messages.content",
                "cli",
                "server.admin_api",
                "server.ban_file",
                "server.certificates.files",
                "server.hooks",
                "server.token_keys",
                "server.tokens",
            }
        ),
        "msgspec.json": frozenset(
            {
                "protocol.codec",
                "protocol.channel",
                "store.files.kept",
                "store.files.manifest",
                "store.messages.content",
                "store.messages.control",
            }
        ),
        # Base64 on the wire is the codec's; fingerprints are in base32.
        "base64": frozenset({"protocol.codec", "identity.keys"}),
        "binascii": frozenset({"protocol.codec"}),
        # It blocks: `server.certificates.manager` has a thread for it.
        "acme": frozenset({"server.certificates.authority"}),
        "requests": frozenset({"server.certificates.authority"}),
        "prompt_toolkit": frozenset({"cli"}),
        "psycopg": frozenset({"backends.postgres", "backends.postgres_pool", "backends.postgres_schema"}),
    },
)


def test_the_source_keeps_to_its_layers() -> None:
    assert check(SOURCE, "aldis", ALDIS) == []


def test_every_pure_module_is_there() -> None:
    paths = [SOURCE / "aldis" / name for name in PURITY["both"] + PURITY["python"]]
    assert [path for path in paths if not (path.is_dir() or path.with_suffix(".py").is_file())] == []


def test_importing_the_package_loads_no_webrtc_engine() -> None:
    script = (
        "import sys, aldis\n"
        "engines = {'webrtc', 'wrtc', 'aiortc', 'aioice', 'av'} & {name.partition('.')[0] for name in sys.modules}\n"
        "assert not engines, engines\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# --- the checker itself: it has to be able to say no ----------------------------------------------------------------

SMALL = Rules(
    layers={"ground": 0, "left": 1, "right": 1, "top": 2},
    sideways={"left": frozenset({"right.door"})},
    pure=frozenset({"ground", "top.clean"}),
    outside=frozenset({"asyncio", "os.urandom"}),
    exceptions=frozenset({"left.chair"}),
    reserved={"json": frozenset({"top.codec"}), "msgspec.json": frozenset({"top.codec"})},
)

CLEAN = {
    "__init__.py": "from house.top.codec import read",
    "ground/__init__.py": "",
    "ground/stone.py": "import os",
    "left/__init__.py": '"""Rooms."""',
    "left/room.py": "from house.ground import stone\nfrom house.right.door import Handle",
    "left/chair.py": "from .room import table",
    "right/__init__.py": "",
    "right/door.py": "from house.ground.stone import Hinge",
    "right/window.py": "",
    "top/__init__.py": "",
    "top/codec.py": "import json\nimport house.left.room\nfrom house.right import window",
}


def problems(folder: Path, changes: dict[str, str]) -> list[str]:
    for name, text in (CLEAN | changes).items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return check(folder, "house", SMALL)


def test_a_clean_tree_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, {}) == []


def test_a_pure_module_may_import_pure_ones_and_exceptions(tmp_path: Path) -> None:
    text = "from house.ground import stone\nfrom house.left.chair import seat"
    assert problems(tmp_path, {"top/clean.py": text}) == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "ground/stone.py",
            "from house.top.codec import read",
            "house.ground.stone:1 imports top.codec, which is above",
        ),
        ("ground/stone.py", "def f():\n    import house.top.codec", "house.ground.stone:2 imports top.codec"),
        (
            "ground/stone.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.left import room",
            "house.ground.stone:3 imports left.room, which is above it",
        ),
        ("ground/stone.py", "from ..left.room import table", "house.ground.stone:1 imports left.room"),
        ("ground/stone.py", "from .. import left", "house.ground.stone:1 imports left"),
        ("ground/stone.py", "from house import read", "imports the package itself"),
        (
            "left/room.py",
            "from house.right.window import pane",
            "house.left.room:1 imports right.window, which is beside",
        ),
        ("right/door.py", "import house.left.chair", "house.right.door:1 imports left.chair, which is beside it"),
        ("left/room.py", "from house.left.chair import seat", "house.left.chair -> house.left.room"),
        ("left/room.py", "from house.cellar import wine", "imports house.cellar, which does not exist"),
        ("attic/box.py", "", "house.attic.box belongs to no layer"),
        ("ground/stone.py", "import asyncio.events", "house.ground.stone:1 imports asyncio.events, and is to be pure"),
        (
            "left/room.py",
            "from json import loads",
            "house.left.room:1 imports json.loads, which belongs into top.codec",
        ),
        ("left/room.py", "import msgspec\nmsgspec.json.decode", "house.left.room:2 imports msgspec.json"),
        ("ground/stone.py", "import os\nos.urandom(8)", "house.ground.stone:2 imports os.urandom, and is to be pure"),
        ("ground/stone.py", "from os import urandom", "house.ground.stone:1 imports os.urandom, and is to be pure"),
        ("top/clean.py", "from house.left import room", "house.top.clean:1 imports left.room, which is not pure"),
        ("left/__init__.py", "x = 1", "house.left/__init__.py has more than a docstring"),
        ("left/room.py", "x = 1\n" * (MAX_LINES + 1), f"house.left.room has more than {MAX_LINES} lines"),
    ],
)
def test_the_checker_finds(tmp_path: Path, name: str, text: str, problem: str) -> None:
    found = problems(tmp_path, {name: text})
    assert any(problem in line for line in found), found


def test_no_file_of_tests_tools_or_the_page_is_too_long_to_be_read() -> None:
    root = SOURCE.parent
    folders = ("tests", "benchmarks", "tools", "sdk/src", "sdk/test", "sdk/tools", "src/aldis/web/src/page")
    files = {
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".js", ".css", ".html", ".sh") and "node_modules" not in path.parts
    }
    lines = {path.relative_to(root): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(lines) > 150
    assert {path: number for path, number in lines.items() if number > MAX_LINES} == {}
