"""The engine on `aiortc`: WebRTC in Python, for machines without a wheel of `wrtc`, and as a second engine in tests.

Properties of aiortc 1.16 and aioice 0.13:

* It does not trickle: `setLocalDescription` gathers first (up to 2 s when no STUN server answers, 5 s for TURN) and
  writes the candidates into the description. It takes the other side's candidates one by one, but only after their
  description. It cannot restart ICE.
* Without a configuration it uses a public STUN server, so it always gets a configuration, perhaps an empty one.
* It emits events from within the calls that cause them, and an exception in a handler breaks the transport. So this
  module passes them on with `call_soon`: each on its own, in order, with errors to the loop's handler.
* It starts tasks and forgets them. In two places that loses exceptions, or the task outlives `close()`.
  `_PeerConnection` overrides these by their mangled names, only on our own objects, so that aiortc and aioice do not
  change for others.
* Closing it while it gathers leaves sockets open, so `close` waits for that first.
* After the loss of a connection, sending raises in such a forgotten task. A datagram that cannot be sent counts as
  lost; SCTP has timers for that.
* aioice gathers all addresses except 127.0.0.1 and ::1, and has no option for it. See `_with_loopback`.
* Its consent checks (RFC 7675) come at random times, and it does not report them. See `aiortc_consent`.
* It asks one STUN and one TURN server only, the first of each kind. See `aiortc_ice`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import aiortc
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.sdp import candidate_from_sdp

from aldis.errors import StateError
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
from aldis.peer.engines.aiortc_consent import Consent
from aldis.peer.engines.aiortc_ice import Servers
from aldis.protocol.messages import Candidate, Capabilities

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 2.0  # closing sends a few datagrams; longer than this nobody answers
_CANDIDATE_PREFIX: Final = "candidate:"
_LOOPBACK: Final = ("127.0.0.1", "::1")  # a missing one is skipped


class AiortcEngine:
    """aiortc: its candidates come in its descriptions; no ICE restart."""

    name: Final = "aiortc"
    capabilities: Final = Capabilities(trickle=False, restart=False)

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        return _Connection(Servers(check_servers(config)), config, listener)


class _PeerConnection(aiortc.RTCPeerConnection):
    """aiortc's own class, but its forgotten tasks have an owner, and loopback is possible."""

    def __init__(
        self,
        servers: Servers,
        config: EngineConfig,
        connect_failed: Callable[[Exception], None],
        alive: Callable[[], None],
    ) -> None:
        policy = aiortc.RTCIceTransportPolicy.RELAY if config.relay_only else aiortc.RTCIceTransportPolicy.ALL
        super().__init__(aiortc.RTCConfiguration(iceServers=[], iceTransportPolicy=policy))  # `Servers` asks ours
        self.aldis_servers = servers
        self.aldis_allow_loopback = config.allow_loopback and not config.relay_only
        self.aldis_connect_failed = connect_failed
        self.aldis_alive = alive
        self.aldis_transports: list[RTCDtlsTransport] = []
        self.aldis_tasks: set[asyncio.Task[Any]] = set()

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802
        task = asyncio.current_task()
        assert task is not None  # aiortc runs this as a task, by ensure_future  # noqa: S101
        self.aldis_tasks.add(task)
        try:
            await getattr(super(), "_RTCPeerConnection__connect")()  # noqa: B009 - a name that mypy does not know
        except Exception as error:  # caused by a hostile description  # noqa: BLE001
            self.aldis_connect_failed(error)
        finally:
            self.aldis_tasks.discard(task)

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802
        create = getattr(super(), "_RTCPeerConnection__createDtlsTransport")  # noqa: B009
        transport: RTCDtlsTransport = create()
        self.aldis_transports.append(transport)
        _set(transport, "_send_data", functools.partial(_send_if_possible, transport._send_data))
        agent = transport.transport._connection
        consent = Consent(agent, self.aldis_alive)
        _set(agent, "query_consent", consent.keep)
        _set(agent, "check_incoming", consent.check_incoming)
        gather = functools.partial(self.aldis_servers.gather, agent, agent.get_component_candidates)
        if self.aldis_allow_loopback:
            gather = functools.partial(_with_loopback, gather)
        _set(agent, "get_component_candidates", gather)
        return transport


async def _send_if_possible(send: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
    try:
        await send(data)
    except ConnectionError:
        _log.debug("a datagram of %d bytes was lost: the connection is gone", len(data))


async def _with_loopback(
    gather: Callable[..., Coroutine[Any, Any, list[Any]]], *, component: int, addresses: list[str], **options: Any
) -> list[Any]:
    """aioice's method of one agent, with the loopback addresses added to those that it has found."""
    return await gather(component=component, addresses=[*addresses, *_LOOPBACK], **options)


def _abandon(agent: Any) -> list[asyncio.Task[Any]]:
    """Close the sockets that an agent still has open, and return the tasks that wait for them.

    A TURN server that is gone does not confirm the release of its allocation. aioice would ask for 39 s with the socket
    open, and would not close the sockets after it.
    """
    waiting = []
    for protocol in agent._protocols:
        relay = getattr(protocol.transport, "_TurnTransport__inner_protocol", None)
        closing = getattr(protocol.transport, "_TurnTransport__close_task", None)
        if closing is not None:
            waiting.append(closing)
        (protocol if relay is None else relay).transport.close()
    return waiting


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve a result that nothing waits for any more."""
    if not task.cancelled():
        task.exception()


def _set(target: object, name: str, value: object) -> None:
    setattr(target, name, value)  # a method of one instance; mypy would refuse an assignment


class _Connection:
    def __init__(self, servers: Servers, config: EngineConfig, listener: EngineListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._servers = servers
        self._relay_watch = RelayWatch(config)
        self._closed = False
        self._failed = False
        self._operations: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._native = _PeerConnection(servers, config, self._on_connect_failed, self._on_alive)
        self._native.on("connectionstatechange", self._on_state)
        self._native.on("datachannel", self._on_channel)

    # --- calls ------------------------------------------------------------------------------------------------------

    def open_channel(self, label: str) -> None:
        try:
            _Channel(self._native.createDataChannel(label), self)
        except (aiortc.InvalidStateError, ValueError) as error:
            raise StateError(f"cannot make a channel: {error}") from error

    def renew(self, config: EngineConfig) -> None:
        """Does nothing: aiortc gathers once, for its first description, and cannot restart ICE."""

    async def offer(self, *, restart_ice: bool = False) -> str:
        if restart_ice:
            raise StateError("aiortc cannot restart ICE")
        return await self._run(self._offer())

    async def _offer(self) -> str:
        await self._native.setLocalDescription(await self._native.createOffer())
        return self._local_sdp()

    async def answer(self, offer_sdp: str) -> str:
        check_sdp(offer_sdp)
        return await self._run(self._answer(offer_sdp))

    async def _answer(self, offer_sdp: str) -> str:
        await self._native.setRemoteDescription(aiortc.RTCSessionDescription(offer_sdp, "offer"))
        for transceiver in self._native.getTransceivers():
            # Nothing here plays audio or video, so the other side should send none; aiortc would keep all of it in
            # memory.
            transceiver.direction = "inactive"
        await self._native.setLocalDescription(await self._native.createAnswer())
        return self._local_sdp()

    def _local_sdp(self) -> str:
        sdp: str = self._native.localDescription.sdp
        self._relay_watch.saw(sdp)
        if not self._closed:  # else it was told to stop
            self._relay_watch.gathered()
        return sdp

    async def accept(self, answer_sdp: str) -> None:
        check_sdp(answer_sdp)
        await self._run(self._native.setRemoteDescription(aiortc.RTCSessionDescription(answer_sdp, "answer")))

    async def add_candidate(self, candidate: Candidate | None) -> None:
        # An empty text ends the candidates of one section (W3C section 4.8.1.3). There is only one section here.
        if candidate is None or not candidate.candidate:
            await self._run(self._native.addIceCandidate(None))
            return
        check_candidate(candidate)
        await self._run(self._add_candidate(candidate))

    async def _add_candidate(self, candidate: Candidate) -> None:
        parsed = candidate_from_sdp(candidate.candidate.removeprefix(_CANDIDATE_PREFIX))
        parsed.sdpMid = candidate.sdp_mid
        parsed.sdpMLineIndex = candidate.sdp_m_line_index
        await self._native.addIceCandidate(parsed)

    async def stats(self) -> EngineStats:
        sctp = self._native.sctp
        if sctp is None:
            return EngineStats()
        dtls = sctp.transport
        counted = next(iter(dtls._get_stats().values()), None)
        pair = dtls.transport._connection._nominated.get(1)
        return EngineStats(
            local=_path_end(pair.local_candidate, self._servers.relay_protocols) if pair is not None else None,
            remote=_path_end(pair.remote_candidate, {}) if pair is not None else None,
            bytes_sent=getattr(counted, "bytesSent", None),
            bytes_received=getattr(counted, "bytesReceived", None),
        )

    @property
    def turn(self) -> TurnReport:
        return self._relay_watch.report

    async def close(self) -> None:
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="aiortc close")
        # Shielded: a caller that gives up waiting must not leave sockets open.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # A running operation would open more sockets during `close`.
        self._native.aldis_servers.stop()
        if self._operations:
            await asyncio.wait(self._operations)
        # The pump of a transport that was broken by its input: only here can its exception be retrieved.
        pumps = [transport._task for transport in self._native.aldis_transports if transport._task is not None]
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._native.close()
                for transport in self._native.aldis_transports:
                    # Nothing else knows those of an attempt that failed halfway.
                    await transport.stop()
                    await transport.transport.stop()
        except TimeoutError:
            _log.warning("aiortc did not close within %g s", _CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - after a hostile description its state may be anything
            _log.warning("aiortc did not close cleanly: %r", error)
        tasks = [*self._native.aldis_tasks, *pumps]
        for transport in self._native.aldis_transports:
            tasks += _abandon(transport.transport._connection)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        # In a separate task: if aioice is cancelled while it gathers, it leaves its sockets open.
        task = self._loop.create_task(operation)
        self._operations.add(task)
        task.add_done_callback(self._operations.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_retrieve)
            raise
        except Exception as error:  # aiortc parses with regexes, assertions and int(), so anything is possible
            raise EngineRefused(f"aiortc: {type(error).__name__}: {error}") from error

    # --- events -----------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Pass an event on, in a separate call, unless the connection is closed by then."""
        self._loop.call_soon(self._unless_closed, callback)

    def _unless_closed(self, callback: Callable[[], None]) -> None:
        if not self._closed:
            callback()

    def _on_connect_failed(self, error: Exception) -> None:
        _log.info("aiortc could not connect: %r", error)
        self._failed = True
        self.call_soon(lambda: self._listener.state_changed(EngineState.FAILED))

    def _on_alive(self) -> None:
        self.call_soon(self._listener.alive)

    def _on_state(self) -> None:
        state = EngineState(self._native.connectionState)
        if not self._failed:
            self.call_soon(lambda: self._listener.state_changed(state))

    def _on_channel(self, native: aiortc.RTCDataChannel) -> None:
        channel = _Channel(native, self)
        channel.opened()

    def channel_opened(self, channel: _Channel) -> None:
        self._listener.channel_opened(channel)


class _Channel:
    """One data channel, from its creation."""

    def __init__(self, native: aiortc.RTCDataChannel, owner: _Connection) -> None:
        self._native = native
        self._owner = owner
        self._listener: ChannelListener | None = None
        self.label: Final[str] = native.label
        native.on("open", self.opened)
        native.on("message", self._on_message)
        native.on("bufferedamountlow", self._on_drained)
        native.on("close", self._on_closed)

    @property
    def buffered_amount(self) -> int:
        return self._native.bufferedAmount

    def listen(self, listener: ChannelListener, low_threshold: int) -> None:
        self._listener = listener
        self._native.bufferedAmountLowThreshold = low_threshold

    def send(self, data: bytes) -> None:
        try:
            self._native.send(data)
        except (aiortc.InvalidStateError, ValueError) as error:
            raise StateError(f"the channel takes no message: {error}") from error

    def close(self) -> None:
        self._native.close()

    def opened(self) -> None:
        self._owner.call_soon(lambda: self._owner.channel_opened(self))

    def _on_message(self, data: bytes | str) -> None:
        self._owner.call_soon(lambda: self._tell_message(data))

    def _tell_message(self, data: bytes | str) -> None:
        if self._listener is not None:
            self._listener.message_received(data)

    def _on_drained(self) -> None:
        self._owner.call_soon(self._tell_drained)

    def _tell_drained(self) -> None:
        if self._listener is not None:
            self._listener.buffer_drained()

    def _on_closed(self) -> None:
        self._owner.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.channel_closed()


def _path_end(candidate: Any, relay_protocols: Mapping[tuple[str, int], str]) -> PathEnd:
    return PathEnd(
        kind=candidate.type,
        protocol=candidate.transport,
        address=candidate.host,
        port=candidate.port,
        relay_protocol=relay_protocols.get((candidate.host, candidate.port), ""),
    )
