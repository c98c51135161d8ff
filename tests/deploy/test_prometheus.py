"""Alert rules and dashboard: each alert fires for its own fault alone, and every metric exists in a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aldis.cluster.bus import MAX_QUEUED, MAX_QUEUED_BYTES
from docs.test_paths import anchors
from support.certificates import make_certificates
from support.kit import DEPLOY, ROOT, tool
from support.ports import free_port
from support.raw_websocket import http_get
from support.redis_server import RedisServer
from support.server_process import ServerProcess
from support.tokens import jwks, public_jwk

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
    'aldis_certificate_starts_timestamp_seconds{instance="a"}': f"-7000000+0{HOUR}",
    'aldis_certificate_ready{instance="a"}': f"1+0{HOUR}",
    'aldis_certificate_failures_in_a_row{instance="a"}': f"0+0{HOUR}",
    'aldis_connections_accepted{instance="a"}': f"500+0{HOUR}",
    'aldis_handshakes_pending{instance="a"}': f"20+0{HOUR}",
    'aldis_limit{setting="max_connections",instance="a"}': f"10000+0{HOUR}",
    'aldis_limit{setting="handshakes",instance="a"}': f"5000+0{HOUR}",
    'aldis_limit{setting="detached_bytes",instance="a"}': f"67108864+0{HOUR}",
    'aldis_connections_refused_total{reason="silent",instance="a"}': f"0+10{HOUR}",
    'aldis_connections_refused_total{reason="address",instance="a"}': f"0+5{HOUR}",
    'aldis_connections_refused_total{reason="rate",instance="a"}': f"0+0{HOUR}",
    'aldis_detached_bytes{instance="a"}': f"1000000+0{HOUR}",
    'aldis_detached_ended_total{instance="a"}': f"0+0{HOUR}",
    'aldis_memory_bytes{kind="watches",instance="a"}': f"1000000+0{HOUR}",
    'aldis_memory_bytes{kind="privacy",instance="a"}': f"1000000+0{HOUR}",
    'aldis_memory_budget_bytes{instance="a"}': f"1000000000+0{HOUR}",
    'aldis_memory_ended_total{instance="a"}': f"0+0{HOUR}",
    'aldis_limited_total{limit="user-messages",instance="a"}': f"0+10{HOUR}",
    'aldis_limited_total{limit="pair-sealed-bytes",instance="a"}': f"0+600{HOUR}",
    'aldis_turn_relays{instance="a"}': f"1+0{HOUR}",
    'aldis_token_keys{instance="a"}': f"2+0{HOUR}",
    'aldis_token_keys_age_seconds{instance="a"}': f"200+0{HOUR}",
    'aldis_hook_calls_total{outcome="failed",instance="a"}': f"0+0{HOUR}",
    'aldis_presence_events_total{outcome="dropped",instance="a"}': f"0+0{HOUR}",
    'aldis_turn_up{instance="a"}': f"1+0{HOUR}",
    'aldis_stun_up{instance="a"}': f"1+0{HOUR}",
    'aldis_stun_requests_total{outcome="limited",instance="a"}': f"0+0{HOUR}",
    'aldis_stun_requests_total{outcome="dropped",instance="a"}': f"0+0{HOUR}",
    'aldis_turn_restarts_total{instance="a"}': f"0+0{HOUR}",
    'aldis_relay_seconds_bucket{le="0.001",instance="a"}': f"0+1000{HOUR}",
    'aldis_relay_seconds_bucket{le="0.1",instance="a"}': f"0+1000{HOUR}",
    'aldis_relay_seconds_bucket{le="+Inf",instance="a"}': f"0+1000{HOUR}",
    # Two servers of a cluster, and one that is in none, told apart by the label `cluster`.
    'up{job="aldis",instance="b"}': f"1+0{HOUR}",
    'aldis_cluster_servers{job="aldis",instance="a"}': f"2+0{HOUR}",
    'aldis_cluster_servers{job="aldis",instance="b"}': f"2+0{HOUR}",
    'up{job="aldis",cluster="other",instance="c"}': f"1+0{HOUR}",
    'aldis_cluster_up{instance="a"}': f"1+0{HOUR}",
    'aldis_cluster_unreadable_total{instance="a"}': f"0+0{HOUR}",
    'aldis_cluster_queued_bytes{instance="a"}': f"100000+0{HOUR}",
    'aldis_cluster_messages_queued{instance="a"}': f"500+0{HOUR}",
    'aldis_cluster_redis_seconds_sum{kind="read",instance="a"}': f"0+6{HOUR}",
    'aldis_cluster_redis_seconds_count{kind="read",instance="a"}': f"0+3000{HOUR}",
}
# What goes wrong for each alert: the beginning of a series, and how it is then.
FAULTS = {
    "AldisDown": {'up{job="aldis",instance="a"': f"0+0{HOUR}"},
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
    "AldisCertificateExpires": {"aldis_certificate_expires": f"900000+0{HOUR}"},
    "AldisCertificateRefused": {"aldis_certificate_expires": f"1500+0{HOUR}"},
    "AldisNoCertificate": {"aldis_certificate_ready": f"0+0{HOUR}"},
    "AldisCertificateNotRenewed": {"aldis_certificate_failures": f"4+0{HOUR}"},
    "AldisMemoryBudgetNearLimit": {'aldis_memory_bytes{kind="watches"': f"900000000+0{HOUR}"},
    "AldisClientsGivenUp": {"aldis_memory_ended": f"0+1{HOUR}"},
    "AldisLimitMet": {'aldis_limited_total{limit="user-messages"': f"0+600{HOUR}"},
    "AldisRelayLimitMet": {'aldis_limited_total{limit="pair-sealed-bytes"': f"0+12000{HOUR}"},
    "AldisTurnNotRelaying": {"aldis_turn_relays": f"0+0{HOUR}"},
    "AldisConnectionsNearLimit": {"aldis_connections_accepted": f"9000+0{HOUR}"},
    "AldisHandshakesNearLimit": {"aldis_handshakes_pending": f"3000+0{HOUR}"},
    "AldisSilentConnections": {'aldis_connections_refused_total{reason="silent"': f"0+100{HOUR}"},
    "AldisAddressesRefused": {'aldis_connections_refused_total{reason="address"': f"0+100{HOUR}"},
    "AldisConnectRateReached": {'aldis_connections_refused_total{reason="rate"': f"0+10{HOUR}"},
    "AldisDetachedMemoryNearLimit": {"aldis_detached_bytes": f"60000000+0{HOUR}"},
    "AldisLostClientsGivenUp": {"aldis_detached_ended": f"0+5{HOUR}"},
    "AldisTokenKeysOld": {"aldis_token_keys_age": f"4000+60{HOUR}"},
    "AldisApplicationFailing": {"aldis_hook_calls": f"0+5{HOUR}"},
    "AldisPresenceEventsDropped": {"aldis_presence_events": f"0+1{HOUR}"},
    "AldisStunDown": {"aldis_stun_up": f"0+0{HOUR}"},
    "AldisStunLimited": {'aldis_stun_requests_total{outcome="limited"': f"0+1200{HOUR}"},
    "AldisTurnDown": {"aldis_turn_up": f"0+0{HOUR}"},
    "AldisTurnRestarting": {"aldis_turn_restarts": f"0+1{HOUR}"},
    "AldisClusterDown": {"aldis_cluster_up": f"0+0{HOUR}"},
    "AldisClusterServerMissing": {'aldis_cluster_servers{job="aldis",instance="a"': f"1+0{HOUR}"},
    "AldisClusterUnreadable": {"aldis_cluster_unreadable": f"0+1{HOUR}"},
    "AldisClusterRedisSlow": {"aldis_cluster_redis_seconds_sum": f"0+600{HOUR}"},
    "AldisClusterQueueNearLimit": {"aldis_cluster_queued_bytes": f"{0.9 * MAX_QUEUED_BYTES:.0f}+0{HOUR}"},
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


def fires(folder: Path, faults: dict[str, dict[str, str]], does: bool = True, label: str = "") -> str:
    """What promtool has against this: each fault makes the alert of its name fire, and no other; or none at all.

    Changed series get one more `label`.
    """
    tests = []
    for alert, changes in faults.items():
        series = dict(HEALTHY)
        for start, values in changes.items():
            (name,) = [name for name in HEALTHY if name.startswith(start)]
            del series[name]
            series[name.replace("}", f"{label}}}")] = values
        expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if changes and does else []
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


@pytest.mark.parametrize(
    ("alert", "series", "values"),
    [
        # All servers of a cluster say the same, and there are fewer than Prometheus scrapes.
        ("AldisClusterServerMissing", "aldis_cluster_servers", f"1+0{HOUR}"),
        ("AldisClusterServerMissing", 'aldis_cluster_servers{job="aldis",instance="b"', f"3+0{HOUR}"),
        ("AldisClusterQueueNearLimit", "aldis_cluster_messages_queued", f"{0.9 * MAX_QUEUED:.0f}+0{HOUR}"),
        # Most of a flood is not read.
        ("AldisStunLimited", 'aldis_stun_requests_total{outcome="dropped"', f"0+1200{HOUR}"),
        # A clock that is wrong, or a certificate for later.
        ("AldisCertificateRefused", "aldis_certificate_starts", f"4000+0{HOUR}"),
        # A restart of a server, and a moment without Redis, wake nobody.
        ("", "aldis_cluster_servers", "2+0x29 1 2+0x28"),
        ("", "aldis_cluster_up", "1+0x29 0 1+0x29"),
        ("", "aldis_cluster_queued_bytes", f"{0.7 * MAX_QUEUED_BYTES:.0f}+0{HOUR}"),
        ("", "aldis_cluster_messages_queued", f"{0.7 * MAX_QUEUED:.0f}+0{HOUR}"),
    ],
)
def test_an_alert_also_fires_then(tmp_path: Path, alert: str, series: str, values: str) -> None:
    changes = {name: values for name in HEALTHY if name.startswith(series)}
    assert fires(tmp_path, {alert or "nothing": changes}, bool(alert)) == ""


@pytest.mark.parametrize(
    ("up", "relays", "alert"), [(0, 0, "AldisTurnDown"), (1, 0, "AldisTurnNotRelaying"), (1, 1, "nothing")]
)
def test_a_turn_server_that_is_asked_has_the_same_alerts(tmp_path: Path, up: int, relays: int, alert: str) -> None:
    changes = {"aldis_turn_up": f"{up}+0{HOUR}", "aldis_turn_relays": f"{relays}+0{HOUR}"}
    assert fires(tmp_path, {alert: changes}, alert != "nothing", label=',server="127.0.0.1:3478"') == ""


@pytest.mark.parametrize(("used", "budget", "does"), [(1.35e9, 1e9, True), (1.25e9, 1e9, False), (2e8, 5e7, True)])
def test_the_memory_of_a_server_is_measured_by_its_budget(
    tmp_path: Path, used: float, budget: float, does: bool
) -> None:
    changes = {
        "process_resident_memory_bytes": f"{used:.0f}+0{HOUR}",
        "aldis_memory_budget": f"{budget:.0f}+0{HOUR}",
    }
    assert fires(tmp_path, {"AldisMemoryHigh": changes}, does) == ""


def test_the_alert_for_the_memory_comes_before_systemd_ends_the_server() -> None:
    """Also on a small machine of 512 MiB, with the default of the budget."""
    (rule,) = [rule["expr"] for rule in rules() if rule["alert"] == "AldisMemoryHigh"]
    (share, rest) = re.findall(r"\(([\d.]+) \* aldis_memory_budget_bytes \+ (\S+)\)", rule)[0]
    unit = (DEPLOY / "systemd" / "aldis.service").read_text()
    (most,) = re.findall(r"^MemoryMax=(\d+)%$", unit, re.MULTILINE)
    machine = 512 * 1024 * 1024
    assert float(share) * machine / 2 + float(rest) < machine * int(most) / 100


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
    ordered: dict[str, Any] = {
        "acme_domain": "a.example",
        "acme_agree_tos": True,
        "acme_directory": "https://127.0.0.1:1/",
    }
    (tmp_path / "data" / "acme").mkdir(parents=True)
    kept = tmp_path / "data" / "acme" / "certificate.pem"
    kept.write_bytes(tls.key.read_bytes() + tls.cert.read_bytes())
    (tmp_path / "jwks.json").write_bytes(jwks(public_jwk("EdDSA")))
    nowhere = f"http://127.0.0.1:{free_port()}/"
    accounts: dict[str, Any] = {
        "auth": "token",
        "jwks": str(tmp_path / "jwks.json"),
        "hook_url": nowhere,
        "presence_url": nowhere,
        "hook_secret": "x" * 32,
    }
    async with ServerProcess(tmp_path, admin_port=0, **ordered, **turn, **accounts) as server:
        _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await server.stop() == 0
    # One that runs a TURN server has no STUN port.
    async with ServerProcess(tmp_path, admin_port=0, stun_port=free_port(), stun_address="127.0.0.1") as server:
        _, _, more = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await server.stop() == 0
    with RedisServer(tmp_path / "redis") as redis:
        async with ServerProcess(tmp_path, admin_port=0, redis=redis.url()) as server:
            _, _, clustered = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await server.stop() == 0
    page += more + clustered
    there = {"up"}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page.decode(), re.MULTILINE):
        there |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    named = {name for text in expressions() for name in _METRIC.findall(text)}
    assert len(named) > 15
    assert named <= there
    assert {name.partition("{")[0] for name in HEALTHY} <= there


async def test_what_a_rule_counts_is_there_before_it_happens_first(tmp_path: Path) -> None:
    # `increase` does not see the first value of a series: forty requests for a wrong host would be none.
    found = {
        (name, label, word)
        for rule in rules()
        for name, label, words in re.findall(r'(aldis_\w+_total){(\w+)[=!]~?"(.*?)"', rule["expr"])
        for word in words.split("|")
    }
    assert len(found) > 10
    nowhere = f"http://127.0.0.1:{free_port()}/"
    accounts: dict[str, Any] = {"hook_url": nowhere, "presence_url": nowhere, "hook_secret": "x" * 32}
    stun: dict[str, Any] = {"stun_port": free_port(), "stun_address": "127.0.0.1"}
    async with ServerProcess(tmp_path, admin_port=0, **accounts, **stun) as server:
        _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines = page.decode().splitlines()
    assert sorted((name, word) for name, label, word in found if f'{name}{{{label}="{word}"}} 0.0' not in lines) == []


def test_each_word_that_a_rule_looks_for_is_one_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "aldis").rglob("*.py"))
    words = {
        word
        for text in expressions()
        for found in re.findall(r'(?:outcome|reason|setting)[=!]~?"(.*?)"', text)
        for word in found.split("|")
    }
    assert words >= {"full", "busy", "misdirected", "new", "silent", "address-rate", "max_connections"}
    assert [word for word in words if f'"{word}"' not in source] == []
