"""Who watches whom in a hub of the tests."""

from __future__ import annotations

from aldis.hub.sessions import Session
from support.hub_world import World


def watch_table(world: World) -> dict[str, set[Session | None]]:
    """The sessions that watch each name; None for one that has ended, and is still to be removed."""
    table = world.hub._watchers.watches.table
    return {name: {one.session for one in table.of(name)} for part in table._tables for name in part}
