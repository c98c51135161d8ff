"""Which hosts are this server's own, and what a proof has to name for each."""

from __future__ import annotations

import pytest

from aldis.server.names import Arrival, ServerNames, read_host, read_name

LAN = Arrival("10.0.0.5", 8080)
LOOPBACK = Arrival("127.0.0.1", 8080)


def own(names: ServerNames, text: str, arrival: Arrival) -> str | None:
    host = read_host(text)
    assert host is not None
    return names.own(host, arrival)


@pytest.mark.parametrize(
    ("text", "arrival"),
    [
        ("10.0.0.5:8080", LAN),
        ("10.0.0.5", Arrival("10.0.0.5", 80)),
        ("127.0.0.1:8080", LOOPBACK),
        ("localhost:8080", LOOPBACK),
        ("LocalHost:8080", LOOPBACK),
        ("localhost.:8080", LOOPBACK),
        ("alice.localhost:8080", Arrival("127.0.0.2", 8080)),
        ("localhost:8080", Arrival("::1", 8080)),
        ("localhost:8080", Arrival("::ffff:127.0.0.1", 8080)),
        ("[::1]:8080", Arrival("::1", 8080)),
        ("[0:0::1]:8080", Arrival("::1", 8080)),
        ("10.0.0.5:8080", Arrival("::ffff:10.0.0.5", 8080)),
        ("[::ffff:10.0.0.5]:8080", LAN),
        ("[fe80::1]:8080", Arrival("fe80::1%eth0", 8080)),
        ("[2001:db8::1]", Arrival("2001:db8::1", 80)),
        ("0.0.0.0:8080", LOOPBACK),  # dialled as it was given to `--host`; systems take it for the loopback address
        ("[::]:8080", Arrival("::1", 8080)),
    ],
)
def test_without_names_where_it_arrived_is_the_name(text: str, arrival: Arrival) -> None:
    assert own(ServerNames(), text, arrival) == text.lower()


@pytest.mark.parametrize(
    ("text", "arrival"),
    [
        ("evil.example:8080", LAN),
        ("evil.example", Arrival("10.0.0.5", 80)),
        ("10.0.0.6:8080", LAN),  # another machine
        ("10.0.0.5:9000", LAN),  # another port of this one may be another server
        ("10.0.0.5", LAN),
        ("10.0.0.5:443", LAN),
        ("localhost:8080", LAN),  # said by somebody who is not on this machine
        ("alice.localhost:8080", LAN),
        ("127.0.0.1:8080", LAN),
        ("[::1]:8080", LAN),
        ("localhost:9000", LOOPBACK),
        ("localhost", LOOPBACK),
        ("127.0.0.2:8080", LOOPBACK),  # another server may listen there
        ("0.0.0.0:8080", LAN),
        ("[::]:8080", LAN),
        ("0.0.0.0:9000", LOOPBACK),
        ("127.1:8080", LOOPBACK),
        ("localhost.evil.example:8080", LOOPBACK),
        ("notlocalhost:8080", LOOPBACK),
        ("10.0.0.5.evil.example:8080", LAN),
        ("localhost:8080", Arrival("", 0)),
    ],
)
def test_without_names_anything_else_is_another_server(text: str, arrival: Arrival) -> None:
    assert own(ServerNames(), text, arrival) is None


def test_the_port_of_the_scheme_is_left_out_as_clients_do() -> None:
    plain, secure = ServerNames(), ServerNames(secure=True)
    assert own(plain, "10.0.0.5:80", Arrival("10.0.0.5", 80)) == "10.0.0.5"
    assert own(plain, "10.0.0.5:443", Arrival("10.0.0.5", 443)) == "10.0.0.5:443"
    assert own(secure, "10.0.0.5", Arrival("10.0.0.5", 443)) == "10.0.0.5"
    assert own(secure, "10.0.0.5:443", Arrival("10.0.0.5", 443)) == "10.0.0.5"
    assert own(secure, "10.0.0.5:80", Arrival("10.0.0.5", 80)) == "10.0.0.5:80"
    assert own(secure, "10.0.0.5", Arrival("10.0.0.5", 80)) is None


def test_names_in_the_certificate_count_at_the_port_that_was_dialled() -> None:
    names = ServerNames(secure=True)
    names.certify(["Signal.example.", "*.Wild.example", "203.0.113.7", "2001:db8::7"])
    for text in ("signal.example:8080", "a.wild.example:8080", "203.0.113.7:8080", "[2001:db8:0::7]:8080"):
        assert own(names, text, LAN) == text
    for text in ("signal.example", "signal.example:9000", "wild.example:8080", "a.b.wild.example:8080", "example:8080"):
        assert own(names, text, LAN) is None
    assert own(names, "signal.example", Arrival("10.0.0.5", 443)) == "signal.example"
    names.certify(["other.example"])  # another certificate, while the server runs
    assert own(names, "signal.example:8080", LAN) is None
    assert own(names, "other.example:8080", LAN) == "other.example:8080"


def test_with_names_no_other_counts_and_an_address_stands_for_the_first() -> None:
    names = ServerNames(("a.example", "b.example:8443", "[2001:db8::1]:8443"), secure=True)
    names.certify(["c.example"])
    for text in ("a.example", "b.example:8443", "[2001:db8::1]:8443", "A.example".lower(), "a.example."):
        assert own(names, text, LAN) == text
    for text in ("a.example:443", "a.example:80", "A.EXAMPLE.:443"):  # what proxies write
        assert own(names, text, LAN) == "a.example"
    for text, arrival in (("10.0.0.5:8080", LAN), ("127.0.0.1:8080", LOOPBACK)):
        assert own(names, text, arrival) == "a.example"
    for text in ("localhost:8080", "foo.localhost:8080", "0.0.0.0:8080", "[::]:8080"):
        assert own(names, text, LOOPBACK) is None  # a browser would get a page at which no login works
    for text in ("c.example:8080", "b.example", "a.example:8443", "evil.example", "localhost:8080", "10.0.0.6:8080"):
        assert own(names, text, LAN) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Signal.Example", "signal.example"),
        ("signal.example.", "signal.example"),
        ("signal.example:443", "signal.example"),
        ("signal.example:80", "signal.example"),
        ("signal.example:8443", "signal.example:8443"),
        ("bücher.example:8443", "xn--bcher-kva.example:8443"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("10.0.0.5:8080", "10.0.0.5:8080"),
        ("a.example:", None),
        ("a.example:port", None),
        ("a.example:99999", None),
        ("a.example:08", None),
        ("2001:db8::1", None),
        ("*.example", None),
        ("ü" * 300, None),
        ("user@a.example", None),
    ],
)
def test_a_name_in_the_settings_is_read_as_clients_send_it(text: str, name: str | None) -> None:
    assert read_name(text) == name
