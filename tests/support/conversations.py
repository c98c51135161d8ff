"""Conversations in docs/protocol.md, replayed against the real hub.

A block looks like this; a line that begins with a space continues the one before it:

    server --auth open
    alice connects
    alice -> {"type": "register", "userId": "alice", "publicKey": "<key of alice>"}
    alice <- {"type": "challenge", "nonce": "<nonce>"}
    alice -> {"type": "prove", "signature": "<signature>"}
    bob registers

`->` is what a client says, `<-` what the server says to it, and nothing may be left unsaid: whenever a client speaks
or something happens, all that the server has said before must have been written down. `registers` and `connects`
without more are short for what another conversation shows in full.

A string `<...>` stands for a value. The first time that the server says one, it is learned; from then on it must be the
same. `<key of NAME>` is a client's public key, `<signature>` the client's own for its last challenge, and
`<new key of NAME>` and `<rotation>` are a second key of the client's and its own signature for the change to that.
`<seal key of NAME>` is a sealing key, and `<seal signature of NAME>` its owner's signature for it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from aldis.hub.accounts import AccountQuestion, AccountVerdict, Admitted, Rejected
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.codes import ErrorCode
from support.hub_world import Client, World, identity_of

_EVENT = re.compile(r"(?P<name>\w+(/\w+)?) (?P<what>->|<-|[a-z].*?)( (?P<json>\{.*))?$", re.DOTALL)
_PLACEHOLDER = re.compile(r"<(.+)>")


def statements(block: str) -> list[str]:
    """The statements of a block, with their continuation lines."""
    found: list[str] = []
    for line in block.splitlines():
        if line.startswith(" "):
            found[-1] += line
        elif line.strip():
            found.append(line)
    return found


def _with_any_token(question: AccountQuestion) -> AccountVerdict:
    """An operator that wants a token, whichever it is."""
    if question.token is None:
        return Rejected(ErrorCode.TOKEN_REQUIRED, "this server wants a token")
    return Admitted()


class Conversation:
    """One block, played against one hub."""

    def __init__(self) -> None:
        self._world = World()
        self._clients: dict[str, Client] = {}
        self._learned: dict[str, Any] = {}

    def play(self, block: str) -> None:
        for statement in statements(block):
            try:
                self._do(statement)
            except AssertionError as error:
                raise AssertionError(f"{statement}\n{error}") from error
        self._nothing_unsaid()

    def _do(self, statement: str) -> None:
        if statement.startswith("server"):
            self._world = World(**_settings(statement))
            return
        if seconds := re.fullmatch(r"(\d+) seconds pass", statement):
            self._nothing_unsaid()
            self._world.pass_time(float(seconds[1]))
            return
        if statement == "the server stops":
            self._nothing_unsaid()
            self._world.hub.drain(self._world.now)
            return
        event = _EVENT.fullmatch(statement)
        assert event is not None, "not a statement"
        self._event(event["name"], event["what"], event["json"])

    def _event(self, name: str, what: str, text: str | None) -> None:
        if what == "<-":
            self._hear(name, json.loads(text or ""))
            return
        if closed := re.fullmatch(r"is closed with (\d+)", what):
            client = self._clients[name]
            assert client.closed is not None, "it is not closed"
            assert client.closed[0] == int(closed[1]), f"it is closed with {client.closed}"
            client.closed = None
            return
        self._nothing_unsaid()
        match what:
            case "->":
                self._clients[name].send_text(json.dumps(self._filled(name, json.loads(text or ""))))
            case "says":
                self._clients[name].send_text(text or "")
            case "connects" | "connects again":
                self._clients[name] = self._world.connect()
                self._clients[name].identity = identity_of(_user(name))
            case "connects, classic":
                self._clients[name] = self._world.connect(classic=True)
            case "registers":
                user, _, device = name.partition("/")
                self._clients[name] = self._world.client(user, device=device or None)
            case "leaves":
                self._clients.pop(name).lose(clean=True)
            case "is lost":
                self._clients.pop(name).lose()
            case _:
                raise AssertionError(f"nobody knows what {what!r} means")

    def _hear(self, name: str, expected: dict[str, Any]) -> None:
        inbox = self._clients[name].inbox
        assert inbox, "the server said nothing"
        said = inbox.pop(0)
        filled = self._match(name, expected, said)
        assert filled == said, f"the server said {json.dumps(said)}"

    def _match(self, name: str, expected: Any, said: Any) -> Any:
        """`expected` with its placeholders filled in from what was said where they are new."""
        if isinstance(expected, dict):
            fields = said if isinstance(said, dict) else {}
            return {key: self._match(name, value, fields.get(key)) for key, value in expected.items()}
        if isinstance(expected, list):
            values = said if isinstance(said, list) else []
            padded = values + [None] * len(expected)
            return [self._match(name, value, other) for value, other in zip(expected, padded, strict=False)]
        placeholder = _PLACEHOLDER.fullmatch(expected) if isinstance(expected, str) else None
        if placeholder is None:
            return expected
        meaning = placeholder[1]
        known = self._known(name, meaning)
        if known is not None:
            return known
        assert said is not None, f"there is no {meaning}"
        self._learned[meaning] = said
        if meaning == "nonce":
            del self._learned[meaning]
            self._learned[f"nonce of {name}"] = said
        return said

    def _filled(self, name: str, message: Any) -> Any:
        """A message of a client's with its placeholders filled in."""
        if isinstance(message, dict):
            return {key: self._filled(name, value) for key, value in message.items()}
        if isinstance(message, list):
            return [self._filled(name, value) for value in message]
        placeholder = _PLACEHOLDER.fullmatch(message) if isinstance(message, str) else None
        if placeholder is None:
            return message
        value = self._known(name, placeholder[1])
        assert value is not None, f"the conversation has no {placeholder[0]} yet"
        return value

    def _known(self, name: str, meaning: str) -> Any:
        if owner := re.fullmatch(r"(new )?key of (\w+)", meaning):
            return to_base64((_new_identity(owner[2]) if owner[1] else identity_of(owner[2])).public_key)
        if meaning == "signature" or meaning.startswith("signature by "):
            nonce = from_base64(self._learned[f"nonce of {name}"])
            user, _, device = name.partition("/")
            signer = identity_of(meaning.removeprefix("signature by ") if meaning != "signature" else user)
            signed = proofs.registration(self._clients[name].host, nonce, user, device or "main")
            return to_base64(signer.sign(signed))
        if meaning == "rotation":
            user = _user(name)
            return to_base64(identity_of(user).sign(proofs.rotation(user, _new_identity(user).public_key)))
        if owner := re.fullmatch(r"seal key of (\w+)", meaning):
            return to_base64(_seal_key(owner[1]))
        if owner := re.fullmatch(r"seal signature of (\w+)", meaning):
            user = owner[1]
            return to_base64(identity_of(user).sign(proofs.seal(user, "main", _seal_key(user))))
        return self._learned.get(meaning)

    def _nothing_unsaid(self) -> None:
        for name, client in self._clients.items():
            assert client.inbox == [], f"before this the server said to {name}: {json.dumps(client.inbox)}"
            assert client.closed is None, f"before this {name} was closed: {client.closed}"


def _user(name: str) -> str:
    return name.partition("/")[0]


def _new_identity(name: str) -> Identity:
    return identity_of(f"new {name}")


def _seal_key(name: str) -> bytes:
    """A key that is always the same for a name. The server does not look at it."""
    return name.encode().ljust(32, b".")


def _settings(statement: str) -> dict[str, Any]:
    match statement:
        case "server --auth open":
            return {"auth": "open"}
        case "server --relay no":
            return {"relay": False}
        case "server --auth token":
            return {"operator": _with_any_token}
        case _:
            raise AssertionError(f"nobody knows what {statement!r} means")
