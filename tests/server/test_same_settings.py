"""What a node tells of its settings, so that all are alike (aldis.server.same_settings)."""

from __future__ import annotations

from dataclasses import replace

from aldis.server.config import SETTINGS, ServerConfig
from aldis.server.node_totals import different_settings
from aldis.server.same_settings import NAMES, told
from aldis.server.worker_settings import for_worker

TURN = ("turn:turn.example.com:3478",)
SECRET = "a secret of thirty-two bytes, or so"


def _different(one: ServerConfig, other: ServerConfig) -> list[str]:
    return [sentence.split(" is not")[0] for sentence in different_settings({"n1": told(one), "n2": told(other)})]


def test_limits_of_users_accounts_and_the_relay_have_to_be_alike() -> None:
    assert set(NAMES) <= set(SETTINGS)
    one = ServerConfig(data=":memory:")
    other = replace(one, relay=False, name_policy="closed", devices_per_user=2, auth="open", resume_window=5.0)
    assert _different(one, other) == ["auth", "devices_per_user", "name_policy", "relay", "resume_window"]


def test_what_belongs_to_a_machine_may_differ() -> None:
    one = ServerConfig(data=":memory:")
    other = replace(one, port=81, names=("here",), max_connections=5, workers=1, memory_budget=9, log_level="debug")
    assert _different(one, other) == []
    several = ServerConfig(redis="redis://127.0.0.1", workers=4)
    worker = for_worker(several, turn=None, secret="", stun=False)
    assert _different(one, worker) == []


def test_secrets_are_compared_and_not_told() -> None:
    one = ServerConfig(data=":memory:", turn=TURN, turn_secret=SECRET)
    assert SECRET not in repr(told(one))
    assert _different(one, replace(one, turn_secret=SECRET.upper())) == [f"turn_secret of {TURN[0]}"]
    assert _different(one, replace(one, turn=("turn:other",), turn_secret=SECRET.upper())) == []
    asking = ServerConfig(data=":memory:", hook_url="https://one.example.com", hook_secret=SECRET)
    assert SECRET not in repr(told(asking))
    assert _different(asking, replace(asking, hook_url="https://two.example.com")) == []
    assert _different(asking, replace(asking, hook_secret=SECRET.upper())) == ["hook_secret"]
    assert _different(asking, ServerConfig(data=":memory:")) == ["hook_url"]
