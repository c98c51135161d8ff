"""The machine of `peer.negotiation` against negotiation.json, which the browser's machine must follow as well.

A step names the call and its arguments by position, as JavaScript takes them, and holds what came of it: the commands,
the state, the next deadline and how the last link ended.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from aldis.peer.attempts import Outcome
from aldis.peer.commands import SendBye
from aldis.peer.negotiation import Negotiation
from aldis.protocol.messages import Candidate, Capabilities
from support.vectors import camel, snake

VECTORS = json.loads((Path(__file__).parent / "negotiation.json").read_text(encoding="utf-8"))["vectors"]
CALLS = {name for name, value in vars(Negotiation).items() if callable(value) and not name.startswith("_")}
BY_NAME = {"path_lost": "final", "attempt_ended": "orderly"}  # the last argument, which Python takes by its name


def made(machine: dict[str, Any], vector: dict[str, Any]) -> Negotiation:
    drawn = map(bytes.fromhex, machine["random"])
    return Negotiation(
        machine["local"],
        machine["remote"],
        capabilities=Capabilities(**machine["capabilities"]),
        random=lambda size: next(drawn),
        attempt_seconds=vector["attemptSeconds"],
        heal_seconds=vector["healSeconds"],
    )


def read(argument: Any) -> Any:
    if not isinstance(argument, dict):
        return argument
    return msgspec.convert(argument, Candidate if "candidate" in argument else Capabilities)


def written(command: object) -> dict[str, Any]:
    assert dataclasses.is_dataclass(command)
    name = type(command).__name__
    return {"type": name[0].lower() + name[1:], **told_of(command)}


def told_of(value: Any) -> dict[str, Any]:
    """The fields, but those that are rarely set only when they are."""
    fields = {camel(field.name): getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, SendBye) and value.code is None:
        del fields["code"]
    if isinstance(value, Outcome) and not value.no_path:
        del fields["noPath"]
    return cast(dict[str, Any], msgspec.to_builtins(fields))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_call_leads_to_these_commands_and_this_state(vector: dict[str, Any]) -> None:
    machines = {who: made(machine, vector) for who, machine in vector["machines"].items()}
    assert {who: machine.polite for who, machine in machines.items()} == {
        who: machine["polite"] for who, machine in vector["machines"].items()
    }
    for number, step in enumerate(vector["steps"]):
        for _ in range(step.get("repeat", 1)):
            machine, name = machines[step["machine"]], snake(step["call"])
            arguments = [read(argument) for argument in step["arguments"]]
            named = {BY_NAME[name]: arguments.pop()} if name in BY_NAME else {}
            result = getattr(machine, name)(*arguments, **named)
            if "result" in step:
                assert result == step["result"], f"step {number}"
                continue
            told = {
                "commands": [written(command) for command in result],
                "state": machine.state.value,
                "deadline": machine.deadline,
                "outcome": machine.outcome and told_of(machine.outcome),
            }
            assert told == {key: step[key] for key in told}, f"step {number}"


def test_every_call_of_the_machine_is_in_the_vectors() -> None:
    assert {snake(step["call"]) for vector in VECTORS for step in vector["steps"]} == CALLS
