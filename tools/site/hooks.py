"""Hooks of MkDocs: they add pages that are not below docs/, and resolve links between pages.

A document links to files of the project by their paths in the tree, so its links work wherever the tree is shown. Here
a link to another page goes to that page, and a link to a source file to a page that shows the file. A link to a missing
file stays as it is, and MkDocs fails on it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
SDK_REFERENCE: Final = ROOT / "build" / "sdk-reference"  # made by reference.js
SDK_PAGES: Final = "reference/sdk"
MERMAID: Final = "assets/mermaid.min.js"
WORKER: Final = "assets/iframe-worker.js"
# Pages that lie elsewhere in the tree.
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "sdk/README.md": "sdk.md",
}
ASSETS: Final = {
    "src/aldis/web/src/page/icon.svg": "assets/icon.svg",
    "tools/site/site.css": "assets/site.css",
    "tools/site/node_modules/iframe-worker/shim/index.js": WORKER,
    "tools/site/node_modules/mermaid/dist/mermaid.min.js": MERMAID,
}
# The classes of the SDK that come first in the menu; the others are errors and types.
FIRST: Final = ("NetworkStore", "SignalingClient", "Identity", "IndexedDBPins", "MemoryPins", "Backoff")
LANGUAGES: Final = {".css": "css", ".html": "html", ".js": "js", ".py": "python", ".toml": "toml", ".sh": "sh"}
# The URL folder of the shown source files.
SOURCES: Final = ("examples", "sdk/src", "sdk/tools", "src/aldis")
# Code in a line, or the target of a link or an image.
_LINK: Final = re.compile(r"(?P<code>`+[^`]+`+)|(?P<before>\]\(|\bsrc=\")(?P<target>[^)\s\"#]+)(?P<anchor>#[^)\s\"]*)?")
# Words after the language of a code block, which tests read and this Markdown parser does not know.
_AFTER_LANGUAGE: Final = re.compile(r"^( *```\w+) .*$", re.MULTILINE)
# Files that a browser would fetch from another host: scripts, styles, images.
_FETCHED: Final = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"((?:https?:)?//[^\"]*)|<link\b[^>]*\bhref=\"((?:https?:)?//[^\"]*)"
)

_origins: dict[str, str] = {}  # page -> where it lies in the tree
_places: dict[str, str] = {}  # the other way round, and for source files the page that shows them


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the SDK's reference into the menu."""
    if not SDK_REFERENCE.is_dir():
        raise PluginError("the reference of the SDK is not made yet: run `make docs`")
    classes = {path.stem for path in (SDK_REFERENCE / "classes").glob("*.md")}
    missing = set(FIRST) - classes
    if missing:
        raise PluginError(f"tools/site/hooks.py names classes that the SDK does not export: {missing}")
    listed = [page for page in (SDK_REFERENCE / "README.md").read_text("utf-8").split("](") if ".md)" in page]
    order = [page.partition(")")[0] for page in listed]
    rest = [page for page in order if page.startswith("classes/") and Path(page).stem not in FIRST]
    types = [page for page in order if page.startswith(("interfaces/", "type-aliases/"))]
    menu: list[object] = [f"{SDK_PAGES}/index.md"]
    menu += [{name: f"{SDK_PAGES}/classes/{name}.md"} for name in FIRST]
    menu += [{"Functions": _menu([page for page in order if page.startswith("functions/")])}]
    menu += [{"Errors": _menu(rest)}, {"Types": _menu(types)}]
    for entry in config.nav or []:
        if isinstance(entry, dict) and "SDK reference" in entry:
            entry["SDK reference"] = menu
    return config


def _menu(pages: list[str]) -> list[dict[str, str]]:
    return [{Path(page).stem: f"{SDK_PAGES}/{page}"} for page in pages]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages and assets from elsewhere, and a page for each source file that a page links to."""
    tree = {
        path.relative_to(ROOT).as_posix()
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*")
        if path.suffix in LANGUAGES
    }
    _origins.clear()
    _places.clear()
    for file in files.documentation_pages():
        _origins[file.src_uri] = f"docs/{file.src_uri}"
    for origin, uri in PAGES.items():
        _origins[uri] = origin
        files.append(File.generated(config, uri, content=(ROOT / origin).read_text("utf-8")))
    for origin, uri in ASSETS.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / origin)))
    for path in SDK_REFERENCE.rglob("*.md"):
        uri = f"{SDK_PAGES}/{path.relative_to(SDK_REFERENCE).as_posix().replace('README', 'index')}"
        content = path.read_text("utf-8").replace("README.md", "index.md")
        if path == SDK_REFERENCE / "README.md":
            content = content.replace("\n", "\n\nThe guide is [In the browser](../../browser.md).\n", 1)
        files.append(File.generated(config, uri, content=content))
    _places.update({origin: uri for uri, origin in _origins.items()})
    for origin in list(_origins.values()):
        for match in _links((ROOT / origin).read_text("utf-8")):
            _show(_in_tree(origin, match["target"]), tree, files, config)
    return files


def _links(markdown: str) -> list[re.Match[str]]:
    """The links in a text, without those in code."""
    return [match for line in _outside_code(markdown) for match in _LINK.finditer(line) if match["target"]]


def _outside_code(markdown: str) -> list[str]:
    parts = re.split(r"^ *```.*?^ *```", markdown, flags=re.MULTILINE | re.DOTALL)
    return [line for part in parts for line in part.splitlines()]


def _in_tree(origin: str, target: str) -> str:
    """The path in the tree for a link of a document."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def _show(path: str, tree: set[str], files: Files, config: MkDocsConfig) -> None:
    """Make a page for a source file, or for a folder and the files in it."""
    if path in _places or path.startswith("docs/images/"):
        return
    inside = sorted(name for name in tree if name.startswith(f"{path}/") and Path(name).suffix in LANGUAGES)
    if path in tree:
        code = (ROOT / path).read_text("utf-8")
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", code)), default=0))
        text = f"{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{code.rstrip()}\n{fence}\n"
    elif inside:
        _places[path] = f"source/{path}/index.md"
        for name in inside:
            if (ROOT / name).stat().st_size < 60_000:
                _show(name, tree, files, config)
        shown = [name for name in inside if name in _places]
        text = "".join(f"* [`{name.removeprefix(path + '/')}`]({name.removeprefix(path + '/')}.md)\n" for name in shown)
    else:
        return
    uri = _places.setdefault(path, f"source/{path}.md")
    header = f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n# `{path}`\n\n"
    files.append(File.generated(config, uri, content=header + text))


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change each link into the tree into a link to a page."""
    origin = _origins.get(page.file.src_uri)
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would contain only this page
    if origin is None:
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        if not match["target"] or "://" in match["target"]:
            return match[0]
        path = _in_tree(origin, match["target"])
        place = _places.get(path)
        if path.startswith("docs/images/"):
            place = path.removeprefix("docs/")
        if place is None:
            return match[0]
        return f"{match['before']}{posixpath.relpath(place, here)}{match['anchor'] or ''}"

    markdown = _AFTER_LANGUAGE.sub(r"\1", markdown)
    parts = re.split(r"(^ *```.*?^ *```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.lstrip().startswith("```") else _LINK.sub(moved, part) for part in parts)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Use local copies of what the theme would fetch from another host: Mermaid, and workers for files."""
    here = posixpath.dirname(page.file.dest_uri)
    output = output.replace("https://unpkg.com/iframe-worker/shim", posixpath.relpath(WORKER, here))
    if 'class="mermaid"' in output:
        output = output.replace("</head>", f'<script src="{posixpath.relpath(MERMAID, here)}"></script></head>', 1)
    return output


def on_post_template(output: str, *, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for the page "not found"."""
    return output.replace("https://unpkg.com/iframe-worker/shim", f"/{WORKER}")


def on_post_build(*, config: MkDocsConfig) -> None:
    """Fail when a page would fetch something from another host."""
    for path in Path(config.site_dir).rglob("*.html"):
        for found in _FETCHED.findall(path.read_text("utf-8")):
            raise PluginError(f"{path} fetches {found}: no page may load anything from elsewhere")
