"""What an operator has to know of certificate, TURN server and limits, and what can be done about them.

Plain data, as it goes out in JSON. Times are seconds since 1970. No secret and no private key is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.x509 import Name
from cryptography.x509.oid import NameOID

from aldis.errors import UsageError
from aldis.hub.failed_proofs import OF_CONNECTION
from aldis.hub.stats import HubStats
from aldis.protocol.codes import CloseCode
from aldis.server.admission import HEADS, LATE, NO_HEADER, OPENING, SILENT, Admission
from aldis.server.certificate_updates import CertificateUpdates
from aldis.server.config import ServerConfig
from aldis.server.refusals import Refusal
from aldis.server.scheduler import FairScheduler
from aldis.server.stun_port import StunPort
from aldis.server.tls import expires_soon, validity_problem
from aldis.server.turn_server import TurnServer
from aldis.server.turn_watch import TurnWatch

# The setting behind each reason for which the port refuses or closes a connection.
_BY_REFUSAL: Final = {
    Refusal.FULL: "max_connections",
    Refusal.ADDRESS: "connections_per_address",
    Refusal.ADDRESS_RATE: "connects_per_address",
    Refusal.RATE: "connects_per_second",
    Refusal.MEMORY: "memory_budget",
    SILENT: "handshakes",
    NO_HEADER: "proxy_protocol",
}


class Health:
    """The health of one server. The arguments are the objects that know it."""

    def __init__(
        self,
        config: Callable[[], ServerConfig],
        certificates: CertificateUpdates,
        turn: TurnServer | None,
        *,
        admission: Admission,
        scheduler: FairScheduler,
        closes: Mapping[int, int],
        stats: HubStats,
        stun: StunPort,
        turn_watch: TurnWatch,
    ) -> None:
        """`closes`: the connections that the transport has closed, by code; the hub counts others."""
        self._config = config
        self._certificates = certificates
        self._turn = turn
        self._admission = admission
        self._scheduler = scheduler
        self._closes = closes
        self._stats = stats
        self._stun = stun
        self._turn_watch = turn_watch

    def read(self) -> dict[str, Any]:
        """All of it."""
        certificate, turn, checks = self.certificate(), self.turn(), self.turn_checks()
        of_turn = [*_turn_problems(turn), *_check_problems(checks)]
        return {
            "certificate": certificate,
            "turn": turn,
            "turnChecks": checks,
            "limits": self.limits(),
            "problems": [*_certificate_problems(certificate), *of_turn, *self._stun_problems()],
        }

    def _stun_problems(self) -> list[str]:
        if not self._stun.wanted or self._stun.port:
            return []
        return ["The STUN port is taken by another program: clients behind NATs are told of no STUN server."]

    def certificate(self) -> dict[str, Any] | None:
        """The certificate in use; None for a server without TLS."""
        tls, manager = self._certificates.tls, self._certificates.manager
        if tls is None:
            return None
        leaf = tls.leaf
        return {
            "loaded": tls.files is not None,
            "source": "files" if manager is None else "acme",
            "subject": None if leaf is None else leaf.subject.rfc4514_string(),
            "issuer": None if leaf is None else _organization(leaf.issuer),
            "names": [] if leaf is None else list(tls.names),
            "from": None if leaf is None else leaf.not_valid_before_utc.timestamp(),
            "expires": None if leaf is None else leaf.not_valid_after_utc.timestamp(),
            "problem": self._certificates.problem or (manager.error if manager is not None else ""),
            "failures": 0 if manager is None else manager.failures,
            "nextAttempt": None if manager is None else manager.next_attempt,
        }

    def turn(self) -> dict[str, Any] | None:
        """The TURN server that this server runs; None without one. `allocation` is the last try to get a relay."""
        turn = self._turn
        if turn is None:
            return None
        return {
            "up": turn.up,
            "urls": turn.settings.urls,
            "restarts": turn.restarts,
            "allocation": {"problem": turn.allocation_problem, "at": turn.allocation_checked},
            "earlierSecretUntil": turn.earlier_until,
        }

    def turn_checks(self) -> list[dict[str, Any]]:
        """The TURN servers that run by themselves, and why one gave no relay when it was asked last."""
        found = self._turn_watch.found.items()
        return [{"server": server, "answers": one.answers, "problem": one.problem} for server, one in found]

    def limits(self) -> list[dict[str, Any]]:
        """The limits that were reached since the start, by setting: how often, and what became of it."""
        refusals, stats = self._admission.refusals, self._stats
        found = [(name, "connections refused", refusals[reason]) for reason, name in _BY_REFUSAL.items()]
        found += [
            (name, "clients closed" if name == OF_CONNECTION else "requests refused", count)
            for name, count in stats.limited.items()
        ]
        found += [
            ("handshake_timeout", "connections closed", refusals[LATE]),
            ("tls_handshakes", "connections closed", refusals[OPENING]),
            ("partial_requests_bytes", "connections closed", refusals[HEADS]),
            ("registration_timeout", "clients closed", stats.closes[CloseCode.REGISTRATION_TIMEOUT]),
            ("max_message_bytes", "clients closed", self._closes[CloseCode.TOO_BIG]),
            ("stun_per_address, stun_per_second", "STUN requests not answered", self._stun.answers.outcomes["limited"]),
            ("messages_per_second, bytes_per_second", "clients slowed down", self._scheduler.throttled),
            ("limits of a user", "clients closed that went on all the same", stats.closes[CloseCode.OVER_LIMITS]),
            ("outgoing_queue_bytes", "slow readers closed", self._closes[CloseCode.SLOW_CONSUMER]),
            ("detached_bytes", "lost clients given up", stats.detached_ended),
            ("memory_budget", "clients given up", stats.memory_ended),
        ]
        return [{"limit": name, "effect": effect, "count": count} for name, effect, count in found if count]

    def renew(self) -> dict[str, Any]:
        """Order a certificate now. Raises `UsageError` for a server whose certificate is in files."""
        manager = self._certificates.manager
        if manager is None:
            raise UsageError("this server orders no certificates (acme_domain); it reads new files by itself")
        manager.renew_now()
        return {"ordered": list(manager.domains)}

    async def rotate(self) -> dict[str, Any]:
        """Make a new secret for the TURN server. Raises `UsageError`, with what to do instead, where that is not
        possible."""
        config = self._config()
        lifetime = config.turn_credential_lifetime
        if self._turn is None:
            raise UsageError(
                "this server runs no TURN server (turn_server). For another one: give coturn the new secret as a "
                "further `static-auth-secret`, change `turn_secret` here and reload (ALDIS_TURN_SECRET needs a "
                f"restart), and take the earlier one out of coturn {_hours(lifetime)} later"
                if config.turn
                else "this server has no TURN server"
            )
        if config.turn_secret:
            raise UsageError(
                "the secret is `turn_secret` in the settings: change it there and reload (ALDIS_TURN_SECRET needs a "
                f"restart); the TURN server then takes the earlier one for {_hours(lifetime)} more"
            )
        try:
            return {"earlierSecretUntil": await self._turn.rotate("", lifetime)}
        except OSError as error:
            raise UsageError(f"the TURN server does not take a new secret: {error}") from None


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.3g} hours"


def _organization(name: Name) -> str:
    found = name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) or name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else str(name.rfc4514_string())


def _certificate_problems(certificate: dict[str, Any] | None) -> list[str]:
    if certificate is None:
        return []
    problems = []
    expires, now = certificate["expires"], time.time()
    if expires is None:
        if not certificate["loaded"]:
            problems.append("There is no certificate yet: no client can connect.")
    elif problem := validity_problem(certificate["from"], expires, now):
        problems.append(f"The certificate {problem}.")
    elif expires_soon(certificate["from"], expires, now):
        problems.append(f"The certificate expires in {int((expires - now) // 86_400)} days.")
    if certificate["problem"]:
        problems.append(f"No new certificate: {certificate['problem']}.")
    return problems


def _turn_problems(turn: dict[str, Any] | None) -> list[str]:
    if turn is None:
        return []
    if not turn["up"]:
        return ["The TURN server is down, and is started again."]
    problem = turn["allocation"]["problem"]
    return [f"The TURN server does not relay: {problem}."] if problem else []


def _check_problems(checks: list[dict[str, Any]]) -> list[str]:
    return [f"The TURN server at {one['server']} does not relay: {one['problem']}." for one in checks if one["problem"]]
