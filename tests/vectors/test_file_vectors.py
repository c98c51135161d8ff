"""Checksums and lists of files against files.json, which the browser's must follow as well."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import ProtocolViolation
from aldis.store.files import manifest
from aldis.store.files.digest import BLOCK, Digest
from aldis.store.files.manifest import MAX_DEPTH, MAX_ENTRIES, MAX_MANIFEST, read_manifest, write_manifest
from aldis.store.messages.control import to_base64url

VECTORS = json.loads((Path(__file__).parent / "files.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["digests"], ids=lambda vector: str(vector["size"]))
@pytest.mark.parametrize("step", [1000, 65_536, 3 * BLOCK])
def test_the_checksum_of_a_transfer(vector: dict[str, Any], step: int) -> None:
    size = vector["size"]
    pattern = bytes((at * 7 + at // 256) % 256 for at in range(min(size, 65_536)))  # from there on it is the same again
    data = (pattern * (size // 65_536 + 1))[:size]
    digest = Digest()
    for start in range(0, size, step):
        digest.update(data[start : start + step])
        if start == 0:
            digest.result()  # changes nothing
    assert digest.size == size
    assert to_base64url(digest.result()) == vector["sha256"]


@pytest.mark.parametrize("vector", [pytest.param(each, id=each["name"]) for each in VECTORS["manifests"]])
def test_the_list_of_files_of_a_folder(vector: dict[str, Any]) -> None:
    data = vector["manifest"].encode()
    if "entries" in vector:
        assert [list(entry) for entry in read_manifest(data, vector["content"])] == vector["entries"]
    else:
        with pytest.raises(ProtocolViolation):
            read_manifest(data, vector["content"])


def _many_folders() -> list[tuple[str, int]]:
    """65,537 folders on the ways to 3,121 files."""
    return [("/".join(f"{number}{level}" for level in range(21)) + "/f", 0) for number in range(MAX_ENTRIES // 21 + 1)]


def test_a_folder_that_is_too_large_is_told() -> None:
    for entries, problem in (
        ([("a", 0)] * (MAX_ENTRIES + 1), "more than 65536 files"),
        ([("a/" * MAX_DEPTH + "b", 0)], "more than 32 folders deep"),
        ([("a" * MAX_MANIFEST, 0)], "more than 8388608 bytes"),
        (_many_folders(), "more than 65536 folders"),
    ):
        with pytest.raises(ValueError, match=problem):
            write_manifest(entries)
    assert json.loads(write_manifest([("a/", 0), ("a/b", 5)])) == [["a/", 0], ["a/b", 5]]


def test_a_list_with_more_files_than_it_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_ENTRIES", 1)
    with pytest.raises(ProtocolViolation, match="a list of 2 files"):
        read_manifest(b'[["a",0],["b",0]]', 0)


def test_a_list_with_more_folders_on_the_ways_than_it_may_have_is_refused() -> None:
    entries = _many_folders()
    with pytest.raises(ProtocolViolation, match="more than 65536 folders"):
        read_manifest(json.dumps(entries).encode(), 0)
    assert len(read_manifest(json.dumps(entries[:-1]).encode(), 0)) == len(entries) - 1


def test_the_longest_paths_take_little_more_memory_than_their_list() -> None:
    name = "\U0001f600" * 45
    data = json.dumps([("/".join([f"{number}{name}"] * MAX_DEPTH), 0) for number in range(500)], ensure_ascii=False)
    tracemalloc.start()
    try:
        read_manifest(data.encode(), 0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * len(data.encode())  # with a text for each folder on the way it was 20 times that
