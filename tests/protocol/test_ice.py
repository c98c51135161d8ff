from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import ConfigError
from aldis.protocol.hosts import read_host
from aldis.protocol.ice import read_servers, read_url, usable_servers
from aldis.protocol.messages import IceServer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ice.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("entry", "server"), VECTORS["read"], ids=lambda value: ascii(value)[:60])
def test_what_browsers_take_is_made_into_what_all_of_them_take(entry: dict[str, Any], server: dict[str, Any]) -> None:
    assert read_servers([entry]) == (IceServer(**server),)
    assert read_servers([IceServer(**server)]) == (IceServer(**server),)


@pytest.mark.parametrize("entry", VECTORS["refused"], ids=lambda value: ascii(value)[:60])
def test_the_rest_is_refused_with_the_entry_and_the_problem(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_servers([IceServer(["stun:good.example"]), entry])
    assert caught.value.setting == "ice_servers[1]"
    assert caught.value.problem


@pytest.mark.parametrize("entries", [None, "stun:a.example", [None], ["stun:a.example"], [{"urls": [5]}]])
def test_what_is_no_list_of_servers_is_refused(entries: object) -> None:
    with pytest.raises(ConfigError):
        read_servers(entries)


def test_of_what_a_server_names_the_good_urls_are_kept_and_the_others_told() -> None:
    servers, problems = usable_servers([IceServer(["turn:a", "bad"], "u", "c"), IceServer(["turn:b"])])
    assert servers == (IceServer(["turn:a"], "u", "c"),)
    assert [problem.split(":")[0] for problem in problems] == ["'bad'", "'turn"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("stun:a", ("a", 3478)),
        ("stuns:a", ("a", 5349)),
        ("turns:a:443", ("a", 443)),
        ("turn:[::1]", ("::1", 3478)),
    ],
)
def test_a_url_has_the_port_of_its_scheme(text: str, address: tuple[str, int]) -> None:
    assert read_url(text).address == address


@pytest.mark.parametrize(
    "text",
    ["a" * 3000, "[::1", "[fe80::1%1]", "1.2.3.4.5", "1.2.256.1", "09", "0x1ffffffff", "", "xn--a", "1.99999999999999"],
)
def test_a_host_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=" "):
        read_host(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8]"),
        ("[1:0:2:3:4:5:6:7]", "[1:0:2:3:4:5:6:7]"),
        ("[::]", "[::]"),
        ("[::ffff:1.2.3.4]", "[::ffff:102:304]"),
    ],
)
def test_ipv6_addresses_are_written_in_one_way(text: str, host: str) -> None:
    assert read_host(text) == host
