"""Users, keys and networks that the operator has banned."""

from __future__ import annotations

import pytest

from aldis.errors import UsageError
from aldis.hub.accounts import Admitted
from aldis.hub.bans import MAX_BANS, MAX_REASON, Ban, Bans, holds, read_ban, wider_than
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from support.hub_world import World, identity_of

KEY = to_base64(Identity.from_seed(bytes(32)).public_key)


def test_a_banned_user_is_ended_and_kept_out_until_the_ban_is_over() -> None:
    world = World()
    alice = world.client("alice")
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"], id=1)
    bob.take()
    assert world.hub.ban(read_ban("user", "alice", "spam", until=1_700_000_000.0 + world.now + 60), world.now) == 1
    assert alice.closed == (4503, "banned: spam")
    assert [(news["type"], news["online"]) for news in bob.take()] == [("presence", False)]
    again = world.connect()
    error = again.register("alice", identity=alice.identity)
    assert (error["code"], error["message"]) == ("forbidden", "banned: spam")
    assert again.closed == (4503, "banned: spam")
    world.pass_time(61)
    assert world.connect().register("alice", identity=alice.identity)["success"] is True


def test_a_banned_key_is_kept_out_under_every_name() -> None:
    world = World()
    alice = world.client("alice")
    key = to_base64(alice.identity.public_key)
    assert world.hub.ban(read_ban("key", key), world.now) == 1
    assert alice.closed == (4503, "banned by the operator of this server")
    assert world.connect().register("another", identity=alice.identity)["code"] == "forbidden"
    assert world.connect().register("another")["success"] is True


def test_only_the_owner_of_a_key_learns_that_its_user_is_banned() -> None:
    world = World()
    world.client("alice")
    world.hub.ban(read_ban("user", "alice", "secret"), world.now)
    thief = world.connect()
    thief.identity = identity_of("alice")
    thief.ask_challenge("alice")
    thief.send(type="prove", signature=to_base64(bytes(64)))
    assert thief.take_one()["code"] == "bad-signature"


def test_a_disconnected_user_may_come_back() -> None:
    world = World()
    alice = world.client("alice")
    assert world.hub.disconnect("alice", world.now) == 1
    assert alice.closed == (4000, "disconnected by the operator")
    assert world.connect().register("alice", identity=alice.identity)["success"] is True
    assert world.hub.disconnect("nobody", world.now) == 0


def test_users_are_listed_by_name_a_page_at_a_time() -> None:
    world = World()
    for name in ("carol", "alice", "bob", "albert"):
        world.client(name)
    assert world.hub.users("", "", 3) == ["albert", "alice", "bob"]
    assert world.hub.users("", "bob", 3) == ["carol"]
    assert world.hub.users("al", "", 3) == ["albert", "alice"]


@pytest.mark.parametrize(
    ("address", "banned"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.114.1", None),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:0:1::5", "2001:db8::/48"),
        ("fe80::1%eth0", None),
        ("a socket", None),
    ],
)
def test_an_address_is_in_the_narrowest_network_that_is_banned(address: str, banned: str | None) -> None:
    bans = Bans()
    for network in ("203.0.113.77/24", "203.0.113.7", "2001:db8::/48"):
        bans.add(read_ban("network", network))
    found = bans.of_address(address, 0.0)
    assert (None if found is None else found.value) == banned


@pytest.mark.parametrize(
    ("written", "value", "inside", "outside"),
    [
        ("::ffff:198.51.100.1", "198.51.100.1/32", "198.51.100.1", "198.51.100.2"),
        ("::ffff:c633:6401", "198.51.100.1/32", "::ffff:198.51.100.1", "198.51.100.2"),
        ("::ffff:198.51.100.7/120", "198.51.100.0/24", "198.51.100.1", "198.51.101.1"),
        ("::ffff:0:0/96", "0.0.0.0/0", "198.51.100.1", "2001:db8::1"),
        ("::/0", "::/0", "2001:db8::1", "198.51.100.1"),
    ],
)
def test_a_ban_of_an_ipv4_mapped_network_is_one_of_ipv4(written: str, value: str, inside: str, outside: str) -> None:
    bans = Bans()
    ban = read_ban("network", written)
    bans.add(ban)
    assert ban.value == value
    assert bans.of_address(inside, 0.0) is ban
    assert bans.of_address(outside, 0.0) is None
    again = read_ban("network", written)
    assert bans.remove("network", again.value)


def test_a_ban_that_is_over_or_removed_bans_nobody() -> None:
    bans = Bans()
    bans.add(read_ban("network", "203.0.113.0/24", until=100.0))
    bans.add(read_ban("user", "alice", until=50.0))
    assert bans.of_address("203.0.113.1", 99.0)
    assert bans.of_address("203.0.113.1", 100.0) is None
    assert bans.expire(60.0)
    assert not bans.expire(60.0)
    assert [ban.value for ban in bans] == ["203.0.113.0/24"]
    assert bans.remove("network", "203.0.113.0/24")
    assert not bans.remove("network", "203.0.113.0/24")
    assert bans.of_address("203.0.113.1", 99.0) is None
    assert len(bans) == 0


def test_there_are_so_many_bans_at_most_and_one_can_be_changed_then() -> None:
    bans = Bans()
    for number in range(MAX_BANS):
        bans.add(Ban("user", str(number)))
    bans.add(Ban("user", "0", "another reason"))
    with pytest.raises(UsageError):
        bans.add(Ban("user", "one more"))


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("user", "a b", ""),
        ("key", "abc", ""),
        ("network", "203.0.113.0/33", ""),
        ("network", "::ffff:0:0/95", ""),
        ("network", "::/64", ""),
        ("planet", "mars", ""),
        ("user", "alice", "x" * (MAX_REASON + 1)),
        ("user", "alice", "two\nlines"),
    ],
)
def test_what_cannot_be_banned_is_said_at_once(kind: str, value: str, reason: str) -> None:
    with pytest.raises(UsageError):
        read_ban(kind, value, reason)


def test_a_key_has_one_spelling() -> None:
    assert read_ban("key", KEY).value == KEY


@pytest.mark.parametrize("classic", [False, True])
@pytest.mark.parametrize("ban", [Ban("user", "mallory"), Ban("key", KEY), None])
@pytest.mark.parametrize("asked", ["operator", "directory"])
def test_a_registration_that_is_under_way_is_ended_too(ban: Ban | None, classic: bool, asked: str) -> None:
    world = World(operator=(lambda question: Admitted()) if asked == "operator" else None, auth="open")
    client = world.connect(classic=classic)
    world.directory_waits = True
    if classic:
        client.send(type="register", userId="mallory", publicKey=KEY)
    else:
        client.register("mallory", identity=Identity.from_seed(bytes(32)))
    assert world.hub.pending == 1
    ended = world.hub.ban(ban, world.now) if ban is not None else world.hub.expel("mallory", "not listed", world.now)
    assert ended == 1
    assert client.closed is not None
    assert client.closed[0] == (4501 if ban is None else 4503)
    world.answer()
    assert not world.hub.online("mallory")


def test_a_full_list_forgets_first_what_is_over() -> None:
    world = World()
    for number in range(MAX_BANS):
        world.hub.ban(Ban("user", f"user{number}", until=1.0 if number < 2 else None), world.now)
    world.hub.ban(Ban("user", "mallory"), world.now)
    assert len(world.hub.known_bans()) == MAX_BANS - 1


def test_bans_that_are_over_are_forgotten_whatever_was_added_or_taken_off_meanwhile() -> None:
    bans = Bans()
    for name, until in (("forever", None), ("late", 30.0), ("early", 10.0), ("gone", 5.0)):
        bans.add(read_ban("user", name, until=until))
    bans.remove("user", "gone")
    counts = []
    for wall in (0.0, 9.0, 10.0, 29.0):
        bans.expire(wall)
        counts.append(len(bans))
    assert counts == [3, 3, 2, 2]
    bans.add(read_ban("user", "late", until=40.0))
    bans.add(read_ban("user", "soon", until=20.0))
    assert [bans.expire(wall) for wall in (20.0, 35.0, 40.0, 50.0)] == [True, False, True, False]
    assert [ban.value for ban in bans] == ["forever"]


@pytest.mark.parametrize(
    ("network", "widest"),
    [("0.0.0.0/0", 8), ("10.0.0.0/7", 8), ("10.0.0.0/8", None), ("::/0", 16), ("2000::/15", 16), ("2001::/16", None)],
)
def test_a_network_that_is_wider_than_an_operator_means(network: str, widest: int | None) -> None:
    assert wider_than(network) == widest


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("::1", False), ("", False)],
)
def test_whether_an_address_is_in_a_network(address: str, inside: bool) -> None:
    assert holds("10.0.0.0/8", address) is inside


def test_a_ban_takes_the_place_of_one_of_the_same_that_holds() -> None:
    bans = Bans()
    bans.add(Ban("user", "mallory", "spam", 100.0))
    again = Ban("user", "mallory")
    assert bans.same(again, 99.0) == Ban("user", "mallory", "spam", 100.0)
    assert bans.same(again, 100.0) is None
    assert bans.same(Ban("user", "trudy"), 99.0) is None


@pytest.mark.parametrize(("kind", "value"), [("user", "alice"), ("key", KEY)])
def test_a_classic_client_that_is_banned_is_kept_out_too(kind: str, value: str) -> None:
    world = World(auth="open")
    world.hub.ban(read_ban(kind, value), world.now)
    alice = world.connect(classic=True)
    alice.send(type="register", userId="alice", publicKey=KEY)
    assert alice.take() != [{"type": "registered", "success": True, "userId": "alice"}]
    assert world.hub.users_online == 0


def test_the_fingerprint_of_a_key_is_told_from_the_key() -> None:
    key = Identity.generate()
    with pytest.raises(UsageError, match="is the fingerprint of a key; a ban needs the key itself"):
        read_ban("key", key.fingerprint.upper())
    with pytest.raises(UsageError, match="is no public key in base64"):
        read_ban("key", "k3ul")
    assert read_ban("key", to_base64(key.public_key)).value == to_base64(key.public_key)
