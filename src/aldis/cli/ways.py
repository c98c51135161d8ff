"""By which ways this machine reaches others: directly, through a TURN server, through the server's sealed relay.

Pure: it turns what other checks have found into advice. A way that does not work is no fault while another one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aldis.cli.check import Check, Mark
from aldis.cli.exits import ExitCode
from aldis.peer.selftest import Nat, NatReport


@dataclass(frozen=True, slots=True)
class RelayFinding:
    """The server's sealed relay: whether it is offered, whether a message went through it, and why not."""

    offered: bool = False
    works: bool = False
    reason: str = ""


@dataclass(slots=True)
class Ways:
    """What is known of the ways. `turn` has for each URL of a TURN server whether it relays."""

    nat: NatReport = field(default_factory=NatReport)
    turn: Mapping[str, bool] = field(default_factory=dict)
    relay: RelayFinding = RelayFinding()

    def checks(self) -> Iterator[Check]:
        """One line for each way."""
        yield self._direct()
        yield self._through_turn()
        yield self._through_relay()

    @property
    def _others(self) -> str:
        """The ways that work besides the direct one."""
        turn = any(self.turn.values())
        return " and ".join(way for way, works in (("TURN", turn), ("the relay", self.relay.works)) if works)

    def _direct(self) -> Check:
        others = self._others
        seen = f", seen from outside as {self.nat.address}" if self.nat.address else ""
        match self.nat.kind:
            case Nat.NONE:
                return Check("direct", Mark.OK, f"works: no NAT is between{seen}")
            case Nat.EASY:
                return Check("direct", Mark.OK, f"works with most networks: this NAT keeps one address for all{seen}")
            case Nat.SYMMETRIC:
                text = f"only to peers without a NAT: this one is symmetric, with another port for each peer{seen}"
                missing = "Most peers cannot be reached from here"
                mark = Mark.FAIL
            case Nat.UNSURE:
                text = f"perhaps: this NAT changes the ports, and may be symmetric{seen}"
                missing = (
                    "One STUN server alone cannot tell. If it is symmetric, most peers cannot be reached from here"
                )
                mark = Mark.WARN
            case Nat.BLOCKED:
                text = "only to peers in the same network: no STUN server answers, as if UDP were blocked"
                missing = "Peers in other networks cannot be reached from here"
                mark = Mark.WARN
            case Nat.UNKNOWN:
                text = "to peers in the same network; no STUN server tells how others see this machine"
                missing = "Peers in other networks can hardly be reached from here"
                mark = Mark.WARN
        if others:
            return Check("direct", Mark.NOTE, f"{text}. The others go through {others}")
        advice = f"{missing}: the operator can run a TURN server (--turn-server), or let the server relay (--relay)."
        code = ExitCode.CONNECTION_FAILED if mark is Mark.FAIL else ExitCode.OK
        return Check("direct", mark, text, advice, code)

    def _through_turn(self) -> Check:
        if not self.turn:
            return Check("TURN", Mark.NOTE, "not there: the server names no TURN server")
        working = [url for url, works in self.turn.items() if works]
        if working:
            return Check("TURN", Mark.OK, f"works through {working[0]}")
        return Check("TURN", Mark.WARN, "does not work: see each TURN server above")

    def _through_relay(self) -> Check:
        if self.relay.works:
            return Check("relay", Mark.OK, "works: the server passes sealed messages on, and small files; no calls")
        if self.relay.offered:
            return Check("relay", Mark.WARN, f"offered, and does not work: {self.relay.reason}", "Tell the operator.")
        if any(self.turn.values()) or self.nat.kind is Nat.NONE:
            return Check("relay", Mark.NOTE, "not there: the server relays no sealed messages")
        advice = "" if self.nat.kind in (Nat.SYMMETRIC, Nat.UNSURE, Nat.BLOCKED, Nat.UNKNOWN) else _NEITHER
        return Check("relay", Mark.WARN, "not there: the server relays no sealed messages", advice)


_NEITHER = (
    "Without TURN and without the relay, peers behind strict NATs and firewalls cannot be reached. The operator can "
    "run a TURN server (--turn-server), or let the server relay (--relay)."
)
