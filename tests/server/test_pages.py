"""The page's files as replies: what is served, in which form, and with which headers. No socket is needed for it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from multidict import CIMultiDict

from aldis.server.http import HttpReply
from aldis.server.pages import Pages

HTML = b"<!doctype html><title>A page</title>" + b"<p>and so on</p>" * 100
SCRIPT = b"export const answer = 42;\n" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "icons" / "deep").mkdir(parents=True)
    (tmp_path / "index.html").write_bytes(HTML)
    (tmp_path / "aldis.js").write_bytes(SCRIPT)
    (tmp_path / "main.js").write_bytes(SCRIPT)
    (tmp_path / "tiny.css").write_bytes(b"a{}")
    (tmp_path / "picture.png").write_bytes(bytes(1000))
    (tmp_path / "icons" / "deep" / "a b.svg").write_bytes(b"<svg/>")
    for name in ("assets/page-1.js", "sdk/core-1.js", "sdk/core-1.js.map", "src/page/main.js", "src/page/index.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(SCRIPT)
    for name in ("aldis.d.ts", "README.md", "LICENSE", ".hidden", "__init__.py"):
        (tmp_path / name).write_text("not for browsers")
    return tmp_path


def get(pages: Pages, path: bytes, **fields: str) -> HttpReply:
    reply = pages.reply(path, CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}))
    assert reply is not None
    return reply


def header(reply: HttpReply, name: str) -> str | None:
    values = [value for key, value in reply.headers if key == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_the_files_that_are_for_browsers_are_there_and_no_others(folder: Path) -> None:
    names = {b"/aldis.js", b"/main.js", b"/tiny.css", b"/picture.png", b"/icons/deep/a%20b.svg"}
    built = {b"/assets/page-1.js", b"/sdk/core-1.js", b"/sdk/core-1.js.map"}
    sources = {b"/src/page/main.js", b"/src/page/index.html"}
    assert Pages(folder).paths == {b"/", b"/index.html", *names, *built, b"/src/", *sources}


def test_people_find_the_sources(folder: Path) -> None:
    pages = Pages(folder)
    reply = get(pages, b"/src/")
    assert reply.body.decode().split() == ["page/index.html", "page/main.js"]
    assert header(reply, "Content-Type") == "text/plain; charset=utf-8"
    # The page works at its own address only.
    assert header(get(pages, b"/src/page/index.html"), "Content-Type") == "text/plain; charset=utf-8"
    assert header(get(pages, b"/src/page/main.js"), "Content-Type") == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        b"/index",
        b"/Index.html",
        b"//index.html",
        b"/./index.html",
        b"/icons",
        b"/icons/",
        b"/icons/../index.html",
        b"/icons/deep/../../../secret",
        b"/..%2f..%2fsecret",
        b"/%69ndex.html",
        b"/index.html/",
        b"/index.html\x00.js",
        b"\\index.html",
        b"index.html",
        b"http://h/index.html",
        b"/README.md",
        b"/.hidden",
        b"*",
        b"",
        b"/\xff",
    ],
)
def test_only_exact_paths_hold_anything(folder: Path, path: bytes) -> None:
    assert Pages(folder).reply(path, CIMultiDict()) is None


def test_browsers_find_the_icon_where_they_look_for_it(folder: Path) -> None:
    (folder / "src" / "page" / "icon.svg").write_bytes(b"<svg/>")
    reply = get(Pages(folder), b"/favicon.ico")
    assert (reply.body, header(reply, "Content-Type")) == (b"<svg/>", "image/svg+xml; charset=utf-8")


def test_files_are_read_once(folder: Path) -> None:
    pages = Pages(folder)
    (folder / "index.html").unlink()
    (folder / "new.js").write_text("later")
    assert get(pages, b"/").body == HTML
    assert pages.reply(b"/new.js", CIMultiDict()) is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/", "text/html; charset=utf-8"),
        (b"/main.js", "text/javascript; charset=utf-8"),
        (b"/tiny.css", "text/css; charset=utf-8"),
        (b"/icons/deep/a%20b.svg", "image/svg+xml; charset=utf-8"),
        (b"/picture.png", "image/png"),
        (b"/sdk/core-1.js.map", "application/json; charset=utf-8"),
    ],
)
def test_every_file_has_its_type(folder: Path, path: bytes, kind: str) -> None:
    reply = get(Pages(folder), path)
    assert (reply.status, reply.outcome, header(reply, "Content-Type")) == (200, "page", kind)


# --- compressed or not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accepted", ["gzip", "GZIP", "br, gzip", "gzip, deflate, br, zstd", "gzip;q=0.1", "gzip; q=1.0", "*", "x, *;q=0.5"]
)
def test_who_takes_gzip_gets_it(folder: Path, accepted: str) -> None:
    reply = get(Pages(folder), b"/", Accept_Encoding=accepted)
    assert header(reply, "Content-Encoding") == "gzip"
    assert gzip.decompress(reply.body) == HTML
    assert len(reply.body) < len(HTML)


@pytest.mark.parametrize(
    "accepted", ["", "identity", "br", "gzipped", "gzip;q=0", "gzip; q=0.000", "GZIP;Q=0", "*;q=0", "gzip;q=0, *"]
)
def test_who_does_not_take_gzip_gets_the_file_as_it_is(folder: Path, accepted: str) -> None:
    reply = get(Pages(folder), b"/", Accept_Encoding=accepted)
    assert (header(reply, "Content-Encoding"), reply.body) == (None, HTML)


@pytest.mark.parametrize("path", [b"/tiny.css", b"/picture.png"])
def test_what_does_not_get_smaller_is_never_compressed(folder: Path, path: bytes) -> None:
    assert header(get(Pages(folder), path, Accept_Encoding="gzip"), "Content-Encoding") is None


# --- asked again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "identity"])
@pytest.mark.parametrize("known", ["{}", "W/{}", '"x", {}', 'W/"x",W/{}', "*"])
def test_who_has_it_already_is_told_so(folder: Path, coding: str, known: str) -> None:
    pages = Pages(folder)
    first = get(pages, b"/", Accept_Encoding=coding)
    tag = header(first, "ETag")
    assert tag is not None
    again = get(pages, b"/", Accept_Encoding=coding, If_None_Match=known.format(tag))
    assert (again.status, again.body, again.outcome) == (304, b"", "not-modified")
    # All but what describes a body (RFC 9110 section 15.4.5).
    described = ("Content-Type", "Content-Encoding")
    assert dict(again.headers) == {name: value for name, value in first.headers if name not in described}


def test_a_tag_names_these_bytes_and_no_others(folder: Path) -> None:
    pages = Pages(folder)
    packed, plain = get(pages, b"/", Accept_Encoding="gzip"), get(pages, b"/")
    assert header(packed, "ETag") != header(plain, "ETag")
    assert get(pages, b"/", If_None_Match=str(header(packed, "ETag"))).status == 200
    (folder / "index.html").write_bytes(HTML + b"<p>changed</p>")
    changed = get(Pages(folder), b"/", If_None_Match=str(header(plain, "ETag")))
    assert (changed.status, changed.body) == (200, HTML + b"<p>changed</p>")
    assert header(get(Pages(folder), b"/main.js"), "ETag") == header(get(pages, b"/main.js"), "ETag")


def test_browsers_keep_what_has_a_hash_in_its_name_and_ask_again_for_all_else(folder: Path) -> None:
    pages = Pages(folder)
    for path in pages.paths:
        reply = get(pages, path)
        caching = "max-age=31536000, immutable" if path.startswith((b"/assets/", b"/sdk/")) else "no-cache"
        assert (header(reply, "Cache-Control"), header(reply, "Vary")) == (caching, "Accept-Encoding")
        again = get(pages, path, If_None_Match=str(header(reply, "ETag")))
        assert (again.status, header(again, "Cache-Control")) == (304, caching)


# --- what browsers are told to allow ----------------------------------------------------------------------------------


def test_the_page_may_load_and_reach_nothing_but_its_own_server(folder: Path) -> None:
    pages = Pages(folder)
    for path in pages.paths:
        policy = header(get(pages, path), "Content-Security-Policy")
        assert policy is not None
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in policy
        assert "http" not in policy
        assert header(get(pages, path), "X-Content-Type-Options") == "nosniff"
        assert header(get(pages, path), "Referrer-Policy") == "no-referrer"


def test_the_sdk_alone_is_for_pages_of_other_origins(folder: Path) -> None:
    pages = Pages(folder)
    for path in pages.paths:
        reply = get(pages, path)
        shared = path in (b"/aldis.js", b"/sdk/core-1.js", b"/sdk/core-1.js.map")
        assert pages.is_shared(path) == shared
        assert header(reply, "Access-Control-Allow-Origin") == ("*" if shared else None)
        assert header(reply, "Cross-Origin-Resource-Policy") == ("cross-origin" if shared else "same-origin")
        assert header(reply, "Cross-Origin-Opener-Policy") == (None if shared else "same-origin")


def test_cameras_are_for_the_page_and_places_for_nobody(folder: Path) -> None:
    allowed = header(get(Pages(folder), b"/"), "Permissions-Policy")
    assert allowed is not None
    assert {"camera=(self)", "microphone=(self)", "geolocation=()"} <= set(allowed.split(", "))


# --- a broken installation --------------------------------------------------------------------------------------------


def test_without_an_index_it_says_what_is_wrong_and_serves_the_rest(folder: Path) -> None:
    (folder / "index.html").unlink()
    pages = Pages(folder)
    assert not pages.complete
    reply = get(pages, b"/")
    assert (reply.status, reply.outcome, header(reply, "Content-Type")) == (
        503,
        "page-missing",
        "text/plain; charset=utf-8",
    )
    assert b"missing from this\ninstallation" in reply.body
    assert get(pages, b"/aldis.js").body == SCRIPT


def test_without_the_folder_it_says_so_too(tmp_path: Path) -> None:
    pages = Pages(tmp_path / "nowhere")
    assert (pages.complete, pages.paths, get(pages, b"/").status) == (False, frozenset(), 503)


# --- those of the package ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Pages:
    return Pages.of_package()


def names_in(text: bytes, pattern: bytes, folder: bytes = b"/") -> set[bytes]:
    return {folder + name for name in re.findall(pattern, text)}


def test_the_package_has_a_page_and_all_that_it_names(package: Pages) -> None:
    assert package.complete
    index = get(package, b"/").body
    assert b"<title>" in index
    named = names_in(index, rb' (?:href|src)="([^"]*)"')
    assert {path.partition(b"-")[0] for path in named} == {b"/assets/icon", b"/assets/look", b"/assets/page"}
    assert named <= package.paths


def test_the_package_has_the_sdk_and_all_that_it_loads(package: Pages) -> None:
    (core,) = names_in(get(package, b"/aldis.js").body, rb'from"\./(sdk/[^"]*)"')
    assert core in package.paths
    for folder in (b"/assets/", b"/sdk/"):
        for path in package.paths:
            if path.startswith(folder) and path.endswith(b".js"):
                loaded = names_in(get(package, path).body, rb'(?:from|import\()"\./([^"]*)"', folder)
                assert loaded <= package.paths


def test_source_maps_lead_to_sources_that_are_there(package: Pages) -> None:
    maps = [path for path in package.paths if path.endswith(b".map")]
    assert len(maps) >= 3
    for path in maps:
        made = path.removesuffix(b".map")
        assert get(package, made).body.rstrip(b"\n */").endswith(b"sourceMappingURL=" + path.rpartition(b"/")[2])
        for source in json.loads(get(package, path).body)["sources"]:
            assert "node_modules" in source or f"/{source.removeprefix('../')}".encode() in package.paths, source


def test_the_style_sheet_names_nothing_that_it_would_have_to_load(package: Pages) -> None:
    (look,) = (path for path in package.paths if path.startswith(b"/assets/look-") and path.endswith(b".css"))
    assert not re.search(rb"url\(\s*['\"]?(?!data:)|@import", get(package, look).body)
