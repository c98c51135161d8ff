"""How text is laid out in the terminal: rows never begin where a message would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth

from aldis.cli.typed import fold, milliseconds, shorten

PRINTABLE = st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))


@given(PRINTABLE, st.integers(min_value=2, max_value=40))
def test_folding_loses_nothing_and_no_row_is_too_wide(line: str, width: int) -> None:
    rows = fold(line, width)
    assert "".join(rows) == line
    assert all(get_cwidth(row) <= width for row in rows)


def test_rows_end_at_blanks_where_there_are_some() -> None:
    assert fold("one two three four", 9) == ["one two ", "three ", "four"]
    assert fold("abcdefghij k", 4) == ["abcd", "efgh", "ij k"]
    assert fold("日本語テキスト", 5) == ["日本", "語テ", "キス", "ト"]
    assert fold("", 5) == [""]


@pytest.mark.parametrize(("name", "shown"), [("bob", "bob"), ("x" * 30, "x" * 23 + "…"), ("日" * 20, "日" * 11 + "…")])
def test_a_long_name_is_cut_to_its_place(name: str, shown: str) -> None:
    assert shorten(name) == shown
    assert get_cwidth(shorten(name)) <= 24


@pytest.mark.parametrize(("seconds", "shown"), [(0.0004, "0.4 ms"), (0.0381, "38 ms"), (1.5, "1500 ms")])
def test_round_trip_times_have_the_digits_that_matter(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown
