"""Who may see and call a user, with a real server and its directory on the disk: also after kill -9 and a restart."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import PresenceChanged, PrivacyChanged, Registered, SignalingEvent
from aldis.errors import RequestFailed, UsageError
from aldis.identity.keys import Identity
from aldis.protocol.privacy import Privacy
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.server_process import ServerProcess

AT_ONCE = Backoff(first=0.02, most=0.1)
TOKEN = "a token of a test"


async def answers(client: SignalingClient, name: str) -> list[object]:
    """What somebody gets to know of a user by asking."""
    found = await client.discover(name)
    told: list[object] = [found.online, found.devices]
    for send in (client.send_offer(name, "v=0"), client.send_bye(f"{name}/main")):
        try:
            await send
            told.append("sent")
        except RequestFailed as error:
            told.append((error.code, error.message))
    return told


async def test_a_block_holds_for_all_devices_and_survives_kill_9(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0, admin_token=TOKEN) as server:
        url, alice = f"ws://127.0.0.1:{server.port}", Identity.generate()
        laptop = SignalingClient(url, "alice", device="main", backoff=AT_ONCE)
        phone = SignalingClient(url, "alice", device="phone", backoff=AT_ONCE)
        mallory = SignalingClient(url, "mallory", backoff=AT_ONCE)
        news: asyncio.Queue[SignalingEvent] = asyncio.Queue()
        seen: asyncio.Queue[SignalingEvent] = asyncio.Queue()
        for client, identity in ((laptop, alice), (phone, alice), (mallory, Identity.generate())):
            await client.connect()
            await client.register(identity)
        phone.subscribe(news.put_nowait)
        mallory.subscribe(seen.put_nowait)
        await mallory.watch("alice")
        assert await next_of(seen, PresenceChanged) is True
        assert (await answers(mallory, "alice"))[0] is True
        blocked = Privacy("contacts", "contacts", frozenset({"bob"}), frozenset({"mallory"}))
        changed = await laptop.change_privacy(
            presence="contacts", offers="contacts", add_contacts=["bob"], block=["mallory"]
        )
        assert changed == laptop.privacy == blocked
        assert await next_of(news, PrivacyChanged) == phone.privacy == blocked
        assert await next_of(seen, PresenceChanged) is False
        offline = await answers(mallory, "nobody")
        told = await answers(mallory, "alice")
        assert [str(each).replace("alice", "nobody") for each in told] == [str(each) for each in offline]
        with pytest.raises(RequestFailed) as caught:
            await phone.send_bye("mallory")
        assert caught.value.code == "blocked"
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
            session.get(f"http://127.0.0.1:{server.admin_port}/api/v1/users/alice") as reply,
        ):
            shown = await reply.json()
        assert shown["privacy"] == {"presence": "contacts", "offers": "contacts", "contacts": 1, "blocked": 1}
        assert "mallory" not in str(shown)
        server.process.send_signal(signal.SIGKILL)
        await server.process.wait()
        async with ServerProcess(tmp_path, port=server.port) as again:
            await next_of(news, Registered)
            async with asyncio.timeout(PATIENCE):
                assert (await answers(mallory, "alice"))[0] is False
            assert phone.privacy == blocked
            async with SignalingClient(url, "alice", device="tablet") as tablet:
                await tablet.register(alice)
                assert tablet.privacy == blocked
                await tablet.change_privacy(presence="public", offers="public", unblock=["mallory"])
            assert (await answers(mallory, "alice"))[0] is True
            for client in (laptop, phone, mallory):
                await client.close()
            assert await again.stop() == 0
            again.assert_clean_log()


async def next_of(events: asyncio.Queue[SignalingEvent], kind: type[SignalingEvent]) -> object:
    """What the next event of a kind says."""
    async with asyncio.timeout(PATIENCE):
        while not isinstance(event := await events.get(), kind):
            pass
    match event:
        case PresenceChanged():
            return event.online
        case PrivacyChanged():
            return event.privacy
    return None


async def test_full_lists_arrive_whole(tmp_path: Path) -> None:
    names = [f"{number:03}\U0001f600" for number in range(1000)]
    async with ServerProcess(tmp_path) as server:
        async with await RawClient.connect(server.port) as raw:
            identity = Identity.generate()
            await raw.register("alice", identity)
            reply = await raw.request({"type": "privacy", "block": names})
            assert reply["blocked"] == sorted(names)
            reply = await raw.request({"type": "privacy", "addContacts": names})
            assert reply["contacts"] == reply["blocked"] == sorted(names)
        async with SignalingClient(f"ws://127.0.0.1:{server.port}", "alice") as alice:
            await alice.register(identity)
            assert len(alice.privacy.contacts) == len(alice.privacy.blocked) == 1000
            with pytest.raises(RequestFailed) as caught:
                await alice.change_privacy(block=["one-more"])
            assert caught.value.code == "too-large"
            with pytest.raises(UsageError):
                await alice.change_privacy(presence="everybody")  # type: ignore[arg-type]
