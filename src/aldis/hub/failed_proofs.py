"""Wrong signatures: how many a connection, a network and a name may cause before registrations are refused.

Rules:

* A connection is closed after `HubSettings.bad_proofs` of them.
* A network that has used up its allowance may not register until some of it is back. A proxy on this machine has none
  of its own, because it would keep out all of its clients.
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
from aldis.hub.networks import network_of
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stats import HubStats
from aldis.hub.usage import SharedUsage
from aldis.protocol.codes import CloseCode, ErrorCode

OF_ADDRESS: Final = "failed-proofs-per-address"
OF_CONNECTION: Final = "failed-proofs-per-connection"
OF_NAME: Final = "failed-proofs-per-name"


# Of those who have registered at least so many are remembered, and up to twice as many: 80 bytes each.
MOST_OWNERS: Final = 10_000


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
        session that has the name."""
        network = _network(session)
        if network is None:
            return None
        owner = hash((network, user_id, key))
        known = resumes or owner in self._owners or owner in self._earlier_owners
        if known and not self._of_owners.wait(owner, now):
            return None
        wait, limit = self._of_networks.wait(network, now), OF_ADDRESS
        if not wait and self._of_networks.has_used(network, now):
            wait, limit = self._of_names.wait(user_id, now), OF_NAME
        if not wait:
            return None
        # True of both allowances, and silent about which it is: that would tell an attacker that others try the name.
        text = "too many wrong proofs have come from your network or for this name; try again later"
        return RequestRefused(ErrorCode.RATE_LIMITED, text, retry_after=wait, limit=limit)

    def wrong_signature(self, session: Session, user_id: str, key: str, now: float) -> tuple[CloseCode, str] | None:
        """Count a wrong signature for a name and key. Returns the close of a connection that has sent too many."""
        self.wrong_key(session, user_id, now)
        network = _network(session)
        if network is not None:
            self._of_owners.take(hash((network, user_id, key)), now)
        session.bad_proofs += 1
        if session.bad_proofs < self._settings.bad_proofs:
            return None
        self._stats.limited[OF_CONNECTION] += 1
        return CloseCode.UNAUTHORIZED, "too many bad signatures"

    def wrong_key(self, session: Session, user_id: str, now: float) -> None:
        """Count a right signature of a key to which the name is not bound."""
        network = _network(session)
        if network is not None:
            self._of_networks.take(network, now)
            self._of_names.take(user_id, now)


def _network(session: Session) -> bytes | None:
    return network_of(session.client_address, loopback=False)
