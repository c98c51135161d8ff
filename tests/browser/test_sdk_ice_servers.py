"""What browsers take as ICE servers, beside what our parsers take (`tests/vectors/ice.json`).

Where they differ, our parsers differ on purpose: what they write, Chromium takes all of, and the SDK leaves out what
Firefox does not; and what no resolver could look up is refused, whether or not a browser takes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from browser.conftest import IN_BOTH, Arrive
from support.tabs import Tab

_VECTORS: Final = json.loads((Path(__file__).parent.parent / "vectors" / "ice.json").read_text())
_ASK: Final = """
servers => servers.map((server) => {
  try {
    new RTCPeerConnection({ iceServers: [server] }).close();
    return true;
  } catch {
    return false;
  }
})
"""
_NAMES: Final = ["stun:h..x", "stun:.", f"stun:{64 * 'x'}.example", "stun:%61"]
_ADDRESSES: Final = ["stun:[fe80::1%25eth0]", "stun:[::zz]", "stun:[1.2.3.4]", "stun:999.1.1.1", "stun:[::1]x"]
_TURN: Final = {"urls": "turn:h", "username": "u", "credential": "c"}


async def _asked(arrive: Arrive, entries: list[dict[str, Any]]) -> list[bool]:
    person = await arrive()
    await person.page.goto("/")
    taken: list[bool] = await person.page.evaluate(_ASK, entries)
    return taken


@pytest.mark.parametrize(
    ("arrive", "refused"),
    [("chromium", []), ("firefox", ["stun:h:1", "stuns:h", "stuns:h:5349"])],
    indirect=["arrive"],
)
async def test_browsers_take_what_our_parsers_write(arrive: Arrive, refused: list[str]) -> None:
    """Firefox has no STUN over TLS, and blocks ports of other protocols."""
    written = [server for _, server in _VECTORS["read"]]
    taken = await _asked(arrive, written)
    assert [server["urls"] for server, good in zip(written, taken, strict=True) if not good] == [
        [url] for url in refused
    ]


@pytest.mark.parametrize(
    ("arrive", "expected"),
    [
        (
            "chromium",
            [
                *({"urls": url} for url in (*_ADDRESSES, *_NAMES)),
                {**_TURN, "urls": "turn:h?transport=udp?"},
                {"urls": "stun:h", "credentialType": "oauth"},
                {**_TURN, "credentialType": "oauth"},
                {**_TURN, "username": None},  # it would be the text "null"
                {**_TURN, "credential": 5},
            ],
        ),
        (
            "firefox",
            [
                *({"urls": url} for url in ("stun:h:", "stun:h?", *_NAMES)),
                {**_TURN, "urls": "turn:h?"},
                {**_TURN, "username": ""},
                {**_TURN, "username": None},
                {**_TURN, "credential": 5},
            ],
        ),
    ],
    indirect=["arrive"],
)
async def test_what_browsers_take_and_our_parsers_refuse(arrive: Arrive, expected: list[dict[str, Any]]) -> None:
    refused = _VECTORS["refused"]
    taken = [entry for entry, good in zip(refused, await _asked(arrive, refused), strict=True) if good]
    assert sorted(map(json.dumps, taken)) == sorted(map(json.dumps, expected))


@IN_BOTH
async def test_a_url_that_the_browser_refuses_does_not_keep_peers_from_connecting(arrive: Arrive) -> None:
    alice, bob = [await Tab(await arrive()).open() for _ in range(2)]
    for tab, name in ((alice, "alice"), (bob, "bob")):
        tab.name = name
        await tab.run(
            """
            window.got = [];
            window.changed = () => dispatchEvent(new Event('changed'));
            window.store = new sdk.NetworkStore({ iceServers: [{ urls: ['stuns:127.0.0.1:9', 'stun:127.0.0.1:9'] }] });
            store.subscribe(changed);
            await store.connectToSignaling(location.origin, name);
            """,
            name=name,
        )
    await alice.run("await store.connectToPeer('bob');")
    await bob.connected("alice")
