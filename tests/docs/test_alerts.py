"""What the documents say of the alerts: their thresholds, and commands that work on the machine of the kit."""

import re
import subprocess
from pathlib import Path

import pytest

from aldis.cli.doctor import PlainReport
from aldis.cli.ways import RelayFinding, Ways
from aldis.peer.selftest import Nat, NatReport

ROOT = Path(__file__).parent.parent.parent
RULES = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()


def rule(name: str) -> str:
    """The expression of an alert, on one line."""
    found = re.search(rf"- alert: {name}\n.*?expr: >-\n(.*?)\n +for:", RULES, re.DOTALL)
    assert found, name
    return " ".join(found[1].split())


def test_the_sizing_guide_has_the_thresholds_of_the_rules() -> None:
    guide = " ".join((ROOT / "docs" / "sizing.md").read_text().partition("## When to change something")[2].split())
    assert "`AldisBusy` at 85 % of a core" in guide
    assert rule("AldisBusy").endswith("> 0.85")
    assert "`AldisDescriptorsNearLimit` at 80 % of the limit" in guide
    assert rule("AldisDescriptorsNearLimit").endswith("> 0.8")
    assert "`AldisMemoryHigh` at a fifth more than `memory_budget`, and 100 MB" in guide
    assert rule("AldisMemoryHigh").endswith("(1.2 * aldis_memory_budget_bytes + 1e8)")


@pytest.mark.parametrize("works", [True, False], ids=["relays", "does-not"])
def test_the_timer_of_the_guide_to_alerts_sees_whether_a_turn_server_relays(
    capsys: pytest.CaptureFixture[str], *, works: bool
) -> None:
    """Not by the exit code of the doctor, which is 0 while there is another way to others."""
    guide = (ROOT / "docs" / "alerts.md").read_text()
    command = re.search(r"aldis doctor --server \S+ \| (grep -q '[^']+')\n", guide)
    assert command
    report = PlainReport("wss://signal.example.com")
    url = "turn:signal.example.com:3478"
    for check in Ways(NatReport(Nat.NONE, "192.0.2.1"), {url: works}, RelayFinding(True, True)).checks():
        assert not check.code
        report.add("Ways to peers in other networks", check)
    report.end()
    found = subprocess.run(["sh", "-c", command[1]], input=capsys.readouterr().out, text=True, check=False)
    assert (found.returncode == 0) == works


def test_the_guide_to_alerts_says_first_how_the_commands_find_the_server() -> None:
    # Root's own data directory has no token of the server, and the guide has `aldis admin` without options.
    first_look = (ROOT / "docs" / "alerts.md").read_text().partition("\n## ")[0]
    assert "export ALDIS_CONFIG=/etc/aldis/aldis.toml" in first_look
