"""Browsers with a profile of their own in a folder, as people have: what pages keep outlives the browser.

The other tests share a browser of each kind, in which each person has a part that is forgotten. Here each one is
started by itself, so a test says how: on a disk of its own, as a private window, or where pages may keep nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.browser import EXECUTABLES, FLAGS, PREFERENCES, Browsers, Person
from support.small_disk import SmallDisk

# Chromium's "block all cookies", which are all that pages keep. Firefox has it among its preferences.
_NOTHING_KEPT = {"profile": {"default_content_setting_values": {"cookies": 2}}}


@dataclass(frozen=True)
class Manner:
    """How a browser is started. `preferences` are Firefox's; `nothing_kept`: pages may keep nothing."""

    browser: str
    flags: Sequence[str] = ()
    preferences: dict[str, str | float | bool] = field(default_factory=dict)
    nothing_kept: bool = False


@asynccontextmanager
async def profile(
    browsers: Browsers, manner: Manner | str, folder: Path, base: str, disk: SmallDisk | None = None
) -> AsyncIterator[Person]:
    """Somebody with the profile in this folder, which is made when it is not there. The browser ends with the block.

    `base` is where the page is; `disk` the one that has the folder. Complaints fail, unless the block does.
    """
    manner = Manner(manner) if isinstance(manner, str) else manner
    executable = shutil.which(EXECUTABLES[manner.browser])
    assert executable, f"there is no {EXECUTABLES[manner.browser]} on the path; `make test` installs it"
    options: dict[str, Any] = {
        "executable_path": disk.program(executable) if disk else executable,
        "base_url": base,
        "locale": "en-GB",
    }
    if manner.browser == "chromium":
        if manner.nothing_kept:
            (folder / "Default").mkdir(parents=True)
            (folder / "Default" / "Preferences").write_text(json.dumps(_NOTHING_KEPT))
        context = await browsers.playwright.chromium.launch_persistent_context(
            folder, args=[*FLAGS, *manner.flags], **options
        )
    else:
        preferences = {**PREFERENCES, **manner.preferences}
        if manner.nothing_kept:
            preferences["network.cookie.cookieBehavior"] = 2
        context = await browsers.playwright.firefox.launch_persistent_context(
            folder, channel="moz-firefox", firefox_user_prefs=preferences, **options
        )
    async with context:
        person = await Person.at(manner.browser, context, base)
        yield person
        assert not person.complaints, "\n".join(person.complaints)
