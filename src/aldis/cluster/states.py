"""The bytes of a device entry and of a user's state, as nodes keep them in Redis and tell them to each other.

Both are arrays of msgpack:

    entry  [FORMAT, entry, node, key, proves, device, session, seal key or nil]    seal key: [public key, signature]
    state  [FORMAT, user id, version, [[order, entry], ...], privacy or nil]
    privacy  [presence, offers, [contacts], [blocked]]; nil: the default

Rules:

* A node reads all that has its own `FORMAT`, and ignores what it does not know at the end of an array. So a release
  adds at the end, and its nodes and those of the release before understand each other. Another `FORMAT` is for a change
  that an older node must not ignore; it says so by a `ClusterProtocolError`.
* The scripts in `cluster/lua` put states together of entries that they do not read, but for the first five of an entry.
  The places of those are the same in each `FORMAT`. An entry has no bytes and no extension types, which the msgpack of
  these scripts (cmsgpack) cannot pass over.
* A state has the whole privacy of its user, and comes with each change of a device. So long lists that are known are
  not read again: to read 2,000 names takes half a millisecond, and any user may have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final
from weakref import WeakValueDictionary

import msgspec
from msgspec import Meta, Struct
from msgspec.msgpack import Decoder, Encoder

from aldis.cluster.faults import ClusterProtocolError
from aldis.hub.cluster import RemoteDevice, UserState
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, Visibility

FORMAT: Final = 1

# A privacy of fewer bytes is read in less time than it takes to see whether it is known.
_LONG: Final = 1024
_NIL: Final = msgspec.Raw(b"\xc0")

_Number = Annotated[int, Meta(ge=0)]


class _Seal(Struct, array_like=True, gc=False):
    public_key: str
    signature: str


class _Device(Struct, array_like=True, gc=False):
    format: int
    entry: str
    node: str
    key: str
    proves: bool
    device: str
    session: str
    seal_key: _Seal | None = None


class _Ordered(Struct, array_like=True, gc=False):
    order: _Number
    device: _Device


class _Kept(Struct, array_like=True, gc=False):
    order: _Number
    device: msgspec.Raw


class _Privacy(Struct, array_like=True, gc=False):
    presence: Visibility
    offers: Visibility
    contacts: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()


class _State(Struct, array_like=True, gc=False):
    format: int
    user_id: str
    version: _Number
    devices: list[_Ordered]
    privacy: msgspec.Raw = _NIL


class _StateHead(Struct, array_like=True, gc=False):
    format: int
    user_id: str


_ENCODER: Final = Encoder(order="deterministic")
_DEVICES: Final = Decoder(_Device)
_KEPT: Final = Decoder(_Kept)
_PRIVACIES: Final = Decoder(_Privacy)
_STATES: Final = Decoder(_State)
_STATE_HEADS: Final = Decoder(_StateHead)
# The long privacies that somebody has, by the hash of their bytes.
_known: Final[WeakValueDictionary[bytes, Privacy]] = WeakValueDictionary()


def encode_device(device: RemoteDevice) -> bytes:
    """The entry of a device. Its `order` is not in it: the table keeps that beside it."""
    return _ENCODER.encode(_packed(device))


def decode_device(data: bytes, order: int = 0) -> RemoteDevice:
    """The device of an entry. Raises `ClusterProtocolError`."""
    return _unpacked(order, _device(data))


def encode_privacy(privacy: Privacy) -> bytes:
    """A privacy as it is in a state; empty for the default, which is not kept."""
    return b"" if privacy == DEFAULT_PRIVACY else _ENCODER.encode(_packed_privacy(privacy))


def encode_seal_key(seal_key: SealKey | None) -> bytes:
    """A sealing key as it is in an entry."""
    return _ENCODER.encode(_packed_seal(seal_key))


def encode_text(text: str) -> bytes:
    """The key of a device, or the id of its session, as it is in an entry."""
    return _ENCODER.encode(text)


def encode_state(state: UserState) -> bytes:
    """The state of a user, as the scripts of the table put it together."""
    devices = [_Ordered(device.order, _packed(device)) for device in state.devices]
    privacy = encode_privacy(state.privacy)
    packed = msgspec.Raw(privacy) if privacy else _NIL
    return _ENCODER.encode(_State(FORMAT, state.user_id, state.version, devices, packed))


def user_of_state(data: bytes) -> str:
    """Whose state this is: in a fortieth of the time of `decode_state`. Raises `ClusterProtocolError`.

    The rest is not checked.
    """
    head: _StateHead = _decoded(_STATE_HEADS, data, "the state of a user")
    _check(head.format, "the state of a user")
    return head.user_id


def decode_state(data: bytes) -> UserState:
    """A state that another node or a script has written. Raises `ClusterProtocolError`."""
    state: _State = _decoded(_STATES, data, "the state of a user")
    _check(state.format, "the state of a user")
    for ordered in state.devices:
        _check(ordered.device.format, "the entry of a device")
    return _state(state.user_id, state.version, state.devices, _privacy(state.privacy, "the state of a user"))


def decode_row(user_id: str, row: Sequence[bytes]) -> UserState:
    """The state of a user by the fields and values of its hash (`cluster/lua/shared.lua`). Raises as `decode_state`."""
    version, devices, privacy = b"", [], DEFAULT_PRIVACY
    for field, value in zip(row[::2], row[1::2], strict=True):
        if field == b"v":
            version = value
        elif field == b"p":
            privacy = _privacy(value, "the privacy of a user")
        elif field.startswith(b"d"):
            kept: _Kept = _decoded(_KEPT, value, "the entry of a device", numbered=False)
            devices.append(_Ordered(kept.order, _device(kept.device)))
    if not version.isdigit():
        raise ClusterProtocolError("the version of a user is damaged")
    return _state(user_id, int(version), devices, privacy)


# --- internal ---------------------------------------------------------------------------------------------------------


def _state(user_id: str, version: int, found: Iterable[_Ordered], privacy: Privacy) -> UserState:
    devices = sorted(found, key=lambda ordered: ordered.order, reverse=True)
    return UserState(user_id, version, tuple(_unpacked(ordered.order, ordered.device) for ordered in devices), privacy)


def _privacy(data: bytes | msgspec.Raw, what: str) -> Privacy:
    """A privacy; the one that is in memory already, if it is long."""
    if data == _NIL:
        return DEFAULT_PRIVACY
    if len(data) < _LONG:
        return _read_privacy(data, what)
    digest = sha256(data).digest()
    privacy = _known.get(digest)
    if privacy is None:
        privacy = _known[digest] = _read_privacy(data, what)
    return privacy


def _read_privacy(data: bytes | msgspec.Raw, what: str) -> Privacy:
    privacy: _Privacy = _decoded(_PRIVACIES, data, what, numbered=False)
    return Privacy(*msgspec.structs.astuple(privacy))


def _device(data: bytes | msgspec.Raw) -> _Device:
    device: _Device = _decoded(_DEVICES, data, "the entry of a device")
    _check(device.format, "the entry of a device")
    return device


def _packed(device: RemoteDevice) -> _Device:
    seal_key = _packed_seal(device.seal_key)
    node, key, proves = device.node, device.key, device.proves
    return _Device(FORMAT, device.entry, node, key, proves, device.device, device.session, seal_key)


def _packed_seal(seal_key: SealKey | None) -> _Seal | None:
    return None if seal_key is None else _Seal(seal_key.public_key, seal_key.signature)


def _packed_privacy(privacy: Privacy) -> _Privacy:
    return _Privacy(privacy.presence, privacy.offers, privacy.contacts, privacy.blocked)


def _unpacked(order: int, device: _Device) -> RemoteDevice:
    seal = device.seal_key
    return RemoteDevice(
        device=device.device,
        node=device.node,
        entry=device.entry,
        order=order,
        session=device.session,
        key=device.key,
        seal_key=None if seal is None else SealKey(seal.public_key, seal.signature),
        proves=device.proves,
    )


def _decoded(decoder: Decoder[Any], data: bytes | msgspec.Raw, what: str, *, numbered: bool = True) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if numbered:  # another format may have another shape; all have their number first
            _check(_format_of(data), what)
        raise ClusterProtocolError(f"{what} is damaged: {error}") from None


def _format_of(data: bytes | msgspec.Raw) -> int:
    """The format that the bytes say to have; ours, where they say nothing."""
    try:
        parts = msgspec.msgpack.decode(data, type=list[msgspec.Raw])
        return msgspec.msgpack.decode(parts[0], type=int)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
        return FORMAT


def _check(found: int, what: str) -> None:
    if found > FORMAT:
        raise ClusterProtocolError(f"{what} has the format {found} of a newer release; this one reads {FORMAT}")
    if found < FORMAT:
        raise ClusterProtocolError(f"{what} has the format {found}, which is none")
