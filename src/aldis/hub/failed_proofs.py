"""Wrong signatures: how many a connection, a network and a name may cause before registrations are refused.

Rules:

* A connection is closed after `HubSettings.bad_proofs` of them.
* A network that has used up its allowance may not register until some of it is back. A proxy on this machine has none
  of its own, because it would keep out all of its clients.
* The allowance of a name is for networks that have failed lately. So nobody can keep the owner of a name out by failing
  for it. It ends an attempt that comes from many networks.
* The right signature of a key to which the name is not bound counts for network and name.
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

    def configure(self) -> None:
        """The settings have changed."""
        self._of_networks.limit(self._settings.failed_proofs_per_address)
        self._of_names.limit(self._settings.failed_proofs_per_name)

    def refusal(self, session: Session, user_id: str, now: float) -> RequestRefused | None:
        """Why a session may not register a name now; None when it may."""
        network = _network(session)
        if network is None:
            return None
        wait, limit = self._of_networks.wait(network, now), OF_ADDRESS
        if not wait and self._of_networks.has_used(network, now):
            wait, limit = self._of_names.wait(user_id, now), OF_NAME
        if not wait:
            return None
        # True of both allowances, and silent about which it is: that would tell an attacker that others try the name.
        text = "too many wrong proofs have come from your network or for this name; try again later"
        return RequestRefused(ErrorCode.RATE_LIMITED, text, retry_after=wait, limit=limit)

    def wrong_signature(self, session: Session, user_id: str, now: float) -> tuple[CloseCode, str] | None:
        """Count a wrong signature for a name. Returns the close of a connection that has sent too many."""
        self.wrong_key(session, user_id, now)
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
