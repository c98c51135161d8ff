"""When certificates are renewed and orders tried again, what is kept of them, and how a ClientHello is read."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from acme import messages

from aldis.errors import ConfigError
from aldis.server.certificates import client_hello
from aldis.server.certificates.authority import Authority, AuthoritySettings, OrderFailed
from aldis.server.certificates.challenges import HTTP, PATH, TLS, Challenge, Challenges, Kind
from aldis.server.certificates.client_hello import ClientHello
from aldis.server.certificates.files import CertificateFiles, KeptCertificate
from aldis.server.certificates.manager import (
    FIRST_PAUSE,
    JITTER,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    OTHER_ORDER,
    CertificateManager,
    pause_after,
    renewal_due,
)
from aldis.server.config import ServerConfig
from aldis.server.logs import get_logger
from support.certificates import make_certificates

DOMAIN = "signal.example.com"
AUTHORITY = "https://authority.example/directory"


def kept(folder: Path) -> KeptCertificate:
    """A certificate that is valid for four days: three of them are over."""
    files = make_certificates(folder, host=DOMAIN)
    return KeptCertificate(files.key.read_bytes() + files.cert.read_bytes())


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_certificate_is_renewed_after_two_thirds_of_its_lifetime(tmp_path: Path) -> None:
    certificate = kept(tmp_path)
    assert renewal_due(certificate, None) == certificate.starts + timedelta(days=4) * 2 / 3


def test_the_authority_may_want_it_earlier_or_later_but_not_too_late(tmp_path: Path) -> None:
    certificate = kept(tmp_path)
    for days, due in ((-1, -1.0), (1, 1.0), (3, 3.0), (30, 3.6)):
        wanted = certificate.starts + timedelta(days=days)
        assert renewal_due(certificate, wanted) == certificate.starts + timedelta(days=due)


def test_pauses_grow_and_a_limit_of_five_failures_an_hour_is_kept() -> None:
    pauses = [pause_after(failures, None, 0.0) for failures in range(1, 40)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    tries, at = 1, 0.0
    for pause in pauses:
        at += pause
        tries += at < 3600
    assert tries == 5
    assert pause_after(10**6, None, 1.0) == LONGEST_PAUSE * (1 + JITTER)


def test_an_authority_is_obeyed_within_a_day() -> None:
    assert pause_after(1, 7200.0, 0.0) == 7200.0
    assert pause_after(1, 1.0, 0.0) == FIRST_PAUSE
    assert pause_after(1, 10.0**9, 0.0) == LONGEST_RETRY_AFTER


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_certificate_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path)
    assert files.load() is None
    certificate = kept(tmp_path)
    files.save(certificate)
    found = files.load()
    assert found is not None
    assert found.pem == certificate.pem
    assert stat.S_IMODE(files.certificate.stat().st_mode) == 0o600
    assert [path.name for path in files.folder.iterdir()] == ["certificate.pem"]
    assert found.covers((DOMAIN,))
    assert not found.covers((DOMAIN, "www.example.com"))


@pytest.mark.parametrize("damage", ["empty", "half", "another key"])
def test_a_certificate_that_cannot_be_used_is_put_aside(tmp_path: Path, damage: str) -> None:
    files = CertificateFiles(tmp_path)
    certificate = kept(tmp_path)
    files.save(certificate)
    match damage:
        case "empty":
            files.certificate.write_bytes(b"")
        case "half":
            files.certificate.write_bytes(certificate.pem[:200])
        case "another key":
            other = make_certificates(tmp_path, host=DOMAIN)
            files.certificate.write_bytes(other.key.read_bytes() + certificate.leaf_pem)
    assert files.load() is None
    assert [path.name for path in files.folder.iterdir()] == ["certificate.pem.broken"]


def test_accounts_are_kept_by_authority(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path)
    assert files.account(AUTHORITY) is None
    files.save_account(AUTHORITY, "https://authority.example/account/1", "a key")
    files.save_account("https://b.example/", "https://b.example/2", "another key")
    assert files.account(AUTHORITY) == ("https://authority.example/account/1", "a key")
    path = files.folder / "accounts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for content in ("", "[]", json.dumps({AUTHORITY: {"account": 1}})):
        path.write_text(content)
        assert files.account(AUTHORITY) is None


def test_two_processes_order_one_after_the_other(tmp_path: Path) -> None:
    one, other = CertificateFiles(tmp_path), CertificateFiles(tmp_path)
    with one.order() as ours:
        assert ours
        with other.order() as theirs:
            assert not theirs
    with other.order() as theirs:
        assert theirs


def test_a_challenge_is_answered_during_its_order_alone() -> None:
    challenges = Challenges()
    with challenges.answered([Challenge(DOMAIN, HTTP, "token", "token.thumbprint")]):
        assert challenges.text(f"{PATH}token") == "token.thumbprint"
        assert challenges.text(f"{PATH}other") is None
        assert challenges.text("/token") is None
        assert not challenges.looks_at_hellos
    assert challenges.text(f"{PATH}token") is None


# --- one attempt after the other --------------------------------------------------------------------------------------


class LittleAuthority:
    """Gives this certificate, or fails so; it says nothing about renewals."""

    def __init__(self, outcome: KeptCertificate | OrderFailed) -> None:
        self.outcome = outcome
        self.kinds: list[Kind] = []

    def order(self, domains: tuple[str, ...], kind: Kind) -> Any:
        self.kinds.append(kind)
        if isinstance(self.outcome, OrderFailed):
            raise self.outcome
        return SimpleNamespace(challenges=[])

    def finish(self, order: object, domains: tuple[str, ...]) -> KeptCertificate:
        assert isinstance(self.outcome, KeptCertificate)
        return self.outcome

    def renewal_time(self, certificate: KeptCertificate) -> tuple[None, float]:
        return None, 3600.0


def manager_of(folder: Path, authority: LittleAuthority, now: float) -> tuple[CertificateManager, list[str]]:
    """A manager at this time, and what it has used."""
    used: list[str] = []
    made = CertificateManager(
        (DOMAIN,),
        cast(Authority, authority),
        CertificateFiles(folder),
        Challenges(),
        (HTTP, TLS),
        get_logger("aldis.test"),
        use=lambda: used.append("used"),
        wall=lambda: now,
        random=lambda: 0.0,
    )
    return made, used


async def test_a_certificate_is_ordered_used_and_left_alone_until_it_is_due(tmp_path: Path) -> None:
    certificate = kept(tmp_path)
    authority = LittleAuthority(certificate)
    manager, used = manager_of(tmp_path, authority, certificate.starts.timestamp() + 60)
    assert await manager._step(forced=False) == 0.0
    assert used == ["used"]
    assert 0 < await manager._step(forced=False) <= 86_400 * 3
    assert manager.next_attempt == renewal_due(certificate, None).timestamp()
    assert authority.kinds == [HTTP]
    assert await manager._step(forced=True) == 0.0
    assert authority.kinds == [HTTP, HTTP]


async def test_with_a_wrong_clock_it_does_not_order_for_ever(tmp_path: Path) -> None:
    certificate = kept(tmp_path)
    manager, used = manager_of(tmp_path, LittleAuthority(certificate), certificate.expires.timestamp() + 60)
    assert await manager._step(forced=False) == FIRST_PAUSE
    assert used == ["used"]
    assert manager.error == "the new certificate has to be renewed already; is the clock of this machine right?"


async def test_a_failure_waits_and_the_other_challenge_is_next(tmp_path: Path) -> None:
    failed = OrderFailed("port 80 of it does not reach this server", by_challenge=True)
    authority = LittleAuthority(failed)
    manager, used = manager_of(tmp_path, authority, 1000.0)
    assert await manager._step(forced=False) == FIRST_PAUSE
    assert (manager.error, manager.failures, manager.next_attempt) == (str(failed), 1, 1000.0 + FIRST_PAUSE)
    assert await manager._step(forced=False) == FIRST_PAUSE  # it is not due, and nothing is asked
    assert authority.kinds == [HTTP]
    assert await manager._step(forced=True) > FIRST_PAUSE
    assert authority.kinds == [HTTP, TLS]
    assert manager.attempts == {"ok": 0, "failed": 2}
    assert used == []


async def test_while_another_process_orders_it_waits(tmp_path: Path) -> None:
    authority = LittleAuthority(OrderFailed("unused"))
    manager, _ = manager_of(tmp_path, authority, 1000.0)
    with CertificateFiles(tmp_path).order() as theirs:
        assert theirs
        assert await manager._step(forced=False) == OTHER_ORDER
    assert (authority.kinds, manager.failures) == ([], 0)


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("a file")
    manager, _ = manager_of(tmp_path, LittleAuthority(OrderFailed("unused")), 1000.0)
    assert await manager._step(forced=False) == FIRST_PAUSE
    assert manager.error == f"{tmp_path / 'acme'} cannot be used: Not a directory"


async def test_a_fault_ends_no_renewals(tmp_path: Path) -> None:
    authority = LittleAuthority(OrderFailed("unused"))
    authority.outcome = cast(Any, None)
    manager, _ = manager_of(tmp_path, authority, 1000.0)
    assert await manager._step(forced=False) == FIRST_PAUSE
    assert manager.error.startswith("an unexpected fault: ")


# --- ClientHello ------------------------------------------------------------------------------------------------------


def hello(name: str | None, *protocols: str) -> bytes:
    """The first record of a real client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def test_name_and_protocols_are_read() -> None:
    for name, protocols in ((DOMAIN, ("acme-tls/1",)), (DOMAIN, ("h2", "http/1.1")), (None, ()), (DOMAIN, ())):
        record = hello(name, *protocols)
        assert client_hello.size(record[:5]) == len(record)
        assert client_hello.read(record) == ClientHello(name or "", protocols)


def test_anything_else_is_no_client_hello() -> None:
    record = hello(DOMAIN, "acme-tls/1")
    for size in range(len(record)):
        assert client_hello.read(record[:size]) is None
    assert client_hello.size(b"GET /") is None
    assert client_hello.size(b"\x16\x03\x01\xff\xff") is None  # longer than a record may be
    assert client_hello.read(b"\x17" + record[1:]) is None
    assert client_hello.read(record[:5] + b"\x02" + record[6:]) is None
    # Every length in it may be wrong.
    for at in range(5, len(record)):
        changed = bytearray(record)
        changed[at] ^= 0xFF
        client_hello.read(bytes(changed))


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_settings_go_together(tmp_path: Path) -> None:
    agreed: dict[str, Any] = {"acme_domain": DOMAIN, "acme_agree_tos": True, "data": str(tmp_path)}
    config = ServerConfig(**{**agreed, "acme_domain": f"{DOMAIN.upper()}, www.example.com"})
    assert config.acme_domain == (DOMAIN, "www.example.com")
    assert config.secure
    changes: list[tuple[dict[str, Any], str]] = [
        ({"acme_agree_tos": False}, "acme_agree_tos: is needed with acme_domain"),
        ({"data": ":memory:"}, "acme_domain: needs a data directory"),
        ({"tls_cert": "c.pem", "tls_key": "k.pem"}, "acme_domain: and tls_cert do not go together"),
        ({"acme_directory": "http://authority.example"}, "acme_directory: .* with https://"),
        ({"acme_email": "me"}, "acme_email: 'me' .* such as admin@example.com"),
        *(
            ({"acme_domain": name}, "acme_domain: .* a domain such as")
            for name in (
                "localhost",
                "10.0.0.1",
                "[::1]",
                "*.example.com",
                "a.example:443",
                "a..example",
                "https://a.b",
            )
        ),
        ({"acme_domain": ",".join(f"a{number}.example" for number in range(101))}, "at most 100"),
    ]
    for change, problem in changes:
        with pytest.raises(ConfigError, match=problem):
            ServerConfig(**{**agreed, **change})


# --- what an operator reads -------------------------------------------------------------------------------------------


def problem(kind: str, detail: str) -> messages.Error:
    """An error of RFC 8555 section 6.7."""
    found: messages.Error = messages.Error.from_json({"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail})
    return found


@pytest.mark.parametrize(
    ("kind", "port", "said"),
    [
        ("connection", 80, f"port 80 of {DOMAIN} does not reach this server: no route"),
        ("connection", 443, f"port 443 of {DOMAIN} does not reach this server: no route"),
        ("dns", 80, f"the DNS has no usable address for {DOMAIN}: no route"),
        ("unauthorized", 80, f"port 80 of {DOMAIN} does not lead to this server, but to another, or to a proxy"),
        ("tls", 443, f"port 443 of {DOMAIN} does not lead to this server: no route"),
        ("caa", 80, f"the CAA record of {DOMAIN} allows other authorities only: no route"),
        ("malformed", 80, f"port 80 of {DOMAIN} gives no answer that can be used: no route"),
        ("rateLimited", 0, "the authority authority.example limits how much it issues: no route"),
        ("rejectedIdentifier", 0, "the authority authority.example issues no certificate for these names: no route"),
        ("userActionRequired", 0, "the authority authority.example wants its terms of service to be agreed to"),
        ("externalAccountRequired", 0, "the authority authority.example needs an account made elsewhere"),
        ("invalidContact", 0, "the authority authority.example does not accept acme_email: no route"),
        ("serverInternal", 0, "the authority authority.example refuses: serverInternal: no route"),
    ],
)
def test_an_error_of_the_authority_is_a_sentence_that_says_what_to_do(
    tmp_path: Path, kind: str, port: int, said: str
) -> None:
    authority = Authority(AuthoritySettings(AUTHORITY, "", None), CertificateFiles(tmp_path))
    error = problem(kind, "no route")
    assert authority._in_words(error, DOMAIN if port else "", port).startswith(said)


def test_the_parts_of_an_error_are_told_by_name(tmp_path: Path) -> None:
    authority = Authority(AuthoritySettings(AUTHORITY, "", None), CertificateFiles(tmp_path))
    error = messages.Error.from_json(
        {
            "type": "urn:ietf:params:acme:error:rejectedIdentifier",
            "detail": "some names",
            "subproblems": [
                {
                    "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                    "detail": "is on a list",
                    "identifier": {"type": "dns", "value": "b.example"},
                }
            ],
        }
    )
    assert authority._in_words(error).endswith("for these names: some names b.example is on a list")
    endless = problem("dns", "x" * 100_000)
    assert len(authority._in_words(endless, DOMAIN, 80)) < 600
