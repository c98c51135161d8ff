"""The conversation with a certificate authority (ACME, RFC 8555), with the library `acme`.

Rules: everything here blocks; the manager calls it in a thread. Each failure is an `OrderFailed` with one sentence that
tells an operator what to do. Nothing is tried twice here but a refused nonce (RFC 8555 section 6.5): the manager
decides when to try again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from acme import challenges as acme_challenges
from acme import client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JsonError
from josepy.json_util import encode_b64jose
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from aldis.server.certificates.challenges import TLS, Challenge, Kind
from aldis.server.certificates.files import CertificateFiles, KeptCertificate
from aldis.version import VERSION

# Seconds for one request. Authorities answer within one.
REQUEST_SECONDS: Final = 20
# How long the authority may take to check a challenge, and then to issue. Mostly 2 to 10 s.
CHECK_SECONDS: Final = 120.0
ISSUE_SECONDS: Final = 120.0
# Between two looks at a challenge, where the authority names no time.
_LOOK_SECONDS: Final = 1.0
_LONGEST_LOOK: Final = 15.0
# A nonce may be refused at any time, and then once more; an authority that refuses so many is broken.
_NONCES: Final = 6
# Where authorities look, whatever our ports are (RFC 8555 section 8.3, RFC 8737 section 3).
HTTP_PORT: Final = 80
TLS_PORT: Final = 443
_BUSY: Final = frozenset({429, 503})

T = TypeVar("T")


class OrderFailed(Exception):
    """No certificate, and why. `retry_after`: seconds before the authority wants to be asked again, if it told."""

    def __init__(self, problem: str, *, by_challenge: bool = False) -> None:
        super().__init__(problem)
        self.by_challenge = by_challenge
        self.retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """`directory` is the URL of the authority's directory; `trusted` a file of authorities for its own TLS."""

    directory: str
    email: str
    trusted: Path | None


class Order:
    """An order under way: its challenges are to be answered, then `Authority.finish` gets the certificate."""

    def __init__(self, talk: _Talk, resource: Any, key: bytes, answers: list[tuple[Challenge, Any]]) -> None:
        self.talk = talk
        self.resource = resource
        self.key = key
        self.answers = answers

    @property
    def challenges(self) -> list[Challenge]:
        """What the authority asks for: nothing for names that we have proved lately."""
        return [challenge for challenge, _ in self.answers]


class Authority:
    """One authority, and our account there."""

    def __init__(self, settings: AuthoritySettings, files: CertificateFiles) -> None:
        self._settings = settings
        self._files = files
        self._host = urlsplit(settings.directory).netloc

    def order(self, domains: tuple[str, ...], kind: Kind) -> Order:
        """Begin an order, with challenges of this kind. Raises `OrderFailed`, `OSError`."""
        return self._told(lambda talk: self._order(talk, domains, kind))

    def finish(self, order: Order, domains: tuple[str, ...]) -> KeptCertificate:
        """Have the challenges checked, and get the certificate. Raises `OrderFailed`."""
        return self._told(lambda talk: self._finish(talk, order, domains), order.talk)

    def renewal_time(self, certificate: KeptCertificate) -> tuple[datetime | None, float]:
        """When the authority wants this certificate to be renewed (RFC 9773), in UTC; None if it does not say.

        And the seconds after which to ask again. Raises `OrderFailed`.
        """

        def ask(talk: _Talk) -> tuple[datetime | None, float]:
            at, again = talk.client.renewal_time(certificate.leaf_pem)
            wanted = None if at is None else at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
            return wanted, (again - datetime.now()).total_seconds()  # the library's times are local

        return self._told(ask)

    # --- internal ---------------------------------------------------------------------------------------------------

    def _told(self, do: Callable[[_Talk], T], talk: _Talk | None = None) -> T:
        """Do this, and turn what the library raises into an `OrderFailed`."""
        try:
            talk = talk or _Talk(self._settings, self._files)
            return do(talk)
        except OrderFailed as error:
            failed = error
        except messages.Error as error:
            failed = OrderFailed(self._in_words(error))
        except requests.exceptions.SSLError as error:
            problem = f"the certificate of the authority {self._host} is not trusted: {_last(error)}"
            failed = OrderFailed(f"{problem}; acme_ca_file names the authority of a server of your own")
        except requests.exceptions.RequestException as error:
            failed = OrderFailed(f"the authority {self._host} cannot be reached: {_last(error)}")
        except (errors.Error, JsonError, ValueError, KeyError, TypeError, AttributeError) as error:
            # A reply that does not follow RFC 8555, of a proxy for instance.
            failed = OrderFailed(f"the authority {self._host} gives no answer that can be used: {_last(error)}")
        if talk is not None:
            failed.retry_after = talk.retry_after
        raise failed from None

    def _order(self, talk: _Talk, domains: tuple[str, ...], kind: Kind) -> Order:
        talk.sign_in()
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        request = crypto_util.make_csr(key, list(domains))
        try:
            resource = talk.client.new_order(request)
        except messages.Error as error:
            if error.code not in ("accountDoesNotExist", "unauthorized"):
                raise
            # The authority does not know our account any more. Its key is good for another one.
            talk.sign_up()
            resource = talk.client.new_order(request)
        answers = [
            talk.answer(one.body, kind) for one in resource.authorizations if one.body.status != messages.STATUS_VALID
        ]
        return Order(talk, resource, key, answers)

    def _finish(self, talk: _Talk, order: Order, domains: tuple[str, ...]) -> KeptCertificate:
        for _, body in order.answers:
            talk.client.answer_challenge(body, acme_challenges.HTTP01Response(key_authorization=""))
        self._wait_until_checked(talk, order)
        deadline = datetime.now() + timedelta(seconds=ISSUE_SECONDS)  # the library's times are local
        try:
            chain = talk.client.finalize_order(order.resource, deadline).fullchain_pem
        except errors.TimeoutError:
            raise OrderFailed(f"the authority {self._host} issues no certificate within {ISSUE_SECONDS:g} s") from None
        except errors.IssuanceError as error:
            raise OrderFailed(self._in_words(error.error)) from None
        certificate = KeptCertificate(order.key + str(chain).encode("ascii"))
        if not certificate.covers(domains):
            raise OrderFailed(f"the authority {self._host} has issued a certificate for other names")
        return certificate

    def _wait_until_checked(self, talk: _Talk, order: Order) -> None:
        deadline = time.monotonic() + CHECK_SECONDS
        for resource in order.resource.authorizations:
            while True:
                found, reply = talk.client.poll(resource)
                status = found.body.status
                if status == messages.STATUS_VALID:
                    break
                domain = found.body.identifier.value
                if status != messages.STATUS_PENDING:
                    raise OrderFailed(self._challenge_in_words(found.body), by_challenge=True)
                if time.monotonic() > deadline:
                    problem = f"the authority {self._host} does not check {domain} within {CHECK_SECONDS:g} s"
                    raise OrderFailed(problem, by_challenge=True)
                time.sleep(min(talk.wait_of(reply) or _LOOK_SECONDS, _LONGEST_LOOK))

    def _challenge_in_words(self, body: Any) -> str:
        domain = body.identifier.value
        for one in body.challenges:
            if one.error is not None:
                port = TLS_PORT if _type_of(one) == TLS else HTTP_PORT
                return self._in_words(one.error, domain, port)
        return f"the authority {self._host} refuses {domain} and does not say why"

    def _in_words(self, error: Any, domain: str = "", port: int = 0) -> str:
        """What is wrong, and what to do, for the error types of RFC 8555 section 6.7."""
        detail = " ".join(str(part) for part in (error.detail, *self._details(error)) if part)[:500]
        name = domain or "a name"
        kind = str(error.typ).rpartition(":")[2]  # the library's `code` does not know all of them
        match kind:
            case "connection" | "timeout":
                said = f"port {port} of {name} does not reach this server"
            case "dns":
                said = f"the DNS has no usable address for {name}"
            case "unauthorized" | "incorrectResponse" | "tls" if domain:
                # For port 443 also if nobody answers, says one authority at least.
                whose = ", but to another, or to a proxy that answers itself" if port == HTTP_PORT else ""
                said = f"port {port} of {name} does not lead to this server{whose}"
            case "malformed" if port:
                said = f"port {port} of {name} gives no answer that can be used"
            case "caa":
                said = f"the CAA record of {name} allows other authorities only"
            case "rateLimited":
                said = f"the authority {self._host} limits how much it issues"
            case "rejectedIdentifier":
                said = f"the authority {self._host} issues no certificate for these names"
            case "userActionRequired":
                said = f"the authority {self._host} wants its terms of service to be agreed to"
            case "externalAccountRequired":
                said = f"the authority {self._host} needs an account made elsewhere, which Aldis cannot use"
            case "invalidContact" | "unsupportedContact":
                said = f"the authority {self._host} does not accept acme_email"
            case _:
                said = f"the authority {self._host} refuses: {kind}"
        return f"{said}: {detail}" if detail else said

    @staticmethod
    def _details(error: Any) -> list[str]:
        return [f"{part.identifier.value if part.identifier else ''} {part.detail}" for part in error.subproblems or ()]


class _Network(client.ClientNetwork):
    """The library tries a refused nonce once more; we a few times more."""

    def post(self, *words: Any, **named: Any) -> requests.Response:
        """Send a signed request."""
        for _ in range(_NONCES):
            try:
                return super().post(*words, **named)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*words, **named)


class _Talk:
    """One conversation: the library's client, our account's key, and what the authority said about waiting."""

    def __init__(self, settings: AuthoritySettings, files: CertificateFiles) -> None:
        self._settings = settings
        self._files = files
        self._account = files.account(settings.directory)
        self.retry_after: float | None = None
        key = None if self._account is None else _read_key(self._account[1])
        if key is None:
            self._account = None
            key = ec.generate_private_key(ec.SECP256R1())
        self._key = JWKEC(key=key)
        network = _Network(
            self._key,
            alg=ES256,
            verify_ssl=True if settings.trusted is None else str(settings.trusted),  # type: ignore[arg-type]
            user_agent=f"aldis/{VERSION}",
            timeout=REQUEST_SECONDS,
        )
        network.session.hooks["response"].append(self._heed)
        self._network = network
        self.client = client.ClientV2(client.ClientV2.get_directory(settings.directory, network), network)

    def sign_in(self) -> None:
        """Use the account that we have, or make one."""
        if self._account is None:
            self.sign_up()
        else:
            self._network.account = messages.RegistrationResource(uri=self._account[0], body=messages.Registration())

    def sign_up(self) -> None:
        """Make an account, or find the one that our key has there."""
        self._network.account = None
        contact = (f"mailto:{self._settings.email}",) if self._settings.email else ()
        wanted = messages.NewRegistration(contact=contact, terms_of_service_agreed=True)
        try:
            account = self.client.new_account(wanted)
        except errors.ConflictError as error:  # there is one
            account = messages.RegistrationResource(uri=error.location, body=messages.Registration())
        self._network.account = account
        pem = self._key.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._files.save_account(self._settings.directory, str(account.uri), pem.decode())

    def answer(self, authorization: Any, kind: Kind) -> tuple[Challenge, Any]:
        """The challenge of this kind, and how to answer it. Raises `OrderFailed` when there is none."""
        domain = authorization.identifier.value
        for body in authorization.challenges:
            if _type_of(body) == kind:
                token = str(body.chall.to_partial_json()["token"])
                thumbprint = encode_b64jose(self._key.thumbprint())
                return Challenge(domain, kind, token, f"{token}.{thumbprint}"), body
        host = urlsplit(self._settings.directory).netloc
        raise OrderFailed(f"the authority {host} does not offer {kind} for {domain}", by_challenge=True)

    def wait_of(self, reply: requests.Response) -> float | None:
        """The seconds in `Retry-After` (RFC 9110 section 10.2.3); None without one."""
        if "Retry-After" not in reply.headers:
            return None
        at = client.ClientV2.retry_after(reply, 0)
        return max(0.0, (at - datetime.now()).total_seconds())  # the library's times are local

    def _heed(self, reply: requests.Response, *_: Any, **__: Any) -> None:
        if reply.status_code in _BUSY:
            self.retry_after = self.wait_of(reply)


def _read_key(pem: str) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _type_of(body: Any) -> str:
    """`http-01` or the like. The library knows not all kinds in all of its versions."""
    return str(body.chall.to_json()["type"]) if hasattr(body.chall, "typ") else str(body.chall.jobj.get("type"))


def _last(error: BaseException) -> str:
    """The innermost reason, in one line: libraries wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
