"""How text that others wrote is shown: nothing in it may steer the terminal, or look like a line that it is not.

Rules: what comes from a peer or a server goes through `safe_line` or `safe_block` before it is printed anywhere, be it
a terminal or a pipe, since what is piped today is looked at in a terminal tomorrow. What would act instead of being
seen is written as an escape, `\\n` or `\\x1b`. A backslash stays as it is, so that ordinary text is not changed; who
needs every message exactly takes the JSON form.
"""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

from aldis.protocol.codec import to_base64

Content: TypeAlias = object  # str, bytes, or what JSON can hold

# C0 without tab, DEL, C1; line and paragraph separator, which some programs take for line ends; the embeddings,
# overrides and isolates of bidirectional text, which can show a line in another order than it has (CVE-2021-42574);
# lone surrogates, which no encoding can write.
_ACTING = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r"}
# A terminal is for reading: more than some pages of one message would push everything else away.
MAX_SHOWN: Final = 4000  # characters
_SHOWN_BYTES: Final = 16


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def safe_line(text: str) -> str:
    """`text` as one line in which nothing acts: line ends and control characters are written as escapes."""
    return _ACTING.sub(_escape, text)


def safe_block(text: str) -> str:
    """`text` with its line ends kept, as lines in which nothing acts, for a reader at a terminal.

    Whoever prints it indents the further lines, so that none looks like a new message. Tabs become blanks, as their
    width depends on where they stand. Text beyond `MAX_SHOWN` characters is cut, and the cut is told.
    """
    more = len(text) - MAX_SHOWN
    if more > 0:
        text = text[:MAX_SHOWN]
    lines = [safe_line(line) for line in text.replace("\r\n", "\n").replace("\t", "    ").split("\n")]
    if more > 0:
        lines.append(f"... ({more} more characters; the piped form shows all)")
    return "\n".join(lines)


def as_text(content: Content) -> str:
    """A message in words: text as it is, a JSON value as compact JSON, bytes as their number and beginning in hex.

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
