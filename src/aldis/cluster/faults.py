"""What may go wrong between the nodes of a cluster."""

from __future__ import annotations

from aldis.errors import RemoteError


class ClusterUnavailable(RemoteError):
    """The Redis of the cluster cannot answer now. The text is for the operator only."""

    temporary = True


class ClusterProtocolError(RemoteError):
    """What another node has written cannot be read: it is damaged, or of a release with another format."""


class UnknownMessage(ClusterProtocolError):
    """A newer release has sent something that this one does not know, and need not know."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is of a newer release")


class NodeLost(RemoteError):
    """The other nodes count this one as lost, and have removed its devices. Attribute: `node`, its id.

    It has to go on under a new id (`cluster.lease`), and to announce its devices.
    """

    temporary = True

    def __init__(self, node: str) -> None:
        super().__init__(f"the other nodes count the node {node} as lost")
        self.node = node
