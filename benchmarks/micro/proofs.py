"""Is the checking of proofs the limit of registration? Ed25519 with `cryptography` (used) and with PyNaCl (not used).

PyNaCl is measured where it is installed; Aldis does not depend on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from aldis.identity import keys, proofs
from benchmarks.micro.timing import Case, time_all


def measure(seconds: float) -> list[Case]:
    """Time one check of a registration's proof, and what is around it."""
    identity = keys.Identity.generate()
    message = proofs.registration("127.0.0.1:8080", bytes(32), "alice@example.com", "main")
    signature = identity.sign(message)
    things: dict[str, Callable[[], object]] = {
        "check a proof (keys.verify)": lambda: keys.verify(identity.public_key, signature, message),
        "sign a proof": lambda: identity.sign(message),
        "make the signed bytes": lambda: proofs.registration("127.0.0.1:8080", bytes(32), "alice@example.com", "main"),
        "make an identity": keys.Identity.generate,
    }
    try:
        signing = importlib.import_module("nacl.signing")
    except ImportError:
        pass
    else:
        things["check a proof with PyNaCl"] = lambda: signing.VerifyKey(identity.public_key).verify(message, signature)
    return time_all(things, seconds)
