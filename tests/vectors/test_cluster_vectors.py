"""What the nodes of a cluster write and read (aldis.cluster), against cluster.json: other releases read it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.cluster.buckets import BUCKETS, Names, bucket_of
from aldis.cluster.faults import ClusterProtocolError, NodeLost
from aldis.cluster.states import (
    decode_device,
    decode_row,
    decode_state,
    encode_device,
    encode_privacy,
    encode_seal_key,
    encode_state,
    encode_text,
    user_of_state,
)
from aldis.errors import InvalidAddress, RemoteError
from aldis.hub.cluster import RemoteDevice, UserState
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "cluster.json").read_text(encoding="utf-8"))


def device_of(said: dict[str, Any]) -> RemoteDevice:
    seal_key = said["seal_key"]
    return RemoteDevice(**{**said, "seal_key": seal_key and SealKey(*seal_key)})


def state_of(said: dict[str, Any]) -> UserState:
    privacy = said["privacy"]
    lists = (frozenset(privacy["contacts"]), frozenset(privacy["blocked"]))
    return UserState(
        said["user_id"],
        said["version"],
        tuple(map(device_of, said["devices"])),
        Privacy(privacy["presence"], privacy["offers"], *lists),
    )


@pytest.mark.parametrize("case", VECTORS["devices"], ids=lambda case: case["device"]["device"])
def test_a_device_has_these_bytes(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    assert encode_device(device_of(case["device"])) == data
    assert decode_device(data) == device_of(case["device"])
    assert decode_device(data, 5) == device_of(case["device"])._replace(order=5)


@pytest.mark.parametrize("case", VECTORS["states"], ids=lambda case: case["state"]["user_id"])
def test_a_state_has_these_bytes(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    assert encode_state(state_of(case["state"])) == data
    assert decode_state(data) == state_of(case["state"])
    assert user_of_state(data) == case["state"]["user_id"]


@pytest.mark.parametrize("case", VECTORS["read"], ids=lambda case: case["name"])
def test_what_a_newer_release_adds_is_ignored(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    if case["what"] == "device":
        assert decode_device(data) == device_of(case["device"])
    else:
        assert decode_state(data) == state_of(case["state"])
        assert user_of_state(data) == case["state"]["user_id"]


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_what_cannot_be_read_is_said(case: dict[str, Any]) -> None:
    for decode in (decode_device, decode_state):
        with pytest.raises(ClusterProtocolError) as raised:
            decode(bytes.fromhex(case["hex"]))
        if decode is decode_state:
            assert case["why"] in str(raised.value)
    assert isinstance(raised.value, RemoteError)


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    for decode in (decode_device, decode_state, user_of_state):
        try:
            decode(data)
        except ClusterProtocolError:
            continue


@pytest.mark.parametrize("depth", [3_000, 1_000_000])
def test_arrays_without_an_end_are_an_error_and_nothing_else(depth: int) -> None:
    for data in (b"\x91" * depth + b"\x01", b"\x96\x01\xa1a\x01\x90\xc0" + b"\x91" * depth + b"\x01"):
        with pytest.raises(ClusterProtocolError):
            decode_state(data)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_devices = st.builds(
    RemoteDevice,
    device=_texts,
    node=_texts,
    entry=_texts,
    order=st.integers(0, 2**53),
    session=_texts,
    key=_texts,
    seal_key=st.none() | st.builds(SealKey, _texts, _texts),
    proves=st.booleans(),
)
_levels = st.sampled_from(["public", "contacts", "hidden"])
_privacies = st.builds(Privacy, _levels, _levels, st.frozensets(_texts), st.frozensets(_texts))


@given(_texts, st.integers(0, 2**53), st.lists(_devices, unique_by=lambda device: device.order), _privacies)
def test_a_state_is_read_as_it_was_written(
    user_id: str, version: int, devices: list[RemoteDevice], privacy: Privacy
) -> None:
    newest_first = tuple(sorted(devices, key=lambda device: device.order, reverse=True))
    state = UserState(user_id, version, newest_first, privacy)
    assert decode_state(encode_state(state)) == state


def row_of(state: UserState) -> list[bytes]:
    """A user as Redis keeps it: `cluster/lua/shared.lua`."""
    privacy = encode_privacy(state.privacy)
    row = [b"v", str(state.version).encode(), b"x", b"of a newer release"] + [b"p", privacy] * bool(privacy)
    for device in state.devices:
        row += [f"d{device.device}".encode(), b"\x92\xcf" + device.order.to_bytes(8, "big") + encode_device(device)]
    return row


@pytest.mark.parametrize("case", VECTORS["states"], ids=lambda case: case["state"]["user_id"])
def test_a_row_of_redis_is_a_state(case: dict[str, Any]) -> None:
    state = state_of(case["state"])
    assert decode_row(state.user_id, row_of(state)) == state


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([], "the version"),
        ([b"v", b"-1"], "the version"),
        ([b"v", b"1", b"p", b"\x91\x02"], "the privacy of a user is damaged"),
        ([b"v", b"1", b"d", b"\x92\x02"], "the entry of a device is damaged"),
        ([b"v", b"1", b"d", b"\x92\x02\x91\x01"], "the entry of a device is damaged"),
        ([b"v", b"1", b"d", b"\x92\x02\x92\x02\x01"], "the format 2 of a newer release"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error(row: list[bytes], why: str) -> None:
    with pytest.raises(ClusterProtocolError, match=why):
        decode_row("alice", row)


def test_the_parts_that_a_script_puts_into_a_state_are_those_of_a_state() -> None:
    seal_key = SealKey("cHVi", "c2ln")
    privacy = Privacy("hidden", contacts=frozenset({"bob"}))
    device = RemoteDevice("laptop", "n1", "e1", 3, "s1", "a2V5", seal_key)
    data = encode_state(UserState("alice", 7, (device,), privacy))
    for part in (encode_text("s1"), encode_seal_key(seal_key), encode_privacy(privacy), encode_device(device)):
        assert part in data
    assert encode_privacy(DEFAULT_PRIVACY) == b""
    assert encode_seal_key(None) == b"\xc0"


@pytest.mark.parametrize("case", VECTORS["buckets"], ids=lambda case: case["user_id"])
def test_a_user_has_this_bucket(case: dict[str, Any]) -> None:
    assert bucket_of(case["user_id"]) == case["bucket"]


def test_users_are_spread_over_all_buckets() -> None:
    used = [bucket_of(f"user{number}") for number in range(100 * BUCKETS)]
    counts = [used.count(bucket) for bucket in range(0, BUCKETS, 64)]
    assert set(used) == set(range(BUCKETS))
    assert 50 < min(counts) <= max(counts) < 150


def test_a_user_without_utf8_has_no_bucket() -> None:
    with pytest.raises(InvalidAddress):
        bucket_of("a\ud800")


def test_all_names_of_a_bucket_have_its_hash_tag() -> None:
    names = Names("some:", database=3)
    bucket = bucket_of("a}b{c")
    assert names.user("a}b{c") == f"some:{{b{bucket}}}:u:a}}b{{c"
    assert names.user("alice") == names.users(71) + "alice" == "some:{b71}:u:alice"
    assert names.counter(71) == "some:{b71}:last"
    assert names.node(71, "n1") == names.nodes(71) + "n1" == "some:{b71}:n:n1"
    assert names.channel(71) == "some:{b71}:states:3"
    assert names.leases == "some:nodes"


def test_a_node_that_is_lost_is_named() -> None:
    lost = NodeLost("n1")
    assert lost.node == "n1"
    assert lost.temporary
    assert str(lost) == "the other nodes count the node n1 as lost"


def test_a_long_privacy_that_somebody_has_is_not_read_again() -> None:
    privacy = Privacy(contacts=frozenset(f"somebody{number}" for number in range(1000)))
    data = encode_state(UserState("alice", 1, (), privacy))
    first = decode_state(data)
    assert decode_state(data).privacy is first.privacy
    assert decode_row("alice", row_of(first)).privacy is first.privacy
    assert first.privacy == privacy
    damaged = data[:-1] + b"\xff"
    for _ in range(2):
        with pytest.raises(ClusterProtocolError):
            decode_state(damaged)
