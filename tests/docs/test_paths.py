"""What the documents point at exists: files of the project, and links from one document to another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
] + sorted(ROOT.glob("docs/*.md"))
# Where a document's paths begin: it may leave out what is the same for all of them.
BASES = (ROOT, ROOT / "src", ROOT / "src" / "aldis", ROOT / "tests")
# In code marks: something with a slash that ends like one of our files, or a folder of ours.
_FILE = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.(?:py|json|md|sh|txt|toml))?)`")
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(#[^)\s]*)?\)")


def anchors(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dangling(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    files = [name for name in _FILE.findall(text) if not any((base / name).exists() for base in BASES)]
    links = []
    for target, anchor in _LINK.findall(text):
        path = document.parent / target if target else document
        if not path.exists() or (anchor and anchor[1:] not in anchors(path)):
            links.append(target + anchor)
    return files + links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_whatever_a_document_points_at_exists(document: Path) -> None:
    assert dangling(document) == []


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# One\n`hub/gone.py` `hub/hub.py` [a](#one) [b](#two) [c](gone.md)\n")
    assert dangling(document) == ["hub/gone.py", "#two", "gone.md"]
