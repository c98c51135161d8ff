"""Which tests are measured with `--cov`."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent.parent
# The tests of the pure layers. What they run is what tools/pure_coverage.py judges: what is pure is to be covered by
# tests of its own, not in passing by those of a server or a browser. And measuring is dear: it takes two to three times
# what Python costs in a test, and a third more for each `aldis` process.
MEASURED = (
    "protocol",
    "identity",
    "hub",
    "client",
    "vectors",
    "cluster/test_shared_bans.py",
    "peer/test_negotiation.py",
    "peer/test_quality.py",
    "peer/test_relay_guard.py",
    "peer/test_session.py",
    "store/messages/test_outbox.py",
    "store/messages/test_inbox.py",
    "store/messages/test_control.py",
    "store/messages/test_journaled_queues.py",
    "store/journal/test_rows.py",
    "store/files/test_manifest.py",
    "store/files/test_pace.py",
    "store/files/test_window.py",
    "server/test_stun.py",
    "server/test_supervision.py",
)
# Of those, tests of thousands of sessions: measured they take three times as long, and of the hub's statements they add
# 0.3 %.
LARGE = ("hub/test_thousand_sessions.py", "hub/test_many_ends.py")


def is_measured(test: Path) -> bool:
    """Whether the tests in this file are measured."""
    small = not any(test == TESTS / path for path in LARGE)
    return small and any(test.is_relative_to(TESTS / path) for path in MEASURED)
