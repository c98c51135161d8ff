"""What two stores say to each other beyond the messages of their applications: the bytes of control messages.

A control message is a message of the content CONTROL (`protocol.channel`), so it arrives once and in its place among
the others. It is one of two things (docs/protocol.md, "Control messages"):

    7B ...                       a JSON object in UTF-8 with a `type`, at most 16 KiB
    01  id:8  offset:u64  data   a piece of a file, 1 byte to 64 KiB of data; integers are big-endian

Rules of this module:

* What begins with another byte, or has another `type`, is of a later version and is ignored; so are unknown fields.
  What is of a known kind and cannot be read breaks the protocol.
* An `id` is made by who offers: 8 random bytes, in JSON as base64url without padding, in its one canonical spelling.
* Names and types of files come from a stranger. `safe_name` and `safe_mime` make of them what may be shown, and used
  as the name of a file; `protocol.texts.clean` does it for reasons.

It does not know what any of it leads to. What concerns calls is ignored in Python.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec

from aldis.errors import ProtocolViolation
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.texts import clean

ID_BYTES: Final = 8
# A piece is a message; with its header in chunks of 16 KiB it makes five frames.
MAX_PIECE: Final = 64 * 1024
# A name of 4 KiB in the longest spelling that JSON has, and the rest; nothing honest comes near.
MAX_JSON: Final = 16 * 1024
# No file is larger, and every JSON reader keeps such a number exactly.
MAX_SIZE: Final = 2**53 - 1
MAX_NAME: Final = 200  # bytes of UTF-8; file systems take 255, and something may be added
_MAX_SUFFIX: Final = 16  # characters of a name that stay when it is cut
_MOST_LOOKED_AT: Final = 1000  # characters of a name: looking costs their square

_JSON: Final = b"{"[0]
_PIECE: Final = 1
_PIECE_HEAD = struct.Struct(">B8sQ")

# 64 bits are ten characters and four bits, so the last character is one of sixteen.
_Id: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$", max_length=11)]
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]


class FileOffer(msgspec.Struct, tag="file-offer", gc=False, omit_defaults=True):
    """A file is on offer: `size` in bytes.

    The rest is for programs with the feature FILES_2. `version`: a text that stays the same while the file does. It
    makes the transfer a checked one, unless it is empty. `manifest`: the bytes of the list of files of a folder, which
    `size` includes; 0 for a file. `stream`: nobody knows the size yet, and `size` is 0. `resumes`: the id with which
    the same transfer was offered first, if this is not the first time.
    """

    id: _Id
    name: str
    size: _Size
    mime: str
    version: str = ""
    manifest: _Size = 0
    stream: bool = False
    resumes: _Id = ""


class FileAccept(msgspec.Struct, tag="file-accept", gc=False, omit_defaults=True, rename={"start": "from"}):
    """The file is wanted: send it, from the byte `start` on. `sha256`: the checksum of what is before it."""

    id: _Id
    start: _Size = 0
    sha256: str = ""


class FileEnd(msgspec.Struct, tag="file-end", gc=False):
    """All `bytes` of a checked transfer are sent; their checksum (`files.digest`)."""

    id: _Id
    bytes: _Size
    sha256: str


class FileDecline(msgspec.Struct, tag="file-decline", gc=False):
    """The file is not wanted."""

    id: _Id
    reason: str


class FileReceived(msgspec.Struct, tag="file-received", gc=False):
    """So many bytes from the beginning on are written; all of them: the file is there."""

    id: _Id
    bytes: _Size


class FileCancel(msgspec.Struct, tag="file-cancel", gc=False):
    """The sender or the recipient gives up."""

    id: _Id
    reason: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file, at `offset`. `data` of one that has come is a view of the message, and keeps that alive."""

    id: str
    offset: int
    data: bytes | memoryview


FileMessage: TypeAlias = FileOffer | FileAccept | FileDecline | FileReceived | FileEnd | FileCancel
ControlMessage: TypeAlias = FileMessage | Piece


class _Any(msgspec.Struct, gc=False):
    type: str


_any_decoder = msgspec.json.Decoder(_Any)
_decoders: Final[dict[str, msgspec.json.Decoder[FileMessage]]] = {
    "file-offer": msgspec.json.Decoder(FileOffer),
    "file-accept": msgspec.json.Decoder(FileAccept),
    "file-decline": msgspec.json.Decoder(FileDecline),
    "file-received": msgspec.json.Decoder(FileReceived),
    "file-end": msgspec.json.Decoder(FileEnd),
    "file-cancel": msgspec.json.Decoder(FileCancel),
}


def new_id(random: bytes) -> str:
    """The id of an offer, from 8 random bytes."""
    return to_base64url(random)


def to_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return to_base64(data).rstrip("=").replace("+", "-").replace("/", "_")


def encode_control(message: FileMessage) -> bytes:
    """The bytes of a control message."""
    return msgspec.json.encode(message)


def encode_piece(transfer: str, offset: int, data: bytes | memoryview) -> bytes:
    """The bytes of a piece of the file with this id."""
    raw = from_base64(transfer.replace("-", "+").replace("_", "/") + "=", ID_BYTES)
    return _PIECE_HEAD.pack(_PIECE, raw, offset) + data


def decode_control(data: bytes) -> ControlMessage | None:
    """Read a control message. None for one that this version does not know; raises `ProtocolViolation` for a broken
    one."""
    if not data:
        raise ProtocolViolation("an empty control message")
    if data[0] == _JSON:
        return _decode_json(data)
    return _decode_piece(data) if data[0] == _PIECE else None


def _decode_json(data: bytes) -> FileMessage | None:
    if len(data) > MAX_JSON:
        raise ProtocolViolation(f"a control message of {len(data)} bytes; the limit is {MAX_JSON}")
    try:
        decoder = _decoders.get(_any_decoder.decode(data).type)
        return None if decoder is None else decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"a broken control message: {error}") from None


def _decode_piece(data: bytes) -> Piece:
    size = len(data) - _PIECE_HEAD.size
    if not 0 < size <= MAX_PIECE:
        raise ProtocolViolation(f"a piece of a file with {size} bytes; it has 1 to {MAX_PIECE}")
    _, raw, offset = _PIECE_HEAD.unpack_from(data)
    return Piece(new_id(raw), offset, memoryview(data)[_PIECE_HEAD.size :])


# --- what a stranger has written --------------------------------------------------------------------------------------

_NOT_IN_NAMES: Final = re.compile(r'[<>:"|?*]')  # on Windows
_EDGES: Final = re.compile(r"^[\s.]+|[\s.]+$")  # hidden files, `..`, and what Windows drops
_DEVICES: Final = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_STEM_AND_SUFFIX: Final = re.compile(rf"^(.*?)(\.[^.]{{1,{_MAX_SUFFIX - 1}}})?$", re.DOTALL)
_MIME: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}")
UNKNOWN_MIME: Final = "application/octet-stream"


def safe_name(name: str) -> str:
    """The name of a file that may be used in any folder of any system: no path, nothing unseen, not hidden, no device
    of Windows, at most 200 bytes of UTF-8. Never empty."""
    last = re.split(r"[/\\]", name)[-1]
    plain = _EDGES.sub("", _NOT_IN_NAMES.sub("_", clean(last[:_MOST_LOOKED_AT], _MOST_LOOKED_AT)))
    if _DEVICES.match(plain):
        plain = f"_{plain}"
    found = _STEM_AND_SUFFIX.match(plain)
    stem, suffix = (found[1][:MAX_NAME], found[2] or "") if found else (plain, "")
    while len((stem + suffix).encode()) > MAX_NAME:
        stem = stem[:-1]
    return _EDGES.sub("", stem + suffix) or "file"


def safe_mime(mime: str) -> str:
    """A media type without parameters (RFC 6838 section 4.2), in lower case; `application/octet-stream` for what is
    none."""
    plain = mime.partition(";")[0].strip().lower()
    return plain if _MIME.fullmatch(plain) else UNKNOWN_MIME
