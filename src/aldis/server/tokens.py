"""Tokens of the operator's accounts: which JWT (RFC 7519) is valid, and for whom.

Rules, after RFC 8725:

* The key decides the algorithm, never the token: an Ed25519 key takes EdDSA, P-256 ES256, RSA RS256, and a secret
  HS256. So nobody signs with a public key as if it were a secret, or with `none`.
* A key is found by `kid`. A token without one is taken only where there is a single key. What else a header may name
  (`jku`, `x5u`, `jwk`) is ignored, and `crit` is refused.
* A token that says in its `typ` that it is something else is no login: an issuer signs logout tokens and others with
  the same key.
* `exp` is required. A token with an `aud` is for somebody else unless the settings name that audience.
* A text about a fault has nothing of the token in it.

It knows no clock and no network: keys come from `server.key_source`. The signatures are PyJWT's and cryptography's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from aldis.protocol.addresses import device_problem, user_id_problem
from aldis.protocol.codes import ErrorCode

# Bytes. The sets of large issuers have some 10 KiB.
MAX_KEY_SET: Final = 256 * 1024
# An issuer has two or three: the last, the current and the next one.
MAX_KEYS: Final = 100
MAX_KEY_ID: Final = 256  # characters
# RFC 7518 sections 3.2 and 3.3.
MIN_SECRET: Final = 32
MIN_RSA_BITS: Final = 2048
# A larger key makes each check slow, and no issuer has one.
MAX_RSA_BITS: Final = 8192

# By `kty` and `crv` of a JWK: the algorithm, and the fields that are the public key, or the secret.
_KINDS: Final[dict[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
    ("OKP", "Ed25519"): ("EdDSA", ("kty", "crv", "x")),
    ("EC", "P-256"): ("ES256", ("kty", "crv", "x", "y")),
    ("RSA", ""): ("RS256", ("kty", "n", "e")),
    ("oct", ""): ("HS256", ("kty", "k")),
}
ALGORITHMS: Final = tuple(algorithm for algorithm, _ in _KINDS.values())
"""The algorithms that a token may be signed with."""
# The types (`typ`, RFC 7515 section 4.1.9, in lower case) of tokens that may log in; many issuers give none.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_OPTIONS: Final = {
    "require": ["exp"],
    # Against the time that we are given, below.
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_sub", "verify_jti"), False),
}


class KeySetUnusable(Exception):
    """A text is no set of keys that can be used; the text of the exception says why."""


class TokenRefused(Exception):
    """A token is not valid. Attributes: `code`, an error code of the protocol, and `text`, for its client."""

    def __init__(self, text: str, code: str = ErrorCode.TOKEN_INVALID) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class KeyUnknown(TokenRefused):
    """The token names a key that is not in the set; a newer set may have it."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key of a set. `key` is what PyJWT takes for its algorithm."""

    kid: str | None
    algorithm: str
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a JWKS (RFC 7517), and in words why the others are not."""

    keys: tuple[TokenKey, ...]
    skipped: tuple[str, ...] = ()

    def find(self, kid: str | None) -> TokenKey:
        """The key that a token names. Raises `KeyUnknown`, or `TokenRefused` when it names none of several."""
        if kid is None:
            if len(self.keys) == 1:
                return self.keys[0]
            raise TokenRefused("the token does not say which key signed it (kid)")
        for key in self.keys:
            if key.kid == kid:
                return key
        raise KeyUnknown("the token is signed by a key that this server does not know")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must have. Times are in seconds."""

    audience: str = ""
    issuer: str = ""
    user_claim: str = "sub"
    device_claim: str = ""
    leeway: float = 10.0


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a valid token says: the user, the only device that it is for, and until when (seconds since 1970)."""

    user_id: str
    device: str | None
    expires: float


def read_key_set(text: bytes, *, secrets: bool) -> KeySet:
    """Read a JWKS, or a single JWK. `secrets`: whether a secret (`oct`) may be in it; from a URL, everybody reads it.

    Private keys are read as their public ones. Raises `KeySetUnusable` for a text that is no JWKS or has no usable key.
    """
    if len(text) > MAX_KEY_SET:
        raise KeySetUnusable(f"it has more than {MAX_KEY_SET} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise KeySetUnusable("it is no JSON") from None
    entries = [value] if isinstance(value, dict) and "kty" in value else None
    if entries is None:
        entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise KeySetUnusable("it is no JWKS: an object with a list of `keys`")
    if len(entries) > MAX_KEYS:
        raise KeySetUnusable(f"it has more than {MAX_KEYS} keys")
    keys: list[TokenKey] = []
    skipped: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            key = _read_key(entry, secrets=secrets)
        except KeySetUnusable as problem:
            skipped.append(f"key {number}: {problem}")
            continue
        if any(key.kid == other.kid for other in keys):
            skipped.append(f"key {number}: another key has the same kid, or both have none")
        else:
            keys.append(key)
    if not keys:
        raise KeySetUnusable("it has no key that signs tokens" + (f" ({'; '.join(skipped)})" if skipped else ""))
    return KeySet(tuple(keys), tuple(skipped))


def _read_key(entry: object, *, secrets: bool) -> TokenKey:
    import jwt  # takes 20 ms, and not every server wants tokens

    if not isinstance(entry, dict):
        raise KeySetUnusable("it is no object")
    kind = str(entry.get("kty")), str(entry.get("crv", "")) if entry.get("kty") in ("OKP", "EC") else ""
    if kind not in _KINDS:
        raise KeySetUnusable("its kind is none of Ed25519, P-256, RSA and oct")
    algorithm, names = _KINDS[kind]
    if algorithm == "HS256" and not secrets:
        raise KeySetUnusable("a secret (oct) may be in a file only: whoever can fetch it could sign tokens")
    if entry.get("alg", algorithm) != algorithm:
        raise KeySetUnusable(f"its alg is not {algorithm}")
    if entry.get("use", "sig") != "sig":
        raise KeySetUnusable("it is not for signatures (use)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not {"verify", "sign"} & {str(name) for name in operations}:
        raise KeySetUnusable("it is not for signatures (key_ops)")
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID):
        raise KeySetUnusable(f"its kid is no text of 1 to {MAX_KEY_ID} characters")
    try:
        key = jwt.PyJWK({name: entry[name] for name in names}, algorithm=algorithm).key
    except (jwt.PyJWTError, KeyError, ValueError, TypeError):
        raise KeySetUnusable(f"it is no valid key for {algorithm}") from None
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeySetUnusable(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if isinstance(key, bytes) and len(key) < MIN_SECRET:
        raise KeySetUnusable(f"a secret has {MIN_SECRET} bytes or more")
    return TokenKey(kid, algorithm, key)


def check_token(token: str, keys: KeySet, rules: TokenRules, wall: float) -> TokenClaims:
    """What a token says, at the time `wall` (seconds since 1970). Raises `TokenRefused`."""
    import jwt  # as above

    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenRefused("the token is no JWT") from None
    if "crit" in header:
        raise TokenRefused("the token has conditions that this server does not know (crit)")
    kind = header.get("typ")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise TokenRefused("the token is for another purpose (typ)")
    key = keys.find(header.get("kid"))
    if header.get("alg") != key.algorithm:
        raise TokenRefused(f"the token is not signed as its key signs ({key.algorithm})")
    try:
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=rules.audience or None,
            issuer=rules.issuer or None,
            options=_OPTIONS,  # type: ignore[arg-type]  # made from a list of names
        )
    except jwt.InvalidSignatureError:
        raise TokenRefused("the signature of the token is wrong") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenRefused(f"the token has no {error.claim}") from None
    except jwt.InvalidAudienceError:
        raise TokenRefused("the token is for another service (aud)") from None
    except jwt.InvalidIssuerError:
        raise TokenRefused("the token is from another issuer (iss)") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenRefused("the token is no JWT") from None
    return _claims(claims, rules, wall)


def _claims(claims: Mapping[str, object], rules: TokenRules, wall: float) -> TokenClaims:
    expires = _time(claims, "exp")
    if expires is None:
        raise TokenRefused("the token has no exp")
    if wall >= expires + rules.leeway:
        raise TokenRefused("the token has expired", ErrorCode.TOKEN_EXPIRED)
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and wall < begins - rules.leeway:
            raise TokenRefused(f"the token is not valid yet ({name}); is a clock wrong?")
    user_id = claims.get(rules.user_claim)
    if not isinstance(user_id, str) or user_id_problem(user_id):
        raise TokenRefused(f"the token has no {rules.user_claim} that can be a name here")
    device = claims.get(rules.device_claim) if rules.device_claim else None
    if device is not None and (not isinstance(device, str) or device_problem(device)):
        raise TokenRefused(f"the token has no {rules.device_claim} that can be a device")
    return TokenClaims(user_id, device, expires)


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """A time in a token: a number of seconds (RFC 7519 section 2, NumericDate)."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(f"the {name} of the token is no number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = float("inf")
    if not isfinite(seconds):
        raise TokenRefused(f"the {name} of the token is no time")
    return seconds
