from __future__ import annotations

import json
from pathlib import Path

import pytest

from aldis.client.address import ServerAddress
from aldis.errors import ConfigError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hosts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "host"), VECTORS["read"], ids=ascii)
def test_a_host_is_dialled_proven_and_pinned_under_the_name_that_a_browser_gives_it(text: str, host: str) -> None:
    address = ServerAddress.parse(f"ws://{text}")
    assert (address.server, address.url, address.host) == (host, f"ws://{host}/", host.strip("[]"))
    assert ServerAddress.parse(address.url) == address


@pytest.mark.parametrize("text", VECTORS["refused"], ids=ascii)
def test_what_is_no_host_for_a_browser_or_a_resolver_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerAddress.parse(f"ws://{text}")
    assert caught.value.setting == "url"
