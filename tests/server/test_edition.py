"""What browsers load of the page: all of it at once, as few files as read well, and under paths that never change."""

from __future__ import annotations

import posixpath
import re
from importlib.resources import files
from pathlib import Path

import pytest

from aldis.server.edition import Edition, edition

INDEX = b"""<!doctype html>
<html lang="en">
  <head>
    <link rel="icon" href="icon.svg" type="image/svg+xml" />
    <link rel="stylesheet" href="look/first.css" />
    <link rel="stylesheet" href="look/second.css" />
    <script type="module" src="main.js"></script>
  </head>
  <body>
    <img src="icon.svg" alt="" /><a href="https://example.org/main.js">main.js</a>
  </body>
</html>
"""
WRITTEN = {
    "index.html": INDEX,
    "icon.svg": b"<svg/>",
    "look/second.css": b"b { color: red }",
    "look/first.css": b"a { color: red }",
    "main.js": b"import './deep/other.js';",
    "deep/other.js": b"export const answer = 42; // longer than the other one",
}
# Static imports, as prettier writes them: the only ones there are (`test_the_page_imports_in_one_way`).
_IMPORT = re.compile(r"^(?:import|export|\}) [^'\n]*'(\.[^']+)';$|^import '(\.[^']+)';$", re.MULTILINE)


def folder_of(made: Edition) -> str:
    (folder,) = {name.partition("/")[0] for name in made.files}
    return folder


def test_what_the_page_loads_is_in_a_folder_that_is_named_after_it() -> None:
    made = edition(WRITTEN)
    folder = folder_of(made)
    assert re.fullmatch("v-[0-9a-f]{16}", folder)
    assert made.files[f"{folder}/main.js"] == WRITTEN["main.js"]
    assert made.files[f"{folder}/deep/other.js"] == WRITTEN["deep/other.js"]
    index = made.index.decode()
    assert f'<script type="module" src="{folder}/main.js"></script>' in index
    assert f'href="{folder}/icon.svg" type' in index
    assert f'<img src="{folder}/icon.svg"' in index
    assert 'href="https://example.org/main.js"' in index


@pytest.mark.parametrize(
    "change",
    [{"main.js": b"changed"}, {"new.js": b""}, {"look/first.css": b"changed"}, {"main.js": b"", "main.j": b"s"}],
)
def test_any_other_content_is_another_edition(change: dict[str, bytes]) -> None:
    assert folder_of(edition(WRITTEN | change)) != folder_of(edition(WRITTEN))
    assert edition(WRITTEN) == edition(dict(reversed(WRITTEN.items())))


def test_another_order_of_the_sheets_is_another_edition() -> None:
    swapped = INDEX.replace(b"first", b"third").replace(b"second", b"first").replace(b"third", b"second")
    assert folder_of(edition(WRITTEN | {"index.html": swapped})) != folder_of(edition(WRITTEN))


def test_the_style_sheets_are_one_in_the_order_in_which_they_are_linked() -> None:
    made = edition(WRITTEN)
    folder = folder_of(made)
    assert made.files[f"{folder}/look.css"] == b"a { color: red }\nb { color: red }"
    assert [name for name in made.files if name.endswith(".css")] == [f"{folder}/look.css"]
    assert re.findall(r'<link rel="stylesheet" href="(.*)" />', made.index.decode()) == [f"{folder}/look.css"]


def test_every_module_is_named_as_a_preload_before_the_script_the_largest_first() -> None:
    made = edition(WRITTEN)
    folder = folder_of(made)
    head = made.index.decode().partition("<script")[0]
    assert re.findall(r'    <link rel="modulepreload" href="(.*)" />\n', head) == [
        f"{folder}/deep/other.js",
        f"{folder}/main.js",
    ]


def test_a_page_without_scripts_and_sheets_stays_as_it_is() -> None:
    plain = b"<!doctype html><title>A page</title>\n"
    assert edition({"index.html": plain}) == Edition(plain, {})


def test_a_sheet_that_is_missing_is_left_to_the_browser_to_complain_of() -> None:
    made = edition({name: body for name, body in WRITTEN.items() if name != "look/second.css"})
    links = re.findall(r'<link rel="stylesheet" href="(.*)" />', made.index.decode())
    assert links == [f"{folder_of(made)}/look.css", "look/second.css"]


# --- the page itself --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> dict[str, bytes]:
    folder = Path(str(files("aldis") / "web"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def modules(page: dict[str, bytes]) -> dict[str, str]:
    return {name: body.decode() for name, body in page.items() if name.endswith(".js")}


def imports(modules: dict[str, str], name: str) -> set[str]:
    found = (one or other for one, other in _IMPORT.findall(modules[name]))
    return {posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in found}


def test_what_is_preloaded_is_what_the_page_imports_and_nothing_else(
    page: dict[str, bytes], modules: dict[str, str]
) -> None:
    reached, new = set[str](), {"main.js"}
    while new:
        reached |= new
        new = set().union(*(imports(modules, name) for name in new)) - reached
    made = edition(page)
    preloads = re.findall(r'<link rel="modulepreload" href="(.*)" />', made.index.decode())
    assert sorted(preloads) == sorted(f"{folder_of(made)}/{name}" for name in reached)


def test_the_page_imports_in_one_way(modules: dict[str, str]) -> None:
    """By relative paths, at the begin of a module: these lead to files of the same edition."""
    for name, text in modules.items():
        if name in ("aldis.js", "qr.js"):  # built, and without imports
            assert not re.search(r"\b(?:import|from)\s*['\"]", text), name
            continue
        code = re.sub(r"/\*.*?\*/|^\s*//.*$", "", text, flags=re.DOTALL | re.MULTILINE)
        named = re.findall(r"(?:\bfrom|\bimport)\s*\(?\s*(['\"`][^'\"`]*)", code)
        assert len(named) == len(_IMPORT.findall(text)), name


def test_the_sheets_of_the_page_can_be_put_together(page: dict[str, bytes]) -> None:
    """What they name by relative paths would be looked for elsewhere, and an @import has to come first."""
    sheets = {name: body.decode() for name, body in page.items() if name.endswith(".css")}
    assert len(sheets) > 1
    for name, text in sheets.items():
        assert not re.search(r"url\(\s*['\"]?(?!data:)|@import|@charset|@namespace", text), name
    made = edition(page)
    assert made.files[f"{folder_of(made)}/look.css"].count(b"\n") >= sum(text.count("\n") for text in sheets.values())


def test_the_page_names_nothing_that_could_change(page: dict[str, bytes]) -> None:
    made = edition(page)
    named = re.findall(r' (?:href|src)="([^"]*)"', made.index.decode())
    assert named
    assert set(named) <= set(made.files)
