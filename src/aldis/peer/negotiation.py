"""Decides which side offers and answers, and which of several connections to one peer is current; without I/O.

Rules:

* Calls report what has happened, with the time if it matters. They return what to do, in order. The results of that
  come back as calls again. Time and randomness are arguments.
* Perfect negotiation (https://www.w3.org/TR/webrtc/, section 10.7), with one connection for each first offer. The
  polite side is the one whose user id sorts first by UTF-8 bytes. When two first offers cross, the offer of the
  impolite side stands, and is sent once more, because it may have been lost. The polite side drops its attempt and
  answers on a fresh connection, so that no engine has to roll back.
* `connection` names a connection (an `Attempt` here). An ICE restart keeps the name; a replacement takes a new one.
  Messages for unknown names are dropped, but candidates for an unknown name are kept for a while, because they may
  arrive before their offer.
* Make before break: a new attempt lives beside the current connection, and replaces it only when its channel opens.
  An open channel proves the other side's key (DTLS), while a signed offer may be an old one that the server kept. So
  what the server repeats, reorders or forges costs an attempt at most, never a connection that works. For the same
  reason a `bye` through the server ends an attempt, but only starts a check (`Probe`) of an open connection.
* Nothing waits for ever: every attempt, every lost path and every restart offer has a deadline (`deadline`, `tick`).

It does not know engines, signatures (its input has been checked), the contents of channels, or addresses.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from aldis.peer.attempts import Attempt, Outcome, Phase, Refused, Step
from aldis.peer.commands import (
    AddCandidate,
    ApplyAnswer,
    Command,
    CreateConnection,
    DropConnection,
    MakeAnswer,
    MakeOffer,
    Probe,
    Refuse,
    SendAnswer,
    SendBye,
    SendCandidate,
    SendOffer,
)
from aldis.protocol.codec import to_base64url
from aldis.protocol.codes import NO_PATH, RefusalCode
from aldis.protocol.messages import Candidate, Capabilities

NAME_BYTES: Final = 16  # 128 random bits, so no two connections share a name
# Versions without the code `NO_PATH` use these words.
_NO_PATH_REASONS: Final = frozenset({"no path was found", "it took too long"})
# Attempts beside an open connection. Two, because a late offer may come beside the attempt that replaced it.
MAX_ATTEMPTS: Final = 2
# An ICE agent gathers a dozen candidates. Each accepted one costs checks towards an address that a stranger chooses.
MAX_CANDIDATES: Final = 128
MAX_EARLY_NAMES: Final = 4
MAX_GONE_NAMES: Final = 64
# Each first offer makes the engine open sockets. A correct peer makes one in seconds.
MAX_OFFERS: Final = 10
OFFER_WINDOW: Final = 10.0  # seconds
BAD_OFFER_PAUSE: Final = 10.0  # seconds: a peer that has sent a bad offer will hardly send a better one at once


class PeerState(Enum):
    """The state of this user's connection to one other user.

    NEW           nothing has been tried yet
    CONNECTING    an attempt is under way, ours or the other side's
    CONNECTED     the channel is open and HELLOs have been exchanged
    DISCONNECTED  was connected, and nothing arrives any more. Both sides try to repair the path if their engines can;
                  otherwise they wait for the path to come back. `connect()` makes a new connection beside it. One of
                  them comes first. Ends in CONNECTED, FAILED or CLOSED.
    FAILED        the attempt or the connection is given up; the error says why. `connect()` makes another attempt, and
    an
                  offer of the other side is answered.
    CLOSED        ended on purpose. By the other side: `connect()` and its offers work as after FAILED. By our own
                  `close()`: for good.
    """

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    FAILED = "failed"
    CLOSED = "closed"


class Negotiation:
    """All connections between `local` and `remote` (user ids without device), open ones and attempts."""

    def __init__(
        self,
        local: str,
        remote: str,
        *,
        capabilities: Capabilities,
        random: Callable[[int], bytes],
        attempt_seconds: float,
        heal_seconds: float,
    ) -> None:
        self.polite: Final = local.encode() < remote.encode()
        self.outcome: Outcome | None = None
        self._capabilities = capabilities
        self._random = random
        self._attempt_seconds = attempt_seconds
        self._heal_seconds = heal_seconds
        self._attempts: dict[str, Attempt] = {}  # oldest first
        self._early: OrderedDict[str, list[Candidate | None]] = OrderedDict()
        self._gone: deque[str] = deque(maxlen=MAX_GONE_NAMES)
        self._offers: deque[float] = deque(maxlen=MAX_OFFERS)
        self._refusals: deque[float] = deque(maxlen=MAX_OFFERS)
        self._closed = False

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PeerState:
        """The state of all connections together."""
        if self._closed:
            return PeerState.CLOSED
        current = self.current
        if current is not None and current.ready and not (current.lost or current.left):
            return PeerState.CONNECTED
        if self._pending() or (current is not None and not current.ready):
            return PeerState.CONNECTING
        if current is not None:
            return PeerState.DISCONNECTED
        if self.outcome is None:
            return PeerState.NEW
        return PeerState.CLOSED if self.outcome.orderly else PeerState.FAILED

    @property
    def current(self) -> Attempt | None:
        """The attempt with an open channel: there is at most one."""
        for attempt in self._attempts.values():  # each frame asks this: a generator takes twice as long
            if attempt.opened:
                return attempt
        return None

    @property
    def deadline(self) -> float | None:
        """When `tick` is due, or None."""
        times = [time for attempt in self._attempts.values() for time in (attempt.deadline, attempt.offer_deadline)]
        return min((time for time in times if time is not None), default=None)

    @property
    def attempting(self) -> bool:
        """Whether there is an attempt whose channel is not open yet."""
        return bool(self._pending())

    @property
    def unanswered(self) -> bool:
        """Whether all attempts wait for an answer of the other side."""
        return all(attempt.phase is Phase.OFFERED for attempt in self._pending())

    @property
    def needs_attempt(self) -> bool:
        """Whether `connect` would make a new connection."""
        current = self.current
        unusable = current is None or current.left or current.lost
        return unusable and not (self._closed or self._pending())

    def awaits_answer(self, name: str) -> bool:
        """Whether an answer for this name would be used; if not, it need not be checked."""
        attempt = self._attempts.get(name)
        return attempt is not None and attempt.phase is Phase.OFFERED

    def is_over(self, name: str) -> bool:
        """Whether there was an attempt of that name recently."""
        return name in self._gone

    def _pending(self) -> list[Attempt]:
        return [attempt for attempt in self._attempts.values() if not attempt.opened]

    # --- from the owner ---------------------------------------------------------------------------------------------

    def connect(self, now: float) -> list[Command]:
        """Start an attempt, unless one is under way or the connection works. Beside a lost connection too, whether ICE
        is restarted there or not: SCTP waits for up to 3 s before it uses a path that is back, and a new channel does
        not.
        """
        return self._offer_anew(now) if self.needs_attempt else []

    def leave(self, now: float) -> list[Command]:
        """The messages go another way from now on. HELLO is said once on a channel, so they do not come back to this
        one: `connect` makes another connection beside it."""
        current = self.current
        if current is not None and current.ready and not current.left:
            current.left = True
            current.deadline = current.deadline or now + self._heal_seconds
        return []

    def close(self, reason: str) -> list[Command]:
        """End everything for good; later calls have no effect."""
        commands: list[Command] = []
        for attempt in list(self._attempts.values()):
            commands += self._drop(attempt, bye=reason)
        self._closed = True
        return commands

    # --- from the other side (checked) ------------------------------------------------------------------------------

    def offer_received(self, name: str, sdp: str, capabilities: Capabilities, now: float) -> list[Command]:
        """A proven offer has arrived."""
        if self._closed:
            return []
        attempt = self._attempts.get(name)
        if attempt is not None:
            return self._offer_again(attempt, sdp, capabilities)
        if name in self._gone:
            return [SendBye(name, "this connection is over")]
        ours = next((each for each in self._pending() if each.offering and not each.answered), None)
        if ours is not None and not self.polite:
            return self._insist(ours)
        pause = OFFER_WINDOW if len(self._offers) < MAX_OFFERS else now - self._offers[0]
        if pause < OFFER_WINDOW:
            return [Refuse(name, "too many offers", RefusalCode.RATE_LIMITED, OFFER_WINDOW - pause)]
        self._offers.append(now)
        commands: list[Command] = []
        if ours is not None:
            commands += self._drop(ours, bye=None)
        attempts = self._pending()
        if len(attempts) >= MAX_ATTEMPTS:
            commands += self._drop(attempts[0], bye="replaced by a newer attempt")
        attempt = Attempt(name, now + self._attempt_seconds)
        attempt.incoming = self._early.pop(name, [])
        attempt.candidates = len(attempt.incoming)
        self._attempts[name] = attempt
        commands.append(CreateConnection(name, open_channel=False))
        return commands + self._answer(attempt, sdp, capabilities)

    def _offer_again(self, attempt: Attempt, sdp: str, capabilities: Capabilities) -> list[Command]:
        """Handle an offer on an existing connection: an ICE restart."""
        if not (attempt.answered and attempt.is_of_same(sdp)):
            # A correct peer does not offer on top of our unanswered offer, or with another certificate.
            return [Refuse(attempt.name, "it does not fit the connection", RefusalCode.INVALID_OFFER, BAD_OFFER_PAUSE)]
        if attempt.offering and not self.polite:
            return self._insist(attempt)
        attempt.offer_deadline = None
        return self._answer(attempt, sdp, capabilities)

    def _insist(self, attempt: Attempt) -> list[Command]:
        """Send our offer again, because it stands and may have been lost; nothing while it is still being made."""
        return [SendOffer(attempt.name, attempt.serial, attempt.offer_sdp)] if attempt.phase is Phase.OFFERED else []

    def _answer(self, attempt: Attempt, sdp: str, capabilities: Capabilities) -> list[Command]:
        attempt.advance(Step.OFFER_RECEIVED)
        attempt.serial += 1
        commands: list[Command] = [MakeAnswer(attempt.name, attempt.serial, sdp)]
        return commands + self._described(attempt, sdp, capabilities)

    def answer_received(self, name: str, sdp: str, capabilities: Capabilities, now: float) -> list[Command]:
        """A proven answer has arrived. An answer for a connection that is over need not be proven."""
        if name in self._gone and not self._closed:
            return [SendBye(name, "this connection is over")]
        attempt = self._attempts.get(name)
        if attempt is None or attempt.phase is not Phase.OFFERED:
            return []
        if attempt.answered and not attempt.is_of_same(sdp):
            # The answer to our restart has another certificate: the program there was restarted, and does not know this
            # connection.
            commands = self._end(attempt, "the other side has been restarted", bye="you have been restarted")
            return commands + (self._offer_anew(now) if not self._pending() else [])
        attempt.advance(Step.ANSWER_RECEIVED)
        attempt.offer_deadline = None
        commands = [ApplyAnswer(name, attempt.serial, sdp)]
        return commands + self._described(attempt, sdp, capabilities)

    def _described(self, attempt: Attempt, sdp: str, capabilities: Capabilities) -> list[Command]:
        return [AddCandidate(attempt.name, candidate) for candidate in attempt.described(sdp, capabilities)]

    def candidate_received(self, name: str, candidate: Candidate | None) -> list[Command]:
        """A candidate has arrived. It need not be proven, because a forged one cannot complete the DTLS handshake."""
        if self._closed or name in self._gone:
            return []
        attempt = self._attempts.get(name)
        if attempt is None:
            self._keep_early(name, candidate)
            return []
        if attempt.candidates >= MAX_CANDIDATES:
            return []
        attempt.candidates += 1
        if not attempt.answered or attempt.phase is Phase.OFFERED or not attempt.owns(candidate):
            attempt.incoming.append(candidate)
            return []
        return [AddCandidate(name, candidate)]

    def _keep_early(self, name: str, candidate: Candidate | None) -> None:
        kept = self._early.setdefault(name, [])
        if len(kept) < MAX_CANDIDATES:
            kept.append(candidate)
        if len(self._early) > MAX_EARLY_NAMES:
            self._early.popitem(last=False)

    def refuse(self, name: str, reason: str, code: str, retry_after: float, now: float) -> list[Command]:
        """Refuse an offer that failed the check. Not if that would end an attempt under way here, because the sender
        need not be the peer; and not more often than offers are accepted."""
        if self._closed or name in self._attempts or name in self._gone:
            return []
        if len(self._refusals) == MAX_OFFERS and now - self._refusals[0] < OFFER_WINDOW:
            return []
        self._refusals.append(now)
        return [Refuse(name, reason, code, retry_after)]

    def bye_received(
        self, name: str, reason: str, code: str | None = None, retry_after: float | None = None
    ) -> list[Command]:
        """The other side (or the server, which may lie) says that a connection is over, or that it refuses an offer now
        (`code`)."""
        attempt = self._attempts.get(name)
        if attempt is None:
            return []
        if attempt.opened:
            return [Probe(name, reason)]
        if code not in (None, NO_PATH):
            self.outcome = Refused(
                name, False, f"the other side refuses: {reason or code}", code=code, retry_after=retry_after
            )
            return self._drop(attempt, bye=None)
        why = f"the other side gave up: {reason}" if reason else "the other side gave up"
        return self._end(attempt, why, bye=None, no_path=code is not None or reason in _NO_PATH_REASONS)

    # --- from the engine --------------------------------------------------------------------------------------------

    def offer_made(self, name: str, serial: int, sdp: str) -> list[Command]:
        """The engine has made the offer of that serial."""
        attempt = self._attempts.get(name)
        if attempt is None or attempt.serial != serial:
            return []
        attempt.advance(Step.OFFER_MADE)
        attempt.offer_sdp = sdp
        commands: list[Command] = [SendOffer(name, serial, sdp)]
        return commands + self._flush_outgoing(attempt)

    def answer_made(self, name: str, serial: int, sdp: str) -> list[Command]:
        """The engine has made the answer of that serial."""
        attempt = self._attempts.get(name)
        if attempt is None or attempt.serial != serial:
            return []
        attempt.advance(Step.ANSWER_MADE)
        commands: list[Command] = [SendAnswer(name, serial, sdp)]
        return commands + self._flush_outgoing(attempt)

    def _flush_outgoing(self, attempt: Attempt) -> list[Command]:
        outgoing, attempt.outgoing = attempt.outgoing, []
        return [SendCandidate(attempt.name, candidate) for candidate in outgoing]

    def candidate_gathered(self, name: str, candidate: Candidate | None) -> list[Command]:
        """The engine has a candidate for the other side; it is sent after its description."""
        attempt = self._attempts.get(name)
        if attempt is None:
            return []
        if attempt.phase in (Phase.OFFERING, Phase.ANSWERING):
            attempt.outgoing.append(candidate)
            return []
        return [SendCandidate(name, candidate)]

    def operation_failed(self, name: str, serial: int, reason: str) -> list[Command]:
        """The engine has failed to offer, answer or accept, or the description could not be sent."""
        attempt = self._attempts.get(name)
        if attempt is None or attempt.serial != serial:
            return []
        if attempt.opened:
            # Only a restart can have failed. The path may come back, and others may be tried until the deadline.
            attempt.advance(Step.FAILED)
            attempt.offer_deadline = None
            return []
        return self._end(attempt, reason, bye="it could not be made")

    def channel_opened(self, name: str) -> list[Command]:
        """The channel of an attempt is open: this connection is the current one, and all others end."""
        attempt = self._attempts.get(name)
        if attempt is None:
            return []
        commands: list[Command] = []
        for other in [each for each in self._attempts.values() if each is not attempt]:
            commands += self._drop(other, bye="replaced by another connection")
        attempt.opened = True
        return commands

    def channel_ready(self, name: str) -> list[Command]:
        """HELLOs have been exchanged."""
        attempt = self._attempts.get(name)
        if attempt is not None:
            attempt.ready = True
            attempt.deadline = None
        return []

    def path_lost(self, name: str, now: float, *, final: bool) -> list[Command]:
        """Nothing arrives any more. `final`: the engine says that only a restart can help."""
        attempt = self._attempts.get(name)
        if attempt is None:
            return []
        if not attempt.ready:
            if not final:
                return []
            return self._end(attempt, "no path to the other side was found", bye="no path was found", no_path=True)
        if attempt.lost and not final:
            return []
        can_restart = self._can_restart(attempt)
        if final and not can_restart:
            return self._end(attempt, "the path to the other side was lost", bye=None)
        if not attempt.lost:
            attempt.lost = True
            if not attempt.left:
                attempt.deadline = now + self._heal_seconds
        return self._restart(attempt, now) if can_restart else []

    def network_changed(self, now: float) -> list[Command]:
        """This machine has other addresses: look for a path from them at once, if the engines can. The one that there
        is stays in use as long as it works. An attempt that has begun before knows none of them: another one takes its
        place. The other side is not told: it leaves the one before when this one opens."""
        current = self.current
        restarts = current is not None and current.ready and self._can_restart(current)
        commands = self._restart(current, now) if current is not None and restarts else []
        before = list(self._pending())
        for attempt in before:
            commands += self._drop(attempt, bye=None)
        return commands + self._offer_anew(now) if before else commands

    def path_restored(self, name: str) -> list[Command]:
        """Data arrives again."""
        attempt = self._attempts.get(name)
        if attempt is not None and attempt.lost:
            attempt.lost = False
            if not attempt.left:
                attempt.deadline = None
        return []

    def attempt_ended(self, name: str, reason: str, *, orderly: bool) -> list[Command]:
        """The other side has closed its end; `orderly` after a GOODBYE on the channel."""
        attempt = self._attempts.get(name)
        # A GOODBYE in place of a HELLO is a refusal, so the attempt has failed.
        return self._end(attempt, reason, bye=None, orderly=orderly and attempt.ready) if attempt is not None else []

    def abandon(self, name: str, reason: str) -> list[Command]:
        """The other side breaks the protocol: end this attempt."""
        attempt = self._attempts.get(name)
        return self._end(attempt, reason, bye=reason) if attempt is not None else []

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Command]:
        """Handle the deadlines; call this when `deadline` has come."""
        commands: list[Command] = []
        for attempt in list(self._attempts.values()):
            if attempt.offer_deadline is not None and attempt.offer_deadline <= now:
                attempt.offer_deadline = None
                if attempt.offering:
                    attempt.advance(Step.EXPIRED)  # another restart may be tried
            if attempt.deadline is not None and attempt.deadline <= now:
                # A bye can end an open connection, so send none when only its path is lost.
                bye = None if attempt.lost or attempt.left else "it took too long"
                no_path = not attempt.opened and attempt.phase is Phase.SETTLED
                why = attempt.overdue(self._attempt_seconds, self._heal_seconds)
                commands += self._end(attempt, why, bye=bye, no_path=no_path)
        return commands

    # --- internal ---------------------------------------------------------------------------------------------------

    def _offer_anew(self, now: float) -> list[Command]:
        name = to_base64url(self._random(NAME_BYTES))
        attempt = Attempt(name, now + self._attempt_seconds, serial=1)
        attempt.advance(Step.OFFER)
        self._attempts[name] = attempt
        return [CreateConnection(name, open_channel=True), MakeOffer(name, attempt.serial, restart=False)]

    def _can_restart(self, attempt: Attempt) -> bool:
        return self._capabilities.restart and attempt.capabilities.restart

    def _restart(self, attempt: Attempt, now: float) -> list[Command]:
        if attempt.phase is not Phase.SETTLED:
            return []  # one of either side is under way
        attempt.advance(Step.OFFER)
        attempt.serial += 1
        attempt.offer_deadline = now + self._heal_seconds
        return [MakeOffer(attempt.name, attempt.serial, restart=True)]

    def _drop(self, attempt: Attempt, *, bye: str | None, code: str | None = None) -> list[Command]:
        del self._attempts[attempt.name]
        self._gone.append(attempt.name)
        goodbye: list[Command] = [SendBye(attempt.name, bye, code)] if bye is not None else []
        return [*goodbye, DropConnection(attempt.name)]

    def _end(
        self, attempt: Attempt, reason: str, *, bye: str | None, orderly: bool = False, no_path: bool = False
    ) -> list[Command]:
        self.outcome = Outcome(attempt.name, orderly, reason, no_path)
        return self._drop(attempt, bye=bye, code=NO_PATH if no_path else None)
