"""The direct connection between this user and one other user.

Owns the negotiation machine and the transports that it asks for (each an engine connection with its channel and
heartbeat). Sends and receives signaling messages. The store above it sees one object for each peer: a state, frames in,
frames out.

Rules: offers and answers are checked (`trust`) before the machine sees them; a message that fails the check changes
nothing. Everything happens on the loop on which the object was made. It does not know what the frames of messages mean,
or when the next attempt is due; the store decides that.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import (
    AldisError,
    ConfigError,
    FingerprintMismatch,
    IdentityError,
    PeerConnectionFailed,
    PeerError,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    ProofInvalid,
    RequestFailed,
    StateError,
)
from aldis.peer import commands
from aldis.peer.attempts import Outcome, Refused
from aldis.peer.clock import LoopClock
from aldis.peer.commands import Command
from aldis.peer.engine import Engine, EngineConfig, EngineRefused, EngineStats, TurnReport
from aldis.peer.listener import Failure as Failure
from aldis.peer.listener import PeerListener as PeerListener
from aldis.peer.listener import SignalSender as SignalSender
from aldis.peer.negotiation import Negotiation
from aldis.peer.negotiation import PeerState as PeerState  # the state is part of what this module offers
from aldis.peer.refusals import LateRefusals
from aldis.peer.session import Measured
from aldis.peer.signaling import Signaling
from aldis.peer.slots import AttemptSlots, PeerSlots
from aldis.peer.transport import PeerTiming as PeerTiming
from aldis.peer.transport import PeerTransport, Signed, Timer, Timers
from aldis.peer.trust import Trust, refusal_of
from aldis.protocol import addresses
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.codes import FINAL_REFUSALS, ErrorCode, RefusalCode
from aldis.protocol.messages import Candidate

_log = logging.getLogger(__name__)

_UNTRUE: Final = (ProofInvalid, PeerKeyChanged, FingerprintMismatch, IdentityError)
_BUSY_PAUSE: Final = 5.0  # seconds until there may be a slot for an offer that has waited too long


class PeerConnection:
    """The direct connection between `local` and one device of `remote`, both user ids without device.

    Make it on a running loop. Pass it the signaling messages of that user (`receive`). Call `connect()`, or wait for
    the other side's offer. End it with `await close()`.
    """

    def __init__(
        self,
        *,
        local: str,
        remote: str,
        engine: Engine,
        config: Callable[[], EngineConfig],
        trust: Trust,
        signaling: SignalSender,
        listener: PeerListener,
        hello: Callable[[], Hello],
        device: str | None = None,
        timing: PeerTiming | None = None,
        timers: Timers | None = None,
        slots: AttemptSlots | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`config` is called at each attempt and each ICE restart, because TURN credentials expire. `hello` is called
        once for each channel, when the channel has opened and the one before is gone; its result is sent as our first
        frame. `device` is the device to call; None is the one that registered last. `timers` and `slots` default to
        those of the running loop; tests pass their own."""
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._remote = remote
        self._called = remote if device is None else f"{remote}/{device}"  # the address that offers go to
        self._engine = engine
        self._trust = trust
        self._signaling = Signaling(signaling, engine.capabilities, self._undelivered)
        self._listener = listener
        self._hello = hello
        self._timing = timing or PeerTiming()
        self._timers: Timers = timers or LoopClock.of(self._loop)
        self._machine = Negotiation(
            local,
            remote,
            capabilities=engine.capabilities,
            random=random,
            attempt_seconds=self._timing.attempt,
            heal_seconds=self._timing.heal,
        )
        self._transports: dict[str, PeerTransport] = {}
        # By connection name: a better reason than the machine's, if there is one.
        self._errors: dict[str, Failure] = {}
        self._turn = TurnReport()  # of the connection that was dropped last
        self._state = PeerState.NEW
        self._todo: deque[Command] = deque()
        self._working = False
        self._news: deque[Callable[[], None]] = deque()
        self._telling = False
        self._silent = False
        self._told_outcome: Outcome | None = None
        self._refusals = LateRefusals(
            self._machine, self._timers, lambda wanted, sender: self._do(wanted, sender=sender)
        )
        self._deadline: float | None = None
        self._deadline_timer: Timer | None = None
        self._closing: asyncio.Task[None] | None = None
        self._clock_from = 0.0
        self._slots = PeerSlots[tuple[Signed, OfferReceived]](
            slots or AttemptSlots.of(self._loop),
            id(signaling),
            call=self._start_call,
            answer=self._take_offer,
            refuse=self._refuse_offer,
        )

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PeerState:
        """The current state."""
        return self._state

    @property
    def round_trip_time(self) -> float | None:
        """Seconds from a PING to its PONG, the median of the last few; None before the first one."""
        transport = self._current
        return transport.round_trip_time if transport is not None else None

    @property
    def measured(self) -> Measured:
        """What the heartbeat of the current connection has measured."""
        transport = self._current
        return transport.measured if transport is not None else Measured()

    @property
    def address(self) -> str:
        """The address of the device at the other end; the bare user id without a connection."""
        transport = self._current
        return (transport.address if transport is not None else None) or self._called

    async def stats(self) -> EngineStats | None:
        """The path and the traffic of the current connection; None without one."""
        transport = self._current
        try:
            return await transport.stats() if transport is not None else None
        except EngineRefused:  # the connection has ended meanwhile
            return None

    @property
    def opening(self) -> bool:
        """Whether the channel is open, and HELLOs are being exchanged on it."""
        current = self._machine.current
        return current is not None and not current.ready

    @property
    def _current(self) -> PeerTransport | None:
        attempt = self._machine.current
        return self._transports.get(attempt.name) if attempt is not None else None

    # --- from the owner ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start an attempt, unless one is under way or the peer is connected. The listener hears the outcome. The
        attempt waits for its slot while other attempts of this process are under way (`clock_from`).

        While DISCONNECTED, this makes a new connection beside the old one. Raises `StateError` after
        `close()`.
        """
        if self._closing is not None:
            raise StateError("the peer connection is closed")
        if self._machine.needs_attempt:
            self._slots.call()
            self._note_state()
        else:
            self._do(self._machine.connect(self._timers.time()))
        self._tell_soon()

    def _start_call(self) -> None:
        self._clock_from = self._timers.time()
        self._do(self._machine.connect(self._clock_from))
        self._tell_soon()

    def leave(self) -> None:
        """The messages go another way from now on, and not back to the open channel: the state is DISCONNECTED, and
        `connect()` makes another connection beside it."""
        self._do(self._machine.leave(self._timers.time()))
        self._tell_soon()

    @property
    def clock_from(self) -> float | None:
        """When our last call got its slot; None while a call waits, because its time has not started."""
        return None if self._slots.calling else self._clock_from

    def knows(self, name: str | None) -> bool:
        """Whether there is a connection of that name, or was one recently."""
        return name is not None and (name in self._transports or self._machine.is_over(name))

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> None:
        """Handle a message from the peer; never raises for its content. Does nothing after `close()`."""
        if self._closing is not None or addresses.split(event.sender)[0] != self._remote:
            return
        name = event.connection
        if name is None:
            if isinstance(event, OfferReceived | AnswerReceived):
                self._refuse(ProofInvalid(self._remote, "it names no connection"))
        else:
            match event:
                case OfferReceived():
                    self._receive_offer(name, event)
                case AnswerReceived():
                    self._receive_answer(name, event)
                case CandidateReceived():
                    self._do(self._machine.candidate_received(name, event.candidate))
                case ByeReceived():
                    self._slots.withdrawn(name)
                    self._do(self._machine.bye_received(name, event.reason or "", event.code, event.retry_after))
        self._tell_soon()

    def _receive_offer(self, name: str, event: OfferReceived) -> None:
        transport = self._transports.get(name)
        known = (
            transport.their_offer.proof.nonce if transport is not None and transport.their_offer is not None else None
        )
        if self._slots.keeps(name) or (event.proof is not None and event.proof.nonce == known):
            return  # a repetition of the offer that is being answered: signaling may repeat, and peers that insist do
        try:
            self._trust.check_offer(self._remote, name, event.description.sdp, event.proof)
        except _UNTRUE as error:
            if not self._machine.is_over(name):  # a late repetition is no forgery
                self._refuse(error)
                self._refusals.add(name, event.sender, error)
            return
        assert event.proof is not None  # or the check had refused it  # noqa: S101
        signed = Signed(event.description.sdp, event.proof)
        if transport is not None or self._machine.is_over(name):
            self._take_offer((signed, event))
        else:
            self._slots.offered(name, (signed, event))

    def _take_offer(self, offer: tuple[Signed, OfferReceived]) -> None:
        signed, event = offer
        assert event.connection is not None  # or it had not been checked  # noqa: S101
        now = self._timers.time()
        wanted = self._machine.offer_received(event.connection, signed.sdp, event.capabilities, now)
        self._do(wanted, offer=signed, sender=event.sender)
        self._tell_soon()

    def _refuse_offer(self, name: str, offer: tuple[Signed, OfferReceived], reason: str) -> None:
        """Refuse an offer that will get no slot, so that its sender need not wait for a time-out."""
        busy = (reason, _BUSY_PAUSE) if reason == RefusalCode.BUSY else ()
        self._signaling.send_bye(offer[1].sender, name, reason, *busy)

    def _receive_answer(self, name: str, event: AnswerReceived) -> None:
        transport = self._transports.get(name)
        if self._machine.is_over(name):  # its answer is useless, so need not be checked
            now = self._timers.time()
            self._do(self._machine.answer_received(name, "", event.capabilities, now), sender=event.sender)
            return
        if transport is None or transport.our_offer is None or not self._machine.awaits_answer(name):
            return
        ours = transport.our_offer
        try:
            self._trust.check_answer(
                self._remote,
                name,
                event.description.sdp,
                event.proof,
                offer_sdp=ours.sdp,
                nonce=ours.proof.nonce,
            )
        except (ProofInvalid, PeerKeyChanged, FingerprintMismatch) as error:
            self._errors[name] = error
            self._refuse(error)
            return
        except IdentityError as error:
            # A better answer will not come, because the fault is on our side.
            self._errors[name] = error
            self._refuse(error)
            if ours.serial is not None:
                self._do(self._machine.operation_failed(name, ours.serial, str(error)))
            return
        transport.address = event.sender
        self._errors.pop(name, None)
        self._do(self._machine.answer_received(name, event.description.sdp, event.capabilities, self._timers.time()))

    def _refuse(self, error: Failure) -> None:
        _log.warning("%s", error)
        self._news.append(lambda: self._listener.refused(error))

    def send_frame(self, frame: bytes) -> bool:
        """Send one frame on the open channel. False without a channel or without room; then `writable()` follows."""
        transport = self._current
        return transport is not None and transport.send_frame(frame)

    def suspect(self) -> None:
        """There is reason to doubt the path: check it. Unless something arrives soon, it counts as lost."""
        if self._current is not None:
            self._current.suspect()

    def network_changed(self) -> None:
        """This machine has other addresses: check the path, and look for another one at once."""
        self.suspect()
        if self._closing is None:
            self._do(self._machine.network_changed(self._timers.time()))
            self._tell_soon()

    def silence(self) -> None:
        """Call the listener no more: it has dropped this connection."""
        self._silent = True

    async def close(self, reason: str = "") -> None:
        """Say goodbye and release everything: sockets, tasks, timers. Idempotent.

        Returns when all is released. The listener hears `channel_closed` and `state_changed(CLOSED)` before the first
        wait.
        """
        if self._closing is None:
            if self._current is not None:
                self._current.say_goodbye(reason)
            self._slots.close(reason)
            wanted = self._machine.close(reason)
            self._refusals.cancel()
            self._closing = asyncio.create_task(self._signaling.finish(), name=f"aldis peer {self._remote} close")
            self._do(wanted)
            self._tell()
        # Shielded: a caller that gives up waiting must not leave sockets open.
        await asyncio.shield(self._closing)

    # --- commands of the machine ------------------------------------------------------------------------------------

    def _do(self, wanted: list[Command], *, offer: Signed | None = None, sender: str | None = None) -> None:
        """Carry out commands and what follows from them, then report what has changed."""
        self._todo.extend(wanted)
        if self._working:
            return
        self._working = True
        try:
            while self._todo:
                self._carry_out(self._todo.popleft(), offer, sender)
        finally:
            self._working = False
        if self._machine.attempting:
            self._slots.set_unanswered(self._machine.unanswered)
        else:
            self._slots.settled(opened=self._machine.state is PeerState.CONNECTED)
        self._set_timer()
        self._note_state()

    def _carry_out(self, command: Command, offer: Signed | None, sender: str | None) -> None:
        transport = self._transports.get(command.name)
        match command:
            case commands.CreateConnection(name, open_channel):
                self._create(name, open_channel=open_channel)
            case commands.DropConnection():
                self._drop(transport)
            case commands.SendBye():
                self._send_bye(command, (transport.address if transport is not None else sender) or self._called)
            case commands.Refuse(name, reason, code, retry_after):
                self._signaling.send_bye(sender or self._called, name, reason, code, retry_after)
            case _ if transport is None:
                pass  # it could not be made
            case commands.MakeOffer(_, serial, restart):
                transport.offer(serial, restart=restart)
            case commands.MakeAnswer(_, serial, sdp):
                transport.their_offer = offer
                transport.address = sender
                transport.answer(serial, sdp)
            case commands.ApplyAnswer(_, serial, sdp):
                transport.accept(serial, sdp)
            case commands.AddCandidate(_, candidate):
                transport.add_candidate(candidate)
            case commands.SendOffer(_, serial, sdp):
                self._send_offer(transport, serial, sdp)
            case commands.SendAnswer(_, serial, sdp):
                self._send_answer(transport, serial, sdp)
            case commands.SendCandidate(name, candidate):
                to = transport.address or self._called
                self._signaling.send_candidate(to, name, candidate)
            case commands.Probe(_, reason):
                transport.probe(reason)

    def _send_bye(self, command: commands.SendBye, to: str) -> None:
        name, reason, code, pause = command.name, command.reason, command.code, None
        error, outcome = self._errors.get(name), self._machine.outcome
        if isinstance(error, _UNTRUE) and outcome is not None and outcome.name == name:
            # The attempt ends because its answer failed the check. Report that only now: a true answer might have
            # followed, and until now no message in the peer's name could end the attempt.
            reason, code, pause = refusal_of(error)
        self._signaling.send_bye(to, name, reason, code, pause)

    def _create(self, name: str, *, open_channel: bool) -> None:
        try:
            transport = PeerTransport(name, self._engine, self._config, self, self._timing, self._timers)
        except ConfigError as error:
            self._errors[name] = PeerConnectionFailed(self._remote, str(error))
            self._todo.extend(self._machine.abandon(name, "it could not be made"))
            return
        self._transports[name] = transport
        if open_channel:
            transport.open_channel()

    def _drop(self, transport: PeerTransport | None) -> None:
        if transport is None:
            return
        del self._transports[transport.name]
        transport.stop()
        self._turn = transport.turn
        if transport.greeted:
            self._news.append(self._listener.channel_closed)
        self._signaling.close_soon(transport.close(), transport.name)

    def _send_offer(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        if transport.our_offer is None or transport.our_offer.sdp != sdp:
            transport.our_offer = Signed(sdp, self._trust.sign_offer(self._remote, transport.name, sdp), serial)
        self._signaling.send_offer(transport.address or self._called, transport.name, transport.our_offer, serial)

    def _send_answer(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        theirs = transport.their_offer
        assert theirs is not None  # we answer only a checked offer  # noqa: S101
        proof = self._trust.sign_answer(
            self._remote, transport.name, sdp, offer_sdp=theirs.sdp, nonce=theirs.proof.nonce
        )
        to = transport.address or self._called
        self._signaling.send_answer(to, transport.name, Signed(sdp, proof), serial)

    def _undelivered(self, name: str, serial: int, error: AldisError) -> None:
        if name in self._transports and not self._transports[name].greeted:
            self._errors[name] = self._as_peer_error(error)
        self._do(self._machine.operation_failed(name, serial, str(error)))
        self._tell_soon()

    def _as_peer_error(self, error: AldisError) -> PeerError:
        if isinstance(error, RequestFailed) and error.code == ErrorCode.NOT_ONLINE:
            return PeerOffline(self._remote)
        if isinstance(error, RequestFailed) and error.code == ErrorCode.RATE_LIMITED:
            return limited_calls(self._remote, error, error.retry_after)
        return PeerConnectionFailed(self._remote, str(error))

    # --- reporting changes ------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        deadline = self._machine.deadline
        if deadline == self._deadline:
            return
        self._deadline = deadline
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        if deadline is not None:
            self._deadline_timer = self._timers.call_later(max(deadline - self._timers.time(), 0.0), self._tick)

    def _tick(self) -> None:
        self._deadline = self._deadline_timer = None
        self._do(self._machine.tick(self._timers.time()))
        self._tell_soon()

    def _note_state(self) -> None:
        state, outcome = self._machine.state, self._machine.outcome
        if self._slots.calling and state in (PeerState.NEW, PeerState.FAILED, PeerState.CLOSED):
            state = PeerState.CONNECTING
        # An attempt that fails at once leaves the state as it was, but the caller of `connect` still has to know.
        news = outcome is not self._told_outcome
        if state is not self._state or (news and state in (PeerState.FAILED, PeerState.CLOSED)):
            self._state = state
            error: Failure | None = None
            # DISCONNECTED: an attempt beside the lost connection has failed.
            if outcome is not None and (state is PeerState.FAILED or (news and state is PeerState.DISCONNECTED)):
                error = self._errors.get(outcome.name) or self._failure(outcome)
            self._news.append(lambda: self._listener.state_changed(state, error))
        self._told_outcome = outcome
        for name in [name for name in self._errors if name not in self._transports]:
            del self._errors[name]

    def _failure(self, outcome: Outcome) -> Failure:
        if isinstance(outcome, Refused):
            return PeerRefused(
                self._remote,
                outcome.reason,
                outcome.code,
                temporary=outcome.code not in FINAL_REFUSALS,
                retry_after=outcome.retry_after,
            )
        turn = self._turn if outcome.no_path else TurnReport()
        hint = turn.text and f"; {turn.text}"
        return PeerConnectionFailed(self._remote, outcome.reason + hint, turn=turn.state)

    def _tell_soon(self) -> None:
        if self._news:
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        if self._telling:
            return
        self._telling = True
        try:
            while self._news:
                tell = self._news.popleft()
                if not self._silent:
                    tell()
        finally:
            self._telling = False
            self._tell_soon()  # the rest, if a listener has raised

    # --- from the transports (`TransportOwner`) ---------------------------------------------------------------------

    def offer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        self._do(self._machine.offer_made(transport.name, serial, sdp))
        self._tell_soon()

    def answer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        self._do(self._machine.answer_made(transport.name, serial, sdp))
        self._tell_soon()

    def operation_failed(self, transport: PeerTransport, serial: int, reason: str) -> None:
        self._do(self._machine.operation_failed(transport.name, serial, reason))
        self._tell_soon()

    def candidate_gathered(self, transport: PeerTransport, candidate: Candidate | None) -> None:
        self._do(self._machine.candidate_gathered(transport.name, candidate))

    def channel_opened(self, transport: PeerTransport) -> Hello:
        self._do(self._machine.channel_opened(transport.name))
        self._tell()  # the end of the channel before, so that the HELLO starts where it ended
        return self._hello()

    def hello_received(self, transport: PeerTransport, hello: Hello) -> None:
        self._news.append(lambda: self._listener.channel_opened(hello))
        self._do(self._machine.channel_ready(transport.name))
        self._tell()

    def frame_received(self, transport: PeerTransport, frame: Chunk | Ack) -> None:
        if self._telling or self._news or self._silent:
            self._news.append(lambda: self._listener.frame_received(frame))
            self._tell()
            return
        # As in `_tell`, without the detour: nearly all events are frames.
        self._telling = True
        try:
            self._listener.frame_received(frame)
        finally:
            self._telling = False
            self._tell_soon()
        self._tell()

    def buffer_drained(self, transport: PeerTransport) -> None:
        if transport.greeted:
            self._news.append(self._listener.writable)
            self._tell()

    def path_lost(self, transport: PeerTransport, *, final: bool) -> None:
        self._do(self._machine.path_lost(transport.name, self._timers.time(), final=final))
        self._tell_soon()

    def path_restored(self, transport: PeerTransport) -> None:
        self._do(self._machine.path_restored(transport.name))
        self._tell_soon()

    def path_found(self, transport: PeerTransport) -> None:
        if transport.greeted:
            self._news.append(self._listener.path_found)
            self._tell_soon()

    def ended(self, transport: PeerTransport, reason: str, *, orderly: bool) -> None:
        self._do(self._machine.attempt_ended(transport.name, reason, orderly=orderly))
        self._tell_soon()

    def violated(self, transport: PeerTransport, reason: str) -> None:
        transport.say_goodbye(reason)
        self._do(self._machine.abandon(transport.name, reason))
        self._tell_soon()


def limited_calls(user_id: str, error: RequestFailed, retry_after: float | None) -> PeerRefused:
    """The server takes no more for a user for so many seconds."""
    reason = f"the server takes no more calls for now: {error.message}"
    return PeerRefused(user_id, reason, RefusalCode.RATE_LIMITED, retry_after=retry_after)
