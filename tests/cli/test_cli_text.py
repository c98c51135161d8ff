"""What others wrote cannot steer a terminal, and cannot look like a line that it is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.cli.text import MAX_SHOWN, as_json, as_text, safe_block, safe_line, shown_name, typed_name, wrapped

ACTING = [chr(code) for code in (*range(9), *range(10, 32), *range(0x7F, 0xA0))]
BIDI = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]


@pytest.mark.parametrize("character", [*ACTING, *BIDI, "\u2028", "\u2029", chr(0xD800)])
def test_a_character_that_acts_is_written_as_an_escape(character: str) -> None:
    shown = safe_line(f"a{character}b")
    assert character not in shown
    assert shown.startswith("a\\")
    assert shown.endswith("b")


@pytest.mark.parametrize("text", ["plain", "tab\there", "C:\\temp\\new", "שלום", "naïve", "👩‍👧", "日本語", ""])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert safe_line(text) == text


def test_a_line_end_in_a_message_cannot_forge_another_line() -> None:
    assert safe_line("hi\nbob: send me money") == "hi\\nbob: send me money"
    assert safe_line("hi\r\x1b[2Kbob: x") == "hi\\r\\x1b[2Kbob: x"


@given(st.text())
def test_a_safe_line_is_one_line_for_every_program(text: str) -> None:
    shown = safe_line(text)
    assert len(shown.splitlines()) <= 1
    assert shown == safe_line(shown)
    shown.encode()


@given(st.text())
def test_a_block_keeps_line_ends_and_nothing_else_that_acts(text: str) -> None:
    for line in safe_block(text).split("\n"):
        assert line == safe_line(line)
        assert "\t" not in line


def test_a_block_that_fills_pages_is_cut_and_says_so() -> None:
    assert safe_block("x" * (MAX_SHOWN + 7)).endswith("x\n... (7 more characters; the piped form shows all)")


def test_bytes_and_json_values_are_told_in_words() -> None:
    assert as_text(b"") == "<0 bytes>"
    assert as_text(b"\x00\xff") == "<2 bytes: 00 ff>"
    assert as_text(bytes(100)) == f"<100 bytes: {'00 ' * 15}00...>"
    assert as_text({"a": [1, None, "ü"]}) == '{"a":[1,null,"ü"]}'
    assert as_text("text") == "text"


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_the_json_form_gives_every_text_exactly_and_in_ascii(text: str) -> None:
    line = as_json("bob", text)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {"from": "bob", "text": text}


def test_the_json_form_tells_the_kinds_of_content_apart() -> None:
    assert json.loads(as_json("bob", b"\x00\xff")) == {"from": "bob", "base64": "AP8="}
    assert json.loads(as_json("bob", {"text": "x"})) == {"from": "bob", "json": {"text": "x"}}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("bob", "bob"),
        ("rød-grød", "rød-grød"),
        ("日本語", "日本語"),
        ("bo\u200bb", "bo\\u200bb"),
        ("\u202eevil", "\\u202eevil"),
        ("b\xadob", "b\\xadob"),
        ("bob\U000e0041", "bob\\U000e0041"),
        ("\U0001f469\u200d\U0001f467", "\U0001f469\\u200d\U0001f467"),
        ("C:\\u200b", "C:\\\\u200b"),
    ],
)
def test_an_operator_sees_and_can_type_what_is_not_seen_in_a_name(name: str, shown: str) -> None:
    assert shown_name(name) == shown == safe_line(shown)
    assert typed_name(shown) == name


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])))
def test_each_name_can_be_typed_as_it_is_shown(name: str) -> None:
    assert typed_name(shown_name(name)) == name


@pytest.mark.parametrize("text", ["a\\b", "a\\", "\\u12", "\\x1", "\\Uffffffff", "\\u200"])
def test_what_is_no_escape_is_a_name_as_it_is(text: str) -> None:
    assert typed_name(text) == text


FINGERPRINT = "k3ul-7q2a-aaaa-bbb2-cccc-dddd-eeee-x4wd"


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("one two", 7, "one two"),
        ("one two three", 9, "one two\n  three"),
        ("one two\n  three four", 9, "one two\n  three\n  four"),
        ("an unbreakable-word", 8, "an\n  unbreakable-word"),
        (f"it is:\n  {FINGERPRINT}", 41, f"it is:\n  {FINGERPRINT}"),
        (f"it is:\n  {FINGERPRINT}", 40, f"it is:\n  {FINGERPRINT[:20]}\n  {FINGERPRINT[20:]}"),
        (f"  aldis keys trust bob --fingerprint {FINGERPRINT}", 40, None),
        (f"  /usr/bin/python3 -m aldis keys trust bob --fingerprint {FINGERPRINT}", 40, None),
    ],
)
def test_a_narrow_terminal_has_whole_words_and_whole_commands(text: str, columns: int, shown: str | None) -> None:
    assert wrapped(text, columns) == (text if shown is None else shown)
