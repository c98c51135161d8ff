"""The outbox and the inbox of a stream that a journal keeps."""

from __future__ import annotations

import pytest

from aldis.errors import ProtocolViolation
from aldis.protocol.channel import Chunk, Content, Hello, StreamPosition, decode
from aldis.store.messages.inbox import Inbox
from aldis.store.messages.outbox import Outbox, OutboxSnapshot


def filled(*texts: bytes, stored: int = 0) -> Outbox:
    outbox = Outbox("s", journaled=True)
    for text in texts:
        outbox.put(Content.TEXT, text)
    outbox.stored(stored)
    return outbox


def restored(*texts: bytes, acknowledged: int = 0) -> Outbox:
    sent = acknowledged + len(texts)
    messages = tuple((Content.TEXT, text) for text in texts)
    return Outbox.restore(OutboxSnapshot("s", acknowledged, sent, messages), journaled=True)


def open_(outbox: Outbox, received: StreamPosition | None = None) -> None:
    outbox.hello_sent()
    outbox.opened(received)


def send(outbox: Outbox) -> list[int]:
    numbers = []
    while (frame := outbox.next_frame()) is not None:
        chunk = decode(frame)
        assert isinstance(chunk, Chunk)
        numbers.append(chunk.sequence)
        outbox.sent()
    return numbers


def test_a_message_is_sent_after_the_journal_has_it() -> None:
    outbox = filled(b"a", b"b")
    open_(outbox)
    assert send(outbox) == []
    assert outbox.unstored == range(1, 3)
    outbox.stored(1)
    assert send(outbox) == [1]
    outbox.stored(2)
    assert send(outbox) == [2]
    assert not outbox.unstored


def test_without_a_journal_nothing_waits_for_one() -> None:
    outbox = Outbox("s")
    outbox.put(Content.TEXT, b"a")
    open_(outbox)
    outbox.stored(0)
    assert send(outbox) == [1]
    assert not outbox.unstored
    assert not outbox.is_behind(StreamPosition("s", 9))


def test_numbers_that_the_journal_does_not_have_are_used_again() -> None:
    outbox = filled(b"a", b"b", b"c", stored=1)
    assert outbox.clear() == range(1, 4)
    assert outbox.hello_sent() == 2  # our HELLO names no number that is not on the disk
    assert outbox.put(Content.TEXT, b"d") == 2
    outbox = filled(b"a", b"b", b"c", stored=3)
    outbox.clear()
    assert outbox.put(Content.TEXT, b"d") == 4


def test_no_hello_skips_a_void_that_the_journal_may_not_have() -> None:
    for stored in (0, 1, 2):
        outbox = filled(b"a", b"b", stored=stored)
        outbox.withdraw([1])
        assert (outbox.hello_sent(), outbox.is_void) == (1, False)
    outbox = filled(b"a", b"b", stored=2)
    open_(outbox)
    assert send(outbox) == [1, 2]
    outbox.closed()
    outbox.withdraw([1, 2])
    assert (outbox.hello_sent(), outbox.is_void) == (1, True)
    outbox = filled(b"a", stored=1)
    outbox.withdraw([1])
    assert (outbox.last, outbox.is_void) == (0, False)


def test_what_the_journal_cannot_take_goes_while_a_channel_is_open() -> None:
    outbox = filled(b"a", b"b", b"c", stored=1)
    open_(outbox)
    assert send(outbox) == [1]
    outbox.drop([2, 3])
    assert (outbox.messages, outbox.last) == (1, 1)
    assert outbox.put(Content.TEXT, b"d") == 2
    outbox.stored(2)
    assert send(outbox) == [2]


def test_what_goes_before_another_one_leaves_a_void() -> None:
    outbox = filled(b"a", b"b")
    outbox.drop([1])
    assert outbox.content(1) == (Content.CONTROL, b"\x00")
    assert outbox.content(2) == (Content.TEXT, b"b")
    assert outbox.content(3) is None


def test_a_peer_that_knows_more_than_the_journal_makes_a_new_stream() -> None:
    outbox = restored(b"b", b"c", acknowledged=1)
    assert outbox.put(Content.TEXT, b"d") == 4
    outbox.stored(4)
    outbox.hello_sent()
    assert not outbox.is_behind(None)
    assert not outbox.is_behind(StreamPosition("other", 9))
    assert not outbox.is_behind(StreamPosition("s", 3))
    assert outbox.is_behind(StreamPosition("s", 4))
    assert outbox.renew("t", StreamPosition("s", 4)) == (range(2, 4), [4])
    assert (outbox.stream, outbox.messages, outbox.last, outbox.acknowledged) == ("t", 1, 1, 0)
    open_(outbox)
    assert send(outbox) == []
    outbox.stored(1)
    assert send(outbox) == [1]


def test_a_renewed_stream_leaves_its_voids_behind() -> None:
    outbox = restored(b"a", b"b", b"c")
    outbox.withdraw([2])
    assert outbox.renew("t", StreamPosition("s", 0)) == (range(1, 1), [1, 3])
    assert outbox.messages == 2


def test_new_messages_of_a_restored_stream_wait_for_the_peers_hello() -> None:
    outbox = restored(b"a", b"b")
    outbox.put(Content.TEXT, b"c")
    outbox.stored(3)
    outbox.hello_sent()
    outbox.begin()
    assert send(outbox) == [1, 2]  # these mean the same there
    outbox.opened(StreamPosition("s", 0))
    assert send(outbox) == [3]


def arrived(inbox: Inbox, *numbers: int) -> None:
    for number in numbers:
        inbox.receive(Chunk(Content.TEXT, number, 1, True, b"x"))


def test_what_the_journal_is_storing_stays_whatever_becomes_of_the_stream() -> None:
    inbox = Inbox()
    inbox.opened(Hello(1, "s", 1))
    arrived(inbox, 1, 2, 3)
    assert inbox.keep() == "s"
    assert inbox.kept == 1
    assert inbox.unkept is not None
    assert inbox.unkept.sequence == 2
    inbox.opened(Hello(1, "t", 1))
    assert inbox.unkept is None
    arrived(inbox, 1)
    assert inbox.take() == "s"
    assert inbox.position() == StreamPosition("t", 0)
    inbox.opened(Hello(1, "s", 2))
    assert inbox.position() == StreamPosition("s", 1)
    arrived(inbox, 2)
    assert inbox.first is not None


def test_another_run_of_the_sender_sends_again_what_is_held() -> None:
    inbox = Inbox()
    inbox.opened(Hello(1, "s", 1, run="one"))
    arrived(inbox, 1, 2)
    inbox.keep()
    inbox.opened(Hello(1, "s", 1, run="one"))
    assert inbox.size == 2
    # Our HELLO could not say that the journal has the first: the channel begins anew until it does.
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match="has not named"):
            inbox.opened(Hello(1, "s", 1, run="two"))
        assert inbox.size == 1
    inbox.take()
    inbox.hello_sent()
    inbox.opened(Hello(1, "s", 1, run="two"))
    arrived(inbox, 2)
    assert inbox.size == 1


def test_another_run_of_the_sender_waits_for_a_hello_that_says_what_is_stored() -> None:
    inbox = Inbox()
    inbox.opened(Hello(1, "s", 1, run="one"))
    arrived(inbox, 1)
    inbox.keep()
    inbox.hello_sent()
    inbox.take()  # after our HELLO, and before theirs
    with pytest.raises(ProtocolViolation, match="has not named"):
        inbox.opened(Hello(1, "s", 1, run="two"))
    assert inbox.hello_sent() == StreamPosition("s", 1)
    inbox.opened(Hello(1, "s", 1, run="two"))


def test_a_stream_that_our_hello_does_not_name_is_named_by_the_next_one() -> None:
    inbox = Inbox()
    for stream in ("s", "t"):
        inbox.opened(Hello(1, stream, 1, run="one"))
        arrived(inbox, 1)
        inbox.take()
    assert inbox.hello_sent() == StreamPosition("t", 1)
    with pytest.raises(ProtocolViolation, match="has not named"):
        inbox.opened(Hello(1, "s", 1, run="two"))  # from an older journal, which may give number 1 to another message
    assert inbox.hello_sent() == StreamPosition("s", 1)
    inbox.opened(Hello(1, "s", 2, run="two"))


def test_what_no_earlier_run_has_sent_is_known_to_be_so() -> None:
    outbox = Outbox.restore(OutboxSnapshot("s", 0, 1, ((Content.TEXT, b"a"), (Content.TEXT, b"b"))), journaled=True)
    assert (outbox.unproved, outbox.unstored) == (1, range(3, 3))
    assert outbox.is_behind(StreamPosition("s", 2))
    outbox.hello_sent()
    outbox.opened(StreamPosition("s", 1), held=True)
    assert send(outbox) == []
    outbox.free()
    assert send(outbox) == [2]
