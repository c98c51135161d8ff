"""Which tokens are valid, and for whom."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from aldis.server.tokens import (
    ALGORITHMS,
    MAX_KEY_SET,
    MAX_KEYS,
    KeySet,
    KeySetUnusable,
    KeyUnknown,
    TokenRefused,
    TokenRules,
    check_token,
    read_key_set,
)
from support.tokens import jwks, private_key, public_jwk, token

pytestmark = pytest.mark.usefixtures("no_collection")

NOW = 1_700_000_000.0
GOOD: dict[str, Any] = {"sub": "alice", "exp": NOW + 600}


def keys_of(*algorithms: str) -> KeySet:
    return read_key_set(jwks(*(public_jwk(name, name) for name in algorithms)), secrets=True)


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_taken_from_each_kind_of_key(algorithm: str) -> None:
    claims = check_token(token(GOOD, algorithm, algorithm), keys_of(*ALGORITHMS), TokenRules(), NOW)
    assert (claims.user_id, claims.device, claims.expires) == ("alice", None, NOW + 600)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_another_key_of_the_kind_is_refused(algorithm: str) -> None:
    with pytest.raises(TokenRefused, match="signature of the token is wrong"):
        check_token(token(GOOD, algorithm, algorithm, which=2), keys_of(*ALGORITHMS), TokenRules(), NOW)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/AT+jwt"])
def test_a_token_that_says_it_is_a_login_is_taken(kind: str) -> None:
    signed = token(GOOD, "EdDSA", "EdDSA", typ=kind)
    assert check_token(signed, keys_of("EdDSA"), TokenRules(), NOW).user_id == "alice"


def test_a_token_that_does_not_say_what_it_is_is_taken() -> None:
    signed = token(GOOD, "EdDSA", "EdDSA", typ=None)
    assert "typ" not in jwt.get_unverified_header(signed)
    assert check_token(signed, keys_of("EdDSA"), TokenRules(), NOW).user_id == "alice"


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "JWS", "", 5, ["JWT"], {}])
def test_a_token_of_the_issuer_for_another_purpose_is_refused(kind: object) -> None:
    head = f"{encoded({'alg': 'EdDSA', 'kid': 'EdDSA', 'typ': kind})}.{encoded(GOOD)}"
    signed = f"{head}.{encoded(private_key('EdDSA').sign(head.encode()))}"
    with pytest.raises(TokenRefused, match="for another purpose"):
        check_token(signed, keys_of("EdDSA"), TokenRules(), NOW)


def test_a_public_key_is_no_secret() -> None:
    public = private_key("RS256").public_key()
    for key in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(public_jwk("RS256", "RS256")).encode(),
    ):
        head = f"{encoded({'alg': 'HS256', 'kid': 'RS256'})}.{encoded(GOOD)}"
        forged = f"{head}.{encoded(hmac.new(key, head.encode(), hashlib.sha256).digest())}"
        with pytest.raises(TokenRefused, match="not signed as its key signs"):
            check_token(forged, keys_of("RS256"), TokenRules(), NOW)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS512", "ES256", "", None, 5, ["EdDSA"]])
def test_the_token_does_not_choose_its_algorithm(algorithm: object) -> None:
    forged = f"{encoded({'alg': algorithm, 'kid': 'EdDSA'})}.{encoded(GOOD)}."
    with pytest.raises(TokenRefused):
        check_token(forged, keys_of("EdDSA"), TokenRules(), NOW)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a.b.c", "a.b", "€.€.€", "\ud800.a.b"),
        f"{encoded(b'[' * 2000)}.{encoded(GOOD)}.",
        f"{encoded([])}.{encoded(GOOD)}.",
        f"{encoded({'alg': 'EdDSA', 'kid': 5})}.{encoded(GOOD)}.",
        f"{encoded(b'{')}.{encoded(GOOD)}.",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenRefused):
        check_token(text, keys_of("EdDSA"), TokenRules(), NOW)


@pytest.mark.parametrize("payload", [b"[" * 2000, b"[]", b'"a"', b"5", b"{", b"\xff", b""])
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    signed = jwt.PyJWS().encode(payload, private_key("EdDSA"), algorithm="EdDSA", headers={"kid": "EdDSA"})
    with pytest.raises(TokenRefused):
        check_token(signed, keys_of("EdDSA"), TokenRules(), NOW)


@pytest.mark.parametrize(
    ("claims", "code", "problem"),
    [
        ({"exp": None}, "token-invalid", "has no exp"),
        ({"exp": NOW - 11}, "token-expired", "has expired"),
        ({"exp": "1900000000"}, "token-invalid", "exp of the token is no number"),
        ({"exp": True}, "token-invalid", "exp of the token is no number"),
        ({"exp": float("nan")}, "token-invalid", "exp of the token is no time"),
        ({"exp": 10**400}, "token-invalid", "exp of the token is no time"),
        ({"nbf": NOW + 11}, "token-invalid", "not valid yet"),
        ({"iat": NOW + 11}, "token-invalid", "not valid yet"),
        ({"iat": "now"}, "token-invalid", "iat of the token is no number"),
        ({"sub": None}, "token-invalid", "no sub that can be a name"),
        ({"sub": 5}, "token-invalid", "no sub that can be a name"),
        ({"sub": "a b"}, "token-invalid", "no sub that can be a name"),
        ({"sub": "x" * 129}, "token-invalid", "no sub that can be a name"),
        ({"aud": "other"}, "token-invalid", "for another service"),
    ],
)
def test_a_signed_token_that_is_not_for_here_and_now_is_refused(
    claims: dict[str, Any], code: str, problem: str
) -> None:
    merged = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    with pytest.raises(TokenRefused, match=problem) as refused:
        check_token(token(merged, kid="EdDSA"), keys_of("EdDSA"), TokenRules(), NOW)
    assert refused.value.code == code


@pytest.mark.parametrize("claims", [{"exp": NOW - 9}, {"nbf": NOW + 9}, {"iat": NOW + 9}])
def test_clocks_may_differ_by_the_leeway(claims: dict[str, Any]) -> None:
    check_token(token({**GOOD, **claims}, kid="EdDSA"), keys_of("EdDSA"), TokenRules(leeway=10), NOW)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({}, "has no (aud|iss)"),
        ({"aud": "aldis"}, "has no iss"),
        ({"aud": "aldis", "iss": "https://evil.example"}, "from another issuer"),
        ({"aud": ["x", "aldis"], "iss": "https://issuer.example"}, None),
        ({"aud": "aldis2", "iss": "https://issuer.example"}, "another service"),
    ],
)
def test_audience_and_issuer_are_those_of_the_settings(claims: dict[str, Any], problem: str | None) -> None:
    rules = TokenRules(audience="aldis", issuer="https://issuer.example")
    text = token({**GOOD, **claims}, kid="EdDSA")
    if problem is None:
        assert check_token(text, keys_of("EdDSA"), rules, NOW).user_id == "alice"
    else:
        with pytest.raises(TokenRefused, match=problem):
            check_token(text, keys_of("EdDSA"), rules, NOW)


def test_the_settings_name_the_claims_of_user_and_device() -> None:
    rules = TokenRules(user_claim="preferred_username", device_claim="device")
    keys = keys_of("EdDSA")
    claims = {"exp": NOW + 1, "preferred_username": "bob"}
    assert check_token(token(claims, kid="EdDSA"), keys, rules, NOW).device is None
    found = check_token(token({**claims, "device": "phone"}, kid="EdDSA"), keys, rules, NOW)
    assert (found.user_id, found.device) == ("bob", "phone")
    with pytest.raises(TokenRefused, match="can be a device"):
        check_token(token({**claims, "device": "a b"}, kid="EdDSA"), keys, rules, NOW)


def test_an_unknown_key_is_told_apart_since_a_newer_set_may_have_it() -> None:
    with pytest.raises(KeyUnknown):
        check_token(token(GOOD, kid="new"), keys_of("EdDSA"), TokenRules(), NOW)


def test_a_token_without_a_key_id_is_taken_only_where_there_is_one_key() -> None:
    assert check_token(token(GOOD, kid=None), keys_of("EdDSA"), TokenRules(), NOW).user_id == "alice"
    with pytest.raises(TokenRefused, match="which key") as refused:
        check_token(token(GOOD, kid=None), keys_of("EdDSA", "ES256"), TokenRules(), NOW)
    assert not isinstance(refused.value, KeyUnknown)


def test_conditions_that_are_not_known_are_refused() -> None:
    with pytest.raises(TokenRefused, match=r"crit|no JWT"):
        check_token(token(GOOD, kid="EdDSA", crit=["x"], x=1), keys_of("EdDSA"), TokenRules(), NOW)


def test_keys_that_the_token_brings_along_are_ignored() -> None:
    mine = public_jwk("EdDSA", "EdDSA", which=2)
    forged = token(GOOD, kid="EdDSA", which=2, jwk=mine, jku="http://evil.example", x5u="http://evil.example")
    with pytest.raises(TokenRefused, match="signature"):
        check_token(forged, keys_of("EdDSA"), TokenRules(), NOW)


# --- sets of keys ---------------------------------------------------------------------------------------------------


def test_keys_that_do_not_sign_tokens_are_skipped_and_told() -> None:
    small = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    found = read_key_set(
        jwks(
            public_jwk("EdDSA", "a"),
            public_jwk("ES256", "b", use="enc"),
            public_jwk("ES256", "c", alg="ES384"),
            public_jwk("ES256", "d", key_ops=["encrypt"]),
            public_jwk("ES256", "a"),
            {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "e"},
            {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "f"},
            {**small, "kid": "g"},
            {"kty": "oct", "k": "AAAA", "kid": "h"},
            public_jwk("ES256", "i" * 257),
            {"kty": "EC", "crv": "P-256", "kid": "j"},
        ),
        secrets=True,
    )
    assert [key.kid for key in found.keys] == ["a"]
    assert len(found.skipped) == 10
    assert not any("AAAA" in text for text in found.skipped)


def test_a_secret_in_a_set_that_everybody_may_fetch_is_no_key() -> None:
    with pytest.raises(KeySetUnusable, match="in a file only"):
        read_key_set(jwks(public_jwk("HS256")), secrets=False)


def test_of_a_private_key_only_the_public_one_is_read() -> None:
    private = OKPAlgorithm.to_jwk(private_key("EdDSA"), as_dict=True)
    assert "d" in private
    found = read_key_set(json.dumps({**private, "kid": "k1"}).encode(), secrets=True)  # a JWK alone is a set, too
    assert check_token(token(GOOD), found, TokenRules(), NOW).user_id == "alice"
    assert not hasattr(found.keys[0].key, "private_bytes")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JWKS"),
        (b'{"keys": 5}', "no JWKS"),
        (b'{"keys": []}', "no key that signs"),
        (b'{"keys": [5]}', "key 1: it is no object"),
        (b'{"keys": [{"kty": ["EC"]}]}', "none of Ed25519"),
        (b" " * (MAX_KEY_SET + 1), "more than"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(), "more than 100 keys"),
    ],
)
def test_a_text_that_is_no_set_of_keys_is_an_error_in_words(text: bytes, problem: str) -> None:
    with pytest.raises(KeySetUnusable, match=problem):
        read_key_set(text, secrets=True)
