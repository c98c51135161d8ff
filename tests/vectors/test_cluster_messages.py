"""What nodes of a cluster send to each other (aldis.cluster.messages), against cluster.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.cluster.buckets import Names
from aldis.cluster.faults import ClusterProtocolError, UnknownMessage
from aldis.cluster.messages import (
    BanChange,
    BansRestored,
    Message,
    Missed,
    NodeAnswer,
    NodeQuestion,
    Rebound,
    Used,
    decode_message,
    encode_message,
)
from aldis.hub.bans import KINDS, Ban
from aldis.hub.cluster import Forward, Forwarded
from aldis.hub.sessions import RelayResult
from aldis.hub.usage import OpenCounts, Use

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "cluster.json").read_text(encoding="utf-8"))


def message_of(said: dict[str, Any]) -> Message:
    match said["kind"]:
        case "forward":
            network = bytes.fromhex(said.get("network", ""))
            return Forward(said["number"], said["sender"], said["proves"], said["frame"].encode(), network)
        case "forwarded":
            return Forwarded(said["number"], RelayResult[said["result"].upper()])
        case "ban":
            ban = Ban(said["banned"], said["value"], said.get("reason", ""), said.get("until"))
            place = said["previous"], said["version"], said["origin"], said["number"]
            return BanChange(*place, ban, said["lifted"])
        case "question":
            return NodeQuestion(said["number"], said["subject"], said["content"])
        case "answer":
            return NodeAnswer(said["number"], said["content"])
        case "used":
            return Used(
                tuple(
                    Use(limit, bytes.fromhex(network) or users, amount)
                    for limit, users, network, amount in said["uses"]
                )
            )
        case "counts":
            return OpenCounts(
                said["whole"], tuple((bytes.fromhex(network), count) for network, count in said["counts"])
            )
        case "missed":
            return Missed()
        case "restored":
            return BansRestored(said["version"])
        case _:
            return Rebound(said["user_id"])


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: case["message"]["kind"])
def test_a_message_has_these_bytes(case: dict[str, Any]) -> None:
    message = message_of(case["message"])
    assert encode_message(case["node"], message) == bytes.fromhex(case["hex"])
    assert decode_message(bytes.fromhex(case["hex"])) == (case["node"], message)


@pytest.mark.parametrize("case", VECTORS["messages_read"], ids=lambda case: case["name"])
def test_what_a_newer_release_adds_is_ignored(case: dict[str, Any]) -> None:
    assert decode_message(bytes.fromhex(case["hex"])) == (case["node"], message_of(case["message"]))


@pytest.mark.parametrize("case", VECTORS["messages_refused"], ids=lambda case: case["name"])
def test_what_cannot_be_read_is_said(case: dict[str, Any]) -> None:
    with pytest.raises(ClusterProtocolError) as raised:
        decode_message(bytes.fromhex(case["hex"]))
    assert case["why"] in str(raised.value)
    assert isinstance(raised.value, UnknownMessage) == case["unknown"]


def only_protocol_errors(data: bytes) -> None:
    try:
        decode_message(data)
    except ClusterProtocolError:
        return


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    only_protocol_errors(data)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.integers(0, 10), st.text(max_size=3), st.lists(_anything, max_size=8), st.binary(max_size=3), st.integers(0, 9)
)
def test_a_good_head_with_garbage_is_an_error_and_nothing_else(
    kind: int, node: str, rest: list[object], behind: bytes, cut: int
) -> None:
    data = msgspec.msgpack.encode([1, kind, node, *rest]) + behind
    only_protocol_errors(data[: len(data) - cut])


@pytest.mark.parametrize("depth", [3_000, 1_000_000])
def test_arrays_without_an_end_are_an_error_and_nothing_else(depth: int) -> None:
    for head in (b"", b"\x98\x01\x03\xa1a\xa1b"):
        with pytest.raises(ClusterProtocolError):
            decode_message(head + b"\x91" * depth + b"\x01")


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_numbers = st.integers(0, 2**63)
_results = st.sampled_from([result for result in RelayResult if result is not RelayResult.PENDING])
_kinds = st.sampled_from(KINDS)
_bans = st.builds(Ban, _kinds, _texts, _texts, st.none() | st.floats(0, 1e12))
_given = st.builds(BanChange, _numbers, _numbers, _texts, _numbers, _bans, st.just(False))
_lifted = st.builds(lambda change: change._replace(ban=Ban(change.ban.kind, change.ban.value), lifted=True), _given)
_changes = _given | _lifted
_contents = st.dictionaries(_texts, st.none() | st.booleans() | st.integers(0, 9) | st.lists(_texts), max_size=3)
_uses = st.builds(Use, _texts, _texts | st.binary(min_size=1), st.floats(-1e9, 1e9))
_messages = (
    st.builds(Forward, _numbers, _texts, st.booleans(), st.binary())
    | st.builds(Forwarded, _numbers, _results)
    | st.builds(Rebound, _texts)
    | st.builds(Missed)
    | st.builds(NodeQuestion, _numbers, _texts, _contents)
    | st.builds(NodeAnswer, _numbers, _contents)
    | st.builds(Used, st.lists(_uses, max_size=4).map(tuple))
    | st.builds(OpenCounts, st.booleans(), st.lists(st.tuples(st.binary(), _numbers), max_size=4).map(tuple))
)
_of_the_table = _changes | st.builds(BansRestored, _numbers)


@given(_texts, _messages)
def test_a_message_is_read_as_it_was_written(node: str, message: Message) -> None:
    read = decode_message(encode_message(node, message))
    assert read == (node, message)
    assert type(read[1]) is type(message)


@given(_texts, _of_the_table)
def test_what_the_table_of_bans_says_names_no_node(node: str, message: Message) -> None:
    read = decode_message(encode_message(node, message))
    assert read == ("", message)
    assert type(read[1]) is type(message)


def test_the_channels_of_nodes_have_these_names() -> None:
    names = Names("some:", database=3)
    assert names.inbox("n1") == "some:{nn1}:messages:3"
    assert names.everyone == "some:{all}:messages:3"


def test_the_bans_have_the_slot_of_what_is_sent_to_all() -> None:
    names = Names("some:")
    assert (names.bans, names.ban_ends) == ("some:{all}:bans", "some:{all}:ban-ends")
