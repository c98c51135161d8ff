"""How many new names may be bound from where: names are kept for ever.

Rules:

* Each network has an allowance of new names for a day (`HubSettings.new_names_per_address`).
* One customer of a provider may have 65,536 networks of IPv6, and has `NETWORKS` times as many as one.
"""

from __future__ import annotations

from typing import Final

from aldis.hub.allowances import DAY, Allowances
from aldis.hub.networks import CUSTOMER_PREFIX, NETWORKS
from aldis.hub.settings import HubSettings
from aldis.hub.usage import SharedUsage

OF_NETWORK: Final = "new-names-per-address"
OF_CUSTOMER: Final = "new-names-per-customer"


class NewNames:
    """The allowances of one server, or of a cluster. Times are those of the caller."""

    def __init__(self, settings: HubSettings, usage: SharedUsage | None) -> None:
        """`usage`: what is used counts at other nodes too."""
        self._settings = settings
        most = settings.new_names_per_address
        self._networks: Allowances[bytes] = Allowances(most, DAY, limit=OF_NETWORK, usage=usage)
        self._customers: Allowances[bytes] = Allowances(NETWORKS * most, DAY, limit=OF_CUSTOMER, usage=usage)

    def configure(self) -> None:
        """The settings have changed."""
        self._networks.limit(self._settings.new_names_per_address)
        self._customers.limit(NETWORKS * self._settings.new_names_per_address)

    def take(self, network: bytes, now: float) -> float:
        """Take one name. 0 when one was left, else the seconds until one is, and nothing is taken."""
        wait = self._networks.take(network, now)
        if wait or len(network) <= CUSTOMER_PREFIX:  # an IPv4 address
            return wait
        wait = self._customers.take(network[:CUSTOMER_PREFIX], now)
        if wait:
            self._networks.give_back(network)
        return wait

    def give_back(self, network: bytes) -> None:
        """What was taken was not used."""
        self._networks.give_back(network)
        if len(network) > CUSTOMER_PREFIX:
            self._customers.give_back(network[:CUSTOMER_PREFIX])
