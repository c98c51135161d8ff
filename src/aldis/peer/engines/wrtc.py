"""The engine on `wrtc`: libwebrtc, the WebRTC code of Chromium, with the W3C interface in Python (`import webrtc`).

Properties of version 0.1.0:

* Handlers run on the loop on which they were registered, each as a separate call, and never after `close()`.
* Its coroutines raise `CancelledError` when the connection is closed under them, although the task was not cancelled.
* When the other side closes properly, its channel closes, but the connection stays `connected` until ICE notices.
  After `failed`, channels get no `close` event. The owner has to handle both (`peer.connection`).
* Loopback addresses are a setting of the whole process, to be set before its first connection.
* It keeps objects with handlers alive in one table for each loop, and reads the whole table when a handler is added,
  and at each operation and each event. 60 stores that connected to each other spent three quarters of their time there.
  So here the owner holds the objects, and they stay out of the table (`_Unlisted`).
* Of `turns:` servers it trusts the certificates of the authorities that libwebrtc has built in. It has no setting for
  others, and reports the failure like that of a server that does not answer.
* A candidate with an empty text ends those of one media section (W3C section 4.8.1.3); `None` ends them all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Final, TypeVar

import webrtc
from webrtc.utils.operations import Operation

from aldis.errors import ConfigError, StateError
from aldis.peer.engine import (
    ChannelListener,
    EngineConfig,
    EngineConnection,
    EngineListener,
    EngineRefused,
    EngineState,
    EngineStats,
    PathEnd,
    RelayWatch,
    TurnReport,
    check_candidate,
    check_sdp,
    check_servers,
)
from aldis.protocol.messages import Candidate, Capabilities, IceServer

_T = TypeVar("_T")

# Seconds that a connection made ahead is kept: until a server that is slow has said where the peer is.
_SPARE_SECONDS: Final = 2.0
_MEDIA: Final = re.compile(r"^m=(audio|video)\b", re.MULTILINE)
_ADDRESS_FIELD: Final = 4  # of a candidate's fields (RFC 8839 section 5.1)
_IPV4: Final = 4
_TLS_HINT: Final = (
    "; or its certificate is of an authority of your own: wrtc trusts those alone that libwebrtc has built in. Use "
    "turn: with ?transport=tcp, or the engine aiortc, which trusts those of this machine"
)
# A TCP candidate that only dials (RFC 6544 section 4.5). Nobody can connect to it, and a side that is dialled sees
# where that comes from. These are half of what libwebrtc gathers, and each is a message that three programs handle.
_ACTIVE: Final = " tcptype active"
_NOT_BEGUN: Final = webrtc.RTCIceConnectionState.new
_PATH_FOUND: Final = (webrtc.RTCIceConnectionState.connected, webrtc.RTCIceConnectionState.completed)


class WrtcEngine:
    """libwebrtc: trickles both ways, restarts ICE."""

    name: Final = "wrtc"
    capabilities: Final = Capabilities(trickle=True, restart=True)

    def __init__(self) -> None:
        self._spare: _Spare | None = None

    def prepare(self, config: EngineConfig) -> None:
        if self._spare is None:
            with suppress(ConfigError):  # `create` raises it
                self._spare = _Spare(_native(config), config, self._drop_spare)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.native.close()

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        spare = self._spare
        if spare is not None and spare.fits(config):
            self._spare = None
            native = spare.native
        else:
            native = _native(config)
        return _Connection(native, config, listener)


class _Spare:
    """A connection that nobody has asked for yet: it has no sockets, and gathers nothing."""

    def __init__(self, native: _PeerConnection, config: EngineConfig, expired: Callable[[], None]) -> None:
        self.native = native
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._expiry = self._loop.call_later(_SPARE_SECONDS, expired)

    def fits(self, config: EngineConfig) -> bool:
        """Whether it may be used here, and then it is."""
        if config != self._config or self._loop is not asyncio.get_running_loop():
            return False
        self._expiry.cancel()
        return True


def _native(config: EngineConfig) -> _PeerConnection:
    servers = check_servers(config)
    if config.allow_loopback:
        _allow_loopback()
    try:
        return _PeerConnection(_configuration(servers, relay_only=config.relay_only))
    except (webrtc.RTCException, ValueError, TypeError) as error:
        raise ConfigError("ice_servers", str(error)) from error


def _configuration(given: tuple[IceServer, ...], *, relay_only: bool) -> webrtc.RTCConfiguration:
    servers = [webrtc.RTCIceServer(server.urls, server.username, server.credential) for server in given]
    policy = webrtc.RTCIceTransportPolicy.relay if relay_only else webrtc.RTCIceTransportPolicy.all
    return webrtc.RTCConfiguration(ice_servers=servers, ice_transport_policy=policy)


@cache  # once allowed, it stays allowed; asking again after the first connection is an error
def _allow_loopback() -> None:
    try:
        webrtc.allow_loopback()
    except webrtc.InvalidStateError:
        # The environment variable has the same effect earlier than any connection.
        if os.environ.get("WRTC_ALLOW_LOOPBACK") != "1":
            raise ConfigError(
                "allow_loopback",
                "the first wrtc connection of this process was made without it; set WRTC_ALLOW_LOOPBACK=1",
            ) from None


class _Alone(Operation):
    """An operation of wrtc that does not wait in a line for others."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


class _Unlisted:
    """For objects of wrtc that stay out of its table.

    After each send and each event, wrtc checks whether the object still belongs in the table. That is a quarter of the
    cost of a small message in Python, and these objects never belong there.
    """

    __slots__ = ()

    @staticmethod
    def _activity() -> str | None:
        return None

    @staticmethod
    def _changes_activity(name: str) -> bool:
        del name
        return False

    @staticmethod
    @contextmanager
    def _changing() -> Generator[None, None, None]:
        yield

    @staticmethod
    def _update(loop: asyncio.AbstractEventLoop | None = None) -> None:
        del loop


class _PeerConnection(_Unlisted, webrtc.RTCPeerConnection):
    """wrtc's own class, but only `_Connection` keeps it alive, and its operations stand in no line.

    The line takes several turns of the loop for each, and wrtc holds its events back while the loop has other work. Our
    caller has one operation at a time.
    """

    __slots__ = ()

    @staticmethod
    def _operation() -> Operation:
        return _Alone()


class _DataChannel(_Unlisted, webrtc.RTCDataChannel):
    """wrtc's own class, but only `_Connection` keeps it alive."""

    __slots__ = ()


class _Connection:
    def __init__(self, native: webrtc.RTCPeerConnection, config: EngineConfig, listener: EngineListener) -> None:
        self._native = native
        self._listener = listener
        self._allow_loopback = config.allow_loopback
        self._relay_watch = RelayWatch(config, hint=_TLS_HINT)
        self._has_loopback = False  # a candidate on 127.0.0.1 was reported
        # Candidates on ::1 lead to the same programs, and make an idle connection cost half as much again. So they are
        # reported only at the end of gathering, and only if there was none on 127.0.0.1.
        self._second_loopback: list[Candidate] = []
        self._closed = False
        self._channels: set[_Channel] = set()  # until they are closed, because the caller need not hold them
        native.on("icecandidate", self._on_candidate)
        native.on("icecandidateerror", self._on_candidate_error)
        native.on("connectionstatechange", self._on_state)
        native.on("datachannel", self._on_channel)

    # --- calls ------------------------------------------------------------------------------------------------------

    def open_channel(self, label: str) -> None:
        try:
            native = self._native.create_data_channel(label)
        except webrtc.RTCException as error:
            raise StateError(f"cannot make a channel: {error}") from error
        self._add_channel(native)

    def _add_channel(self, native: webrtc.RTCDataChannel) -> None:
        # wrtc makes channels itself, and has no other way to set their class.
        native.__class__ = _DataChannel
        self._channels.add(_Channel(native, self._listener, self._channels.discard))

    def renew(self, config: EngineConfig) -> None:
        servers = check_servers(config)
        try:
            self._native.set_configuration(_configuration(servers, relay_only=config.relay_only))
        except webrtc.InvalidStateError:
            return  # the connection is closed: the next call on it will raise
        except (webrtc.RTCException, ValueError, TypeError) as error:
            raise ConfigError("ice_servers", str(error)) from error
        self._relay_watch = RelayWatch(config, hint=_TLS_HINT)

    async def offer(self, *, restart_ice: bool = False) -> str:
        return await self._run(self._offer(restart_ice))

    async def _offer(self, restart_ice: bool) -> str:
        if not restart_ice:
            return await self._describe()
        offer = await self._native.create_offer(webrtc.RTCOfferOptions(ice_restart=True))
        await self._native.set_local_description(offer)
        return offer.sdp

    async def answer(self, offer_sdp: str) -> str:
        check_sdp(offer_sdp)
        return await self._run(self._answer(offer_sdp))

    async def _answer(self, offer_sdp: str) -> str:
        await self._native.set_remote_description(webrtc.RTCSessionDescriptionInit("offer", offer_sdp))
        # Most offers have no media, and this call waits for a thread of libwebrtc, which is busy when many peers
        # connect.
        if _MEDIA.search(offer_sdp):
            for transceiver in self._native.get_transceivers():
                # Nothing here plays audio or video, so the other side should send none.
                transceiver.direction = webrtc.RTCRtpTransceiverDirection.inactive
        return await self._describe()

    async def _describe(self) -> str:
        """Make the description that is due, and set it: one wait for the threads of libwebrtc in place of two."""
        await self._native.set_local_description()
        made = self._native.local_description
        if made is None:  # the connection was closed meanwhile
            raise EngineRefused("there is no description")
        return made.sdp

    async def accept(self, answer_sdp: str) -> None:
        check_sdp(answer_sdp)
        await self._run(self._native.set_remote_description(webrtc.RTCSessionDescriptionInit("answer", answer_sdp)))

    async def add_candidate(self, candidate: Candidate | None) -> None:
        if candidate is None:
            return  # libwebrtc has no use for it: it never gives up a path because no more candidates will come
        check_candidate(candidate)
        fragment = candidate.username_fragment
        init = webrtc.RTCIceCandidateInit(
            candidate=candidate.candidate,
            sdp_mid=candidate.sdp_mid,
            sdp_m_line_index=candidate.sdp_m_line_index,
            username_fragment=fragment if isinstance(fragment, str) else None,
        )
        await self._run(self._native.add_ice_candidate(init))

    async def stats(self) -> EngineStats:
        report = await self._run(self._native.get_stats())
        pair_id = local_id = remote_id = None
        sent = received = quiet = None
        for entry in report.values():
            if isinstance(entry, webrtc.RTCTransportStats):
                pair_id = entry.selected_candidate_pair_id
                # Not the numbers of the pair, which restart whenever ICE finds a better one.
                sent, received = entry.bytes_sent, entry.bytes_received
            elif isinstance(entry, webrtc.RTCIceCandidatePairStats) and entry.last_packet_received_timestamp:
                seconds = (entry.timestamp - entry.last_packet_received_timestamp) / 1000
                quiet = seconds if quiet is None else min(quiet, seconds)
        pair = report.get(pair_id) if pair_id else None
        if isinstance(pair, webrtc.RTCIceCandidatePairStats):
            local_id, remote_id = pair.local_candidate_id, pair.remote_candidate_id
        return EngineStats(
            local=_path_end(report.get(local_id) if local_id else None),
            remote=_path_end(report.get(remote_id) if remote_id else None),
            bytes_sent=sent,
            bytes_received=received,
            quiet=quiet,
        )

    @property
    def turn(self) -> TurnReport:
        found = self._native.ice_connection_state in _PATH_FOUND
        return TurnReport() if found else self._relay_watch.report

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._native.close()
        self._native.off()  # the handlers hold the owner
        self._channels.clear()

    async def _run(self, operation: Awaitable[_T]) -> _T:
        try:
            result = await operation
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise EngineRefused("the connection was closed") from None
            raise
        except Exception as error:  # libwebrtc's own, and those of its wrapper after hostile input
            raise EngineRefused(f"wrtc: {str(error) or type(error).__name__}") from error
        if self._closed:
            raise EngineRefused("the connection was closed")
        return result

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_candidate(self, event: webrtc.RTCPeerConnectionIceEvent) -> None:
        candidate = event.candidate
        if candidate is None:
            # libwebrtc stops gathering when it has found a path; the state may say so a little later.
            self._relay_watch.gathered(cut_short=self._native.ice_connection_state is not _NOT_BEGUN)
            second, self._second_loopback = self._second_loopback, []
            if not self._has_loopback:
                for each in second:
                    self._listener.candidate_gathered(each)
            self._listener.candidate_gathered(None)
            return
        if not candidate.candidate:
            return  # the end of one section; the end of all sections follows
        self._relay_watch.saw(candidate.candidate)
        if _ACTIVE in candidate.candidate:
            return
        found = Candidate(
            candidate.candidate,
            candidate.sdp_mid,
            candidate.sdp_m_line_index,
            candidate.username_fragment,
        )
        loopback = _loopback_version(candidate.candidate)
        if loopback is None or (self._allow_loopback and loopback == _IPV4):
            self._has_loopback |= loopback is not None
            self._listener.candidate_gathered(found)
        elif self._allow_loopback:
            self._second_loopback.append(found)
        # Otherwise another part of this process has enabled loopback.

    def _on_candidate_error(self, event: webrtc.RTCPeerConnectionIceErrorEvent) -> None:
        self._relay_watch.refused(event.url, event.error_code, event.error_text)

    def _on_state(self, event: webrtc.Event) -> None:
        del event
        state = EngineState(self._native.connection_state.value)
        if state is EngineState.FAILED:
            self._relay_watch.gathered()  # a TURN server that does not answer would take much longer
        self._listener.state_changed(state)

    def _on_channel(self, event: webrtc.RTCDataChannelEvent) -> None:
        self._add_channel(event.channel)


class _Channel:
    """One data channel, from its creation."""

    def __init__(
        self, native: webrtc.RTCDataChannel, owner: EngineListener, closed: Callable[[_Channel], None]
    ) -> None:
        self._closed = closed
        self._native = native
        self._owner = owner
        self._listener: ChannelListener | None = None
        self.label: Final = native.label
        native.on("open", self._on_open)
        native.on("message", self._on_message)
        native.on("bufferedamountlow", self._on_drained)
        native.on("close", self._on_closed)

    @property
    def buffered_amount(self) -> int:
        return self._native.buffered_amount

    def listen(self, listener: ChannelListener, low_threshold: int) -> None:
        self._listener = listener
        self._native.buffered_amount_low_threshold = low_threshold

    def send(self, data: bytes) -> None:
        try:
            self._native.send(data)
        except (webrtc.RTCException, TypeError) as error:
            raise StateError(f"the channel takes no message: {error}") from error

    def close(self) -> None:
        self._native.close()

    def _on_open(self, event: webrtc.Event) -> None:
        del event
        self._owner.channel_opened(self)

    def _on_message(self, event: webrtc.MessageEvent) -> None:
        if self._listener is not None and isinstance(event.data, bytes | str):
            self._listener.message_received(event.data)

    def _on_drained(self, event: webrtc.Event) -> None:
        del event
        if self._listener is not None:
            self._listener.buffer_drained()

    def _on_closed(self, event: webrtc.Event) -> None:
        del event
        listener, self._listener = self._listener, None
        self._native.off()
        self._closed(self)
        if listener is not None:
            listener.channel_closed()


def _loopback_version(candidate: str) -> int | None:
    """The IP version of a candidate on a loopback address; None for other candidates."""
    fields = candidate.split()
    try:
        address = ipaddress.ip_address(fields[_ADDRESS_FIELD])
    except (IndexError, ValueError):  # a `.local` name
        return None
    return address.version if address.is_loopback else None


def _path_end(entry: object) -> PathEnd | None:
    if not isinstance(entry, webrtc.RTCIceCandidateStats):
        return None
    kind = entry.candidate_type
    return PathEnd(
        kind=kind.value if isinstance(kind, webrtc.RTCIceCandidateType) else kind,
        protocol=entry.protocol or "",
        address=entry.address or "",
        port=entry.port or 0,
        relay_protocol=_relay_protocol(entry),
    )


def _relay_protocol(entry: webrtc.RTCIceCandidateStats) -> str:
    """Our way to the TURN server. By the URL where libwebrtc does not say it (W3C WebRTC Statistics section 8.14)."""
    if entry.relay_protocol:
        return str(entry.relay_protocol).lower()
    if not entry.url or not entry.url.startswith("turn"):
        return ""
    return "tls" if entry.url.startswith("turns:") else "tcp" if "transport=tcp" in entry.url else "udp"
