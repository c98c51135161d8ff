"""docs/protocol.md is true: each of its examples is executed, and nothing of the protocol is left out of it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aldis.identity.keys import Identity
from aldis.peer import sealing
from aldis.peer.sealing import Parties
from aldis.protocol import channel
from aldis.protocol import messages as m
from aldis.protocol.codec import DecodeFailed, decode_client_message, decode_server_message, encode_text
from aldis.protocol.codes import TEMPORARY, CloseCode, ErrorCode, may_reconnect
from aldis.store.messages.control import FileMessage, Piece, decode_control, encode_control, encode_piece
from support.conversations import Conversation

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
# The kind of a fenced block, its text, and the line on which it begins.
BLOCKS = [
    (found[1], found[2], DOCUMENT[: found.start()].count("\n") + 1)
    for found in re.finditer(r"^```([a-z ]+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
]


def blocks(kind: str) -> list[object]:
    return [pytest.param(text, id=f"line {line}") for name, text, line in BLOCKS if name == kind]


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)^#", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(title: str) -> dict[str, list[str]]:
    """The table of a section: the cells of each row by its first one, without the marks of code."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]
    return {row[0].replace("`", ""): row[1:] for row in cells[1:]}


def test_every_block_is_of_a_kind_that_is_executed() -> None:
    assert {kind for kind, _, _ in BLOCKS} == {"json", "json hello", "frames", "conversation", "controls", "sealed"}
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)


def written_again(text: str) -> list[object]:
    """A message as the codec writes what it has read, for each side that knows such messages."""
    messages: list[m.ClientMessage | m.ServerMessage | None] = [decode_server_message(text)]
    with suppress(DecodeFailed):
        messages.append(decode_client_message(text))
    return [json.loads(encode_text(message)) for message in messages if message is not None]


@pytest.mark.parametrize("text", blocks("json"))
def test_a_message_is_read_and_written_again_without_a_change(text: str) -> None:
    assert json.loads(text) in written_again(text)


@pytest.mark.parametrize("text", blocks("json hello"))
def test_a_hello_is_read_and_written_again_without_a_change(text: str) -> None:
    hello = channel.decode(b"\x01" + text.encode())
    assert isinstance(hello, channel.Hello)
    assert json.loads(channel.encode_hello(hello)[1:]) == json.loads(text)


@pytest.mark.parametrize("text", blocks("frames"))
def test_a_frame_means_what_stands_beside_it(text: str) -> None:
    for line in text.splitlines():
        data, meaning = re.split(r"  +", line, maxsplit=1)
        assert repr(channel.decode(bytes.fromhex(data))) == meaning


@pytest.mark.parametrize("text", blocks("sealed"))
def test_a_sealed_message_opens_as_it_says(text: str) -> None:
    rows = re.findall(r"^(\S[^\n]*?)  +((?:\S+\n *)*\S+)$", text, re.MULTILINE)
    said = {name: re.sub(r"\s", "", value) for name, value in rows}
    parties = Parties(*said["from"].split("/"), *said["to"].split("/"))
    data = {name: bytes.fromhex(value) for name, value in said.items() if name not in ("from", "to")}
    handshake = sealing.read(data["handshake"])
    assert isinstance(handshake, sealing.Handshake)
    assert (handshake.session, handshake.from_seal_key) == (data["session"], data["fromSealKey"])
    private = X25519PrivateKey.from_private_bytes(data["its private key"])
    assert private.public_key().public_bytes_raw() == handshake.to_seal_key == data["toSealKey"]
    opened = sealing.accept(parties, handshake, private)
    assert opened.frames == [data["frames"]]
    assert opened.public_key == Identity.from_seed(data["identity"]).public_key
    message = sealing.read(data["its message"])
    assert isinstance(message, sealing.Sealed)
    assert (message.counter, opened.keys.open(message)) == (0, [data["a frame after it"]])


@pytest.mark.parametrize("text", blocks("controls"))
def test_control_messages_are_read_and_written_again_without_a_change(text: str) -> None:
    for line in text.splitlines():
        said = line.partition(" ")[2].strip()
        data = said.encode() if said.startswith("{") else bytes.fromhex(said)
        match decode_control(data):
            case Piece(transfer, offset, content):
                assert encode_piece(transfer, offset, content) == data
            case None:
                raise AssertionError(said)
            case word:
                assert json.loads(encode_control(word)) == json.loads(data)


def test_every_control_message_has_a_row_in_the_table() -> None:
    words = FileMessage.__args__
    table = rows("Control messages")
    for word in words:
        assert table[word.__struct_config__.tag][0] == ", ".join(f"`{name}`" for name in word.__struct_encode_fields__)


@pytest.mark.parametrize("text", blocks("conversation"))
def test_a_conversation_goes_as_it_is_written(text: str) -> None:
    Conversation().play(text)


def test_every_message_has_a_row_in_a_table_and_an_example() -> None:
    examples = "".join(text for kind, text, _ in BLOCKS if kind in ("json", "conversation"))
    table = section("All messages")
    for union in (m.ClientMessage, m.ServerMessage):
        for struct in union.__args__:
            tag = struct.__struct_config__.tag
            assert f"`{tag}`" in table
            assert f'"type": "{tag}"' in examples


def test_every_error_code_is_in_its_table_with_whether_it_is_temporary() -> None:
    table = rows("Errors")
    assert set(table) == {value for name, value in vars(ErrorCode).items() if not name.startswith("_")}
    assert {code for code, cells in table.items() if cells[-1] == "yes"} == TEMPORARY


def test_every_close_code_is_in_its_table_with_whether_to_come_back() -> None:
    table = {int(code): cells for codes, cells in rows("Close codes").items() for code in codes.split(",")}
    never_sent = {CloseCode.NO_STATUS, CloseCode.ABNORMAL}
    assert set(table) == set(CloseCode) - never_sent
    for code, cells in table.items():
        assert cells[-1] == ("yes" if may_reconnect(code) else "no"), code


# --- the replay itself: it has to be able to say no -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("conversation", "problem"),
    [
        ('alice registers\nalice -> {"type": "ping"}', "before this the server said to alice"),
        ('alice registers\nalice -> {"type": "ping"}\nalice -> {"type": "ping"}', "before this the server said"),
        ('alice registers\nalice -> {"type": "ping"}\nalice <- {"type": "pong", "re": 1}', "the server said"),
        ('alice registers\nalice -> {"type": "ping"}\nalice <- {"type": "pong", "x": "<x>"}', "there is no x"),
        ('alice registers\nalice <- {"type": "pong"}', "the server said nothing"),
        ("alice registers\nalice/main registers", "before this alice was closed"),
        ("alice registers\nalice is closed with 4001", "it is not closed"),
        ("alice connects\nalice dances", "nobody knows what 'dances' means"),
        ('alice connects\nalice -> {"type": "prove", "signature": "<never said>"}', "has no <never said> yet"),
        (
            'alice registers\nbob registers\nalice -> {"type": "discover", "userId": "bob"}\n'
            'alice <- {"type": "discover-response", "userId": "bob", "online": true, "publicKey": "<key of alice>",'
            ' "devices": [{"device": "main"}]}',
            "the server said",
        ),
    ],
)
def test_a_conversation_that_goes_otherwise_is_found_out(conversation: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(problem)):
        Conversation().play(conversation)
