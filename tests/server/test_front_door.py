"""The front door: what becomes of a request, decided without a socket."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from multidict import CIMultiDict

from aldis.hub.sessions import Dialect
from aldis.protocol.codes import CloseCode
from aldis.server.http import FrontDoor, Headers, Reply, Upgrade, plain


def headers(**fields: str) -> CIMultiDict[str]:
    made = CIMultiDict({"Host": "h:1", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    for name, value in fields.items():
        made[name.replace("_", "-")] = value
    return made


def decide(door: FrontDoor, path: bytes = b"/", fields: CIMultiDict[str] | None = None) -> Upgrade | Reply:
    return door.decide(path, headers() if fields is None else fields, connections=0, draining=False)


def status(decision: Upgrade | Reply) -> HTTPStatus:
    assert isinstance(decision, Reply)
    return decision.status


def test_an_upgrade_is_let_in_as_classic_unless_it_offers_the_subprotocol() -> None:
    door = FrontDoor()
    assert decide(door) == Upgrade(Dialect.CLASSIC, "h:1")
    assert decide(door, b"/ws", headers(Sec_WebSocket_Protocol="x, aldis.v1")) == Upgrade(Dialect.V1, "h:1")
    assert decide(door, b"/", headers(Sec_WebSocket_Protocol="ALDIS.V1")) == Upgrade(Dialect.CLASSIC, "h:1")


def test_headers_are_put_into_the_shape_that_picows_takes() -> None:
    fields = headers(Connection="keep-alive, Upgrade", Upgrade="WebSocket")
    fields.add("Connection", "other")
    assert isinstance(decide(FrontDoor(), b"/", fields), Upgrade)
    assert (fields.getall("Connection"), fields["Upgrade"]) == (["upgrade"], "websocket")


@pytest.mark.parametrize(
    "fields",
    [
        headers(Connection="keep-alive"),
        headers(Connection="upgraded"),
        headers(Upgrade="h2c"),
        headers(Sec_WebSocket_Version="12"),
        CIMultiDict({"Host": "h"}),
        CIMultiDict(),
    ],
)
def test_what_is_no_upgrade_is_told_to_upgrade(fields: CIMultiDict[str]) -> None:
    assert status(decide(FrontDoor(), b"/", fields)) == 426


class OnePage:
    """A site with one page, at / and at /page."""

    def reply(self, path: bytes, headers: Headers, /) -> Reply | None:
        return plain(HTTPStatus.OK, "hello", "page") if path in (b"/", b"/page") else None


@pytest.mark.parametrize("fields", [CIMultiDict({"Host": "h"}), headers(Upgrade="h2c", Connection="Upgrade, HTTP2")])
def test_with_a_site_browsers_get_its_files_and_upgrades_go_on(fields: CIMultiDict[str]) -> None:
    door = FrontDoor(site=OnePage())
    for path in (b"/", b"/?x=/page", b"/page", b"/page?"):
        assert status(decide(door, path, fields)) == 200
    assert status(decide(door, b"/ws", fields)) == 426
    assert status(decide(door, b"/other", fields)) == 404
    assert decide(door, b"/") == decide(door, b"/ws") == Upgrade(Dialect.CLASSIC, "h:1")


@pytest.mark.parametrize(
    "fields",
    [
        headers(Sec_WebSocket_Version="8"),
        headers(Connection="close"),
        # A proxy that drops what is meant for it alone.
        CIMultiDict({"Host": "h", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}),
    ],
)
def test_a_websocket_that_cannot_be_gets_no_page_for_an_answer(fields: CIMultiDict[str]) -> None:
    assert status(decide(FrontDoor(site=OnePage()), b"/", fields)) == 426


def test_other_paths_hold_nothing_and_healthz_says_ok() -> None:
    assert status(decide(FrontDoor(), b"/other")) == 404
    assert status(decide(FrontDoor(), b"/healthz", CIMultiDict())) == 200


@pytest.mark.parametrize("host", ["", "a b", "\udcff", "ü.example", "a\x7f", "h" * 264])
def test_a_host_that_cannot_be_one_is_refused(host: str) -> None:
    assert status(decide(FrontDoor(), b"/", headers(Host=host))) == 400


def test_the_host_is_taken_in_lower_case() -> None:
    assert decide(FrontDoor(), b"/", headers(Host="Example.COM:8080")) == Upgrade(Dialect.CLASSIC, "example.com:8080")


def test_with_public_names_the_host_is_always_one_of_them() -> None:
    door = FrontDoor(names=("A.example", "b.example:8443"))
    assert decide(door, b"/", headers(Host="B.example:8443")) == Upgrade(Dialect.CLASSIC, "b.example:8443")
    assert decide(door, b"/", headers(Host="10.0.0.1")) == Upgrade(Dialect.CLASSIC, "a.example")


def test_a_full_or_draining_server_says_when_to_come_back_and_healthz_still_answers() -> None:
    door = FrontDoor(max_connections=3)
    for connections, draining in ((3, False), (0, True)):
        reply = door.decide(b"/", headers(), connections=connections, draining=draining)
        assert isinstance(reply, Reply)
        assert (reply.status, dict(reply.headers)["Retry-After"]) == (503, "5")
        assert status(door.decide(b"/healthz", headers(), connections=connections, draining=draining)) == 200
    assert isinstance(door.decide(b"/", headers(), connections=2, draining=False), Upgrade)


def test_a_page_from_elsewhere_is_let_in_only_to_be_sent_away() -> None:
    door = FrontDoor(origins=("https://Good.example",))
    assert decide(door) == Upgrade(Dialect.CLASSIC, "h:1")
    assert decide(door, b"/", headers(Origin="https://good.EXAMPLE")) == Upgrade(Dialect.CLASSIC, "h:1")
    refused = Upgrade(Dialect.CLASSIC, "h:1", CloseCode.ORIGIN_NOT_ALLOWED)
    assert decide(door, b"/", headers(Origin="https://evil.example")) == refused
    both = headers(Origin="https://good.example")
    both.add("Origin", "https://evil.example")
    assert decide(door, b"/", both) == refused
