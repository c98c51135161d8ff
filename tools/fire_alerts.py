"""Let real servers get into trouble, and see that a real Prometheus fires the alerts of deploy/prometheus/alerts.yml:

    tools/netns.sh .venv/bin/python tools/fire_alerts.py [SCENE...]

Prometheus reads each server once a second and applies the rules of the kit without their `for`. The scenes are in
tests/support/alert_scenes.py. Prints one line for each alert, and ends with code 1 if one did not fire. It takes a
minute and a half. Alerts that no scene provokes are shown by made-up series alone, in tests/deploy/test_prometheus.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.alert_scenes import SCENES, SHOWN_BY_SERIES_ALONE, Scene, staged
from support.prometheus import Prometheus

# Scenes at a time: each has a server or three, and most of a scene is waiting.
AT_A_TIME: Final = 4


async def play(prometheus: Prometheus, folder: Path, scene: Scene) -> bool:
    """Play a scene, and print what came of it."""
    began = time.monotonic()
    try:
        async with staged(prometheus, folder, scene.name) as stage:
            await scene.play(stage)
            for alert in scene.alerts:
                await prometheus.until_has_fired(alert, scene.name)
    except Exception:  # noqa: BLE001 - whatever it was, the other scenes go on
        traceback.print_exc()
        missing = [alert for alert in scene.alerts if alert not in await prometheus.has_fired(scene.name)]
        print(f"NOT FIRED  {', '.join(missing)} ({scene.name})", flush=True)
        return False
    for alert in scene.alerts:
        print(f"fired      {alert:<28} {scene.name}, {time.monotonic() - began:.0f} s", flush=True)
    return True


async def main(names: list[str]) -> int:
    """Play these scenes, or all; return the exit code."""
    scenes = [SCENES[name] for name in names] or list(SCENES.values())
    places = asyncio.Semaphore(AT_A_TIME)
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "prometheus").mkdir()
        async with Prometheus(folder / "prometheus") as prometheus, staged(prometheus, folder, "well") as well:
            server = await well.serve()
            await well.client(server, "alice")

            async def when_there_is_room(scene: Scene) -> bool:
                async with places:
                    return await play(prometheus, folder, scene)

            fired = await asyncio.gather(*map(when_there_is_room, scenes))
            wrongly = await prometheus.has_fired("well")
    for alert, why in SHOWN_BY_SERIES_ALONE.items():
        print(f"not tried  {alert:<28} {why}")
    print(f"a server that is well: {', '.join(sorted(wrongly)) or 'no alert'}")
    return 0 if all(fired) and not wrongly else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
