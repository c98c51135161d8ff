"""A signaling client without the network: registration, requests, resume, reconnection.

It never waits. Time (monotonic seconds) and randomness are arguments. `take()` returns the effects, as a list; call it
after every other call. So tests run an hour of lost connections in milliseconds, and the same machine runs on asyncio
(`client.client`), against a hub in one thread, or on anything else.

Rules:

* The phase changes in `_step` only, by the table in `client.phases`.
* A request ends exactly once, with `Completed` or `Failed`: by its reply, by the server's error, by its time-out, by
  the loss of its connection, or by the end of the client. A request that is made without a registration waits for one.
  A request that the server refuses as `rate-limited` is sent again (`client.limited`).
* The server is not trusted. An invalid message is a `ProtocolViolation`: it ends the connection, which then counts as
  lost. A message that is only unexpected (a reply without a request) is noted and ignored.
* The commands themselves raise `UsageError`s, and then change nothing.

It does not know sockets, tasks, or the meaning of offers and answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.client.backoff import Retries
from aldis.client.commands import Commands
from aldis.client.effects import CloseTransport, Dial, Effect, Happened, Noted, Send
from aldis.client.events import (
    Closed,
    Connected,
    Disconnected,
    GoingAway,
    PrivacyChanged,
    Registered,
    Registration,
    RequestsDelayed,
    SignalingEvent,
    SignalingState,
)
from aldis.client.handshake import Handshake, Joining
from aldis.client.inbound import Numbered, PeerFault, event_of, failure_of, privacy_of
from aldis.client.keepalive import CHANGE, PATIENCE, SILENCE, SUSPICION, Keepalive, Verdict
from aldis.client.phases import ATTACHED, LIVE, TABLE, Phase, Step, state_of
from aldis.client.requests import DEFAULT_MAX_MESSAGE, Pending, Reply, Request, RequestBook
from aldis.client.resume import ResumeCounter
from aldis.client.sealing import SealKeySchedule
from aldis.client.settings import MachineSettings
from aldis.client.watches import Watches
from aldis.errors import (
    AldisError,
    ConnectionClosed,
    ConnectionLost,
    ProtocolViolation,
    ReconnectGaveUp,
    RequestFailed,
    StateError,
)
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol import messages as m
from aldis.protocol.addresses import check_device, check_user_id
from aldis.protocol.codec import NestedTooDeeply, decode_server_message, encode_text, to_base64
from aldis.protocol.codes import CloseCode, ErrorCode, may_reconnect
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

# Seconds. A server that wants a client to stay away for longer uses a close code.
LONGEST_ABSENCE: Final = 300.0


class ClientMachine(Commands):
    """One client for its whole life, over any number of connections.

    Inputs are `connected`, `received`, `heard`, `lost`, `unreachable`, `suspect`, `network_changed`, `hurry` and
    `tick`. Commands are `close`, `register` and the other requests. A request returns a number, which `Completed` and
    `Failed` repeat. After each call carry out the effects from `take()`, and call `tick` at `next_deadline`. Not
    thread-safe.
    """

    def __init__(self, settings: MachineSettings, *, random: Callable[[], float]) -> None:
        check_user_id(settings.user_id)
        check_device(settings.device)
        self.settings = settings
        self.phase = Phase.IDLE
        self.error: AldisError | None = None
        """Why the client has ended; None before that, and when it was closed on purpose."""
        self.privacy = DEFAULT_PRIVACY
        """Who may see our user, and who may call, as the server has said last."""
        self._random = random
        self._effects: list[Effect] = []
        self._handshake = Handshake(settings)
        self._watches = Watches()
        self._requests = RequestBook(settings.request_timeout, self._watches, self._effects)
        self._resume = ResumeCounter()
        self._retries = Retries(settings.backoff)
        self._seal_keys = SealKeySchedule(self._effects)
        # For this connection: when it became useful, why we have closed it, when the server wants us to come back.
        self._keepalive = Keepalive(0.0)
        self._useful_from: float | None = None
        self._hung_up_because: str | None = None
        self._leave_at: float | None = None
        self._changed = False  # the network has, and nothing was heard of the server since

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> SignalingState:
        """The state for the application."""
        return state_of(self.phase)

    @property
    def identity(self) -> Identity | None:
        """The key to register with again; None before the first registration."""
        return self._handshake.identity

    @property
    def ended(self) -> bool:
        """Whether the client has ended."""
        return self.phase is Phase.ENDED

    def check_not_ended(self) -> None:
        """Raise the error that ended the client, or `StateError` when it was closed on purpose."""
        if self.ended:
            # Drop the traceback of earlier raises, which would grow each time.
            raise StateError("this client is closed") if self.error is None else self.error.with_traceback(None)

    def take(self) -> list[Effect]:
        """The effects to carry out now, in this order. Each is returned once."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    @property
    def next_deadline(self) -> float | None:
        """The latest time to call `tick`; None when nothing is due."""
        deadlines = [self._requests.deadline]
        if self.phase is Phase.WAITING:
            deadlines.append(self._retries.due)
        elif self.phase in LIVE:
            deadlines += [self._keepalive.deadline, self._leave_at]
        if self.phase is Phase.REGISTERED:
            deadlines += [self._resume.deadline, self._requests.due, self._seal_keys.due]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # --- inputs: the transport --------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """A connection is open: the first one, or the one that `Dial` asked for."""
        if self.phase is Phase.ENDED:
            self._effects.append(CloseTransport(CloseCode.NORMAL, ""))
            return
        self._step(Step.CONNECTED)
        self._keepalive = Keepalive(now)
        self._useful_from = self._hung_up_because = None
        self._tell(Connected(max(1, self._retries.attempts)))
        if self._handshake.wanted:
            self._join(now)
        else:
            self._useful_from = now
            self._send_held(now)

    def received(self, text: str, now: float) -> None:
        """A whole text message has come; it is valid UTF-8."""
        if self.phase not in LIVE:
            return
        self.heard(now)
        try:
            message = decode_server_message(text)
            if message is None:
                self._note(f"a message of an unknown type: {text[:200]!r}")
            else:
                self._handle(message, len(text), now)
                self._send_waiting(now)
        except NestedTooDeeply:
            self._count(len(text), now)
        except ProtocolViolation as error:
            # The right code would be 1002, but browsers cannot send it, so all clients send the same code.
            self._hang_up(CloseCode.GOING_AWAY, f"the server broke the protocol: {error}")

    def heard(self, now: float) -> None:
        """A WebSocket ping or pong has come."""
        self._changed = False
        self._keepalive.heard(now)

    def lost(self, now: float, code: int, reason: str) -> None:
        """The connection is gone: closed by the server with `code` and `reason`, or broken (1006)."""
        if self.phase not in ATTACHED:
            return
        why = self._hung_up_because or reason or f"the connection was closed with code {code}"
        if self._useful_from is not None:
            self._retries.stood(now - self._useful_from)
        self._step(Step.LOST)
        if code == CloseCode.SESSION_LOST:
            self._resume = ResumeCounter()
        # The client itself never closes with a final code, so this one is the server's.
        if not may_reconnect(code):
            self._tell(Disconnected(why, code, None))
            self._end(ConnectionClosed(code, reason))
            return
        if code == CloseCode.OVER_LIMITS:
            self._retries.offended(now, self._random())
        self._fail_sent(ConnectionLost(f"the connection to the server was lost: {why}"))
        self._retry(now, why, code)

    def unreachable(self, now: float, reason: str) -> None:
        """The connection that `Dial` asked for has failed."""
        if self.phase is Phase.DIALING:
            self._step(Step.LOST)
            self._retry(now, reason, CloseCode.ABNORMAL)

    def suspect(self, now: float) -> None:
        """The server may be gone, for the path to a peer is: ask it at once, and wait `SUSPICION` seconds."""
        self._keepalive.suspect(now, SUSPICION)
        self.tick(now)

    def network_changed(self, now: float, *, cut: bool = False) -> None:
        """The machine has other addresses, or has slept: dial at once, or check the connection. `cut`: the address of
        the connection is gone, so that it is dead for sure."""
        self._changed = self.phase is not Phase.WAITING
        self._retries.hasten(now)
        if cut:
            self._hang_up(CloseCode.NO_PONG, "the network has changed", at_once=True)
        self._keepalive.suspect(now, CHANGE)
        self.tick(now)

    def hurry(self, now: float) -> None:
        """Somebody waits for the server: until the client is registered again, wait less between attempts."""
        if self.phase is not Phase.REGISTERED and not self._retries.urgent:
            self._retries.hurry(now, self._random())
            self.tick(now)

    def tick(self, now: float) -> None:
        """Time has passed. Extra calls do no harm."""
        self._expire(now)
        self._send_waiting(now)
        if self.phase is Phase.WAITING and now >= self._retries.due:
            self._step(Step.DUE)
            self._effects.append(Dial())
        elif self.phase in LIVE:
            self._keep_alive(now)
        if self.phase is Phase.REGISTERED:
            if self._resume.deadline is not None and now >= self._resume.deadline:
                self._confirm()
            self._seal_keys.look(now)

    # --- commands ---------------------------------------------------------------------------------------------------

    def register(self, identity: Identity, now: float) -> int:
        """Register the name with this key: `Registration`. `StateError` when it is registered already."""
        self._check_connected()
        if self._handshake.wanted:
            raise StateError("already registered: call unregister() first")
        joining = self._registration(identity, now)
        if self.phase is Phase.OPEN:
            self._join(now)
        return joining.request.number

    def rotate(self, identity: Identity, now: float) -> int:
        """Hand the name over to a new key, and register with that from then on."""
        self._check_named()
        if self.identity is None:
            raise StateError("not registered yet: wait for register() first")
        signature = self.identity.sign(proofs.rotation(self.settings.user_id, identity.public_key))
        message = m.Rotate(to_base64(identity.public_key), to_base64(signature))
        return self._ask(message, now, identity=identity)

    def ping(self, now: float) -> int:
        """Measure the round trip to the server; the result is in seconds. Needs no registration."""
        self._check_connected()
        request = self._requests.add(m.Ping(), now)
        if self.phase in LIVE:
            self._transmit(request, now)
        return request.number

    def close(self) -> None:
        """End the client on purpose: no reconnection, and `Closed(None)` is the last event. Harmless after the end."""
        if self.phase is not Phase.ENDED:
            self._end(None)

    # --- registration -----------------------------------------------------------------------------------------------

    def _registration(self, identity: Identity, now: float, *, internal: bool = False) -> Joining:
        message = self._handshake.register(identity, self._resume.ticket)
        joining = Joining(self._requests.add(message, now, identity=identity, internal=internal), identity)
        self._handshake.joining = joining
        return joining

    def _join(self, now: float) -> None:
        """Register the name on this connection, for the first time or again."""
        joining = self._handshake.joining
        if joining is None and self.identity is not None:
            joining = self._registration(self.identity, now, internal=True)
        if joining is not None:
            self._step(Step.ASKED)
            self._transmit(joining.request, now)

    def _joins(self, re: m.RequestId | UnsetType) -> Joining | None:
        """The registration in progress, if a message with this `re` belongs to it."""
        busy = self.phase in (Phase.REGISTERING, Phase.PROVING) and self._handshake.belongs(re)
        return self._handshake.joining if busy else None

    def _challenged(self, message: m.Challenge) -> None:
        joining = self._joins(message.re)
        if joining is None or self.phase is not Phase.REGISTERING:
            self._note("a challenge that was not asked for")
            return
        prove = self._handshake.prove(joining, message)
        self._step(Step.CHALLENGED)
        self._send(prove)

    def _admitted(self, message: m.Registered, now: float) -> None:
        joining = self._joins(message.re)
        if joining is None:
            self._note("a registration that was not asked for")
            return
        if not message.success:  # a refusal in the classic dialect
            self._not_admitted(joining, RequestFailed(ErrorCode.KEY_MISMATCH, "the server refused the name"), now)
            return
        if self.phase is not Phase.PROVING:
            raise ProtocolViolation("registered without having asked for a proof")
        self._handshake.check(joining, message)
        self._step(Step.ADMITTED)
        self._handshake.admitted(joining)
        self._useful_from = now
        self._retries.urgent = False
        self._began(message, joining.request, now)

    def _began(self, message: m.Registered, request: Pending, now: float) -> None:
        """A session has started or has been resumed."""
        resumed = message.resumed is True
        session = "" if message.session is UNSET else message.session
        secret = "" if message.secret is UNSET else message.secret
        limits = None if message.limits is UNSET else message.limits
        self._requests.max_message = DEFAULT_MAX_MESSAGE if limits is None else limits.max_message_bytes
        self._requests.allow(0.0 if limits is None else limits.resume_window)
        # First: messages of those that are blocked by now may follow.
        self._privacy_told(DEFAULT_PRIVACY if message.privacy is UNSET else privacy_of(message.privacy))
        self._tell(Registered(resumed, limits))
        self._requests.complete(request, Registration(session, resumed, limits))
        if resumed:
            self._resume.resumed(session, secret)
        else:
            self._resume = ResumeCounter(session, secret)
            self._requests.drop_restored_watches()
            for chunk in self._requests.chunks(self._watches):
                self._submit(self._requests.add(m.Watch(chunk), now, internal=True), now)
        if isinstance(request.message, m.Register):
            self._seal_keys.registered(request.message, limits, now, resumed=resumed)
        self._send_held(now)

    def _not_admitted(self, joining: Joining, failure: RequestFailed, now: float) -> None:
        self._step(Step.REFUSED)
        self._handshake.joining = None
        self._requests.fail(joining.request, failure)
        if not joining.request.internal:
            # The application made this request, and gets its error; requests that waited for the registration fail too.
            self._useful_from = now
            self._fail_nameless(failure)
        elif failure.code == ErrorCode.KEY_MISMATCH and self._handshake.take_spare():
            # The rotation with the unknown outcome has taken effect.
            self._join(now)
        elif failure.temporary or self._handshake.may_renew(failure):
            self._retries.not_before = now + min(failure.retry_after or 0.0, LONGEST_ABSENCE)
            self._hang_up(CloseCode.GOING_AWAY, f"the server did not register us for now: {failure}")
        else:
            self._end(failure)

    # --- messages of the server -------------------------------------------------------------------------------------

    def _handle(self, message: m.ServerMessage, size: int, now: float) -> None:
        match message:
            case m.Challenge():
                self._challenged(message)
            case m.Registered():
                self._admitted(message, now)
            case m.Error():
                self._refused(message, now)
            case m.PrivacyMessage():
                if self.phase is Phase.REGISTERED:
                    self._privacy_told(privacy_of(message))
                self._replied(message, now)
            case m.GoingAway():
                seconds = min(max(message.reconnect_in, 0.0), LONGEST_ABSENCE)
                self._leave_at = now + seconds
                self._tell(GoingAway(seconds))
            case m.PresenceMessage() | m.Offer() | m.Answer() | m.IceCandidate() | m.Bye() | m.Relay():
                self._numbered(message, size, now)
            case _:
                self._replied(message, now)

    def _privacy_told(self, privacy: Privacy) -> None:
        if privacy != self.privacy:
            self.privacy = privacy
            self._tell(PrivacyChanged(privacy))

    def _numbered(self, message: Numbered, size: int, now: float) -> None:
        if self.phase is not Phase.REGISTERED:
            self._note(f"a message of the type {message.__struct_config__.tag} outside of a registration")
            return
        try:
            event = event_of(message, self._watches.answers)
            if not isinstance(message, m.PresenceMessage) or self._watches.takes(message):
                self._tell(event)
        except PeerFault as fault:
            self._note(str(fault))
        self._count(size, now)

    def _count(self, size: int, now: float) -> None:
        if self._resume.processed(size, now):  # also unusable ones, or a resumed session would repeat them
            self._confirm()

    def _confirm(self) -> None:
        self._resume.confirmed()
        self._send(m.Received(self._resume.count))

    def _refused(self, message: m.Error, now: float) -> None:
        joining = None if message.re is UNSET else self._joins(message.re)
        if joining is not None:
            self._not_admitted(joining, failure_of(message, joining.request.name), now)
            return
        request = self._requests.answered_by(message.re, now)
        if request is None:
            self._note(f"an error that answers nothing: {message.message}")
            return
        failure = failure_of(message, request.name)
        delayed = self._delayed(request, failure, now)
        if isinstance(request.message, m.Rotate) and (delayed or not failure.temporary):
            self._handshake.spare = None
        if not delayed:
            self._requests.fail(request, failure)

    def _delayed(self, request: Pending, failure: RequestFailed, now: float) -> bool:
        """Whether a refused request is sent again, after the pause that the server has asked for."""
        if failure.code != ErrorCode.RATE_LIMITED or failure.retry_after is None:
            return False
        pause = self._requests.refused(request, failure, now, self._random())
        if pause:
            to = request.message.to if isinstance(request.message, m.Relayed) else None
            self._tell(RequestsDelayed(request.name, to, pause, failure))
        return pause is not None

    def _replied(self, message: Reply, now: float) -> None:
        request = self._requests.answered_by(message.re, now)
        if request is None:
            if message.re is not UNSET:
                self._note(f"a reply to no request: {message.__struct_config__.tag}")
            return
        result = request.result(message, now)
        if isinstance(message, m.Rotated):
            self._handshake.identity, self._handshake.spare = request.identity, None
            self._seal_keys.rotated(now)
        elif isinstance(request.message, m.SealKeyRequest):
            self._seal_keys.published(now)
        elif isinstance(message, m.Unregistered):
            self._left()
        self._requests.complete(request, result)

    def _left(self) -> None:
        if self.phase is Phase.REGISTERED:
            self._step(Step.LEFT)
            self._handshake.left()
            self._watches.clear()
            for request in self._requests.limited():
                self._requests.fail(request, RequestFailed(ErrorCode.NOT_REGISTERED, "the name was given up"))
            self._resume = ResumeCounter()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _check_connected(self) -> None:
        self.check_not_ended()
        if self.phase is Phase.IDLE:
            raise StateError("not connected: call connect() first")

    def _check_named(self) -> None:
        self._check_connected()
        if not self._handshake.wanted:
            raise StateError("not registered: call register() first")

    def _ask(self, message: Request, now: float, *, identity: Identity | None = None) -> int:
        """Make a request that needs a registration: send it now, or hold it until there is one."""
        self._check_named()
        request = self._requests.add(message, now, identity=identity)
        self._submit(request, now)
        return request.number

    def _submit(self, request: Pending, now: float) -> None:
        """Send a request if that is possible now, and no others have to go first."""
        if self._requests.queue(request, now):
            self._send_waiting(now)
        elif self.phase is Phase.REGISTERED and self._requests.may_go(request):
            self._transmit(request, now)

    def _transmit(self, request: Pending, now: float) -> None:
        self._requests.send(request, now)
        if isinstance(request.message, m.Rotate):
            self._handshake.spare = request.identity

    def _send_held(self, now: float) -> None:
        for request in self._requests.held():
            self._transmit(request, now)

    def _send_waiting(self, now: float) -> None:
        """Send what waited for answers to others, or for the end of a pause."""
        if self.phase is Phase.REGISTERED:
            for limited in self._requests.release(now):
                self._transmit(limited, now)
        while self.phase is Phase.REGISTERED and (request := self._requests.next_lookup()) is not None:
            self._transmit(request, now)

    def _fail_sent(self, error: AldisError) -> None:
        """The connection is lost: fail the requests that were sent on it."""
        for request in self._requests.sent():
            self._requests.fail(request, error)
        joining = self._handshake.joining
        if joining is not None and joining.request.sent_at is not None:
            self._handshake.joining = None
            self._fail_nameless(error)

    def _fail_nameless(self, error: AldisError) -> None:
        """A registration has failed. Unless the client repeats it, fail the requests that wait for it."""
        if self.identity is None:
            for request in self._requests.held():
                if not isinstance(request.message, m.Ping):
                    self._requests.fail(request, error)

    def _expire(self, now: float) -> None:
        for overdue, error in self._requests.overdue(now):
            self._requests.fail(overdue, error)
            if self._handshake.joining is not None and overdue is self._handshake.joining.request:
                self._handshake.joining = None
                self._fail_nameless(error)
                # The server may still register us on this connection, so another try needs another connection.
                self._hang_up(CloseCode.REGISTRATION_TIMEOUT, str(error))

    # --- the connection ---------------------------------------------------------------------------------------------

    def _keep_alive(self, now: float) -> None:
        if self._leave_at is not None and now >= self._leave_at:
            self._hang_up(CloseCode.GOING_AWAY, "the server is going away")
            return
        match self._keepalive.look(now):
            case Verdict.ASK:
                self._send(m.Ping())
            case Verdict.DEAD:
                patience = self._keepalive.patience
                silence = SILENCE + PATIENCE if patience == PATIENCE else patience
                # A dead server answers no CLOSE frame either.
                self._hang_up(CloseCode.NO_PONG, f"nothing was heard of the server for {silence:g} s", at_once=True)
            case Verdict.WAIT:
                pass

    def _hang_up(self, code: CloseCode, reason: str, *, at_once: bool = False) -> None:
        """Close this connection, and reconnect later. Not with 1000 or 1001: the server would end the session."""
        if self.phase in LIVE:
            self._hung_up_because = reason
            self._step(Step.HUNG_UP)
            self._effects.append(CloseTransport(code, reason, at_once))

    def _retry(self, now: float, reason: str, code: int) -> None:
        if self._retries.exhausted:
            self._tell(Disconnected(reason, code, None))
            self._end(ReconnectGaveUp(self._retries.attempts, reason))
            return
        delay = self._retries.schedule(now, self._random(), invited=self._leave_at)
        self._leave_at = None
        if self._changed:
            self._changed = False
            delay = self._retries.hasten(now)
        self._tell(Disconnected(reason, code, delay))

    def _end(self, error: AldisError | None) -> None:
        attached = self.phase in LIVE
        self._step(Step.ENDED)
        self.error = error
        self._handshake.joining = None
        for request in self._requests.all():
            self._requests.fail(request, error or ConnectionLost("the client was closed"))
        if attached:
            self._effects.append(CloseTransport(CloseCode.NORMAL, ""))
        self._tell(Closed(error))

    def _step(self, step: Step) -> None:
        self.phase = TABLE[self.phase][step]

    def _send(self, message: m.Prove | m.Received | m.Ping) -> None:
        self._effects.append(Send(encode_text(message)))

    def _tell(self, event: SignalingEvent) -> None:
        self._effects.append(Happened(event))

    def _note(self, text: str) -> None:
        self._effects.append(Noted(text))
