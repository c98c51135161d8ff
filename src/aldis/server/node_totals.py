"""What the nodes of a cluster have answered, put together for the operator. Pure.

`here` is the node that was asked by the operator, and its answer is among them. What cannot be summed is its own: the
certificate, the TURN server, the settings of accounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Answers: TypeAlias = Mapping[str, Mapping[str, Any]]
"""What each node has answered."""

# Summed over all nodes.
_SUMS: Final = (
    *("connections", "detached", "waiting", "memory", "processorSeconds"),
    *("messages", "refused", "relayed", "sealedBytes", "throttled"),
)
# In the names of settings whose values are hashes.
_SECRET: Final = "secret"  # noqa: S105 - it is none
_TALLIES: Final = ("registrations", "closes")
# Of each node, beside the sum.
_OF_NODE: Final = ("host", "version", "uptime", "users", *_SUMS, "limits", "problems")
# Said by nodes to each other alone.
_BETWEEN_NODES: Final = ("sharedUsers", "settings")


def add_statistics(here: str, answers: Answers, silent: Sequence[str]) -> dict[str, Any]:
    """The cluster at a glance, and each node by itself."""
    total: dict[str, Any] = dict(answers[here])
    ordered = sorted(answers.items())
    for name in _SUMS:
        total[name] = _sum([answer.get(name) for _, answer in ordered])
    total["processorSeconds"] = round(total["processorSeconds"], 3)
    total["users"] = sum(_counted(node, answer, answers) for node, answer in ordered)
    for name in _BETWEEN_NODES:
        total.pop(name, None)
    for name in _TALLIES:
        total[name] = _tally([answer.get(name, {}) for _, answer in ordered])
    kinds = sorted({kind for _, answer in ordered for kind in answer.get("messagesByType", {})})
    total["messagesByType"] = {
        kind: _tally([answer.get("messagesByType", {}).get(kind, {}) for _, answer in ordered]) for kind in kinds
    }
    total["limits"] = _limits([limit for _, answer in ordered for limit in answer.get("limits", ())])
    total["problems"] = [
        problem if node == here else f"node {node} ({answer.get('host', '?')}): {problem}"
        for node, answer in ordered
        for problem in answer.get("problems", ())
    ]
    settings = {f"{node} ({answer.get('host', '?')})": answer.get("settings", {}) for node, answer in ordered}
    total["problems"] += [f"{sentence}." for sentence in different_settings(settings)]
    total["problems"] += [f"The node {node} does not answer." for node in silent]
    total["node"] = here
    total["nodes"] = [{"node": node, **{name: answer.get(name) for name in _OF_NODE}} for node, answer in ordered]
    total["silentNodes"] = list(silent)
    return total


def _counted(node: str, answer: Mapping[str, Any], answers: Answers) -> int:
    """The users of a node that count there. One that is at several counts at the first of those that have answered."""
    users: int = answer.get("users", 0)
    elsewhere: int = sum(
        shared["users"]
        for shared in answer.get("sharedUsers", ())
        if any(other < node and other in answers for other in shared["nodes"])
    )
    return users - elsewhere


def different_settings(nodes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """In words, each setting that differs, of those that two nodes have told. `nodes`: by their names for the operator.

    A node of another release may have other settings.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for node, settings in nodes.items():
        for name, value in settings.items():
            found.setdefault(name, {}).setdefault(str(value), []).append(node)
    return [_in_words(name, values) for name, values in sorted(found.items()) if len(values) > 1]


def _in_words(name: str, values: Mapping[str, list[str]]) -> str:
    shown = [
        f"{'another one' if _SECRET in name else value or 'nothing'} at {', '.join(sorted(where))}"
        for value, where in sorted(values.items(), key=lambda item: sorted(item[1]))
    ]
    return f"{name} is not the same at all servers: {'; '.join(shown)}"


def add_users(answers: Answers, silent: Sequence[str], limit: int) -> dict[str, Any]:
    """One page of the users of all nodes, from the same page of each: `devices` in all, and by node."""
    found: dict[str, dict[str, int]] = {}
    for node, answer in sorted(answers.items()):
        for user in answer["users"]:
            found.setdefault(user["user"], {})[node] = user["devices"]
    names = sorted(found)
    more = len(names) > limit or any(answer["next"] is not None for answer in answers.values())
    names = names[:limit]
    users = [{"user": name, "devices": sum(found[name].values()), "nodes": found[name]} for name in names]
    return {"users": users, "next": names[-1] if more and names else None, "silentNodes": list(silent)}


def add_user(user_id: str, answers: Answers, silent: Sequence[str]) -> dict[str, Any]:
    """One user's sessions at all nodes, the one that is connected for the shortest time first."""
    sessions = [{**session, "node": node} for node, answer in sorted(answers.items()) for session in answer["sessions"]]
    sessions.sort(key=lambda session: float(session["seconds"]))
    privacies = [answer["privacy"] for _, answer in sorted(answers.items()) if answer["privacy"] is not None]
    return {
        "user": user_id,
        "online": bool(sessions),
        "privacy": privacies[0] if privacies else None,
        "sessions": sessions,
        "silentNodes": list(silent),
    }


def add_sessions(answers: Answers, silent: Sequence[str]) -> dict[str, Any]:
    """How many sessions have ended."""
    return {"sessions": sum(answer["sessions"] for answer in answers.values()), "silentNodes": list(silent)}


def _sum(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _tally(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _limits(limits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    total: dict[tuple[str, str], int] = {}
    for limit in limits:
        key = limit["limit"], limit["effect"]
        total[key] = total.get(key, 0) + limit["count"]
    return [{"limit": name, "effect": effect, "count": count} for (name, effect), count in total.items()]
