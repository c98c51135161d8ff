"""Who may not use this server, by the operator's word: users, keys and networks.

Rules: a ban may end at a time. It is checked when a client registers (user, key) or connects (network), and ends the
connections that it fits at once. Wall time is an argument. It does not know how bans are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf
from typing import Final, Literal, TypeAlias

from aldis.errors import UsageError
from aldis.hub.networks import read_address, read_network
from aldis.identity.keys import PUBLIC_KEY_BYTES, check_fingerprint
from aldis.protocol.addresses import user_id_problem
from aldis.protocol.codec import from_base64, to_base64

BanKind: TypeAlias = Literal["user", "key", "network"]
KINDS: Final[tuple[BanKind, ...]] = ("user", "key", "network")
# An operator's list, which is read by people. A network stands for as many addresses as it has.
MAX_BANS: Final = 10_000
# The prefixes, by IP version, of networks that an operator seldom means if they are wider: 1/256 of all IPv4 addresses,
# and in IPv6 more than any provider has.
WIDEST: Final = {4: 8, 6: 16}
MAX_REASON: Final = 100  # characters; the client is told them in a close frame, which has 123 bytes


@dataclass(frozen=True, slots=True)
class Ban:
    """One ban. `until` is wall time in seconds, None for ever. `reason` is told to whom it concerns."""

    kind: BanKind
    value: str
    reason: str = ""
    until: float | None = None

    @property
    def text(self) -> str:
        """What the client is told."""
        return f"banned: {self.reason}" if self.reason else "banned by the operator of this server"


def _no_key(value: str, error: ValueError) -> str:
    try:
        check_fingerprint(value)
    except UsageError:
        return f"{value!r} is no public key in base64: {error}"
    return f"{value!r} is the fingerprint of a key; a ban needs the key itself, which `aldis admin user NAME` shows"


def read_ban(kind: str, value: str, reason: str = "", until: float | None = None) -> Ban:
    """A ban as an operator writes it, with its value in its one spelling. Raises `UsageError`."""
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise UsageError(f"the reason of a ban has at most {MAX_REASON} printable characters")
    match kind:
        case "user":
            problem = user_id_problem(value)
            if problem:
                raise UsageError(f"{value!r} is no name of a user: {problem}")
            return Ban("user", value, reason, until)
        case "key":
            try:
                return Ban("key", to_base64(from_base64(value, PUBLIC_KEY_BYTES)), reason, until)
            except ValueError as error:
                raise UsageError(_no_key(value, error)) from None
        case "network":
            try:
                return Ban("network", str(read_network(value, strict=False)), reason, until)
            except ValueError as error:
                raise UsageError(f"{value!r} is no network: {error}") from None
    raise UsageError(f"{kind!r} cannot be banned; expected one of {', '.join(KINDS)}")


def wider_than(network: str) -> int | None:
    """The prefix in `WIDEST` if a network is wider than that; else None."""
    read = ip_network(network)
    widest = WIDEST[read.version]
    return widest if read.prefixlen < widest else None


def holds(network: str, address: str) -> bool:
    """Whether an IP address is in a network; False for what is no address."""
    known, read = read_address(address), ip_network(network)
    return known is not None and known.version == read.version and known in read


class Bans:
    """All bans of one server."""

    def __init__(self) -> None:
        self._bans: dict[tuple[BanKind, str], Ban] = {}
        # By the number of bits that count, so that one look-up for each length finds a network.
        self._networks: dict[tuple[int, int], dict[IPv4Network | IPv6Network, Ban]] = {}
        # No ban ends before this: who asks for their number often need not look at each.
        self._next_end = inf

    def __len__(self) -> int:
        return len(self._bans)

    def __iter__(self) -> Iterator[Ban]:
        return iter(list(self._bans.values()))

    def add(self, ban: Ban) -> None:
        """Ban, in place of an earlier ban of the same. Raises `UsageError` when there are too many."""
        key = ban.kind, ban.value
        if key not in self._bans and len(self._bans) >= MAX_BANS:
            raise UsageError(f"there are {MAX_BANS} bans, which is all that there may be; ban a network instead")
        self._bans[key] = ban
        if ban.until is not None:
            self._next_end = min(self._next_end, ban.until)
        if ban.kind == "network":
            network = ip_network(ban.value)
            self._networks.setdefault((network.version, network.prefixlen), {})[network] = ban

    def remove(self, kind: BanKind, value: str) -> bool:
        """End a ban; whether there was one."""
        if self._bans.pop((kind, value), None) is None:
            return False
        if kind == "network":
            network = ip_network(value)
            length = network.version, network.prefixlen
            del self._networks[length][network]
            if not self._networks[length]:
                del self._networks[length]
        return True

    def same(self, ban: Ban, wall: float) -> Ban | None:
        """The ban that this one would take the place of, if there is one."""
        return self._standing(self._bans.get((ban.kind, ban.value)), wall)

    def of_user(self, user_id: str, key: str, wall: float) -> Ban | None:
        """The ban of a user or of a key (base64), if there is one."""
        return self._standing(self._bans.get(("user", user_id)), wall) or self._standing(
            self._bans.get(("key", key)), wall
        )

    def of_address(self, address: str, wall: float) -> Ban | None:
        """The ban of the network that an IP address is in, the narrowest one; None, too, for what is no address."""
        if not self._networks:
            return None
        ip = read_address(address)
        if ip is None:
            return None
        for length in sorted((bits for version, bits in self._networks if version == ip.version), reverse=True):
            network = ip_network((ip, length), strict=False)
            ban = self._standing(self._networks[ip.version, length].get(network), wall)
            if ban is not None:
                return ban
        return None

    def expire(self, wall: float) -> bool:
        """Forget the bans that are over; whether there were any."""
        if wall < self._next_end:
            return False
        over = [ban for ban in self if ban.until is not None and ban.until <= wall]
        for ban in over:
            self.remove(ban.kind, ban.value)
        self._next_end = min((ban.until for ban in self if ban.until is not None), default=inf)
        return bool(over)

    def _standing(self, ban: Ban | None, wall: float) -> Ban | None:
        return ban if ban is not None and (ban.until is None or ban.until > wall) else None
