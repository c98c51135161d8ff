"""Who is who: keys that stay, names that belong to keys, and servers and strangers that lie, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import FingerprintMismatch, PeerConnectionFailed, RequestFailed
from aldis.identity.keys import Identity
from browser.conftest import IN_BOTH, Arrive
from support.evil_server import EvilServer, Message, evil_server, with_another_fingerprint
from support.server_process import ServerProcess
from support.stores import contents, new_store, stores
from support.tabs import Tab, tabs


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.port}"


# --- keys -------------------------------------------------------------------------------------------------------------


@IN_BOTH
async def test_a_key_stays_in_its_browser_is_shared_by_its_tabs_and_is_shown_to_nobody(arrive: Arrive) -> None:
    first = await Tab(await arrive()).open()
    second = await first.another()
    load = "const id = await sdk.Identity.loadOrCreate('alice'); return id.fingerprint;"
    mine = await first.run(load)
    assert await second.run(load) == mine
    error = await first.fails("(await sdk.Identity.load('alice')).export()")
    assert error["name"] == "IdentityError"
    # What IndexedDB holds is a handle of a key, not its bytes.
    kinds = await first.run("""
        const open = await new Promise((resolve) => {
          const request = indexedDB.open('aldis');
          request.onsuccess = () => resolve(request.result);
        });
        const kept = await new Promise((resolve) => {
          const request = open.transaction('identities').objectStore('identities').get('alice');
          request.onsuccess = () => resolve(request.result);
        });
        open.close();
        return [kept.privateKey.constructor.name, kept.privateKey.extractable];
    """)
    assert kinds == ["CryptoKey", False]
    stranger = await Tab(await arrive()).open()
    assert await stranger.run(load) != mine
    await first.run("await sdk.Identity.remove('alice');")
    assert await second.run(load) != mine


async def test_tabs_that_make_the_same_key_at_once_get_the_same_one(arrive: Arrive) -> None:
    tab = await Tab(await arrive()).open()
    made = await tab.get(
        "Promise.all(Array.from({ length: 8 }, () => sdk.Identity.loadOrCreate('new')))"
        ".then((all) => all.map((each) => each.fingerprint))"
    )
    assert len(set(made)) == 1


async def test_another_browser_that_claims_a_name_is_refused(arrive: Arrive, server: ServerProcess) -> None:
    (alice,) = await tabs(arrive, "alice", keep=True)
    stranger = await Tab(await arrive()).open()
    claim = "(window.store = new sdk.NetworkStore()).connectToSignaling(location.origin, 'alice')"
    error = await stranger.fails(claim)
    assert (error["name"], error["code"]) == ("RequestFailed", "key-mismatch")
    assert await stranger.get("store.state.signaling") == "disconnected"
    # Neither now nor when its owner is away.
    await alice.run("await store.disconnect();")
    assert (await stranger.fails(claim))["code"] == "key-mismatch"
    async with new_store() as python:
        with pytest.raises(RequestFailed) as caught:
            await python.connect_to_signaling(url(server), "alice")
        assert caught.value.code == "key-mismatch"
    await (await alice.open()).start("alice", keep=True)
    # The store that was refused can be used under another name.
    await stranger.run("await store.connectToSignaling(location.origin, 'mallory');")


async def test_a_key_file_of_python_opens_the_same_name_in_a_browser(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    identity = Identity.load_or_create(tmp_path / "alice.pem")
    async with stores(url(server), "alice", identity=identity):
        pass
    tab = await (await Tab(await arrive()).open()).start("alice", pem=(tmp_path / "alice.pem").read_text())
    assert await tab.get("store.state.fingerprint") == identity.fingerprint
    assert (await tab.fails("store.identity.export()"))["name"] == "IdentityError"


async def test_a_key_that_was_made_to_be_taken_along_opens_the_same_name_in_python(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    tab = await Tab(await arrive()).open()
    pem, fingerprint = await tab.run("""
        const identity = await sdk.Identity.generate({ extractable: true });
        window.store = new sdk.NetworkStore({ identity });
        await store.connectToSignaling(location.origin, 'alice');
        await store.disconnect();
        return [await identity.export(), identity.fingerprint];
    """)
    path = tmp_path / "alice.pem"
    path.write_text(pem)
    path.chmod(0o600)
    identity = Identity.load(path)
    assert identity.fingerprint == fingerprint
    async with stores(url(server), "alice", identity=identity) as (alice,), stores(url(server), "bob") as (bob,):
        bob.send("alice", "hello")
        assert await contents(alice, 1) == ["hello"]


# --- pins and invitations ---------------------------------------------------------------------------------------------


async def test_an_invitations_fingerprint_lets_in_its_key_and_no_other(arrive: Arrive, server: ServerProcess) -> None:
    async with stores(url(server), "bob") as (bob,):
        alice, carol = await tabs(arrive, "alice", "carol")
        wrong = await carol.get("store.state.fingerprint")
        error = await alice.fails("store.connectToPeer('bob', { fingerprint })", fingerprint=wrong)
        assert (error["name"], error["userId"], error["expected"]) == ("FingerprintMismatch", "bob", wrong)
        assert error["offered"] == bob.identity.fingerprint
        assert await alice.get("store.state.peers.bob.publicKey") is None
        assert await alice.get("store.state.peers.bob.connections") == 0
        right = bob.identity.fingerprint
        await carol.run("await store.connectToPeer('bob', { fingerprint });", fingerprint=right)
        assert await carol.get("store.state.peers.bob.fingerprint") == right
        with pytest.raises(FingerprintMismatch):
            await bob.connect_to_peer("alice", fingerprint=right)


@IN_BOTH
async def test_a_pin_outlives_the_page_and_a_new_key_has_to_be_accepted(arrive: Arrive) -> None:
    old, new = Identity.generate(), Identity.generate()
    async with evil_server() as server:  # on which a name belongs to whoever comes
        alice = await visitor(arrive, server, "alice", keep=True)
        async with new_store(identity=old) as bob:
            await bob.connect_to_signaling(server.url, "bob")
            await alice.sends("bob", "for the old one")
        await alice.open()
        await alice.start("alice", keep=True, url=server.url)
        async with new_store(identity=new) as bob:
            await bob.connect_to_signaling(server.url, "bob")
            error = await alice.fails("store.connectToPeer('bob')")
            assert error["name"] == "PeerKeyChanged"
            assert bytes(error["pinned"]) == old.public_key
            assert bytes(error["offered"]) == new.public_key
            assert (await alice.fails("(async () => store.send('bob', 'x'))()"))["name"] == "PeerKeyChanged"
            await alice.run("await store.acceptKey('bob', new Uint8Array(key));", key=list(new.public_key))
            await alice.sends("bob", "for the new one")
            assert await contents(bob, 1) == ["for the new one"]


# --- a server that lies -----------------------------------------------------------------------------------------------


async def visitor(arrive: Arrive, server: EvilServer, name: str, *, keep: bool = False) -> Tab:
    """A tab at a page of the lying server."""
    address = server.url.replace("ws://127.0.0.1", "http://localhost") + "/page"
    tab = await Tab(await arrive(), address).open()
    return await tab.start(name, keep=keep, url=server.url)


async def refuses(tab: Tab, server: EvilServer) -> dict[str, Any]:
    """An answer in bob's name is refused, which ends nothing: the true one may still come. The server ends it."""
    await tab.run("window.calling = store.connectToPeer('bob'); calling.catch(() => {});")
    await tab.until("peers.bob?.error")
    await server.hang_up("bob", tab.name)
    return await tab.fails("calling")


def swap_fingerprint(message: Message) -> None:
    described(message)["sdp"] = with_another_fingerprint(described(message)["sdp"])


def append_to_sdp(message: Message) -> None:
    described(message)["sdp"] += "a=x\r\n"


def drop_proof(message: Message) -> None:
    message.pop("proof")


def described(message: Message) -> dict[str, str]:
    description: dict[str, str] = message.get("offer") or message["answer"]
    return description


def tampering(kind: str, lie: Callable[[Message], None]) -> Callable[[Message], list[Message]]:
    def tamper(message: Message) -> list[Message]:
        if message["type"] == kind:
            lie(message)
        return [message]

    return tamper


@pytest.mark.parametrize("lie", [swap_fingerprint, append_to_sdp, drop_proof])
async def test_an_answer_that_was_changed_on_the_way_is_refused(arrive: Arrive, lie: Callable[[Message], None]) -> None:
    async with evil_server() as server:
        alice = await visitor(arrive, server, "alice")
        async with new_store() as bob:
            await bob.connect_to_signaling(server.url, "bob")
            honest = server.tamper
            server.tamper = tampering("answer", lie)
            error = await refuses(alice, server)
            assert (error["name"], error["userId"]) == ("ProofInvalid", "bob")
            assert await alice.get("store.state.peers.bob.connections") == 0
            assert await alice.get("store.state.peers.bob.publicKey") is None
            # Without the lie they connect, so it was for the lie that they did not.
            server.tamper = honest
            await alice.sends("bob", "hello")
            assert await contents(bob, 1) == ["hello"]


@pytest.mark.parametrize("lie", [swap_fingerprint, append_to_sdp, drop_proof])
async def test_an_offer_that_was_changed_on_the_way_is_refused(arrive: Arrive, lie: Callable[[Message], None]) -> None:
    async with evil_server() as server:
        alice = await visitor(arrive, server, "alice")
        bob = await visitor(arrive, server, "bob")
        server.tamper = tampering("offer", lie)
        error = await bob.fails("store.connectToPeer('alice', { timeout: 2 })")
        assert (error["name"], error["code"]) == ("PeerRefused", "bad-proof")
        assert await alice.get("store.state.peers.bob?.connections ?? 0") == 0
        assert await alice.get("store.state.peers.bob?.publicKey ?? null") is None


async def test_a_server_that_puts_itself_in_the_place_of_a_peer_that_is_known_is_refused(arrive: Arrive) -> None:
    async with evil_server() as server:
        alice = await visitor(arrive, server, "alice")
        bobs = Identity.generate()
        await alice.run("await store.acceptKey('bob', new Uint8Array(key));", key=list(bobs.public_key))
        async with new_store() as mallory:
            await mallory.connect_to_signaling(server.url, "bob")
            server.keys["bob"] = bobs.public_key  # the directory tells what alice knows; the answer will not
            error = await refuses(alice, server)
            assert error["name"] == "PeerKeyChanged"
            assert bytes(error["offered"]) == mallory.identity.public_key
            assert await alice.get("store.state.peers.bob.connections") == 0


async def test_a_key_that_is_swapped_at_the_first_contact_is_told_by_the_invitation(arrive: Arrive) -> None:
    async with evil_server() as server:
        alice = await visitor(arrive, server, "alice")
        bobs = Identity.generate()
        async with new_store() as mallory:
            await mallory.connect_to_signaling(server.url, "bob")
            # The directory is in league with mallory, and alice has never met bob: only the invitation tells.
            error = await alice.fails("store.connectToPeer('bob', { fingerprint })", fingerprint=bobs.fingerprint)
            assert (error["name"], error["offered"]) == ("FingerprintMismatch", mallory.identity.fingerprint)
            assert await alice.get("store.state.peers.bob.publicKey") is None
            # Nor may mallory call.
            with pytest.raises(PeerConnectionFailed):
                await mallory.connect_to_peer("alice", timeout=2)
            assert await alice.get("store.state.peers.bob.connections") == 0
