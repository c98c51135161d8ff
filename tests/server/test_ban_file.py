"""The file of bans: what a restore adds to it."""

from __future__ import annotations

import time
from pathlib import Path

from aldis.hub.bans import Ban
from aldis.server.ban_file import BanFile


def test_bans_of_a_backup_that_have_ended_are_neither_restored_nor_counted(tmp_path: Path) -> None:
    file = BanFile(tmp_path / "bans.json")
    now = time.time()
    file.save([Ban("user", "here"), Ban("user", "ended-here", until=now - 1)])
    saved = [Ban("user", "saved", until=now + 3600), Ban("user", "here", "another")]
    assert file.add([*saved, Ban("user", "ended", until=now - 1)]) == 2
    assert {(ban.value, ban.reason) for ban in file.load()} == {("here", ""), ("saved", "")}
