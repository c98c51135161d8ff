"""A real Caddy before a server, as an operator sets it up."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.kit import program, running

_OPTIONS = """
{{
	admin off
	auto_https disable_redirects
{options}
}}
{sites}
"""


@asynccontextmanager
async def caddy(folder: Path, sites: str, options: str = "") -> AsyncIterator[None]:
    """One with these sites; `options` are more lines for the block of options of all."""
    configuration = folder / "Caddyfile"
    configuration.write_text(_OPTIONS.format(options=options, sites=sites))
    command = (program("caddy"), "run", "--adapter", "caddyfile", "--config", configuration)
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    async with running(*command, says=b"serving initial configuration", env=environment):
        yield
