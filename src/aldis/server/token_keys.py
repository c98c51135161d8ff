"""Keys and tokens for trials: what `aldis token` makes. A real application makes its own, with any JWT library.

A key is a JWK (RFC 7517) with its private part. A server reads the public part of the same file (`server.tokens`).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aldis.errors import UsageError
from aldis.protocol.codec import to_base64url
from aldis.server.tokens import MAX_KEY_SET, KeySetUnusable, read_key_set

# The fields of a private key, and of a secret (RFC 7518 section 6).
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SECRET_BYTES: Final = 32


def make_key(algorithm: str) -> dict[str, Any]:
    """A new private key for one of `tokens.ALGORITHMS`, as a JWK with a random `kid`."""
    jwk: dict[str, Any]
    match algorithm:
        case "EdDSA":
            jwk = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
        case "ES256":
            jwk = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
        case "RS256":
            jwk = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 3072), as_dict=True)
        case "HS256":
            jwk = {"kty": "oct", "k": to_base64url(secrets.token_bytes(_SECRET_BYTES))}
        case _:
            raise UsageError(f"{algorithm!r} is no algorithm for tokens")
    jwk.pop("key_ops", None)
    return {**jwk, "kid": secrets.token_hex(8), "alg": algorithm, "use": "sig"}


def write_key(path: Path, jwk: Mapping[str, Any]) -> None:
    """Write a key set of one key to a new file, which only its owner may read. Raises `UsageError`."""
    text = json.dumps({"keys": [jwk]}, indent=1) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already; a key never replaces a file") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def read_keys(path: Path) -> list[dict[str, Any]]:
    """All JWKs of a file, as they are. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_SET + 1)
        read_key_set(text, secrets=True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except KeySetUnusable as error:
        raise UsageError(f"{path} is no JWKS that can be used: {error}") from None
    value: dict[str, Any] = json.loads(text)
    keys: list[object] = value.get("keys", [value])
    return [key for key in keys if isinstance(key, dict)]


def public_part(jwk: Mapping[str, Any]) -> dict[str, Any] | None:
    """What everybody may know of a key; None for a secret."""
    return None if jwk.get("kty") == "oct" else {name: value for name, value in jwk.items() if name not in _PRIVATE}


def sign_token(path: Path, claims: Mapping[str, Any]) -> str:
    """A token with these claims, signed by the first private key in a file. Raises `UsageError`."""
    for jwk in read_keys(path):
        if not _PRIVATE & set(jwk):
            continue
        try:
            key = read_key_set(json.dumps(jwk).encode(), secrets=True).keys[0]
            headers = None if key.kid is None else {"kid": key.kid}
            return jwt.encode(dict(claims), jwt.PyJWK(jwk, algorithm=key.algorithm).key, key.algorithm, headers)
        except (KeySetUnusable, jwt.PyJWTError, ValueError):
            continue
    raise UsageError(f"{path} has no private key, so no token can be signed with it")
