"""The sessions of a server that stops, on disk for the process that follows it (`hub.handover`).

Rules: the file is as secret as the directory of names beside it, and is removed before its content is used. One that
cannot be read or written costs a new registration of each client, and is a warning.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import MsgspecError, msgpack

from aldis.hub.handover import Handover
from aldis.hub.hub import Hub
from aldis.server.logs import Log

FILE_NAME: Final = "sessions.handover"


def go_on(hub: Hub, saved: Handover, now: float) -> int:
    """Go on with sessions, and return their number. Nobody is served before all of them are there, so the collector
    does not look for garbage among them meanwhile: for 10,000 sessions that takes a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return hub.restore(saved, now)
    finally:
        if collects:
            gc.enable()


class HandoverFile:
    """The file of one server; None for a server that keeps nothing."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path = path
        self._log = log

    def take(self) -> Handover | None:
        """What the process before has left, once."""
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
            self._path.unlink()
            return msgpack.decode(data, type=Handover)
        except FileNotFoundError:
            return None
        except (OSError, MsgspecError, RecursionError) as error:
            self._log.warning("the sessions of the last run cannot be read; clients register anew", reason=str(error))
            return None

    def leave(self, handover: Handover) -> bool:
        """Leave the sessions for the next process; returns whether it will find them."""
        if self._path is None or not handover.sessions:
            return False
        new = self._path.with_suffix(".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgpack.encode(handover))
            new.replace(self._path)
        except OSError as error:
            self._log.warning("the sessions cannot be kept; clients register anew", reason=str(error))
            with suppress(OSError):
                new.unlink()
            return False
        return True
