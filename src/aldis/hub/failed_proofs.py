"""Wrong signatures: how many a connection, a network and a name may cause before registrations are refused.

Rules:

* A connection is closed after `HubSettings.bad_proofs` of them.
* A proxy on this machine has no allowance, because it would keep out all of its clients.
* Where an allowance is used up, each connection has one try more, and is closed when that fails. So one attacker keeps
  out nobody behind the same address: it has 50 connections a second, and a right proof costs nothing.
* Of these tries at most `FURTHER_TRIES` may fail in a second, whoever makes them. One customer of a provider has as
  many as it leaves. So there are always some for the next one, and all together take a few hundredths of the processor.
* The allowance of a name is for networks that have failed lately. So nobody can keep the owner of a name out by failing
  for it. It ends an attempt that comes from many networks.
* The right signature of a key to which the name is not bound counts for network and name.
* Whoever has registered a name with its key from a network lately may do so again, whatever others have done there or
  for the name, as may a client that resumes its session: a thousand people may be behind one address. Each of them has
  an allowance of its own for that.
"""

from __future__ import annotations

from typing import Final

from aldis.hub.allowances import HOUR, Allowances
from aldis.hub.networks import CUSTOMER_PREFIX, network_of
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stats import HubStats
from aldis.hub.usage import SharedUsage
from aldis.protocol.codes import CloseCode, ErrorCode

OF_ADDRESS: Final = "failed-proofs-per-address"
OF_CONNECTION: Final = "failed-proofs-per-connection"
OF_NAME: Final = "failed-proofs-per-name"
_TOO_MANY: Final = (CloseCode.UNAUTHORIZED, "too many bad signatures")

# Of those who have registered at least so many are remembered, and up to twice as many: 80 bytes each.
MOST_OWNERS: Final = 10_000
# Failed tries in a second beyond all allowances: 0.1 ms each, and as much for what is around it.
FURTHER_TRIES: Final = 200
# Seconds until a client tries again for which none was left.
TRY_AGAIN: Final = 3.0


class FailedProofs:
    """The failed proofs of one server, or of a cluster."""

    def __init__(self, settings: HubSettings, stats: HubStats, usage: SharedUsage | None = None) -> None:
        """`usage`: what is used counts at other nodes too."""
        self._settings = settings
        self._stats = stats
        self._of_networks: Allowances[bytes] = Allowances(
            settings.failed_proofs_per_address, HOUR, limit=OF_ADDRESS, usage=usage
        )
        self._of_names: Allowances[str] = Allowances(settings.failed_proofs_per_name, HOUR, limit=OF_NAME, usage=usage)
        # Hashes of networks with the names that were registered from there, and their keys: the latest ones, and those
        # before them. Nobody can make up two with the same hash, which is salted.
        self._owners: set[int] = set()
        self._earlier_owners: set[int] = set()
        # The tries beyond the allowances that have failed in this second, in all and by customers.
        self._second = 0
        self._further = 0
        self._further_of: dict[bytes, int] = {}
        # How often each of them may fail.
        self._of_owners: Allowances[int] = Allowances(settings.failed_proofs_per_name, HOUR)

    def configure(self) -> None:
        """The settings have changed."""
        self._of_networks.limit(self._settings.failed_proofs_per_address)
        self._of_names.limit(self._settings.failed_proofs_per_name)
        self._of_owners.limit(self._settings.failed_proofs_per_name)

    def succeeded(self, session: Session) -> None:
        """A session has registered."""
        network = _network(session)
        if network is not None:
            if len(self._owners) >= MOST_OWNERS:
                self._owners, self._earlier_owners = set(), self._owners
            self._owners.add(hash((network, session.user_id, session.key)))

    def refusal(
        self, session: Session, user_id: str, key: str, now: float, *, resumes: bool = False
    ) -> RequestRefused | None:
        """Why a session may not register a name with a key now; None when it may. `resumes`: it shows the secret of the
        session that has the name. Ask before each check of a signature."""
        network = _network(session)
        limit = None if network is None else self._used_up(network, user_id, key, now, resumes=resumes)
        if network is None or limit is None or self._has_further(network, now):
            return None
        # True of both allowances, and silent about which it is: that would tell an attacker that others try the name.
        text = "too many wrong proofs have come from your network or for this name; try again later"
        return RequestRefused(ErrorCode.RATE_LIMITED, text, retry_after=TRY_AGAIN, limit=limit)

    def _used_up(self, network: bytes, user_id: str, key: str, now: float, *, resumes: bool = False) -> str | None:
        """Which allowance is used up; None when none is."""
        owner = hash((network, user_id, key))
        known = resumes or owner in self._owners or owner in self._earlier_owners
        if known and not self._of_owners.wait(owner, now):
            return None
        if self._of_networks.wait(network, now):
            return OF_ADDRESS
        if self._of_networks.has_used(network, now) and self._of_names.wait(user_id, now):
            return OF_NAME
        return None

    def _has_further(self, network: bytes, now: float) -> bool:
        """Whether a network whose allowance is used up may fail once more."""
        self._begin_second(now)
        return self._further_of.get(network[:CUSTOMER_PREFIX], 0) < FURTHER_TRIES - self._further

    def _begin_second(self, now: float) -> None:
        """Count the tries beyond the allowances anew, if this is another second."""
        if int(now) != self._second:
            self._second, self._further = int(now), 0
            self._further_of.clear()

    def wrong_signature(self, session: Session, user_id: str, key: str, now: float) -> tuple[CloseCode, str] | None:
        """Count a wrong signature for a name and key. Returns the close of a connection that has sent too many."""
        close = self.wrong_key(session, user_id, key, now)
        network = _network(session)
        if network is not None:
            self._of_owners.take(hash((network, user_id, key)), now)
        session.bad_proofs += 1
        if close is None and session.bad_proofs >= self._settings.bad_proofs:
            self._stats.limited[OF_CONNECTION] += 1
            return _TOO_MANY
        return close

    def wrong_key(self, session: Session, user_id: str, key: str, now: float) -> tuple[CloseCode, str] | None:
        """Count a right signature of a key to which the name is not bound. Returns as above."""
        network = _network(session)
        if network is None:
            return None
        limit = self._used_up(network, user_id, key, now)
        self._of_networks.take(network, now)
        self._of_names.take(user_id, now)
        if limit is None:
            return None
        self._begin_second(now)
        customer = network[:CUSTOMER_PREFIX]
        self._further += 1
        self._further_of[customer] = self._further_of.get(customer, 0) + 1
        self._stats.limited[limit] += 1
        return _TOO_MANY


def _network(session: Session) -> bytes | None:
    return network_of(session.client_address, loopback=False)
