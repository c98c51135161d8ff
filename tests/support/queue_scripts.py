"""Scripts of inputs for the outbox and the inbox, and what comes of each: how outbox.json and inbox.json are run.

A step is a list: the call, then its arguments, all of them JSON. `run_outbox` and `run_inbox` carry out one step and
return what came of it: the result, and how the queue stands afterwards; only `violation` for a
`ProtocolViolation`, since the channel has to end then. Data
is text; `["zeros", 70000]` stands for so many zero bytes.
"""

from __future__ import annotations

from typing import Any

from aldis.errors import ProtocolViolation
from aldis.protocol.channel import Chunk, Content, Hello, StreamPosition, decode
from aldis.store.messages.inbox import Inbox, InboxSnapshot
from aldis.store.messages.outbox import Outbox, OutboxSnapshot


def _read(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data[1])


def _written(data: bytes) -> Any:
    return data.decode() if len(data) < 100 else ["zeros", len(data)]


def _position(value: Any) -> StreamPosition | None:
    return None if value is None else StreamPosition(*value)


def _outbox_step(outbox: Outbox, call: str, *arguments: Any) -> Any:
    match call, arguments:
        case "put", (content, data):
            return outbox.put(Content(content), _read(data))
        case "hello sent", ():
            return outbox.hello_sent()
        case "begin", ():
            return outbox.begin()
        case "opened", (position,):
            return list(outbox.opened(_position(position)))
        case "closed", ():
            return outbox.closed()
        case "acknowledge", (sequence,):
            return list(outbox.acknowledge(sequence))
        case "clear", ():
            outbox.clear()
            return None
        case "withdraw", (numbers,):
            return [[content.value, _written(data)] for content, data in outbox.withdraw(numbers)]
        case "take back", (numbers,):
            return [[content.value, _written(data)] for content, data in outbox.withdraw(numbers, skip=False)]
        case "send", (most,):
            return _send(outbox, most)
    raise ValueError(f"an unknown step: {call}{arguments}")


def _send(outbox: Outbox, most: int) -> list[Any]:
    """Send at most so many frames: for each the message, whether it is its last, and the data."""
    frames = []
    while len(frames) < most and (frame := outbox.next_frame()) is not None:
        chunk = decode(frame)
        assert isinstance(chunk, Chunk)
        frames.append([chunk.sequence, chunk.last, _written(chunk.data)])
        outbox.sent()
    return frames


def run_outbox(outbox: Outbox, step: list[Any]) -> tuple[Outbox, dict[str, Any]]:
    """Carry out a step; return the outbox, which is another one after `restore`, and what came of it."""
    came: dict[str, Any]
    if step[0] == "restore":
        taken = outbox.snapshot()
        messages = [[content.value, _written(data)] for content, data in taken.messages]
        kept: list[Any] = [taken.stream, taken.acknowledged, taken.sent, messages]
        again = tuple((Content(content), _read(data)) for content, data in messages)
        outbox = Outbox.restore(OutboxSnapshot(taken.stream, taken.acknowledged, taken.sent, again))
        came = {"result": kept}
    else:
        try:
            came = {"result": _outbox_step(outbox, *step)}
        except ProtocolViolation:
            return outbox, {"violation": True}
    stands = [outbox.acknowledged, outbox.last, outbox.messages, outbox.controls, outbox.size]
    return outbox, {**came, "stands": stands}


def _inbox_step(inbox: Inbox, call: str, *arguments: Any) -> Any:
    match call, arguments:
        case "opened", (stream, following, *run):
            return inbox.opened(Hello(1, stream, following, run=run[0] if run else None))
        case "closed", ():
            return inbox.closed()
        case "receive", (content, sequence, size, last, data):
            return inbox.receive(Chunk(Content(content), sequence, size, last, _read(data)))
        case "take", ():
            first = inbox.first
            if first is None:
                return None
            inbox.take()
            return [first.content.value, first.sequence, _written(first.data)]
        case "confirm", ():
            due = inbox.due
            if due is not None:
                inbox.confirmed(due)
            return due
        case "let go", ():
            return inbox.let_go()
    raise ValueError(f"an unknown step: {call}{arguments}")


def run_inbox(inbox: Inbox, step: list[Any]) -> tuple[Inbox, dict[str, Any]]:
    """As `run_outbox`."""
    came: dict[str, Any]
    if step[0] == "restore":
        kept: list[Any] = [[position.stream, position.sequence] for position in inbox.snapshot().streams]
        inbox = Inbox.restore(InboxSnapshot(tuple(StreamPosition(*each) for each in kept)))
        came = {"result": kept}
    else:
        try:
            came = {"result": _inbox_step(inbox, *step)}
        except ProtocolViolation:
            return inbox, {"violation": True}
    position = inbox.position()
    stands = [position and [position.stream, position.sequence], inbox.size, inbox.unconfirmed]
    return inbox, {**came, "stands": stands}
