"""Keys and tokens of an issuer, for tests: made anew in each process."""

from __future__ import annotations

import base64
import json
from functools import cache
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aldis.server.app import SignalingServer

SECRET = b"0123456789abcdef0123456789abcdef"


def private_key(algorithm: str, which: int = 1) -> Any:
    """A key for an algorithm; `which` tells several apart."""
    return _private_key(algorithm, which)


@cache
def _private_key(algorithm: str, which: int) -> Any:
    match algorithm:
        case "EdDSA":
            return Ed25519PrivateKey.generate()
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "HS256":
            return SECRET + bytes([which])
        case _:
            raise ValueError(algorithm)


def public_jwk(algorithm: str, kid: str | None = "k1", which: int = 1, **more: Any) -> dict[str, Any]:
    """The JWK of a key, as an issuer shows it."""
    key = private_key(algorithm, which)
    match algorithm:
        case "EdDSA":
            jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case "ES256":
            jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case "RS256":
            jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(key).rstrip(b"=").decode()}
    return {**jwk, **({} if kid is None else {"kid": kid}), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    """A set of keys, as a text."""
    return json.dumps({"keys": keys}).encode()


def token(
    claims: dict[str, Any], algorithm: str = "EdDSA", kid: str | None = "k1", which: int = 1, **headers: Any
) -> str:
    """A signed token."""
    more = {**({} if kid is None else {"kid": kid}), **headers}
    return jwt.encode(claims, private_key(algorithm, which), algorithm=algorithm, headers=more)


def an_hour_passes(server: SignalingServer, user_id: str) -> None:
    """For tokens, while the test goes on: a session of this user is ended when the server looks at it next.

    With a token of some seconds, a test would have to register in that time.
    """
    server.accounts._wall = lambda: time() + 3600
    for session in server.hub.sessions(user_id):
        assert session.token_expires is not None
        session.token_expires -= 3600
