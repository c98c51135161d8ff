"""A real Prometheus with the rules of the kit, which scrapes real servers each second: what alerts fire.

The rules are those of deploy/prometheus/alerts.yml without their `for`: an alert fires as soon as its
expression holds. Ranges and thresholds are as they are. Prometheus tells of each alert as it would tell an
Alertmanager, so nobody has to ask it again and again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from aiohttp import web

from support.kit import DEPLOY, program
from support.patience import PATIENCE
from support.ports import free_port

_CONFIGURATION = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: [alerts.yml, seen.yml]
alerting:
  alertmanagers: [{static_configs: [{targets: ["127.0.0.1:%d"]}]}]
scrape_configs:
  - job_name: aldis
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
"""
# An alert of our own: the metrics of an instance have been read.
SEEN = "Seen"
_SEEN_RULE = f"groups: [{{name: seen, interval: 200ms, rules: [{{alert: {SEEN}, expr: up == 1}}]}}]\n"


class Prometheus:
    """`async with Prometheus(folder) as prometheus`. The folder gets its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._told_port = free_port(), free_port()
        self._targets: dict[str, Any] = {}
        self._clusters: dict[str, str] = {}
        self._fired: dict[str, set[str]] = {}
        self._seen: set[str] = set()
        self._told = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[bytes] | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
        (self._folder / "alerts.yml").write_text(re.sub(r"^ +for: \w+\n", "", rules, flags=re.MULTILINE))
        (self._folder / "seen.yml").write_text(_SEEN_RULE)
        (self._folder / "prometheus.yml").write_text(_CONFIGURATION % self._told_port)
        self._write()
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/api/v2/alerts", self._hear)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._told_port).start()
        self._process = await asyncio.create_subprocess_exec(
            program("prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            # What is told before Prometheus has found whom to tell is lost, so it tells it again.
            "--rules.alert.resend-delay=100ms",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        said = b""
        async with asyncio.timeout(PATIENCE):
            while b"Server is ready to receive web requests" not in said:
                line = await self._process.stderr.readline()
                assert line, said.decode()
                said += line
        self._reading = asyncio.create_task(self._process.stderr.read())  # a full pipe would stop it

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading
        if self._runner is not None:
            await self._runner.cleanup()

    def watch(self, instance: str, port: int, cluster: str) -> None:
        """Scrape this admin port of 127.0.0.1 from now on, under this name."""
        self._targets[instance] = {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"instance": instance, "cluster": cluster},
        }
        self._clusters[instance] = cluster
        self._seen.discard(instance)
        self._write()

    def forget(self, instance: str) -> None:
        """Scrape it no more."""
        self._targets.pop(instance, None)
        self._write()

    async def until_seen(self, instance: str) -> None:
        """Return when its metrics have been read: `increase` counts from there. Raises `TimeoutError`."""
        await self._until(lambda: instance in self._seen)

    async def until_has_fired(self, alert: str, of: str) -> None:
        """Return when this alert has fired for this instance, or for one of this cluster. Raises `TimeoutError`."""
        await self._until(lambda: alert in self._fired.get(of, ()))

    async def has_fired(self, of: str) -> set[str]:
        """The alerts that have fired for this instance, or for one of this cluster."""
        # Also what fires now and has not been told yet.
        alerts = (await self._get("/api/v1/alerts"))["alerts"]
        self._note(alert["labels"] for alert in alerts if alert["state"] == "firing")
        return self._fired.get(of, set())

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._told:
            await self._told.wait_for(holds)

    async def _hear(self, request: web.Request) -> web.Response:
        """An Alertmanager's part."""
        now = datetime.now(UTC)
        firing = [alert for alert in await request.json() if datetime.fromisoformat(alert["endsAt"]) > now]
        async with self._told:
            self._note(alert["labels"] for alert in firing)
            self._told.notify_all()
        return web.Response()

    def _note(self, alerts: Iterable[dict[str, str]]) -> None:
        for labels in alerts:
            # `sum by (instance)` leaves the cluster out.
            instance = labels.get("instance", "")
            if labels["alertname"] == SEEN:
                self._seen.add(instance)
                continue
            for name in {instance, labels.get("cluster") or self._clusters.get(instance, "")}:
                self._fired.setdefault(name, set()).add(labels["alertname"])

    async def _get(self, path: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=PATIENCE) as answer:
                found: dict[str, Any] = json.load(answer)["data"]
                return found

        return await asyncio.to_thread(ask)

    def _write(self) -> None:
        # As a whole: it is read at any moment.
        new = self._folder / "targets.new"
        new.write_text(json.dumps(list(self._targets.values())))
        new.replace(self._folder / "targets.json")
