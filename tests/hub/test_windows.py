"""Presence that changes fast: each watcher gets one a quarter of a second at most, and ends with the truth."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.sessions import Watcher as HubWatcher
from aldis.hub.watchers import MOST_AT_ONCE
from aldis.hub.windows import Audience, PresenceWindows
from aldis.protocol.privacy import Privacy
from support.hub_world import Client, World

INTERVAL = 0.25
PUBLIC = Privacy()
STEP = 0.05


def states(messages: list[dict[str, Any]]) -> list[list[str]]:
    """The devices in each presence."""
    return [[device["device"] for device in m.get("devices", [])] for m in messages if m["type"] == "presence"]


def watcher_of(world: World, *names: str) -> Client:
    watcher = world.client("watcher")
    watcher.send(type="watch", userIds=list(names))
    watcher.take()
    return watcher


def test_the_first_change_is_sent_at_once_and_those_that_follow_as_one() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    world.client("alice")
    assert states(watcher.take()) == [["main"]]
    for device in ("phone", "tablet", "desk"):
        world.client("alice", device=device)
    world.pass_time(0.2, STEP)
    assert watcher.take() == []
    world.pass_time(0.05, STEP)
    assert states(watcher.take()) == [["desk", "tablet", "phone", "main"]]
    world.pass_time(1.0, STEP)
    assert watcher.take() == []
    assert world.hub.presence_windows.folded == 3


def test_a_device_that_came_and_went_within_the_window_is_not_told_of() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    world.client("alice")
    watcher.take()
    world.client("alice", device="phone").lose(clean=True)
    world.pass_time(1.0, STEP)
    assert watcher.take() == []


def test_a_program_that_was_restarted_within_the_window_is_told_of() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    alice = world.client("alice")
    watcher.take()
    alice.lose(clean=True)
    world.client("alice")
    world.pass_time(1.0, STEP)
    assert states(watcher.take()) == [["main"]]


def test_a_restart_that_looks_like_a_device_that_left_is_told_once_more() -> None:
    """A client that knows of two devices and hears of one takes it for what is left (`dialer.registered_anew`)."""
    world = World(presence_interval=INTERVAL)
    main, phone = world.client("alice"), world.client("alice", device="phone")
    watcher = watcher_of(world, "alice")
    world.client("alice", device="tablet").lose(clean=True)
    world.pass_time(1.0, STEP)
    watcher.take()
    tablet = world.client("alice", device="tablet")  # opens a window
    assert states(watcher.take()) == [["tablet", "phone", "main"]]
    main.lose(clean=True)
    phone.lose(clean=True)
    tablet.lose(clean=True)
    world.client("alice")
    world.pass_time(INTERVAL, STEP)
    assert states(watcher.take()) == [["main"]]
    world.pass_time(INTERVAL, STEP)
    assert states(watcher.take()) == [["main"]]
    world.pass_time(1.0, STEP)
    assert watcher.take() == []


def test_a_watch_is_answered_at_once_with_the_state_of_now() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    alice = world.client("alice")
    alice.lose(clean=True)
    watcher.take()
    watcher.send(type="unwatch", userIds=["alice"])
    watcher.send(type="watch", userIds=["alice"], id=1)
    assert [m.get("online", m["type"]) for m in watcher.take()] == [False, "ack"]
    world.pass_time(1.0, STEP)
    assert watcher.take() == []


def test_a_watcher_that_has_asked_meanwhile_hears_of_what_is_undone_after_that() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    world.client("alice")
    phone = world.client("alice", device="phone")
    watcher.take()
    watcher.send(type="watch", userIds=["alice"])
    assert states(watcher.take()) == [["phone", "main"]]
    phone.lose(clean=True)
    world.pass_time(1.0, STEP)
    assert states(watcher.take()) == [["main"]]


def test_news_of_a_sender_comes_before_its_message_and_not_once_more() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    alice = world.client("alice")
    world.client("alice", device="phone")
    watcher.take()
    alice.send(type="bye", to="watcher")
    assert [m["type"] for m in watcher.take()] == ["presence", "bye"]
    world.pass_time(1.0, STEP)
    assert watcher.take() == []


def test_a_session_that_resumes_hears_the_news_once() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    world.client("alice")
    watcher.take()
    watcher.lose()
    world.client("alice", device="phone")
    back = world.connect()
    back.register("watcher", resume=watcher.ticket(2))
    world.pass_time(1.0, STEP)
    assert states(back.take()) == [["phone", "main"]]


def test_who_has_many_watchers_opens_one_window_for_all_of_them() -> None:
    """The window begins when the last of them has been told, so it is long enough for each."""
    world = World(presence_interval=INTERVAL)
    watchers = [world.client(f"watcher{number}") for number in range(2 * MOST_AT_ONCE)]
    for watcher in watchers:
        watcher.send(type="watch", userIds=["alice"])
        watcher.take()
    world.hub_waits = True
    world.client("alice")
    world.now += 0.2
    assert world.hub.work(world.now) == 0.0
    assert world.hub.work(world.now) == INTERVAL
    assert [states(watcher.take()) for watcher in watchers] == [[["main"]]] * len(watchers)
    world.client("alice", device="phone")
    world.now += 0.2
    assert 0.0 < (world.hub.work(world.now) or 0.0) < 0.06
    world.now += 0.1
    world.hub_waits = False
    world.work()
    assert [states(watcher.take()) for watcher in watchers] == [[["phone", "main"]]] * len(watchers)


def test_what_is_undone_is_told_to_those_that_have_heard_of_it() -> None:
    """A change comes while half of the watchers have been told of the one before."""
    world = World(presence_interval=INTERVAL)
    watchers = [world.client(f"watcher{number}") for number in range(2 * MOST_AT_ONCE)]
    for watcher in watchers:
        watcher.send(type="watch", userIds=["alice"])
        watcher.take()
    world.hub_waits = True
    world.client("alice")
    phone = world.client("alice", device="phone")
    world.hub_waits = False
    world.work()
    assert sorted(states([m for watcher in watchers for m in watcher.inbox])) == (
        [["main"]] * MOST_AT_ONCE + [["phone", "main"]] * MOST_AT_ONCE
    )
    phone.lose(clean=True)
    world.pass_time(1.0, STEP)
    assert {str(states(watcher.take())[-1]) for watcher in watchers} == {"['main']"}


def test_a_server_that_stops_tells_the_last_state_first() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    alice = world.client("alice")
    alice.lose(clean=True)
    assert states(watcher.take()) == [["main"]]
    world.hub.drain(world.now)
    assert [m["type"] for m in watcher.take()] == ["presence", "going-away"]


def test_windows_of_names_that_nobody_watches_any_more_are_forgotten() -> None:
    world = World(presence_interval=INTERVAL)
    watcher = watcher_of(world, "alice")
    world.client("alice")
    world.client("alice", device="phone")
    watcher.lose(clean=True)
    world.pass_time(1.0, STEP)
    windows = world.hub._watchers.windows
    assert isinstance(windows, PresenceWindows)
    assert len(windows) == 0
    assert not windows.changed


def open_window(windows: PresenceWindows, audience: Audience) -> None:
    """Of alice, whose watchers have been told that she is offline."""
    assert windows.change_for_all("alice", PUBLIC, None, audience)
    windows.telling("alice", ())
    windows.told("alice", 1.0)


def two_watchers() -> tuple[HubWatcher, HubWatcher]:
    world = World()
    return HubWatcher(world.client("one").session), HubWatcher(world.client("two").session)


def test_who_could_see_a_user_at_any_time_of_a_window_is_told_at_its_end() -> None:
    """With a cluster, the privacy may be another one when a user comes back within the window."""
    one, two = two_watchers()
    hidden = Privacy(presence="hidden")
    seeing = {PUBLIC: {one, two}, hidden: {two}}
    windows = PresenceWindows()
    open_window(windows, seeing.__getitem__)
    assert not windows.change_for_all("alice", PUBLIC, None, seeing.__getitem__)
    assert not windows.change_for_all("alice", hidden, None, seeing.__getitem__)
    assert windows.close("alice", (("main", "s", "key", None),), seeing.__getitem__) == {one, two}


def test_who_sees_a_user_that_comes_and_goes_is_found_once_and_not_at_all_if_nothing_has_changed() -> None:
    looks: list[Privacy] = []
    one, two = two_watchers()

    def audience(privacy: Privacy) -> set[HubWatcher]:
        looks.append(privacy)
        return {one, two}

    for state, found in [((), set()), ((("main", "s", "key", None),), {two})]:
        windows = PresenceWindows()
        open_window(windows, audience)
        for _ in range(100):
            assert not windows.change_for_all("alice", PUBLIC, None, audience)
        assert windows.waits("alice", one, sees=True)
        assert not windows.waits("alice", one, sees=False)
        if state:
            windows.heard("alice", [one])  # with a message
            assert not windows.waits("alice", one, sees=True)
        assert looks == []
        assert windows.close("alice", state, audience) == found
        assert looks == [PUBLIC] * bool(state)


# --- a model: any changes, any watchers, any time -------------------------------------------------------------------

NAMES = ("alice", "bob")
DEVICES = ("main", "phone")
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["register", "leave"]), st.sampled_from(NAMES), st.sampled_from(DEVICES)),
    st.tuples(st.sampled_from(["watch", "unwatch"]), st.integers(0, 2), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["lose", "stop reading", "read on"]), st.integers(0, 2), st.none()),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 0.1, 0.24, 0.25, 0.3]), st.none()),
    st.tuples(st.just("show"), st.sampled_from(NAMES), st.sampled_from(["public", "contacts", "hidden"])),
    st.tuples(
        st.sampled_from(["addContacts", "removeContacts", "block", "unblock"]),
        st.sampled_from(NAMES),
        st.integers(0, 2),
    ),
    st.tuples(st.just("say"), st.sampled_from(NAMES), st.integers(0, 2)),
)


class Shown:
    """To whom a user shows itself."""

    def __init__(self) -> None:
        self.presence = "public"
        self.contacts: set[int] = set()
        self.blocked: set[int] = set()

    def change(self, what: str, watcher: int) -> None:
        names = self.contacts if what.endswith("Contacts") else self.blocked
        (names.add if what in ("addContacts", "block") else names.discard)(watcher)

    def to(self, watcher: int) -> bool:
        if watcher in self.blocked:
            return False
        return self.presence == "public" or (self.presence == "contacts" and watcher in self.contacts)


class Watcher:
    """A watcher, what it has last heard of each name, and when it has heard it unasked."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.client = world.client(f"watcher{number}")
        self.watches: set[str] = set()
        self.heard: dict[str, list[str]] = {}
        self.at: dict[str, float] = {}
        self.messages = 0

    def hear(self, *, asked: bool) -> None:
        for message in self.client.take():
            if message["type"] != "presence":
                continue
            self.messages += 1
            name = message["userId"]
            self.heard[name] = states([message])[0]
            if not asked:
                assert self.world.now - self.at.get(name, -1.0) >= INTERVAL - 1e-9, "two within the interval"
                self.at[name] = self.world.now


@given(st.lists(ACTIONS, max_size=40))
def test_every_watcher_ends_with_the_truth_and_never_hears_two_within_the_interval(
    actions: list[tuple[str, Any, Any]],
) -> None:
    world = World(presence_interval=INTERVAL)
    watchers = [Watcher(world, number) for number in range(3)]
    sessions: dict[tuple[str, str], Client] = {}
    shown = {name: Shown() for name in NAMES}

    def devices_of(name: str) -> list[str]:
        return [session.device for session in world.hub.sessions(name)]

    def session_of(name: str) -> Client | None:
        return next((client for (user_id, _), client in sessions.items() if user_id == name), None)

    def pass_time(seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            world.pass_time(0.01, 0.01)
            all_hear()  # at the time at which it was sent

    def all_hear(*, asked: bool = False) -> None:
        for watcher in watchers:
            watcher.hear(asked=asked)

    for what, one, other in actions:
        match what:
            case "register":
                sessions[one, other] = world.client(one, device=other)
            case "leave" if (one, other) in sessions:
                sessions.pop((one, other)).lose(clean=True)
            case "watch" | "unwatch":
                watchers[one].client.send(type=what, userIds=[other])
                (watchers[one].watches.add if what == "watch" else watchers[one].watches.discard)(other)
                watchers[one].hear(asked=True)
            case "lose":
                number, watcher = one, watchers[one]
                lost = watcher.client
                lost.full = False
                lost.lose()
                watcher.client = world.connect()
                watcher.client.register(f"watcher{number}", resume=lost.ticket(watcher.messages))
                watcher.hear(asked=True)
            case "stop reading":
                watchers[one].client.full = True
            case "read on":
                watchers[one].client.full = False
                world.hub.writable(watchers[one].client.session)
                watchers[one].hear(asked=True)
            case "pass":
                pass_time(one)
            case "show" if client := session_of(one):
                client.send(type="privacy", presence=other)
                shown[one].presence = other
            case "addContacts" | "removeContacts" | "block" | "unblock" if client := session_of(one):
                client.send(type="privacy", **{what: [f"watcher{other}"]})
                shown[one].change(what, other)
            case "say" if client := session_of(one):
                client.send(type="bye", to=f"watcher{other}")
                heard = [message["type"] for message in watchers[other].client.inbox]
                assert "presence" not in heard[1:], "of no other user"
                watchers[other].hear(asked=True)
                if other not in shown[one].blocked and one in watchers[other].watches and heard:
                    assert not shown[one].to(other) or watchers[other].heard[one] == devices_of(one)
        all_hear()
    for watcher in watchers:
        watcher.client.full = False
        world.hub.writable(watcher.client.session)
        watcher.hear(asked=True)
    pass_time(1.0)
    assert len(world.hub._watchers.windows) == 0
    for watcher in watchers:
        for name in watcher.watches:
            assert watcher.heard[name] == (devices_of(name) if shown[name].to(watchers.index(watcher)) else [])
