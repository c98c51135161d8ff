"""What the kernel leaves out of what arrives at the STUN port, before it costs this process anything.

A program of the classic BPF (bpf(4) of BSD, Documentation/networking/filter.rst of Linux): it drops what cannot be a
request that gets an answer, and what comes from some networks.

Pure: `server.stun_port` gives it to the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from aldis.protocol.stun import BINDING_REQUEST, COOKIE, HEADER_SIZE
from aldis.server.stun import MAX_REQUEST

_INSTRUCTION: Final = struct.Struct("=HBBI")
SIZE: Final = _INSTRUCTION.size
# linux/bpf_common.h: loads of a word, two bytes, a byte, and of the length; and the rest.
_WORD, _TWO, _BYTE, _LENGTH = 0x20, 0x28, 0x30, 0x80
_SHIFT, _GO, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x74, 0x05, 0x15, 0x25, 0x35, 0x06
_UDP: Final = 8  # bytes of its header, with which a datagram begins here; its first two are the sender's port
# linux/filter.h: offsets from here on count from the IP header.
_IP: Final = 0xFFF00000
_SOURCE4, _SOURCE6 = _IP + 12, _IP + 8
_DROP: Final = (_RETURN, 0, 0, 0)
_TAKE: Final = (_RETURN, 0, 0, 0xFFFF)
_IPV4_BYTES: Final = 4

_Instruction = tuple[int, int, int, int]


def program(networks: Iterable[bytes] = ()) -> bytes:
    """The program. `networks` are those that are left out: IPv4 addresses, or /64 of IPv6 (`hub.networks`)."""
    made: list[_Instruction] = [
        *[(_LENGTH, 0, 0, 0), (_IF_AT_LEAST, 1, 0, _UDP + HEADER_SIZE), _DROP],
        *[(_IF_GREATER, 0, 1, _UDP + MAX_REQUEST), _DROP],
        *[(_TWO, 0, 0, 0), (_IF_EQUAL, 0, 1, 0), _DROP],
        *[(_TWO, 0, 0, _UDP), (_IF_EQUAL, 1, 0, BINDING_REQUEST), _DROP],
        *[(_WORD, 0, 0, _UDP + 4), (_IF_EQUAL, 1, 0, int.from_bytes(COOKIE, "big")), _DROP],
    ]
    four: list[_Instruction] = [(_WORD, 0, 0, _SOURCE4)]
    six: list[_Instruction] = []
    for network in networks:
        head, tail = network[:4], network[4:]
        if len(network) == _IPV4_BYTES:
            four += [(_IF_EQUAL, 0, 1, int.from_bytes(head, "big")), _DROP]
        else:
            six += [(_WORD, 0, 0, _SOURCE6), (_IF_EQUAL, 0, 3, int.from_bytes(head, "big"))]
            six += [(_WORD, 0, 0, _SOURCE6 + 4), (_IF_EQUAL, 0, 1, int.from_bytes(tail, "big")), _DROP]
    if len(four) > 1 or six:
        four.append(_TAKE)
        # The version of IP.
        made += [(_BYTE, 0, 0, _IP), (_SHIFT, 0, 0, 4), (_IF_EQUAL, 1, 0, 4), (_GO, 0, 0, len(four)), *four, *six]
    made.append(_TAKE)
    return b"".join(_INSTRUCTION.pack(*each) for each in made)
