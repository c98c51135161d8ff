"""No TURN server of the kit relays to networks that are nobody's on the internet: the same ones in every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aldis.server.turn_folder import _PRIVATE

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("file", ["coturn/turnserver.conf", "container/compose.yaml", "cloud-init/aldis.yaml"])
def test_each_file_denies_what_the_server_denies_its_own_turn_server(file: str) -> None:
    denied = re.findall(r"denied-peer-ip=(\S+)", (DEPLOY / file).read_text())
    assert denied == list(_PRIVATE)
