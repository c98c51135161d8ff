"""Alert rules and dashboard: each alert fires for its own fault alone, and every metric exists in a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.test_paths import anchors
from support.certificates import make_certificates
from support.kit import DEPLOY, ROOT, tool
from support.ports import free_port
from support.raw_websocket import http_get
from support.server_process import ServerProcess

RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "aldis.json"
GUIDE = ROOT / "docs" / "alerts.md"
# What is no name of a metric in an expression: functions, aggregations, and labels.
_METRIC = re.compile(r"\b(?:aldis|process|python)_[a-z_]+\b|\bup\b")
# Half an hour of a server that is well, in Prometheus's notation: start, growth each minute, times.
HOUR = "x60"
HEALTHY = {
    'up{job="aldis",instance="a"}': f"1+0{HOUR}",
    'process_start_time_seconds{job="aldis",instance="a"}': f"1000+0{HOUR}",
    'process_open_fds{job="aldis",instance="a"}': f"500+0{HOUR}",
    'process_max_fds{job="aldis",instance="a"}': f"65536+0{HOUR}",
    'process_cpu_seconds_total{job="aldis",instance="a"}': f"0+6{HOUR}",
    'process_resident_memory_bytes{job="aldis",instance="a"}': f"150000000+0{HOUR}",
    'aldis_directory_failures_total{question="claim",instance="a"}': f"0+0{HOUR}",
    'aldis_directory_seconds_bucket{question="claim",le="0.005",instance="a"}': f"0+100{HOUR}",
    'aldis_directory_seconds_bucket{question="claim",le="0.5",instance="a"}': f"0+100{HOUR}",
    'aldis_directory_seconds_bucket{question="claim",le="+Inf",instance="a"}': f"0+100{HOUR}",
    'aldis_faults_total{instance="a"}': f"0+0{HOUR}",
    'aldis_http_requests_total{outcome="full",instance="a"}': f"0+0{HOUR}",
    'aldis_http_requests_total{outcome="misdirected",instance="a"}': f"0+0{HOUR}",
    'aldis_throttled_total{instance="a"}': f"0+20{HOUR}",
    'aldis_connections_waiting{instance="a"}': f"3+0{HOUR}",
    'aldis_connections{instance="a"}': f"400+0{HOUR}",
    'aldis_closes_total{code="4002",instance="a"}': f"0+0{HOUR}",
    'aldis_closes_total{code="4003",instance="a"}': f"0+1{HOUR}",
    'aldis_registrations_total{outcome="new",instance="a"}': f"0+50{HOUR}",
    'aldis_registrations_total{outcome="key-mismatch",instance="a"}': f"0+1{HOUR}",
    'aldis_certificate_expires_timestamp_seconds{instance="a"}': f"10000000+0{HOUR}",
    'aldis_detached_ended_total{instance="a"}': f"0+0{HOUR}",
    'aldis_turn_up{instance="a"}': f"1+0{HOUR}",
    'aldis_turn_restarts_total{instance="a"}': f"0+0{HOUR}",
    'aldis_relay_seconds_bucket{le="0.001",instance="a"}': f"0+1000{HOUR}",
    'aldis_relay_seconds_bucket{le="0.1",instance="a"}': f"0+1000{HOUR}",
    'aldis_relay_seconds_bucket{le="+Inf",instance="a"}': f"0+1000{HOUR}",
}
# What goes wrong for each alert: the beginning of a series, and how it is then.
FAULTS = {
    "AldisDown": {"up": f"0+0{HOUR}"},
    "AldisRestarting": {"process_start_time_seconds": f"1000+60{HOUR}"},
    "AldisDirectoryFailing": {"aldis_directory_failures": f"0+1{HOUR}"},
    "AldisDirectorySlow": {'aldis_directory_seconds_bucket{question="claim",le="0.005"': f"0+0{HOUR}"},
    "AldisFaults": {"aldis_faults": f"0+1{HOUR}"},
    "AldisDescriptorsNearLimit": {"process_open_fds": f"60000+0{HOUR}"},
    "AldisRefusingConnections": {'aldis_http_requests_total{outcome="full"': f"0+5{HOUR}"},
    "AldisWrongHost": {'aldis_http_requests_total{outcome="misdirected"': f"0+5{HOUR}"},
    "AldisManyThrottled": {"aldis_throttled": f"0+3000{HOUR}"},
    "AldisConnectionsWaiting": {"aldis_connections_waiting": f"90+0{HOUR}"},
    "AldisSlowConsumers": {'aldis_closes_total{code="4002"': f"0+5{HOUR}"},
    "AldisDeadConnections": {'aldis_closes_total{code="4003"': f"0+20{HOUR}"},
    "AldisRegistrationsRefused": {'aldis_registrations_total{outcome="key-mismatch"': f"0+90{HOUR}"},
    "AldisRelaySlow": {'aldis_relay_seconds_bucket{le="0.001"': f"0+0{HOUR}"},
    "AldisBusy": {"process_cpu_seconds_total": f"0+59{HOUR}"},
    "AldisCertificateExpires": {"aldis_certificate": f"900000+0{HOUR}"},
    "AldisLostClientsGivenUp": {"aldis_detached_ended": f"0+5{HOUR}"},
    "AldisTurnDown": {"aldis_turn_up": f"0+0{HOUR}"},
    "AldisTurnRestarting": {"aldis_turn_restarts": f"0+1{HOUR}"},
    "AldisMemoryHigh": {"process_resident_memory_bytes": f"2000000000+0{HOUR}"},
}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> list[str]:
    """Every expression of the kit, with Grafana's variables as numbers and texts."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    shown = [text.replace("$__rate_interval", "5m").replace("$instance", ".*") for text in shown]
    asked = [variable["query"] for variable in dashboard()["templating"]["list"]]
    return (
        [rule["expr"] for rule in rules()] + shown + [re.sub(r"label_values\((\w+).*", r"\1", text) for text in asked]
    )


def test_promtool_finds_nothing_wrong_with_rules_and_settings() -> None:
    told = tool("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert told.returncode == 0, told.stdout
    told = tool("promtool", "check", "rules", "--lint-fatal", RULES)
    assert told.returncode == 0, told.stdout


def fires(folder: Path, faults: dict[str, dict[str, str]]) -> str:
    """What promtool has against this: each fault makes the alert of its name fire, and no other."""
    tests = []
    for alert, changes in faults.items():
        series = dict(HEALTHY)
        for start, values in changes.items():
            (name,) = [name for name in HEALTHY if name.startswith(start)]
            series[name] = values
        expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if changes else []
        tests.append(
            {
                "name": alert,
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "30m",
                        "exp_samples": expected,
                    }
                ],
            }
        )
    file = folder / "alerts.test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    told = tool("promtool", "test", "rules", file)
    assert (told.returncode == 0) == ("FAILED" not in told.stdout), told.stdout
    return "" if told.returncode == 0 else told.stdout


def test_each_alert_fires_for_its_own_fault_alone(tmp_path: Path) -> None:
    assert set(FAULTS) == {rule["alert"] for rule in rules()}
    assert fires(tmp_path, {"nothing": {}, **FAULTS}) == ""


def test_an_alert_that_does_not_fire_is_found_out(tmp_path: Path) -> None:
    assert "AldisBusy" in fires(tmp_path, {"AldisBusy": {"process_cpu_seconds_total": f"0+30{HOUR}"}})


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook"} == set(rule["annotations"])
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert ROOT / page == GUIDE
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(GUIDE)


def test_the_guide_has_no_section_for_an_alert_that_is_gone() -> None:
    assert {anchor for anchor in anchors(GUIDE) if re.match(r"aldis[a-z]+$", anchor)} == {
        name.lower() for name in FAULTS
    }


def test_the_dashboard_is_one_that_grafana_can_draw(tmp_path: Path) -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    records = [{"record": f"shown:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "shown.yml").write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": records}]}))
    told = tool("promtool", "check", "rules", tmp_path / "shown.yml")
    assert told.returncode == 0, told.stdout


async def test_every_metric_of_rules_and_dashboard_is_one_of_a_real_server(tmp_path: Path) -> None:
    tls = make_certificates(tmp_path)
    # With all that has metrics of its own.
    turn: dict[str, Any] = {
        "turn_server": True,
        "turn_address": "127.0.0.1",
        "turn_port": free_port(),
        "turn_tls_port": free_port(),
    }
    async with ServerProcess(tmp_path, admin_port=0, tls_cert=str(tls.cert), tls_key=str(tls.key), **turn) as server:
        _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await server.stop() == 0
    there = {"up"}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page.decode(), re.MULTILINE):
        there |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    named = {name for text in expressions() for name in _METRIC.findall(text)}
    assert len(named) > 15
    assert named <= there
    assert {name.partition("{")[0] for name in HEALTHY} <= there


def test_each_word_that_a_rule_looks_for_is_one_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "aldis").glob("*/*.py"))
    words = {
        word
        for text in expressions()
        for found in re.findall(r'outcome[=!]~?"(.*?)"', text)
        for word in found.split("|")
    }
    assert words >= {"full", "busy", "misdirected", "new"}
    assert [word for word in words if f'"{word}"' not in source] == []
