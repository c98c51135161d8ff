"""A real Prometheus with the rules of the kit, which scrapes real servers each second: what alerts fire.

The rules are those of deploy/prometheus/alerts.yml without their `for`: an alert fires as soon as its
expression holds. Ranges and thresholds are as they are.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from urllib.request import urlopen

from support.kit import DEPLOY, program
from support.patience import PATIENCE
from support.ports import free_port

_CONFIGURATION = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: [alerts.yml]
scrape_configs:
  - job_name: aldis
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
"""


class Prometheus:
    """`async with Prometheus(folder) as prometheus`. The folder gets its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._targets: dict[str, Any] = {}
        self._clusters: dict[str, str] = {}
        self._fired: dict[str, set[str]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
        (self._folder / "alerts.yml").write_text(re.sub(r"^ +for: \w+\n", "", rules, flags=re.MULTILINE))
        (self._folder / "prometheus.yml").write_text(_CONFIGURATION)
        self._write()
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._get("/api/v1/rules")
                    return self
                except OSError:  # it is starting
                    assert self._process.returncode is None, (self._folder / "log").read_text()
                    await asyncio.sleep(0.05)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def watch(self, instance: str, port: int, cluster: str) -> None:
        """Scrape this admin port of 127.0.0.1 from now on, under this name."""
        self._targets[instance] = {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"instance": instance, "cluster": cluster},
        }
        self._clusters[instance] = cluster
        self._write()

    def forget(self, instance: str) -> None:
        """Scrape it no more."""
        self._targets.pop(instance, None)
        self._write()

    async def until_seen(self, instance: str) -> None:
        """Return when its metrics have been read: `increase` counts from there."""
        query = quote(f'up{{instance="{instance}"}} == 1')
        async with asyncio.timeout(PATIENCE):
            while not (await self._get(f"/api/v1/query?query={query}"))["result"]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)

    async def until_has_fired(self, alert: str, of: str) -> None:
        """Return when this alert has fired for this instance, or for one of this cluster. Raises `TimeoutError`."""
        async with asyncio.timeout(PATIENCE):
            while alert not in await self.has_fired(of):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.2)

    async def has_fired(self, of: str) -> set[str]:
        """The alerts that have fired for this instance, or for one of this cluster, as far as was looked."""
        for alert in (await self._get("/api/v1/alerts"))["alerts"]:
            labels = alert["labels"]
            if alert["state"] == "firing":
                # `sum by (instance)` leaves the cluster out.
                instance = labels.get("instance", "")
                for name in {instance, labels.get("cluster") or self._clusters.get(instance, "")}:
                    self._fired.setdefault(name, set()).add(labels["alertname"])
        return self._fired.get(of, set())

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
