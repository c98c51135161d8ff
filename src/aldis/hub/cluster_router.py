"""The router of a node in a cluster: most of what it is asked is about users of other nodes.

A message goes to the newest device of its address, wherever that is. For one that is elsewhere it is forwarded, and
PENDING until the other node has answered. For a user that is not known it waits until the table has been asked. So a
message to a known user costs one message to one node, and no look-up.

Rules:

* Messages from one sender to one address keep their order: what comes behind one that waits for a look-up waits, too.
* What waits for look-ups and answers is bounded (`hub.awaited`, `hub.unanswered`); what is beyond the bounds is
  UNREACHABLE, as is what goes to a node that is lost or does not answer, or where either side did not listen for a
  moment (`missed`, `unheard`). Then nobody knows whether it has arrived.
* A forwarded message is delivered here or nowhere: two nodes with other views of a user cannot send it round.
* One that comes behind a later one of its node, or when that is lost, is too late: a server of Redis that hung had kept
  it. It is not delivered. Its sender was told that it is UNREACHABLE, and may have sent it again.
* What another node says is heard as of `learn`, `lost_node`, `missed`, `unheard`, `forwarded` and
  `answered`.

`hub.cluster` says what the node asks and tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Final

from aldis.hub.awaited import Awaited, Waiting
from aldis.hub.cluster import ClusterLink, FindUsers, Forward, Forwarded, RemoteDevice, UserState
from aldis.hub.dialects import CLASSIC, V1
from aldis.hub.lookups import Answer, PendingLookups
from aldis.hub.networks import customer_of, group_of
from aldis.hub.presence import Presence
from aldis.hub.privacy import UserPrivacy, settings_of
from aldis.hub.privacy_policies import PrivacyPolicies
from aldis.hub.remote_users import RemoteUsers
from aldis.hub.router import LocalRouter
from aldis.hub.sessions import Delivered, Receipt, RelayResult, Session
from aldis.hub.unanswered import Sent, Unanswered
from aldis.hub.usage import OpenCounts, SharedUsage, Use
from aldis.hub.verified_names import VerifiedNames
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.addresses import split
from aldis.protocol.codec import UNREADABLE
from aldis.protocol.privacy import Privacy

# Seconds beyond the resume window, in which a message may wait for a recipient that has lost its connection.
ANSWER_SECONDS: Final = 10.0
# Nodes of which is kept which message has come last; those that are lost among them, for as long as there is room.
_MAX_NODES: Final = 1_000
# Users that are looked at when too many are known: in a turn of the transport's loop 0.2 ms, which delays a message no
# more than a turn of a connection does; and from one tick to the next.
_LOOK_AT_ONCE: Final = 64
# Users of a lost node that go offline in one go.
_LOST_AT_ONCE: Final = 32
_LOOK_AT_IN_A_TICK: Final = 5_000


class ClusterRouter:
    """See the module, and `Router` for what the hub calls. `replaced` ends a session whose address another node has."""

    def __init__(
        self,
        local: LocalRouter,
        link: ClusterLink,
        remote: RemoteUsers,
        *,
        presence: Presence,
        watchers: Watchers,
        policies: PrivacyPolicies,
        lookups: PendingLookups,
        resume_window: float,
        wake: Callable[[float], None],
        replaced: Callable[[Session], None],
        hurry: Callable[[Session | None], None],
        rebound: Callable[[str, bool], None],
        moved: Callable[[str], None],
    ) -> None:
        self.link = link
        self.verified = VerifiedNames()
        """The names that may register while the directory is away."""
        self.usage = SharedUsage(lambda use: self.link.tell_used([use]))
        """What the limits that count in the whole cluster have been used."""
        self._local = local
        self._remote = remote
        self._presence = presence
        self._watchers = watchers
        self._policies = policies
        self._lookups = lookups
        self._patience = resume_window + ANSWER_SECONDS
        self._wake = wake
        self._replaced = replaced
        self._hurry = hurry
        self._rebound = rebound
        self._moved = moved
        self.awaited = Awaited()
        """The messages that wait for look-ups."""
        self._awaited_users = self.awaited.of_user  # each message looks into it
        self.unanswered = Unanswered()
        """The messages that other nodes have."""
        self._number = 0
        # The number of the newest message that has come from each node; infinite for a lost one.
        self._newest: dict[str, float] = {}
        # Users that `work` is to look at until the next tick.
        self._to_look_at = 0
        # The nodes that are lost, each with those of its users that are still taken for online.
        self._lost: deque[tuple[str, list[str]]] = deque()

    @property
    def known(self) -> RemoteUsers:
        """The users of which this node wants to hear."""
        return self._remote

    @property
    def bytes(self) -> int:
        """What this node keeps of users elsewhere, of names, and of messages that wait for look-ups."""
        return self._remote.bytes + self.verified.bytes + self.awaited.bytes

    # --- for the hub --------------------------------------------------------------------------------------------------

    def unknown(self, user_ids: Sequence[str]) -> list[str]:
        """See `Router`."""
        return self._remote.unknown(user_ids)

    def locate(self, user_id: str, viewer: Session) -> m.PresenceMessage:
        """See `Router`."""
        return self._presence.of(user_id, viewer)

    def deliver(self, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        """See `Router`."""
        user_id, device = split(message.to)
        state = self._remote.find(user_id)
        if state is None or user_id in self._awaited_users:
            return self._wait(user_id, message, receipt, done)
        # As `_deliver_known` does it: a call would cost a tenth of this.
        target = self._elsewhere(state, device)
        if target is not None:
            return self._forward(target.node, message, receipt, done)
        if type(message) is m.Relay:
            return self._local.deliver_sealed(message, receipt, done)
        return self._local.deliver(message, receipt, done)

    def _deliver_known(self, state: UserState, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        target = self._elsewhere(state, split(message.to)[1])
        if target is not None:
            return self._forward(target.node, message, receipt, done)
        if type(message) is m.Relay:
            return self._local.deliver_sealed(message, receipt, done)
        return self._local.deliver(message, receipt, done)

    def deliver_sealed(self, message: m.Relay, receipt: Receipt, done: Delivered) -> RelayResult:
        """See `Router`."""
        return self.deliver(message, receipt, done)

    def publish(self, user_id: str) -> None:
        """See `Router`. Other nodes hear of it from the table."""
        self._local.publish(user_id)

    def left(self, session: Session, user_id: str) -> None:
        """See `Router`."""
        self.link.leave(user_id, session.device, session.entry)

    def changed(self, session: Session) -> None:
        """See `Router`."""
        self.link.change(session.user_id, device_of(session, self.link.node))

    def privacy_changed(self, user_id: str, privacy: Privacy) -> None:
        """See `Router`."""
        self.verified.changed(user_id, privacy)
        state = self._remote.find(user_id)
        self.link.change_privacy(user_id, privacy, 0 if state is None else state.version)

    def privacy_read(self, user_id: str, privacy: Privacy) -> bool:
        """See `Router`. A change may have met an outage between the directory and the table."""
        state = self._remote.find(user_id)
        if state is None or self._presence.newest(user_id) is None or state.privacy == privacy:
            return False
        self.privacy_changed(user_id, privacy)
        return True

    def rebound(self, user_id: str) -> None:
        """See `Router`."""
        self.link.rebound(user_id)

    def tick(self, now: float) -> None:
        """Give up what no node has answered, and see whether users have to be forgotten."""
        self.unanswered.give_up_late(now)
        self._give_up_soon()
        self._tell_usage(now)
        if self._remote.too_many:
            self._to_look_at = _LOOK_AT_IN_A_TICK
            self._wake(0.0)

    def work(self) -> bool:
        """Give some messages up, deliver some that have waited for a look-up, go on with the users of a lost node, or
        forget users that nobody needs. Returns whether there were any."""
        if self.unanswered.due:
            for sent in self.unanswered.given_up():
                sent.done(sent.receipt, RelayResult.UNREACHABLE)
            return True
        if self.awaited.due:
            self._deliver_awaited()
            return True
        if self._lost:
            self._lose_some()
            return True
        if self._to_look_at <= 0:
            return False
        self._to_look_at -= _LOOK_AT_ONCE
        forgotten = self._remote.forget_some(_LOOK_AT_ONCE)
        if forgotten:
            self.verified.forget(forgotten)
            self.link.forget(forgotten)
        if not self._remote.too_many:
            self._to_look_at = 0
        return True

    # --- from the other nodes -----------------------------------------------------------------------------------------

    def learn(self, state: UserState) -> None:
        """The table has a new state of a user, or has told it for the first time."""
        if self._remote.is_late(state):
            return
        user_id = state.user_id
        if not state.devices and user_id not in self._remote and self._presence.newest(user_id) is None:
            self._remote.learn(state)  # no news to anybody: a thousand at once, when a client watches so many
            return
        if state.devices:
            self.verified.changed(user_id, state.privacy)
        # A device that comes to another node leaves this one: its watchers hear once of both, and not that it is away.
        with self.news_together():
            self._learn_news(state)

    def news_together(self) -> AbstractContextManager[None]:
        """A block with several news of a user, whose watchers are told at its end what has come of them."""
        return self._watchers.holding_back()

    def _learn_news(self, state: UserState) -> None:
        user_id, elsewhere = state.user_id, state.without(self.link.node)
        for session in self._presence.devices(user_id):
            if any(_replaces(device, session) for device in elsewhere.devices):
                self._replaced(session)
            elif all(device.device != session.device for device in state.devices):
                self._hurry(session)
        before, looked = self._remote.devices(user_id), self._presence.privacy(user_id)
        self._remote.learn(elsewhere)
        changed = _shown(before) != _shown(elsewhere.devices)
        if self._presence.newest(user_id) is not None:
            self._moved(user_id)
            if changed:
                self._watchers.announce(user_id)
            self._policies.load(user_id, state.privacy)
        else:
            self._tell_watchers(user_id, looked, was=bool(before), changed=changed)

    def _tell_watchers(self, user_id: str, looked: UserPrivacy | None, *, was: bool, changed: bool) -> None:
        """Tell those that see a change of a user elsewhere, and nobody else. `looked`: its privacy before. `was`:
        whether it was online; `changed`: whether its devices are others."""
        watchers, shown = self._watchers, self._presence.privacy(user_id)
        if not (was and self._remote.devices(user_id)):
            if changed:
                watchers.announce_to(user_id, looked if was else shown)
        elif (before := settings_of(looked)) != (now := settings_of(shown)):
            # Not asked each time: with a thousand contacts it takes longer than all the rest.
            see = watchers.audience(user_id, now)
            told = watchers.audience(user_id, before) ^ see
            if changed:
                told |= see
            if told:
                watchers.tell_some(user_id, told)
        elif changed:
            watchers.announce_to(user_id, shown)

    def was_lost(self) -> None:
        """The others have counted this node as lost. Clients that it has lost meanwhile may be at other nodes, or have
        been there and left."""
        self._hurry(None)

    def lost_node(self, node: str) -> None:
        """A node has died, or is cut off: its users are offline, as far as they are nowhere else."""
        if self.usage.connections is not None:
            self.usage.connections.lost_node(node)
        self._note_newest(node, inf)
        self._lost.append((node, self._remote.at(node)))
        self._wake(0.0)

    def _lose_some(self) -> None:
        """Some users of a lost node are offline, or only at others."""
        node, users = self._lost[0]
        with self._watchers.holding_back():
            for user_id in users[-_LOST_AT_ONCE:]:
                state = self._remote.find(user_id)
                left = None if state is None else state.without(node)
                if left is not None and left != state:
                    looked = self._presence.privacy(user_id)
                    self._remote.learn(left)
                    self._moved(user_id)
                    self._watchers.announce_to(user_id, looked)
        del users[-_LOST_AT_ONCE:]
        if not users:
            self._lost.popleft()
            self.missed(node)

    def missed(self, node: str) -> None:
        """A node may have missed messages: nobody knows what has become of those that it has not answered."""
        self.unanswered.give_up(node)
        self._give_up_soon()

    def joined_node(self) -> None:
        """There is another node."""
        self.usage.tell_all()

    def used(self, uses: Sequence[Use], now: float) -> None:
        """A node has told what was used there of limits that count in the whole cluster."""
        self.usage.heard(uses, now)

    def counted(self, node: str, counts: OpenCounts) -> None:
        """A node has told how many connections networks have there."""
        if self.usage.connections is not None:
            self.usage.connections.heard_counts(node, counts)

    def unheard(self) -> None:
        """What other nodes say does not come for a moment: nobody knows what becomes of the messages that they have."""
        self.unanswered.give_up()
        self._give_up_soon()

    def own_devices(self) -> list[tuple[str, RemoteDevice, Privacy]]:
        """All devices of this node, with their users and the privacy of those, to announce them."""
        return [
            (session.user_id, device_of(session, self.link.node), self._policies.of(session.user_id))
            for session in self._presence.sessions()
        ]

    def has_entry(self, user_id: str, entry: str) -> bool:
        """Whether a device of this node has been entered by this."""
        return any(session.entry == entry for session in self._presence.devices(user_id))

    def lost_place(self, user_id: str, entry: str) -> None:
        """The table has not taken a device of this node again: a newer one has its place."""
        for session in self._presence.devices(user_id):
            if session.entry == entry:
                self._replaced(session)

    def restored(self, released: Container[str]) -> None:
        """The other nodes are heard again, after an outage: keys may have changed unheard, and the directory may have
        lost its data. `released`: the names that operators have released lately."""
        self.verified.keep(lambda user_id: self._presence.newest(user_id) is not None)
        for user_id in {session.user_id for session in self._presence.sessions()}:
            self._rebound(user_id, user_id in released)

    def forwarded(self, node: str, message: Forward, now: float) -> None:
        """A node has sent a message for a user of this one."""
        if message.number <= self._newest.get(node, -1):
            return
        self._note_newest(node, message.number)

        def done(receipt: Receipt, result: RelayResult) -> None:
            self.link.answer(node, Forwarded(message.number, result))

        relayed = _relayed_in(message.frame)
        if relayed is None:
            self.link.answer(node, Forwarded(message.number, RelayResult.ABSENT))
            return
        sender = Session(None, V1 if message.proves else CLASSIC, "", now)
        sender.user_id, sender.network = message.sender, message.network
        receipt: Receipt = (sender, type(relayed), relayed.to, message.number)
        if isinstance(relayed, m.Relay):
            result = self._local.deliver_sealed(relayed, receipt, done)
        else:
            result = self._local.deliver(relayed, receipt, done)
        if result is not RelayResult.PENDING:
            done(receipt, result)

    def answered(self, answer: Forwarded) -> None:
        """A node has answered a message. What is answered twice, or too late, changes nothing."""
        sent = self.unanswered.pop(answer.number)
        if sent is not None:
            sent.done(sent.receipt, answer.result)

    def doubt(self, user_id: str) -> None:
        """The name may be bound to another key, or be released."""
        self._rebound(user_id, True)

    # --- internal -----------------------------------------------------------------------------------------------------

    def _give_up_soon(self) -> None:
        if self.unanswered.due:
            self._wake(0.0)

    def _note_newest(self, node: str, number: float) -> None:
        if node not in self._newest and len(self._newest) >= _MAX_NODES:
            del self._newest[next(iter(self._newest))]
        self._newest[node] = number

    def _tell_usage(self, now: float) -> None:
        nodes = self.link.nodes
        if not self.usage.is_due(now):
            return
        uses = self.usage.due(nodes, now)
        if uses:
            self.link.tell_used(uses)
        for counts in self.usage.due_counts(nodes, now):
            self.link.tell_counts(counts)

    def _elsewhere(self, state: UserState, device: str | None) -> RemoteDevice | None:
        """The device of another node that has an address; None when it is here, or nowhere."""
        if not state.devices:
            return None
        if device is not None:
            return next((each for each in state.devices if each.device == device), None)
        here, newest = self._presence.newest(state.user_id), state.devices[0]
        return newest if here is None or newest.order > here.order else None

    def _forward(self, node: str, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        sender = receipt[0]
        network = group_of(sender.client_address, sender.user_id)
        if not self.unanswered.has_room(network):
            return RelayResult.UNREACHABLE
        frame = bytearray()
        V1.encode(message, frame, 0)
        self._number += 1
        where = customer_of(sender.client_address) or b""
        forward = Forward(self._number, sender.user_id, sender.dialect.proves, bytes(frame), where)
        if not self.link.forward(node, forward):
            return RelayResult.UNREACHABLE
        self.unanswered.add(self._number, Sent(node, network, receipt, done, sender.heard + self._patience))
        return RelayResult.PENDING

    def _wait(self, user_id: str, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        frame = bytearray()
        V1.encode(message, frame, 0)
        # Not the message itself, which may take twenty times as much: an offer may be all objects and numbers.
        waiting = Waiting(group_of(receipt[0].client_address, receipt[0].user_id), bytes(frame), receipt, done)
        if not self.awaited.has_room(user_id, waiting):
            return RelayResult.UNREACHABLE
        if self.awaited.add(user_id, waiting):
            question = FindUsers(self._lookups.token(), (user_id,))
            self._lookups.ask(question, self._found, lambda: self._not_found(user_id))
        return RelayResult.PENDING

    def _found(self, answer: Answer, now: float) -> None:
        assert isinstance(answer, list)  # noqa: S101 - of a `FindUsers`
        for state in answer:
            self.learn(state)
            self._looked_up(state.user_id, known=True)

    def _not_found(self, user_id: str) -> None:
        self._looked_up(user_id, known=False)

    def _looked_up(self, user_id: str, *, known: bool) -> None:
        idle = not self.awaited.due
        self.awaited.looked_up(user_id, known=known)
        if idle and self.awaited.due:
            self._deliver_awaited()  # mostly all there are
            if self.awaited.due:
                self._wake(0.0)

    def _deliver_awaited(self) -> None:
        """Deliver some messages whose recipient has been looked up, or give them up."""
        known, messages = self.awaited.take()
        for each in messages:
            state = self._remote.find(split(each.receipt[2])[0]) if known else None
            message = None if state is None else _relayed_in(each.frame)
            result = RelayResult.UNREACHABLE
            if state is not None and message is not None:  # else it is unknown, or has been forgotten meanwhile
                result = self._deliver_known(state, message, each.receipt, each.done)
            if result is not RelayResult.PENDING:
                each.done(each.receipt, result)


def _relayed_in(frame: bytes) -> m.Relayed | None:
    try:
        message = V1.decode(frame.decode())
    except (*UNREADABLE, UnicodeDecodeError):
        return None
    return message if isinstance(message, m.Relayed) else None


def device_of(session: Session, node: str) -> RemoteDevice:
    """What the table has of a session."""
    proves = session.dialect.proves
    return RemoteDevice(
        session.device, node, session.entry, session.order, session.id, session.key, session.seal_key, proves
    )


def _shown(devices: tuple[RemoteDevice, ...]) -> list[tuple[object, ...]]:
    """What clients are told of devices, and what tells a restart: a resumed session has another entry, but its id."""
    return [(each.device, each.session or each.entry, each.key, each.seal_key) for each in devices]


def _replaces(device: RemoteDevice, session: Session) -> bool:
    """Whether a device of another node has the address of a session of ours, from a later registration."""
    return device.device == session.device and device.order > session.order
