"""What is wrong with a folder that other systems cannot take, in words for the one who sends it."""

from __future__ import annotations

import pytest

from aldis.errors import ProtocolViolation
from aldis.store.files.manifest import read_manifest, unfit_name, write_manifest


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["a", "b\\c"], "'b\\\\c' has a backslash"),
        (["x/a:b", "x/a?b"], "'x/a:b' and 'x/a?b' would have one name"),
        (["a:/b", "a?"], "'a:' and 'a?' would have one name"),
        (["a:", "a?/"], "'a:' and 'a?' would have one name"),
        (["a\ufffd", "a\ufffd"], "two of its files would have one name"),
    ],
)
def test_the_first_name_that_does_not_fit_is_told(paths: list[str], words: str) -> None:
    entries = [(path, 0) for path in paths]
    with pytest.raises(ProtocolViolation):
        read_manifest(write_manifest(entries), 0)
    assert unfit_name(entries).startswith(words)


def test_two_folders_that_become_one_elsewhere_are_no_fault() -> None:
    entries = [("a:/b", 0), ("a?/c", 0)]
    assert read_manifest(write_manifest(entries), 0) == [("a_/b", 0), ("a_/c", 0)]
    assert "'a:" not in unfit_name(entries)
