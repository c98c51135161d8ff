"""The page on a disk that is full: it says so, and goes on when there is room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from support.browser import BROWSERS, Browsers
from support.page_windows import Window
from support.profiles import profile
from support.server_process import ServerProcess
from support.small_disk import SmallDisk
from support.stores import contents, stores

# Does not fit into what a browser has set aside.
LARGE = "x" * 100_000
# What the page says of a key, or of messages, that find no room.
NO_ROOM = re.compile("Your key cannot be kept here|There is no room in this browser")


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_full_disk_is_told_and_when_there_is_room_all_goes_on(
    browsers: Browsers, browser: str, server: ServerProcess, tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path, 96)
    base, url = f"http://localhost:{server.port}", f"ws://127.0.0.1:{server.port}"
    async with (
        profile(browsers, browser, disk.path / "profile", base, disk) as person,
        stores(url, "carol") as (carol,),
    ):
        alice = await Window(person).start("alice")
        other = Window(person, await person.context.new_page())
        await other.page.goto("/")
        await carol.send("alice", "before")  # after that her key is known
        with_bob = await alice.talk_to("bob")
        await expect(await with_bob.say("accepted")).to_contain_text("waiting for bob")
        disk.fill()
        await with_bob.field.fill(f"late {LARGE}")
        await with_bob.field.press("Enter")
        late = with_bob.entry("late")
        await expect(late).to_contain_text("It did not arrive. There is no room in this browser.")
        notice = alice.page.get_by_role("alert").filter(has_text="There is no room in this browser")
        await expect(notice).to_contain_text("What you write now is not sent")
        await expect(notice).to_contain_text("Free some space on the disk")
        disk.fill()
        delivery = carol.send("alice", f"meanwhile {LARGE}")
        await delivery.when_sent()
        # Somebody else begins: there is no room for their key, or for what they write. A browser tidies up, and so
        # makes some, at times enough for a key.
        disk.fill()
        await other.choose("dora")
        await expect(other.alert).to_contain_text(NO_ROOM)
        await expect(other.alert).to_contain_text("ree some space on the disk")
        assert not delivery.done
        disk.free()
        await delivery
        await expect(notice).to_be_hidden()
        await late.get_by_role("button", name="Send again").click()
        await expect(with_bob.entry("late")).to_contain_text("waiting for bob")
        await (await alice.open("carol")).heard("meanwhile")
        async with stores(url, "bob") as (bob,):
            assert await contents(bob, 2) == ["accepted", f"late {LARGE}"]
