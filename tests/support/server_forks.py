"""Servers that are forked from a process that has imported a server."""

from __future__ import annotations

import functools
from typing import Final

from support.forks import Template

# What the program of a server consists of: `serve` runs it, and ends the process.
RUN: Final = """
import json, sys
from pathlib import Path
from aldis.errors import AldisError
from aldis.server import process
from aldis.server.config import load_config
from aldis.server.tuning import Tuning

def serve(settings, tuning):
    file = Path(settings.pop("config")) if "config" in settings else None
    try:
        def read():
            return load_config(settings, {}, file)
        sys.exit(process.run(read(), tuning=Tuning(**tuning), reread=read))
    except AldisError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
"""


@functools.cache
def template() -> Template:
    """That of this test process, started when it is first needed."""
    return Template(f"{RUN}\nrun = serve")
