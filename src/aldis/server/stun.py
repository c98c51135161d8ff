"""The answers of the STUN server: what a datagram gets, and how often an address gets one.

A client learns from it the address that it has on this side of its NAT (RFC 8489, the usage of section 11: without
passwords). Rules:

* One short answer for a request, and silence for everything else: other methods, answers, indications, what is no STUN,
  a wrong FINGERPRINT, more attributes than anybody needs. Nobody can use the port to scan or to flood others.
* An answer is at most twice as large as its request, counted with the IP and UDP headers. In bytes of STUN alone, the
  20 bytes of the smallest request become 32 over IPv4 and 44 over IPv6, since the address takes 24.
* A source address can be forged, so its owner gets at most `stun_per_address` answers a second (IPv6: one /64), and
  all together `stun_per_second`. What is more gets no answer; clients ask again (section 6.2.1).
* It keeps nothing but these counts, for the addresses of the last moments.

Pure: the caller passes the time.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aldis.hub.limits import TokenBucket
from aldis.hub.networks import IPV6_PREFIX
from aldis.protocol.stun import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    UNKNOWN_ATTRIBUTE,
    Attribute,
    StunMessage,
    is_kind,
    read_message,
    write_address,
    write_message,
)
from aldis.server.stun_flood import StunFlood

# Bytes. A request of an engine has 20 to 100; what is larger is no Binding request of a client without passwords.
MAX_REQUEST: Final = 548  # RFC 8489 section 6.1: what is safe over IPv4 without a known path MTU
# A request of an engine has eight at most. To read a hundred of them takes as long as to answer ten requests.
MAX_ATTRIBUTES: Final = 16
# How many seconds' worth one network gets at once, and all together. At the default rate the first is enough for a
# hundred programs behind one address, which come back at once, with three sockets each.
BURST_SECONDS: Final = 6
ALL_BURST_SECONDS: Final = 2
# Networks that are remembered, the latest first: 300 bytes each, 5 MB in all. One that is forgotten has its burst
# again, but all together have a limit as well.
MAX_NETWORKS: Final = 16_384

# The attributes from 0x8000 on may be skipped (section 14).
_REQUIRED: Final = 0x8000
_KNOWN: Final = frozenset(kind for kind in Attribute if kind < _REQUIRED) - {
    # They belong to an answer, or to TURN (RFC 8656).
    *(Attribute.ERROR_CODE, Attribute.UNKNOWN_ATTRIBUTES, Attribute.XOR_MAPPED_ADDRESS),
    *(Attribute.LIFETIME, Attribute.REQUESTED_TRANSPORT),
}
# Behind the signature only another signature and the FINGERPRINT count (sections 14.5, 14.6).
_SIGNATURES: Final = (Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256)


class StunAnswers:
    """Answers datagrams. `outcomes` counts what became of them."""

    def __init__(self, per_second: int, per_address: int, now: float) -> None:
        """Answers a second to all clients, and to each address."""
        self.outcomes: Counter[str] = Counter(
            dict.fromkeys(("answered", "refused", "ignored", "limited", "dropped"), 0)
        )
        self.flood = StunFlood()
        self.limit(per_second, per_address, now)

    @property
    def networks(self) -> int:
        """How many networks are remembered."""
        return len(self._networks)

    def limit(self, per_second: int, per_address: int, now: float) -> None:
        """Use these limits from now on. Each address has its burst again."""
        self._all = TokenBucket(per_second * ALL_BURST_SECONDS, per_second, now)
        self.flood.limit(per_second, per_second * ALL_BURST_SECONDS, now)
        self._per_address = per_address
        self._networks: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def answer(self, data: bytes, address: IPv4Address | IPv6Address, port: int, now: float) -> bytes | None:
        """The answer to a datagram from there; None when it gets none."""
        network = address.packed[:IPV6_PREFIX]
        answer = self._answer(data, address, port, network, now)
        if answer is None:
            self.flood.unanswered(network, now)
        return answer

    def _answer(
        self, data: bytes, address: IPv4Address | IPv6Address, port: int, network: bytes, now: float
    ) -> bytes | None:
        if len(data) > MAX_REQUEST or not is_kind(data, BINDING_REQUEST) or port == 0:
            return self._counted("ignored")
        request = read_message(data, most=MAX_ATTRIBUTES)
        if request is None:
            return self._counted("ignored")
        marked = request.value(Attribute.FINGERPRINT) is not None
        if marked and not request.fingerprint_fits:
            return self._counted("ignored")
        if not self._admits(network, now):
            return self._counted("limited")
        unknown = _unknown(request)
        if unknown:
            return self._counted("refused", _refusal(request, unknown, fingerprint=marked))
        mapped = (Attribute.XOR_MAPPED_ADDRESS, write_address(address, port, request.transaction))
        return self._counted(
            "answered", write_message(BINDING_SUCCESS, request.transaction, [mapped], fingerprint=marked)
        )

    def _counted(self, outcome: str, answer: bytes | None = None) -> bytes | None:
        self.outcomes[outcome] += 1
        return answer

    def _admits(self, network: bytes, now: float) -> bool:
        bucket = self._networks.pop(network, None)
        if bucket is None:
            bucket = TokenBucket(self._per_address * BURST_SECONDS, self._per_address, now)
        self._networks[network] = bucket
        if len(self._networks) > MAX_NETWORKS:
            self._networks.popitem(last=False)
        return bucket.spend(now) and self._all.spend(now)


def _unknown(request: StunMessage) -> list[int]:
    """The attributes that have to be understood, and are not (section 6.3.1)."""
    found: list[int] = []
    for kind, _ in request.attributes:
        if kind < _REQUIRED and kind not in _KNOWN and kind not in found:
            found.append(kind)
        if kind in _SIGNATURES:
            break
    return found


def _refusal(request: StunMessage, unknown: list[int], *, fingerprint: bool) -> bytes:
    # Without a reason phrase, which would make the answer larger than twice the request.
    code = struct.pack(">HBB", 0, UNKNOWN_ATTRIBUTE // 100, UNKNOWN_ATTRIBUTE % 100)
    attributes = [
        (Attribute.ERROR_CODE, code),
        (Attribute.UNKNOWN_ATTRIBUTES, struct.pack(f">{len(unknown)}H", *unknown)),
    ]
    return write_message(BINDING_ERROR, request.transaction, attributes, fingerprint=fingerprint)
