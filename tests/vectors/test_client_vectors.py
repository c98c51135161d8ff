"""The machine of `client.machine` against client.json, which the browser's machine must follow as well.

A step names the call and its arguments by position, and holds what comes of it: the effects in their order, the phase
and the next deadline. What is worded for people is left out: our own reasons, and the texts of errors.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aldis.client.backoff import Backoff
from aldis.client.effects import CloseTransport, Completed, Dial, Effect, Failed, Happened, SealKeyDue, Send
from aldis.client.events import Disconnected
from aldis.client.machine import ClientMachine
from aldis.client.phases import Phase
from aldis.client.settings import MachineSettings
from aldis.errors import AldisError
from aldis.identity.keys import Identity
from aldis.protocol import messages as m
from aldis.protocol.codec import decode_client_message, to_base64
from aldis.protocol.privacy import PrivacyChange
from support.vectors import camel

TEXT = (Path(__file__).parent / "client.json").read_text(encoding="utf-8")
FILE = json.loads(re.sub(r"<(\d+) x>", lambda found: "x" * int(found[1]), TEXT))
VECTORS = FILE["vectors"]
# What an error says beside its kind and its text.
FIELDS = ("code", "temporary", "retry_after", "request", "seconds", "limit")


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def plain(value: object) -> Any:
    """A value as JSON has it: names in camelCase, bytes in base64."""
    match value:
        case AldisError():
            found = {camel(name): plain(getattr(value, name)) for name in FIELDS if hasattr(value, name)}
            return {"error": type(value).__name__, **found}
        case bytes():
            return to_base64(value)
        case msgspec.Struct():
            return json.loads(msgspec.json.encode(value))
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case tuple():
            return [plain(each) for each in value]
        case frozenset():
            return sorted(value)
        case _ if dataclasses.is_dataclass(value):
            return {camel(field.name): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def written(effect: Effect, *, ours: bool) -> dict[str, Any] | None:
    """An effect as the vectors have it; `ours`: the reason of a `Disconnected` is in our own words."""
    match effect:
        case Send(text):
            return {"send": json.loads(text)}
        case CloseTransport(code, _, at_once):
            return {"cut" if at_once else "close": code}
        case Dial():
            return {"dial": True}
        case SealKeyDue():
            return {"sealKeyDue": True}
        case Completed(request, result):
            return {"completed": request, "result": plain(result)}
        case Failed(request, error):
            return {"failed": request, **plain(error)}
        case Happened(event):
            name = type(event).__name__
            fields = plain(event)
            if isinstance(event, Disconnected) and ours:
                del fields["reason"]
            return {"event": name[0].lower() + name[1:], **fields}
    return None


def change_of(message: m.PrivacyRequest) -> PrivacyChange:
    presence = None if message.presence is msgspec.UNSET else message.presence
    offers = None if message.offers is msgspec.UNSET else message.offers
    lists = (message.add_contacts, message.remove_contacts, message.block, message.unblock)
    return PrivacyChange(presence, offers, *(frozenset(() if n is msgspec.UNSET else n) for n in lists))


class Player:
    """One machine, and the calls of a script."""

    def __init__(self, vector: dict[str, Any]) -> None:
        settings = vector.get("settings", {})
        seal_keys = iter(m.SealKey(each["publicKey"], each["signature"]) for each in settings.get("sealKeys", ()))
        tokens = iter(settings["tokens"]) if "tokens" in settings else None
        self.machine = ClientMachine(
            MachineSettings(
                host=FILE["host"],
                user_id="alice",
                device=settings.get("device", "main"),
                token=settings.get("token") if tokens is None else lambda: next(tokens),
                seal_key=(lambda identity, resuming: next(seal_keys)) if "sealKeys" in settings else None,
                backoff=Backoff(**settings.get("backoff", {})),
                request_timeout=settings.get("requestTimeout", 10),
            ),
            random=lambda: vector.get("random", 1),
        )
        if vector.get("joined"):
            for step in FILE["joined"]:
                self.play(step)

    def call(self, now: float, name: str, arguments: list[Any]) -> None:
        machine = self.machine
        match name, *arguments:
            case "connected", *_:
                machine.connected(now)
            case "received", message:
                machine.received(message if isinstance(message, str) else compact(message), now)
            case "lost", code, reason:
                if machine.phase is Phase.DIALING:
                    machine.unreachable(now, reason)
                else:
                    machine.lost(now, code, reason)
            case "tick" | "suspect" | "hurry", *_:
                getattr(machine, name)(now)
            case "networkChanged", cut:
                machine.network_changed(now, cut=cut)
            case "register", *_:
                machine.register(Identity.from_seed(bytes.fromhex(FILE["seed"])), now)
            case "ask", message:
                self.ask(now, decode_client_message(compact(message)))
            case "end", *_:
                machine.close()
            case _:
                raise AssertionError(name)

    def ask(self, now: float, message: m.ClientMessage) -> None:
        match message:
            case m.Discover(user_id=user_id):
                self.machine.discover(user_id, now)
            case m.Watch(user_ids=user_ids):
                self.machine.watch(user_ids, now)
            case m.Unwatch(user_ids=user_ids):
                self.machine.unwatch(user_ids, now)
            case m.IceServersRequest():
                self.machine.ice_servers(now)
            case m.PrivacyRequest():
                self.machine.change_privacy(change_of(message), now)
            case m.SealKeyRequest(seal_key=seal_key):
                self.machine.publish_seal_key(seal_key, now)
            case m.Offer() | m.Answer() | m.IceCandidate() | m.Bye() | m.Relay():
                self.machine.relay(message, now)
            case _:
                raise AssertionError(message)

    def play(self, step: dict[str, Any]) -> dict[str, Any]:
        """Make the call of a step; what comes of it."""
        # A reason that the other side has given is passed on as it is.
        ours = not (step["call"] == "lost" and step["arguments"][1]) or self.machine.phase is Phase.CLOSING
        told: dict[str, Any] = {}
        try:
            self.call(step["at"], step["call"], step["arguments"])
        except AldisError as error:
            told["raises"] = plain(error)
        told["effects"] = [each for effect in self.machine.take() if (each := written(effect, ours=ours)) is not None]
        return told | {"phase": camel(self.machine.phase.name.lower()), "deadline": self.machine.next_deadline}


@pytest.mark.parametrize(
    "vector", [{"name": "joined", "steps": FILE["joined"]}, *VECTORS], ids=lambda vector: vector["name"]
)
def test_every_call_leads_to_these_effects_and_this_phase(vector: dict[str, Any]) -> None:
    player = Player(vector)
    for number, step in enumerate(vector["steps"]):
        for _ in range(step.get("repeat", 1)):
            told = player.play(step)
            expected = {key: step[key] for key in ("raises", "effects", "phase", "deadline") if key in step}
            assert told == expected, f"step {number}: {step['call']}"


def test_the_vectors_reach_every_phase_call_effect_and_event() -> None:
    steps = FILE["joined"] + [step for vector in VECTORS for step in vector["steps"]]
    assert {step["phase"] for step in steps} == {phase.name.lower() for phase in Phase}
    effects = [effect for step in steps for effect in step["effects"]]
    kinds = {"send", "close", "cut", "dial", "sealKeyDue", "completed", "failed", "event"}
    assert {next(iter(effect)) for effect in effects} == kinds
    assert {effect["event"] for effect in effects if "event" in effect} == {
        *("connected", "registered", "disconnected", "closed", "goingAway", "watchEnded", "requestsDelayed"),
        "presenceChanged",
        "privacyChanged",
        *("offerReceived", "answerReceived", "candidateReceived", "byeReceived", "relayReceived"),
    }
