"""Shows text of others safely: nothing in it may control the terminal, or look like another line.

Rules: text from a peer or a server goes through `safe_line` or `safe_block` before it is printed, to a terminal or to a
pipe, because piped text may be shown in a terminal later. Characters that act and are not seen are written as escapes,
such as `\\n` or `\\x1b`. A backslash stays as it is, so that ordinary text does not change. For the exact messages, use
the JSON form.
"""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

from aldis.protocol.codec import to_base64

Content: TypeAlias = object  # str, bytes, or a JSON value

# C0 without tab, DEL, C1. Line and paragraph separators, which some programs take for line ends. The embeddings,
# overrides and isolates of bidirectional text, which can show a line in another order than it has (CVE-2021-42574).
# Lone surrogates, which no encoding can write.
_ACTING = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Other characters that are not seen: two names may look alike because of them.
_UNSEEN = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000e0000-\U000e0fff]|" + _ACTING.pattern
)
_WRITTEN = re.compile(r"\\(\\|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U00[01][0-9A-Fa-f]{5})")
_SHORT: Final = {"\n": "\\n", "\r": "\\r"}
_GROUPS: Final = "[a-z2-7]{4}(?:-[a-z2-7]{4}){3}"
_FINGERPRINT: Final = re.compile(rf"\b({_GROUPS}-)({_GROUPS})\b")
_FINGERPRINT_WIDTH: Final = 39
# A line that is a command and nothing else, see `aldis.cli.hints`.
_COMMAND: Final = re.compile(r" +(\S*/)?(\S+ -m )?aldis ")
# A longer message would push everything else off the terminal.
MAX_SHOWN: Final = 4000  # characters
_SHOWN_BYTES: Final = 16


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code >= 0x10000:
        return f"\\U{code:08x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def safe_line(text: str) -> str:
    """`text` as one line in which nothing acts: line ends and control characters become escapes."""
    return _ACTING.sub(_escape, text)


def wrapped(text: str, columns: int) -> str:
    """`text` for a terminal of so many columns: broken at blanks, and a fingerprint at a hyphen if it has no room.

    What is to be copied stays whole: long words, and commands.
    """
    if all(len(line) <= columns for line in text.split("\n")):
        return text
    import textwrap  # most commands need it never

    lines: list[str] = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        if len(line) <= columns or _COMMAND.match(line):
            lines.append(line)
            continue
        after = indent or "  "
        if len(after) + _FINGERPRINT_WIDTH > columns:
            line = _FINGERPRINT.sub(r"\1 \2", line)
        lines += textwrap.wrap(
            line,
            columns,
            subsequent_indent=after,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def shown_name(name: str) -> str:
    """A name as an operator reads and copies it: also what is not seen becomes an escape, and a backslash two."""
    return _UNSEEN.sub(_escape, name.replace("\\", "\\\\"))


def typed_name(text: str) -> str:
    """The name that `shown_name` has written so."""
    return _WRITTEN.sub(lambda match: "\\" if match[1] == "\\" else chr(min(int(match[1][1:], 16), 0x10FFFF)), text)


def safe_block(text: str) -> str:
    """`text` as several lines in which nothing acts, for a reader at a terminal. Keeps the line ends.

    The caller indents all lines after the first, so that none looks like a new message. Tabs become blanks, because
    their width depends on their column. Text beyond `MAX_SHOWN` characters is cut, and a note says so.
    """
    more = len(text) - MAX_SHOWN
    if more > 0:
        text = text[:MAX_SHOWN]
    lines = [safe_line(line) for line in text.replace("\r\n", "\n").replace("\t", "    ").split("\n")]
    if more > 0:
        lines.append(f"... ({more} more characters; the piped form shows all)")
    return "\n".join(lines)


def as_text(content: Content) -> str:
    """A message in words: text as it is, JSON as compact JSON, bytes as their number and their first ones in hex.

    The result is not safe to print yet.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = bytes(content)
        more = "..." if len(data) > _SHOWN_BYTES else ""
        return f"<{len(data)} bytes: {data[:_SHOWN_BYTES].hex(' ')}{more}>" if data else "<0 bytes>"
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def as_json(sender: str, content: Content) -> str:
    """A message as one line of JSON in ASCII: `from`, and one of `text`, `base64`, `json`."""
    line: dict[str, object] = {"from": sender}
    if isinstance(content, str):
        line["text"] = content
    elif isinstance(content, (bytes, bytearray, memoryview)):
        line["base64"] = to_base64(bytes(content))
    else:
        line["json"] = content
    return json.dumps(line, separators=(",", ":"))
