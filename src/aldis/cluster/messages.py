"""The bytes of what one node sends to another, or to all: arrays of msgpack.

    forward    [FORMAT, 1, node, number, sender, proves, frame, network or nil]    frame, network: bytes
    forwarded  [FORMAT, 2, node, number, result]    result: "sent", "absent", "limited" or "unreachable"
    rebound    [FORMAT, 3, node, user id]
    ban        [FORMAT, 4, "", previous, version, origin, number, kind, value, [reason, until or nil]]    nil: lifted
    question   [FORMAT, 5, node, number, subject, content]    content: a map
    answer     [FORMAT, 6, node, number, content]
    restored   [FORMAT, 7, "", version]
    used       [FORMAT, 8, node, [[limit, users, network, amount], ...]]    one of users and network (bytes) is empty
    counts     [FORMAT, 9, node, whole, [[network, connections], ...]]
    missed     [FORMAT, 10, node]

`node` is the id of the node that sends it. `ban` and `restored` are of the table of bans, whose scripts publish them
(`cluster/lua/ban.lua`, `restore_bans.lua`), so no node is named.

Rules:

* A node reads all that has its own `FORMAT`, and ignores what it does not know at the end of an array. A kind or a
  result that it does not know is an `UnknownMessage`: a newer release adds kinds, and nodes of the release before skip
  them. Another `FORMAT` is for a change that an older node must not ignore: it is a `ClusterProtocolError`.
* The first three places are the same in each `FORMAT`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct
from msgspec.msgpack import Decoder, Encoder

from aldis.cluster.faults import ClusterProtocolError, UnknownMessage
from aldis.hub.bans import KINDS, Ban
from aldis.hub.cluster import Forward, Forwarded
from aldis.hub.sessions import RelayResult
from aldis.hub.usage import OpenCounts, Use

FORMAT: Final = 1


Content: TypeAlias = dict[str, Any]
"""What is asked or answered, as it is in JSON."""


class Rebound(NamedTuple):
    """The name may be bound to another key, or to none: every node has to look."""

    user_id: str


class BanChange(NamedTuple):
    """The list of bans has changed: from the version `previous` to `version`.

    `origin` has changed it, and waits for a `NodeAnswer` to `number`. `lifted`: `ban` has only its kind and value.
    """

    previous: int
    version: int
    origin: str
    number: int
    ban: Ban
    lifted: bool = False


class BansRestored(NamedTuple):
    """A list of bans that was lost is there again: read it, unless this version is known."""

    version: int


class Used(NamedTuple):
    """What users and networks of a node have used of limits since it has told last (`hub.usage`)."""

    uses: tuple[Use, ...]


class NodeQuestion(NamedTuple):
    """A question to other nodes: `server.node_administration` says about what. `number`: the asking node's own."""

    number: int
    subject: str
    content: Content


class NodeAnswer(NamedTuple):
    """The answer to a `NodeQuestion` or a `BanChange`."""

    number: int
    content: Content


class Missed(NamedTuple):
    """The node did not listen for a moment: nobody knows which of the messages to it have arrived."""


Message: TypeAlias = (
    Forward | Forwarded | Rebound | BanChange | BansRestored | NodeQuestion | NodeAnswer | Used | OpenCounts | Missed
)

_RESULTS: Final = {
    "sent": RelayResult.SENT,
    "absent": RelayResult.ABSENT,
    "limited": RelayResult.LIMITED,
    "unreachable": RelayResult.UNREACHABLE,
}
_RESULT_NAMES: Final = {result: name for name, result in _RESULTS.items()}

_Number = Annotated[int, Meta(ge=0)]


class _Head(Struct, array_like=True, gc=False):
    format: int
    kind: int
    node: str


class _Forward(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[1]
    node: str
    number: _Number
    sender: str
    proves: bool
    frame: bytes
    network: bytes | None = None  # of an earlier release: nothing


class _Forwarded(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[2]
    node: str
    number: _Number
    result: str


class _Rebound(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[3]
    node: str
    user_id: str


class _Terms(Struct, array_like=True, gc=False):
    reason: str
    until: float | None


class _BanChange(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[4]
    node: str
    previous: _Number
    version: _Number
    origin: str
    number: _Number
    banned: str
    value: str
    terms: _Terms | None = None


class _Restored(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[7]
    node: str
    version: _Number


class _Use(Struct, array_like=True, gc=False):
    limit: str
    users: str
    network: bytes
    amount: float


class _Used(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[8]
    node: str
    uses: list[_Use]


class _Count(Struct, array_like=True, gc=False):
    network: bytes
    connections: _Number


class _Counts(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[9]
    node: str
    whole: bool
    counts: list[_Count]


class _Question(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[5]
    node: str
    number: _Number
    subject: str
    content: Content


class _Answer(Struct, array_like=True, gc=False):
    format: int
    kind: Literal[6]
    node: str
    number: _Number
    content: Content


_ENCODER: Final = Encoder()
_HEADS: Final = Decoder(_Head)
_FORWARDS: Final = Decoder(_Forward)
_RESULTS_OF: Final = Decoder(_Forwarded)
_REBOUNDS: Final = Decoder(_Rebound)
_BANS: Final = Decoder(_BanChange)
_RESTORED: Final = Decoder(_Restored)
_QUESTIONS: Final = Decoder(_Question)
_ANSWERS: Final = Decoder(_Answer)
_USED: Final = Decoder(_Used)
_COUNTS: Final = Decoder(_Counts)


def encode_message(node: str, message: Message) -> bytes:
    """The bytes of a message from `node`. The result of a `Forwarded` is not PENDING."""
    match message:
        case Forward():
            return _ENCODER.encode((FORMAT, 1, node, *(message if message.network else message[:-1])))
        case Forwarded():
            return _ENCODER.encode((FORMAT, 2, node, message.number, _RESULT_NAMES[message.result]))
        case Rebound():
            return _ENCODER.encode((FORMAT, 3, node, message.user_id))
        case BanChange():
            head, tail = ban_change_parts(message.origin, message.number, message.ban, lifted=message.lifted)
            return head + _ENCODER.encode(message.previous) + _ENCODER.encode(message.version) + tail
        case NodeQuestion():
            return _ENCODER.encode((FORMAT, 5, node, *message))
        case NodeAnswer():
            return _ENCODER.encode((FORMAT, 6, node, *message))
        case BansRestored():
            return _ENCODER.encode((FORMAT, 7, "", message.version))
        case Used():
            return _ENCODER.encode((FORMAT, 8, node, [_packed_use(use) for use in message.uses]))
        case OpenCounts():
            return _ENCODER.encode((FORMAT, 9, node, message.whole, message.counts))
        case Missed():
            return _ENCODER.encode((FORMAT, 10, node))


def ban_change_parts(origin: str, number: int, ban: Ban, *, lifted: bool) -> tuple[bytes, bytes]:
    """The bytes of a `BanChange` before and behind its two versions, which the script of the table gives."""
    terms = None if lifted else (ban.reason, ban.until)
    whole = _ENCODER.encode((FORMAT, 4, "", 0, 0, origin, number, ban.kind, ban.value, terms))
    return whole[:4], whole[6:]  # each of the first five takes one byte


def decode_message(data: bytes) -> tuple[str, Message]:
    """The node that has sent a message, and the message. Raises `ClusterProtocolError`, also as `UnknownMessage`."""
    head: _Head = _decoded(_HEADS, data)
    if head.format != FORMAT:
        raise ClusterProtocolError(f"a message has the format {head.format}; this release reads {FORMAT}")
    return head.node, _message(head.kind, data)


def _message(kind: int, data: bytes) -> Message:
    match kind:
        case 1:
            forward: _Forward = _decoded(_FORWARDS, data)
            return Forward(forward.number, forward.sender, forward.proves, forward.frame, forward.network or b"")
        case 2:
            forwarded: _Forwarded = _decoded(_RESULTS_OF, data)
            result = _RESULTS.get(forwarded.result)
            if result is None:
                raise UnknownMessage(f"the result {forwarded.result!r} of a message")
            return Forwarded(forwarded.number, result)
        case 3:
            rebound: _Rebound = _decoded(_REBOUNDS, data)
            return Rebound(rebound.user_id)
        case 4:
            return _ban_change(_decoded(_BANS, data))
        case 5:
            question: _Question = _decoded(_QUESTIONS, data)
            return NodeQuestion(question.number, question.subject, question.content)
        case 6:
            answer: _Answer = _decoded(_ANSWERS, data)
            return NodeAnswer(answer.number, answer.content)
        case 7:
            restored: _Restored = _decoded(_RESTORED, data)
            return BansRestored(restored.version)
        case 8:
            used: _Used = _decoded(_USED, data)
            return Used(tuple(Use(use.limit, use.network or use.users, use.amount) for use in used.uses))
        case 9:
            counts: _Counts = _decoded(_COUNTS, data)
            return OpenCounts(counts.whole, tuple((each.network, each.connections) for each in counts.counts))
        case 10:
            return Missed()
        case _:
            raise UnknownMessage(f"the kind {kind} of a message")


def _packed_use(use: Use) -> tuple[str, str, bytes, float]:
    key = use.key
    return (use.limit, "", key, use.amount) if isinstance(key, bytes) else (use.limit, key, b"", use.amount)


def _ban_change(read: _BanChange) -> BanChange:
    for kind in KINDS:
        if kind == read.banned:
            terms = read.terms
            ban = Ban(kind, read.value) if terms is None else Ban(kind, read.value, terms.reason, terms.until)
            return BanChange(read.previous, read.version, read.origin, read.number, ban, terms is None)
    raise UnknownMessage(f"a ban of a {read.banned!r}")


def _decoded(decoder: Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterProtocolError(f"a message is damaged: {error}") from None
