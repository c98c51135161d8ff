"""One login: the signaling client, and what the server brings, led to the peers.

Rules: one client, one life. An address is taken apart here, and nowhere behind it. Nobody is called, and no offer is
answered, before it is known through which ICE servers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from aldis.client.address import ServerAddress
from aldis.client.client import SignalingClient
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Closed,
    Disconnected,
    OfferReceived,
    PresenceChanged,
    PrivacyChanged,
    Registered,
    RelayReceived,
    RequestsDelayed,
    SignalingEvent,
    SignalingState,
    WatchEnded,
)
from aldis.errors import AldisError, ConnectionLost, OverLimits, StateError, TooManyPeers
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerConnection, PeerListener, PeerTiming, limited_calls
from aldis.peer.engine import Engine, EngineConfig, PreparingEngine
from aldis.peer.trust import Trust
from aldis.protocol.addresses import DEFAULT_DEVICE, split
from aldis.protocol.channel import Hello
from aldis.protocol.codes import CloseCode, RefusalCode
from aldis.protocol.hosts import is_this_machine
from aldis.protocol.messages import IceServer
from aldis.protocol.privacy import Privacy
from aldis.store.peers.admission import Accept, Admission
from aldis.store.peers.ice import IceServerCache, PeerEvent
from aldis.store.peers.paths import PathMode
from aldis.store.peers.peer import Peer
from aldis.store.peers.pinning import DirectoryPins
from aldis.store.peers.recovery import Recovery
from aldis.store.peers.relay import RelayPath
from aldis.store.peers.relay_login import Call, RelayLogin
from aldis.store.tasks import Tasks

_log = logging.getLogger(__name__)

_START_PAUSE: Final = 2.0  # until those call again for whose offers there was no room at the start


class LoginSetup(Protocol):
    """What the application has chosen; see `NetworkStore`."""

    @property
    def identity(self) -> Identity: ...
    @property
    def pins(self) -> DirectoryPins: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def ice_servers(self) -> tuple[IceServer, ...] | None: ...
    @property
    def allow_loopback(self) -> bool | None: ...
    @property
    def accept(self) -> Accept | None: ...
    @property
    def timing(self) -> PeerTiming | None: ...


class SignalingContext(Protocol):
    """The peers that are told."""

    recovery: Recovery

    @property
    def peers(self) -> Iterable[Peer]:
        """All peers; a copy."""

    def find(self, user_id: str) -> Peer | None:
        """A peer or a watched user, if there is one."""

    def peer(self, user_id: str, *, stranger: bool = False) -> Peer:
        """A peer, made if need be. Raises `UsageError`, `TooManyPeers`."""

    def watch_ended(self, user_ids: Iterable[str]) -> None:
        """The server does not tell of these users any more."""

    def blocks(self, user_id: str) -> bool:
        """Whether our user has blocked another one."""

    def path_mode(self, user_id: str) -> PathMode:
        """The paths that may be used with a user."""

    def privacy_changed(self, privacy: Privacy) -> None:
        """The server has said who may see and call our user, and who is blocked."""

    def registered_again(self) -> None:
        """We have registered with the server once more."""

    def named(self, user_id: str) -> None:
        """We have registered, under this name."""

    def publish(self) -> None:
        """How things stand with the server has changed."""


class PeerSignaling:
    """The login of a store."""

    def __init__(self, setup: LoginSetup, client: SignalingClient, context: SignalingContext) -> None:
        self.client = client
        self.error: AldisError | None = None  # what is wrong with the server
        self.ended: AldisError | None = None  # why the server will never be there again
        self._setup = setup
        self._context = context
        loopback = setup.allow_loopback
        if loopback is None:
            loopback = is_this_machine(ServerAddress.parse(client.url).host)
        self._trust = Trust(setup.identity, client.user_id, client.server, setup.pins)
        self._ice = IceServerCache(client, setup.ice_servers, loopback=loopback)
        self._tasks = Tasks()
        self._refusals = Tasks()
        self._admission = Admission(
            client, setup.accept, lambda user_id: context.peer(user_id, stranger=True), self._refusals.spawn
        )
        self._relay = RelayLogin(client, setup.identity, self._trust, self, self._refusals.spawn)
        self._unsubscribe = client.subscribe(self._received)
        self._keeping: asyncio.Task[None] | None = None  # of the ICE servers
        self._started = False
        self._closed = False

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""
        return self._started and not self._closed and self.client.state is SignalingState.CONNECTED

    @property
    def usable_relay(self) -> RelayLogin | None:
        """The sealed relay, while the server can be asked and relays messages."""
        return self._relay if self.registered and self._relay.available else None

    async def start(self) -> None:
        """Connect and register. Raises what the client raises, and `StateError` when it was closed meanwhile."""
        self._context.publish()
        await self.client.connect()
        await self.client.register(self._setup.identity)
        self._check_open()
        self._context.named(self.client.user_id)
        self._keep_ice_servers()
        held_back = await self._ice.known()
        self._check_open()
        self._started = True
        for event in held_back:
            self._peer_event(event)
        self._relay.started()
        self._returned(resumed=False)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the store was closed meanwhile")

    def stop(self) -> None:
        """Call nobody and take in nothing any more."""
        self._closed = True
        self._ice.close()

    async def close(self, seconds: float) -> None:
        """Leave the server; refusals have `seconds` to get out."""
        self.stop()
        await self._tasks.cancel()
        await self._refusals.finish(seconds)
        await self.client.close()
        self._unsubscribe()

    def connection(
        self, user_id: str, device: str | None, listener: PeerListener, hello: Callable[[], Hello]
    ) -> PeerConnection:
        """Make a connection with a device, or whichever one registered last."""
        return PeerConnection(
            local=self.client.user_id,
            remote=user_id,
            device=device,
            engine=self._setup.engine,
            config=lambda: self._config(user_id),
            trust=self._trust,
            signaling=self.client,
            listener=listener,
            hello=hello,
            timing=self._setup.timing,
        )

    def prepare(self, user_id: str) -> None:
        """A connection with a user will be made soon."""
        engine = self._setup.engine
        if self.registered and isinstance(engine, PreparingEngine):
            engine.prepare(self._config(user_id))

    def _config(self, user_id: str) -> EngineConfig:
        only_turn = self._context.path_mode(user_id) is PathMode.TURN
        return replace(self._ice.config, relay_only=only_turn)

    def _keep_ice_servers(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        self._keeping = self._tasks.spawn(self._ice.keep(), "keep the ICE servers")

    def _received(self, event: SignalingEvent) -> None:
        match event:
            case PresenceChanged():
                peer = self._context.find(event.user_id)
                if peer is not None:
                    peer.presence_changed(event)
                return
            case OfferReceived() | AnswerReceived() | CandidateReceived() | ByeReceived():
                # Not before it is known through which servers to answer.
                if not self._ice.hold_back(event, self._too_early):
                    self._peer_event(event)
                return
            case RelayReceived():
                if not (self._closed or self._context.blocks(split(event.sender)[0])):
                    self._relay.received(event)
                return
            case WatchEnded():
                _log.warning("the server does not tell of %d users any more: %s", len(event.user_ids), event.error)
                self._context.watch_ended(event.user_ids)
            case RequestsDelayed():
                self._delayed(event)
            case PrivacyChanged():
                self._context.privacy_changed(event.privacy)
            case Registered():
                self.error = None
                self._relay.registered(event.limits)
                if self._started and not self._closed:
                    # A machine that has slept has expired credentials and a timer that slept as well; and the server
                    # may name others now. Asked before anything else, it answers before a call can need them.
                    self._keep_ice_servers()
                    self._returned(resumed=event.resumed)
                    self._context.registered_again()
            case Disconnected():
                self.error = _why_lost(event)
                if self._started and event.retry_in is not None:
                    self._context.recovery.signaling_lost()
            case Closed():
                self.error = event.error
                # A program that was never registered may try again, with what is queued.
                if event.error is not None and self._started:
                    self.ended = event.error
                    for peer in self._context.peers:
                        peer.signaling_ended(event.error)
            case _:
                pass
        self._context.publish()

    def _delayed(self, event: RequestsDelayed) -> None:
        if event.request == "relay":  # how a sender learns the pace of the server; calls go on
            _log.debug("the server limits sealed messages to %s for %.1f s", event.to, event.retry_in)
            return
        _log.warning(
            "the server limits %s%s: %s. It is sent again in %.1f s",
            event.request, f" to {event.to}" if event.to else "", event.error.message, event.retry_in,
        )  # fmt: skip
        if event.to is not None:
            user_id, device = split(event.to)
            peer = self._context.find(user_id)
            if peer is not None:
                peer.delayed(device, limited_calls(user_id, event.error, event.retry_in))

    def _returned(self, *, resumed: bool) -> None:
        for peer in self._context.peers:
            peer.signaling_returned(resumed=resumed)

    def _too_early(self, offer: OfferReceived) -> None:
        self._admission.refuse(offer, "still starting", RefusalCode.RATE_LIMITED, _START_PAUSE)

    def _peer_event(self, event: PeerEvent) -> None:
        if self._closed:
            return
        # A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
        user_id, device = split(event.sender)
        if self._context.blocks(user_id):
            # A server that keeps who is blocked lets nothing through. No answer, as if we were offline.
            _log.debug("%s is blocked: what it sends is dropped", user_id)
            return
        device = device or DEFAULT_DEVICE
        peer = self._known(user_id)
        if isinstance(event, OfferReceived):
            if self._context.path_mode(user_id) is PathMode.RELAY:
                self._admission.refuse(event, "only the relay is used here", RefusalCode.NOT_ACCEPTED)
                return
            peer = self._admission.admit(event, user_id, peer)
        try:
            taken = peer is not None and peer.receive(replace(event, sender=f"{user_id}/{device}"), device)
        except TooManyPeers as error:
            _log.warning("an offer from %s/%s is refused: %s", user_id, device, error)
            if isinstance(event, OfferReceived):
                self._admission.refuse_for_room(event)
            return
        if isinstance(event, AnswerReceived) and not taken:
            # To an offer of before our program was started, perhaps: whoever has answered it waits in vain.
            self._admission.refuse(event, "this connection is over")

    def _known(self, user_id: str) -> Peer | None:
        peer = self._context.find(user_id)
        # A user whom the application watches, and nothing else, is no peer.
        return peer if peer is not None and peer.known else None

    # --- for the relay (`relay_login.RelayOwner`) -------------------------------------------------------------------

    def relays(self, user_id: str) -> bool:
        return self._context.path_mode(user_id) is not PathMode.DIRECT

    def relayed_device(self, user_id: str, device: str) -> RelayPath | None:
        peer = self._known(user_id)
        found = None if peer is None else peer.find_device(device)
        return None if found is None else found.paths.relay

    def admit_call(self, call: Call, user_id: str, device: str, public_key: bytes) -> RelayPath | None:
        peer = self._admission.admit_key(call, public_key, user_id, self._known(user_id))
        if peer is None:
            return None
        try:
            return peer.relayed(device).paths.relay
        except TooManyPeers as error:
            _log.warning("a handshake from %s/%s is refused: %s", user_id, device, error)
            self._admission.refuse_for_room(call)
            return None

    def refuse(self, call: Call, reason: str, code: str | None = None, retry_after: float | None = None) -> None:
        self._admission.refuse(call, reason, code, retry_after)


def _why_lost(event: Disconnected) -> ConnectionLost:
    if event.code == CloseCode.OVER_LIMITS and event.retry_in is not None:
        _log.warning("the server has ended the connection for %.0f s: %s", event.retry_in, event.reason)
        return OverLimits(event.reason, event.retry_in)
    return ConnectionLost(event.reason)
