"""The page made ready to be fetched quickly: from its files as they are written, what browsers shall load.

Over a long line it is the number of requests that counts, and how many have to wait for others. So, from `index.html`:

* **Nothing waits.** Every module is named as a preload, so that a browser asks for all of them at once, the largest
  first, where it would find each only in the one that imports it.
* **The style sheets are one**, in the order in which they are linked.
* **Nothing is asked for twice.** The files that the page loads have paths with the edition in them, a digest of
  them all, and never change there: browsers keep them and do not ask again. Imports are relative, so they stay within
  an edition, and no page is put together from two of them while a server is being replaced.

`index.html` works without all this; it is what a folder of plain files serves. It is not parsed but searched for what
stands in it as written here, and tests/server/test_edition.py holds that all is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

INDEX: Final = "index.html"
# The one style sheet of an edition.
SHEET: Final = "look.css"
# Digits of the edition: nobody can choose the files, so it need only differ from that of other versions.
_DIGITS: Final = 16

_LINKED_SHEET: Final = re.compile(r'[ \t]*<link rel="stylesheet" href="([^"]+)" />\n')
_SCRIPT: Final = re.compile(r'([ \t]*)<script type="module"')
_NAMED: Final = re.compile(r'(?<= href=")[^"]+|(?<= src=")[^"]+')


@dataclass(frozen=True, slots=True)
class Edition:
    """`index`: what `/` shows. `files`: what it loads, by path without the leading slash; these never change."""

    index: bytes
    files: Mapping[str, bytes]


def edition(files: Mapping[str, bytes]) -> Edition:
    """Make it from all files of the page, by name; one of them is `index.html`."""
    index = files[INDEX].decode()
    parts = {name: body for name, body in files.items() if name != INDEX}
    sheets = [name for name in _LINKED_SHEET.findall(index) if name in parts]
    if sheets:
        parts[SHEET] = b"\n".join(parts.pop(name) for name in sheets)
        index = _one_sheet(index, sheets)
    modules = sorted((name for name in parts if name.endswith(".js")), key=lambda name: (-len(parts[name]), name))
    index = _SCRIPT.sub(lambda found: _preloads(found[1], modules) + found[0], index, count=1)
    folder = f"v-{_digest(parts)}"
    index = _NAMED.sub(lambda found: f"{folder}/{found[0]}" if found[0] in parts else found[0], index)
    return Edition(index.encode(), {f"{folder}/{name}": body for name, body in parts.items()})


def _one_sheet(index: str, sheets: list[str]) -> str:
    """The last of the links leads to all sheets, and the others are gone."""

    def link(found: re.Match[str]) -> str:
        if found[1] == sheets[-1]:
            return found[0].replace(found[1], SHEET)
        return "" if found[1] in sheets else found[0]

    return _LINKED_SHEET.sub(link, index)


def _preloads(indent: str, modules: list[str]) -> str:
    return "".join(f'{indent}<link rel="modulepreload" href="{name}" />\n' for name in modules)


def _digest(files: Mapping[str, bytes]) -> str:
    """Of all files with their names. Each by its own digest: no end of one can be taken for the begin of another."""
    each = (sha256(name.encode()).digest() + sha256(body).digest() for name, body in sorted(files.items()))
    return sha256(b"".join(each)).hexdigest()[:_DIGITS]
