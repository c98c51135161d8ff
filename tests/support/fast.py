"""Which tests `pytest --fast` leaves out: those that need a browser, a WebRTC engine, or a build.

This list is the only place that says so. A new test is fast unless its path is here. With `--fast` nothing that needs
an engine can be imported, so a test that belongs here and is not listed fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parent.parent
# Files and folders below tests/; `*` stands for any part of a name.
SLOW = (
    # a browser
    "browser",
    # an engine, in this process
    "benchmarks",
    "contract/test_engine_turn.py",
    "contract/test_engines.py",
    "contract/test_turn.py",
    "deploy/test_proxies.py",
    "integration/test_store_*",
    "peer/test_connection.py",
    "peer/test_leaks.py",
    "peer/test_loopback.py",
    "peer/test_lost_paths.py",
    "peer/test_malicious_server.py",
    "peer/test_prepared.py",
    "peer/test_selftest.py",
    "peer/test_transport.py",
    "peer/test_waiting_attempts.py",
    "store/peers/test_peer.py",
    "store/test_parts_of_the_store.py",
    "store/test_settings_of_the_store.py",
    # an engine, in the commands that they run
    "cli/test_cli_environment.py",
    "integration/test_cli_*",
    "integration/test_dead_peers.py",
    "integration/test_only_ipv6.py",
    "integration/test_stun_nat.py",
    # a build, or another run of pytest
    "integration/test_frozen.py",
    "integration/test_server_distribution.py",
    "integration/test_wheel.py",
    "test_measured.py",
)
ENGINES = frozenset({"wrtc", "aiortc", "playwright"})


def is_fast(test: Path) -> bool:
    """Whether the test in this file, or each test in this folder, runs with `--fast`."""
    path = test.relative_to(TESTS)
    return not any(fnmatch(str(place), slow) for place in (path, *path.parents) for slow in SLOW)


class NoEngines:
    """A finder of modules for `sys.meta_path` that refuses the engines."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Called by Python before a module is loaded."""
        if name in ENGINES:
            raise AssertionError(f"a fast test imports {name}: list its file in tests/support/fast.py")
        return None
