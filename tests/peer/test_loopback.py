"""Loopback with wrtc is decided for the whole process before its first connection; so each case has its own process."""

from __future__ import annotations

import os
import subprocess
import sys

CONNECTIONS = """
import asyncio
from aldis.errors import ConfigError
from aldis.peer.engine import EngineConfig
from aldis.peer.engines.wrtc import WrtcEngine

class Listener:
    def __getattr__(self, name):
        return lambda *arguments: None

async def main(*wishes):
    for wish in wishes:
        connection = WrtcEngine().create(EngineConfig(allow_loopback=wish), Listener())
        await connection.close()

try:
    asyncio.run(main(WISHES))
except ConfigError as error:
    print(error.setting)
"""


def outcome(wishes: str, **environment: str) -> str:
    """What a new process prints that makes connections with and without `allow_loopback`."""
    others = {name: value for name, value in os.environ.items() if name != "WRTC_ALLOW_LOOPBACK"}
    command = [sys.executable, "-c", CONNECTIONS.replace("WISHES", wishes)]
    result = subprocess.run(
        command, env={**others, **environment}, check=True, timeout=40, capture_output=True, text=True
    )
    return result.stdout.strip()


def test_what_the_first_connection_was_allowed_the_later_ones_are_too() -> None:
    assert outcome("True, True, False, True") == ""


def test_a_wish_that_comes_too_late_is_an_error_of_configuration() -> None:
    assert outcome("False, True") == "allow_loopback"


def test_the_environment_says_it_before_anybody_else_can_be_first() -> None:
    assert outcome("False, True", WRTC_ALLOW_LOOPBACK="1") == ""
