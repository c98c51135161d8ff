"""The two paths to one device of a peer, and which of them carries the messages.

Rules:

* The direct connection carries them while it is open and data arrives; else the relay, where there is one. Each change
  begins with HELLO, so nothing is lost, comes twice, or in another order.
* The messages come to a direct connection when the other side's HELLO has come on it. Until then they go on as before.
  They leave it when it is lost, or when the other side has left it: it begins a session of the relay then.
* A connection that was left is not used again. The dialer makes another one beside it.

It does not know what is sent, nor when there should be a path.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from aldis.errors import PeerConnectionFailed
from aldis.peer.connection import PeerState
from aldis.protocol.channel import BUNDLED, Hello
from aldis.store.messages.stream import MessageStream
from aldis.store.peers.path import DirectPath, PathContext, PathOwner
from aldis.store.peers.relay import RelayPath, RelayPathContext, RelayPathOwner

# Why nothing goes through the server, by `relay` of `PeerConnectionFailed`.
_NO_RELAY: Final = {
    "none": "no relay is used",
    "no-key": "the other program offers no relay",
    "refused": "the other side uses no relay, or not with us",
    "tried": "no answer came through the relay",
}


class PathMode(Enum):
    """The paths that may be used with a peer."""

    AUTO = "auto"  # all: the relay at once, and a direct connection as soon as there is one
    DIRECT = "direct"  # never the relay
    TURN = "turn"  # never an address of ours to the peer: through TURN servers, and the relay
    RELAY = "relay"  # never an address of ours to the peer: the relay only


class Carrier(Enum):
    """What carries the messages."""

    NONE = "none"
    DIRECT = "direct"
    RELAY = "relay"


class PathsContext(PathContext, RelayPathContext, Protocol):
    """What the paths need of the store."""

    def path_mode(self, user_id: str) -> PathMode:
        """The paths that may be used with a user."""


class RelayedOwner(RelayPathOwner, Protocol):
    """Who hears what the relay tells."""

    @property
    def may_be_reached(self) -> bool:
        """Whether something may be sent to the device: it is not blocked, and its key has not changed."""

    def relay_dropped(self) -> None:
        """The session that carried the messages has ended without a word."""


class DevicePaths:
    """See the module."""

    def __init__(self, owner: PathOwner, relayed: RelayedOwner, context: PathsContext) -> None:
        """`relayed` hears what the relay tells."""
        self.carrier = Carrier.NONE
        self.through_turn = False  # whether the direct connection leads through a TURN server, as far as is known
        # The relay has carried messages, and no attempt has failed since. When it is lost, that is under repair.
        self.had_relay = False
        self.relay = RelayPath(relayed, context)
        self.direct = DirectPath(owner, context, self._greeting, self.direct_closed)
        self._owner = owner
        self._relayed = relayed
        self._context = context

    @property
    def _messages(self) -> MessageStream:
        return self._owner.messages

    @property
    def connected(self) -> bool:
        """Whether messages get through now."""
        return self.relay.open or self.direct.state is PeerState.CONNECTED

    @property
    def in_use(self) -> str | None:
        """The name of the path that carries the messages: `direct`, `turn` or `relay`."""
        if self.carrier is Carrier.RELAY:
            return "relay" if self.relay.open else None
        direct = "turn" if self.through_turn else "direct"
        return direct if self.carrier is Carrier.DIRECT and self.direct.told is PeerState.CONNECTED else None

    @property
    def told(self) -> PeerState:
        """How things stand, for the application."""
        told = self.direct.told
        if self.carrier is Carrier.RELAY and told is not PeerState.CONNECTED:
            if self.relay.open:
                return PeerState.CONNECTED
            if told is not PeerState.DISCONNECTED:
                return PeerState.CONNECTING
        return PeerState.DISCONNECTED if told is PeerState.FAILED and self.had_relay else told

    @property
    def mode(self) -> PathMode:
        """The paths that may be used."""
        return self._context.path_mode(self._owner.user_id)

    @property
    def relay_only(self) -> bool:
        """Whether the relay is the only path that may be used."""
        return self.mode is PathMode.RELAY

    @property
    def file_limit(self) -> int | None:
        """The largest file that may be sent now, in bytes; None: of any size."""
        if self.carrier is not Carrier.RELAY:
            return None
        login = self._context.relay
        return 0 if login is None else login.max_file_bytes

    def why_no_relay(self) -> PeerConnectionFailed:
        """Why there is no session of the relay, where it is the only path."""
        if self.relay.refusal is not None:
            return self.relay.refusal
        if self.relay.failure is not None and self._context.relay is not None:
            return self.relay.failure
        what = "the server relays no messages"
        if self._context.relay is not None:
            what = "its program cannot be reached through the relay"
        return PeerConnectionFailed(self._owner.user_id, f"{what}, and no other path may be used", direct=False)

    def explain(self, error: PeerConnectionFailed) -> PeerConnectionFailed:
        """The error of a direct connection that found no path, with why the relay did not help either."""
        if not error.turn or error.relay:
            return error
        if self.mode is PathMode.DIRECT or self._context.relay is None:
            relay = "none"
        elif self.relay.refused:
            relay = "refused"
        else:
            relay = "tried" if self.relay.has_key else "no-key"
        reason = f"{error.reason}; {_NO_RELAY[relay]}"
        return PeerConnectionFailed(error.user_id, reason, turn=error.turn, relay=relay)

    def send_frame(self, frame: bytes) -> bool:
        """Take one frame; False when nothing carries it, or there is no room."""
        match self.carrier:
            case Carrier.DIRECT:
                return self.direct.send_frame(frame)
            case Carrier.RELAY:
                return self.relay.send_frame(frame)
            case _:
                return False

    def combines(self, size: int) -> bool:
        """Whether a frame of so many bytes goes together with small ones before it."""
        return size <= BUNDLED or self.carrier is Carrier.RELAY

    # --- the direct connection --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A direct connection will be made soon, unless the server says that the device is not there."""
        if not (self.relay_only or self.direct.connected):
            self._context.prepare(self._owner.user_id)

    def _greeting(self) -> Hello:
        """Our HELLO on a new direct channel."""
        # What the relay carries goes on there until their HELLO comes.
        return self._messages.greeting() if self.carrier is Carrier.RELAY else self._messages.hello()

    def direct_opened(self) -> None:
        """Their HELLO has come on a direct channel: it carries the messages from now on."""
        if self.carrier is Carrier.RELAY:
            self._messages.closed()
        self.relay.leave()
        self.carrier = Carrier.DIRECT
        self.had_relay = False
        # Where it may lead through nothing else, there is no need to look (`Readings.name_path`).
        self.through_turn = self.mode is PathMode.TURN

    def direct_closed(self) -> None:
        """The direct channel is gone."""
        if self.carrier is not Carrier.RELAY:
            self.carrier = Carrier.NONE
            self._messages.closed()

    # --- the relay --------------------------------------------------------------------------------------------------

    def want_relay(self) -> bool:
        """Begin a session of the relay, unless there is one, or a direct connection. False when none can be begun now:
        not allowed, the server relays nothing, or nobody has told the device's key yet."""
        if self.mode is PathMode.DIRECT or not self._relayed.may_be_reached:
            return False
        if self.direct.state is PeerState.CONNECTED:
            return False
        return self.relay.want()

    def drop_relay(self) -> None:
        """End the session of the relay without a word: the device is gone, or is not to be reached."""
        self.relay.drop()
        self.had_relay = False
        if self.relay_closed():
            self._relayed.relay_dropped()

    def relay_hello(self, *, early: bool) -> Hello:
        """A session of the relay begins, and carries the messages from now on. Returns our HELLO for it."""
        if self.direct.connection is not None:
            self.direct.connection.leave()
        self.carrier = Carrier.RELAY
        return self._messages.hello(early=early)

    def relay_closed(self) -> bool:
        """The session of the relay is gone. Returns whether it carried the messages."""
        if self.carrier is not Carrier.RELAY:
            return False
        self.carrier = Carrier.NONE
        self._messages.closed()
        if self.direct.told is PeerState.NEW:
            self.direct.told = PeerState.FAILED  # there was a path, and it is lost
        return True
