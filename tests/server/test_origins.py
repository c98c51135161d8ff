"""Which web pages may connect."""

from __future__ import annotations

import pytest

from aldis.server.origins import OriginPolicy, is_reachable


@pytest.mark.parametrize(
    ("host", "names", "reachable"),
    [
        ("127.0.0.1", (), False),
        ("127.1.2.3", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("127.0.0.1", ("localhost:8080", "[::1]:8080", "a.localhost"), False),
        ("127.0.0.1", ("signal.example",), True),
        ("127.0.0.1", ("localhost", "192.0.2.1:9000"), True),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("192.168.1.5", (), True),
        ("box.example", (), True),
    ],
)
def test_a_server_is_reachable_unless_it_is_for_this_machine_alone(
    host: str, names: tuple[str, ...], reachable: bool
) -> None:
    assert is_reachable(host, names) is reachable


@pytest.mark.parametrize(
    ("origin", "hosts", "allowed"),
    [
        ("https://signal.example", ("signal.example",), True),
        ("http://signal.example:8080", ("signal.example",), True),
        ("https://signal.example", ("signal.example:8443",), True),
        ("HTTPS://Signal.Example", ("signal.example",), True),
        ("https://signal.example.", ("signal.example",), True),
        ("https://signal.example", ("127.0.0.1:8080", "signal.example"), True),
        ("http://192.0.2.1:8080", ("192.0.2.1:8080",), True),
        ("http://[2001:db8::1]:8080", ("[2001:db8::1]:8080",), True),
        ("https://evil.example", ("signal.example",), False),
        ("https://signal.example.evil.example", ("signal.example",), False),
        ("https://evilsignal.example", ("signal.example",), False),
        ("https://example", ("signal.example",), False),
        ("https://evil.example@signal.example", ("signal.example",), False),
        ("https://signal.example@evil.example", ("signal.example",), False),
        ("https://signal.example:8080:evil", ("signal.example",), False),
        ("https://evil.example/signal.example", ("signal.example",), False),
        ("https://signal.example/", ("signal.example",), False),
        ("chrome-extension://signal.example", ("signal.example",), False),
        ("null", ("signal.example",), False),
        ("", ("signal.example",), False),
        ("http://localhost:8080", ("127.0.0.1:8080",), False),
    ],
)
def test_a_page_of_the_same_host_may_connect_at_any_port_and_scheme(
    origin: str, hosts: tuple[str, ...], allowed: bool
) -> None:
    assert OriginPolicy(reachable=True).allows([origin], hosts) is allowed


def test_listed_origins_count_exactly_and_beside_the_same_host() -> None:
    policy = OriginPolicy(("https://good.example:8443",))
    hosts = ("signal.example",)
    assert policy.allows(["https://GOOD.example:8443"], hosts)
    assert policy.allows(["http://signal.example"], hosts)
    assert not policy.allows(["https://good.example"], hosts)
    assert not policy.allows(["https://good.example:8443", "https://evil.example"], hosts)
    assert policy.allows([], hosts), "programs have no origin"
    assert str(policy) == "same host, https://good.example:8443"


def test_all_pages_may_connect_to_a_server_for_this_machine_and_where_the_settings_say_so() -> None:
    for policy in (OriginPolicy(), OriginPolicy(("*",), reachable=True)):
        assert policy.allows(["https://any.example"], ("127.0.0.1:8080",))
        assert str(policy) == "any"
    assert str(OriginPolicy(reachable=True)) == "same host"
