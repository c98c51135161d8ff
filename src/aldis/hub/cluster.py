"""What the hub of one node knows and asks of the other nodes of its cluster.

A *node* is a server process. All nodes of a cluster share one directory and one table of who is online. Each user of
that table has a `UserState`. The hub asks for it by a `FindUsers`, and then hears of each change until it forgets the
user. It enters its own devices by an `EnterDevice`.

Rules for who carries this out:

* `order` grows with each registration in the whole cluster: the device with the highest is the newest. `version` grows
  with each change of a user. A state with a lower version than one that is known is late, and changes nothing.
* Each registration has an `entry` of its own, random. What names an entry that is not there any more changes nothing:
  a late word of one node never removes what another has entered since.
* A device of a node that is lost is not in a state.

Pure values: it does not know Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias

from aldis.hub.sessions import RelayResult
from aldis.hub.usage import OpenCounts, Use
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy


class RemoteDevice(NamedTuple):
    """A device that is registered at some node."""

    device: str
    node: str
    entry: str  # of this registration
    order: int
    session: str  # its id, which a resumed session keeps; empty without a proof
    key: str  # as clients show it
    seal_key: SealKey | None = None
    proves: bool = True  # whether it has shown that it has the key


class UserState(NamedTuple):
    """A user in the cluster. `devices`: the newest first, those of the asking node too; empty: offline."""

    user_id: str
    version: int
    devices: tuple[RemoteDevice, ...] = ()
    privacy: Privacy = DEFAULT_PRIVACY

    def without(self, node: str) -> UserState:
        """The same without the devices of one node."""
        if not self.devices:
            return self
        return self._replace(devices=tuple(each for each in self.devices if each.node != node))


@dataclass(frozen=True, slots=True)
class FindUsers:
    """Asks where some users are. The answer: the `UserState` of each, but of those that the hub was told meanwhile."""

    kind: ClassVar[str] = "locate"
    token: int
    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnterDevice:
    """Enters a device, in place of one of the same name. The answer: an `Entered`, `EntryRefusal` or `Unconfirmed`.

    `device.order` is 0: the table gives it. `most`: how many devices the user may have.
    """

    kind: ClassVar[str] = "enter"
    token: int
    user_id: str
    device: RemoteDevice
    privacy: Privacy
    most: int


class Entered(NamedTuple):
    """A device is entered: its order, and the user as it is now, with this device. `came`: it was offline before."""

    order: int
    state: UserState
    came: bool = False


class EntryRefusal(NamedTuple):
    """A device is not entered. `why`: "full" (too many devices) or "taken" (by another key, or without a proof)."""

    why: str


class Unconfirmed(NamedTuple):
    """The table does not answer. The device is entered with this order when it does; until then it is known here alone.

    `order`: by the clock of the table, as well as it is known.
    """

    order: int


FULL: Final = EntryRefusal("full")
TAKEN: Final = EntryRefusal("taken")

ClusterQuestion: TypeAlias = FindUsers | EnterDevice
ClusterAnswer: TypeAlias = "list[UserState] | Entered | EntryRefusal | Unconfirmed"


class Forward(NamedTuple):
    """A message to a user of another node. `frame`: the message in JSON, with the address that it comes from.

    `number`: the sending node's own, for the `Forwarded` that answers it.
    """

    number: int
    sender: str  # its user id
    proves: bool  # whether a key has proven that name
    frame: bytes
    network: bytes = b""  # of the sender (`networks.customer_of`); empty: not known


class Forwarded(NamedTuple):
    """What has become of a `Forward`; never PENDING."""

    number: int
    result: RelayResult


class ClusterLink(Protocol):
    """How a hub reaches the other nodes. No call waits, and none raises.

    What comes from other nodes are calls of `hub.cluster_router`.
    """

    @property
    def node(self) -> str:
        """The id of this node; it changes when the node was believed to be lost."""

    @property
    def nodes(self) -> int:
        """How many nodes there are, with this one, as far as it knows."""

    def ask(self, question: ClusterQuestion) -> None:
        """Ask a question. `Hub.answered` or `Hub.failed` is called with it, exactly once, later."""

    def forget(self, user_ids: Sequence[str]) -> None:
        """The hub need not hear of changes of these users any more."""

    def leave(self, user_id: str, device: str, entry: str) -> None:
        """A device of this node is gone."""

    def change(self, user_id: str, device: RemoteDevice) -> None:
        """The session, key or sealing key of a device has changed; found by its `entry`."""

    def change_privacy(self, user_id: str, privacy: Privacy, known: int) -> None:
        """The directory has kept another privacy of a user. `known`: the version of the user's state that is known."""

    def rebound(self, user_id: str) -> None:
        """The name may be bound to another key, or to none: every node has to look."""

    def tell_used(self, uses: Sequence[Use]) -> None:
        """Tell all other nodes what was used here. It may be lost."""

    def tell_counts(self, counts: OpenCounts) -> None:
        """Tell all other nodes of the connections here. It may be lost."""

    def forward(self, node: str, message: Forward) -> bool:
        """Send a message to a node; False when it cannot be sent now. Messages to one node arrive in order."""

    def answer(self, node: str, answer: Forwarded) -> None:
        """Answer a message of a node."""
