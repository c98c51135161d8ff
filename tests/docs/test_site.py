"""The documentation site: what tools/site/hooks.py adds to MkDocs. `make docs` fails on broken links."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site" / "hooks.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def site(folder: Path, page: str) -> MkDocsConfig:
    config = MkDocsConfig()
    config.site_dir = str(folder)
    (folder / "index.html").write_text(page)
    return config


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script defer src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<img alt="" src="https://badge.example/x.svg">',
    ],
)
def test_a_page_that_fetches_from_another_host_fails_the_build(hooks: ModuleType, tmp_path: Path, page: str) -> None:
    with pytest.raises(PluginError, match="example"):
        hooks.on_post_build(config=site(tmp_path, page))


def test_a_link_to_another_host_is_no_fetch(hooks: ModuleType, tmp_path: Path) -> None:
    hooks.on_post_build(config=site(tmp_path, '<a href="https://semver.example/">x</a> <script src="x.js"></script>'))


def test_links_in_code_are_not_links(hooks: ModuleType) -> None:
    text = '[a](x.md) `[b](y.md)`\n```\n[c](z.md)\n```\n![d](images/p.png) <img src="docs/q.png">\n'
    assert [match["target"] for match in hooks._links(text)] == ["x.md", "images/p.png", "docs/q.png"]


@pytest.mark.parametrize("origin", ["README.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "sdk/README.md"])
def test_the_site_has_the_documents_beside_docs(hooks: ModuleType, origin: str) -> None:
    assert (ROOT / origin).exists()
    assert origin in hooks.PAGES
