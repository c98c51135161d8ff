"""Some of the alerts, by a real Prometheus and real servers in trouble: tools/fire_alerts.py has all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from deploy.test_prometheus import FAULTS
from support.alert_scenes import SCENES, SHOWN_BY_SERIES_ALONE, staged
from support.kit import ROOT
from support.prometheus import Prometheus

# The quickest ones, of several kinds: a sum, a rate, a gauge, and a server that is gone.
SOME = ("down", "full", "limit-met", "turn-away")
GUIDE = (ROOT / "docs" / "alerts.md").read_text()


async def test_alerts_fire_for_the_server_in_trouble_and_not_for_the_other(tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    async with Prometheus(tmp_path / "prometheus") as prometheus, staged(prometheus, tmp_path, "well") as well:
        server = await well.serve()
        await well.client(server, "alice")

        async def play(name: str) -> None:
            async with staged(prometheus, tmp_path, name) as stage:
                await SCENES[name].play(stage)
                for alert in SCENES[name].alerts:
                    await prometheus.until_has_fired(alert, name)

        await asyncio.gather(*map(play, SOME))
        # Where other tests run as well, the disk may be slow in truth.
        assert await prometheus.has_fired("well") <= {"AldisDirectorySlow"}


def test_each_alert_has_a_scene_or_a_reason_why_it_has_none() -> None:
    played = {alert for scene in SCENES.values() for alert in scene.alerts}
    assert played.isdisjoint(SHOWN_BY_SERIES_ALONE)
    assert played | set(SHOWN_BY_SERIES_ALONE) == set(FAULTS)


def test_the_guide_names_the_alerts_that_never_fired() -> None:
    (told,) = [part for part in GUIDE.split("\n\n") if "made-up series" in part]
    for alert in SHOWN_BY_SERIES_ALONE:
        assert alert in told
