"""The routes: what becomes of a request, decided without a socket."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from multidict import CIMultiDict

from aldis.hub.dialects import CLASSIC, V1
from aldis.protocol.codes import CloseCode
from aldis.server.http import Headers, HttpReply, plain
from aldis.server.names import Arrival, ServerNames
from aldis.server.origins import OriginPolicy
from aldis.server.refusals import Refusal
from aldis.server.routes import Routes, Site, UpgradeRequest

# A server that listens at 192.0.2.1 and has no other name.
ARRIVAL = Arrival("192.0.2.1", 8080)
HOST = "192.0.2.1:8080"


def make_routes(*names: str, origins: tuple[str, ...] = (), site: Site | None = None) -> Routes:
    return Routes(names=ServerNames(names), origins=OriginPolicy(origins), site=site)


def headers(**fields: str) -> CIMultiDict[str]:
    made = CIMultiDict({"Host": HOST, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    for name, value in fields.items():
        made[name.replace("_", "-")] = value
    return made


def decide(routes: Routes, path: bytes = b"/", fields: CIMultiDict[str] | None = None) -> UpgradeRequest | HttpReply:
    fields = headers() if fields is None else fields
    return routes.decide(path, fields, arrival=ARRIVAL, refusal=None, draining=False)


def status(decision: UpgradeRequest | HttpReply) -> HTTPStatus:
    assert isinstance(decision, HttpReply)
    return decision.status


def test_an_upgrade_is_let_in_as_classic_unless_it_offers_the_subprotocol() -> None:
    routes = make_routes()
    assert decide(routes) == UpgradeRequest(CLASSIC, HOST)
    assert decide(routes, b"/ws", headers(Sec_WebSocket_Protocol="x, aldis.v1")) == UpgradeRequest(V1, HOST)
    assert decide(routes, b"/", headers(Sec_WebSocket_Protocol="ALDIS.V1")) == UpgradeRequest(CLASSIC, HOST)


def test_headers_are_put_into_the_shape_that_picows_takes() -> None:
    fields = headers(Connection="keep-alive, Upgrade", Upgrade="WebSocket")
    fields.add("Connection", "other")
    assert isinstance(decide(make_routes(), b"/", fields), UpgradeRequest)
    assert (fields.getall("Connection"), fields["Upgrade"]) == (["upgrade"], "websocket")


@pytest.mark.parametrize(
    "fields",
    [
        headers(Connection="keep-alive"),
        headers(Connection="upgraded"),
        headers(Upgrade="h2c"),
        headers(Sec_WebSocket_Version="12"),
        CIMultiDict({"Host": HOST}),
    ],
)
def test_what_is_no_upgrade_is_told_to_upgrade(fields: CIMultiDict[str]) -> None:
    assert status(decide(make_routes(), b"/", fields)) == 426


class OnePage:
    """A site with one page, at / and at /page."""

    def reply(self, path: bytes, headers: Headers, /) -> HttpReply | None:
        return plain(HTTPStatus.OK, "hello", "page") if path in (b"/", b"/page", b"/sdk.js") else None

    def is_shared(self, path: bytes, /) -> bool:
        return path == b"/sdk.js"


@pytest.mark.parametrize("fields", [CIMultiDict({"Host": HOST}), headers(Upgrade="h2c", Connection="Upgrade, HTTP2")])
def test_with_a_site_browsers_get_its_files_and_upgrades_go_on(fields: CIMultiDict[str]) -> None:
    routes = make_routes(site=OnePage())
    for path in (b"/", b"/?x=/page", b"/page", b"/page?"):
        assert status(decide(routes, path, fields)) == 200
    assert status(decide(routes, b"/ws", fields)) == 426
    assert status(decide(routes, b"/other", fields)) == 404
    assert decide(routes, b"/") == decide(routes, b"/ws") == UpgradeRequest(CLASSIC, HOST)


@pytest.mark.parametrize(
    "fields",
    [
        headers(Sec_WebSocket_Version="8"),
        headers(Connection="close"),
        # A proxy that drops what is meant for it alone.
        CIMultiDict({"Host": HOST, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}),
    ],
)
def test_a_websocket_that_cannot_be_gets_no_page_for_an_answer(fields: CIMultiDict[str]) -> None:
    assert status(decide(make_routes(site=OnePage()), b"/", fields)) == 426


def test_other_paths_hold_nothing_and_healthz_says_ok() -> None:
    assert status(decide(make_routes(), b"/other")) == 404
    assert status(decide(make_routes(), b"/healthz", CIMultiDict())) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "user@h",
        "h:",
        "h:0",
        "h:65536",
        "h:08",
        "h,i",
        "::1",
        "[::1",
        "[1.2.3.4]",
        "[::zz]",
        "[fe80::1%25e]",
        "\udcff",
        "ü.example",
        "a\x7f",
        "h" * 264,
    ],
)
def test_a_host_that_cannot_be_one_is_refused(host: str) -> None:
    assert status(decide(make_routes(), b"/", headers(Host=host))) == 400


def test_the_host_is_taken_in_lower_case() -> None:
    routes = make_routes("example.com:8080")
    assert decide(routes, b"/", headers(Host="Example.COM:8080")) == UpgradeRequest(CLASSIC, "example.com:8080")


def test_a_request_for_another_host_gets_421_and_is_told_how_to_set_it() -> None:
    routes = make_routes(site=OnePage())
    other = CIMultiDict({"Host": "evil.example:8080"})
    for path, fields in (
        (b"/", headers(Host="evil.example:8080")),
        (b"/ws", headers(Host="evil.example:8080", Sec_WebSocket_Protocol="aldis.v1")),
        (b"/", other),
        (b"/page", other),
        (b"/nothing", other),
    ):
        reply = decide(routes, path, fields)
        assert isinstance(reply, HttpReply)
        assert (reply.status, reply.outcome) == (421, "misdirected")
        assert b"--names evil.example:8080\n" in reply.body


def test_a_browser_that_dials_another_host_is_let_in_only_to_be_told() -> None:
    fields = headers(Host="evil.example:8080", Origin="https://evil.example:8080", Sec_WebSocket_Protocol="aldis.v1")
    routes = make_routes(site=OnePage())
    assert decide(routes, b"/", fields) == UpgradeRequest(V1, "evil.example:8080", CloseCode.UNKNOWN_HOST)
    assert status(routes.decide(b"/", fields, arrival=ARRIVAL, refusal=Refusal.FULL, draining=False)) == 503
    assert status(decide(routes, b"/page", fields)) == 421


def test_health_and_the_shared_sdk_are_there_for_every_host() -> None:
    routes = make_routes(site=OnePage())
    for path in (b"/healthz", b"/sdk.js"):
        assert status(decide(routes, path, CIMultiDict({"Host": "evil.example"}))) == 200


def test_a_full_or_draining_server_says_when_to_come_back_and_healthz_still_answers() -> None:
    routes = make_routes()
    for refusal, draining in ((Refusal.FULL, False), (None, True)):
        reply = routes.decide(b"/", headers(), arrival=ARRIVAL, refusal=refusal, draining=draining)
        assert isinstance(reply, HttpReply)
        assert (reply.status, dict(reply.headers)["Retry-After"]) == (503, "5")
        assert status(routes.decide(b"/healthz", headers(), arrival=ARRIVAL, refusal=refusal, draining=draining)) == 200
    assert isinstance(routes.decide(b"/", headers(), arrival=ARRIVAL, refusal=None, draining=False), UpgradeRequest)


@pytest.mark.parametrize("path", [b"/", b"/page", b"/sdk.js", b"/other"])
@pytest.mark.parametrize(
    ("refusal", "expected"), [(Refusal.ADDRESS, 429), (Refusal.ADDRESS_RATE, 429), (Refusal.RATE, 503)]
)
def test_a_client_beyond_its_limits_gets_nothing_but_the_reason(path: bytes, refusal: Refusal, expected: int) -> None:
    routes = make_routes(site=OnePage())
    reply = routes.decide(path, headers(), arrival=ARRIVAL, refusal=refusal, draining=False)
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.outcome, dict(reply.headers)["Retry-After"]) == (expected, refusal, "5")
    assert status(routes.decide(b"/healthz", headers(), arrival=ARRIVAL, refusal=refusal, draining=False)) == 200


def test_a_page_from_elsewhere_is_let_in_only_to_be_sent_away() -> None:
    routes = make_routes(origins=("https://Good.example",))
    assert decide(routes) == UpgradeRequest(CLASSIC, HOST)
    assert decide(routes, b"/", headers(Origin="https://good.EXAMPLE")) == UpgradeRequest(CLASSIC, HOST)
    refused = UpgradeRequest(CLASSIC, HOST, CloseCode.ORIGIN_NOT_ALLOWED)
    assert decide(routes, b"/", headers(Origin="https://evil.example")) == refused
    both = headers(Origin="https://good.example")
    both.add("Origin", "https://evil.example")
    assert decide(routes, b"/", both) == refused


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/", b"/ws", b"/ws/", b"//", b"//ws", b"/?a=b", b"/ws/?a=b"])
def test_a_websocket_is_at_the_root_and_at_ws_with_and_without_a_slash(path: bytes) -> None:
    assert decide(make_routes(), path) == UpgradeRequest(CLASSIC, HOST)


def test_slashes_that_a_proxy_leaves_over_do_no_harm() -> None:
    routes = make_routes(site=OnePage())
    plain_get = CIMultiDict({"Host": HOST})
    assert [status(decide(routes, path, plain_get)) for path in (b"//page", b"//", b"//other")] == [200, 200, 404]
    assert status(decide(routes, b"//healthz", plain_get)) == 200


def test_what_a_proxy_leaves_before_the_path_is_taken_off() -> None:
    routes = Routes(names=ServerNames(), site=OnePage(), base_path="/a/b")
    for path in (b"/a/b/", b"/a/b", b"/a/b/ws", b"/a/b/ws/", b"/", b"/ws"):
        assert decide(routes, path) == UpgradeRequest(CLASSIC, HOST)
    plain_get = CIMultiDict({"Host": HOST})
    for path, expected in (
        (b"/a/b/", 200),
        (b"/a/b/page", 200),
        (b"/page", 200),
        (b"/a/b/healthz", 200),
        (b"/healthz", 200),
        (b"/a/b/other", 404),
        (b"/a/bc", 404),
        (b"/a", 404),
    ):
        assert status(decide(routes, path, plain_get)) == expected
    reply = decide(routes, b"/a/b?x", plain_get)
    assert isinstance(reply, HttpReply)
    assert (reply.status, dict(reply.headers)["Location"]) == (308, "/a/b/")
    assert status(decide(routes, b"/a/b", headers(Sec_WebSocket_Version="8"))) == 426
    assert status(decide(routes, b"/a/b", CIMultiDict({"Host": "evil.example"}))) == 421
