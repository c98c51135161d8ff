"""Addresses in the log: shortened wherever they are, and nothing else is."""

from __future__ import annotations

import logging

import pytest

from aldis.server.config import ServerConfig
from aldis.server.log_addresses import ShownAddresses
from aldis.server.logs import configure
from aldis.server.process import _configure_log

short = ShownAddresses("short", ["192.0.2.1", "2001:db8:ffff::1", "signal.example.com", ""])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("('203.0.113.7', 51234)", "('203.0.113.0/24', 51234)"),
        ("ws://203.0.113.7:8080/", "ws://203.0.113.0/24:8080/"),
        ("from 203.0.113.7.", "from 203.0.113.0/24."),
        ("face203.0.113.7", "face203.0.113.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("2001:DB8:1:2:0:0:0:7", "2001:db8:1::/48"),
        ("[2001:db8:1:2::7]:443", "[2001:db8:1::/48]:443"),
        ("2001:db8:1:2::7: refused", "2001:db8:1::/48: refused"),
        ("2001:db8:1:2::: refused", "2001:db8:1::/48: refused"),
        ("peer:2001:db8:1:2::7", "peer:2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48%eth0"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("::ffff:203.0.113.7/128", "203.0.113.0/24"),
        ("64:ff9b::203.0.113.7", "64:ff9b::/48"),
        ("\x1b[35m203.0.113.7\x1b[0m", "\x1b[35m203.0.113.0/24\x1b[0m"),
        ("203.0.113.7/32 and 203.0.113.9", "203.0.113.0/24 and 203.0.113.0/24"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("from 2001:db8:1:2:3:4:5:7:51234", "from 2001:db8:1::/48:51234"),
        ("from 2001:db8:1:2::.", "from 2001:db8:1::/48."),
    ],
)
def test_an_address_is_shortened_to_its_network(text: str, shown: str) -> None:
    assert short.in_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "::1", "0.0.0.0:8080", "[::]:443", "192.0.2.1", "[2001:db8:ffff::1]:443", "signal.example.com"),
        *("203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32", "2001:db8:1::/48"),
        *("2026-11-28T18:05:11.123456Z", "1.2.3.4.5", "999.1.1.1", "items[::2]", "std::text", "12:34:56", "port: 8080"),
        "75:74:5A:A6:A4:E5:52:F4:A7:67:4C:01:C7:EE:91:3F:21:3D:A2:E3:53:7B:6F:30:86:F2:30:AA:65:FB:04:24",
    ],
)
def test_what_is_nobody_s_address_stays(text: str) -> None:
    assert short.in_text(text) == text


def test_addresses_are_shown_in_full_or_not_at_all() -> None:
    text = "203.0.113.7 and 2001:db8::7 through 127.0.0.1"
    assert ShownAddresses("full").in_text(text) == text
    assert ShownAddresses("none").in_text(text) == "address and address through 127.0.0.1"


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.usefixtures("restored_logging")
def test_lines_of_libraries_and_tracebacks_are_shortened_too(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure(log_format, "debug")  # type: ignore[arg-type]
    gone = OSError("203.0.113.7 is gone")
    logging.getLogger("asyncio").error("lost raddr=('2001:db8:1:2::7', 443)", exc_info=gone)
    text = capsys.readouterr().err
    assert "203.0.113.0/24 is gone" in text
    assert "2001:db8:1::/48" in text
    assert "203.0.113.7" not in text
    assert "2001:db8:1:2" not in text


@pytest.mark.usefixtures("restored_logging")
def test_the_servers_in_the_settings_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    redis = "redis+sentinel://aldis:s3cret@198.51.100.5,[2001:db8::6]:26380/mymaster"
    _configure_log(ServerConfig(data=":memory:", redis=redis, directory="postgresql://aldis:s3cret@198.51.100.9/aldis"))
    logging.getLogger("aldis.cluster").error(
        "198.51.100.5:26379 and [2001:db8::6]:26380 and 198.51.100.9 for 198.51.100.7"
    )
    text = capsys.readouterr().err
    assert "198.51.100.5:26379 and [2001:db8::6]:26380 and 198.51.100.9 for 198.51.100.0/24" in text
