"""The checksum of a transfer: SHA-256 over the SHA-256 of each MiB.

Rules of this module:

* The bytes of a transfer are cut into blocks of `BLOCK` bytes; the last one may be shorter. The checksum is
  SHA-256(SHA-256(block 0) || SHA-256(block 1) || …). Nothing has no blocks.
* The blocks are there for browsers: WebCrypto digests no stream (Web Cryptography API, section 14.3.5). They also make
  the checksum of a beginning cheap, from which a transfer is resumed.

Pure: it does not know where the bytes come from.
"""

from __future__ import annotations

import hashlib
from typing import Final

BLOCK: Final = 1024 * 1024
DIGEST_BYTES: Final = 32


class Digest:
    """The checksum of the bytes so far."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()

    def update(self, data: bytes | bytearray) -> None:
        """These bytes come next."""
        rest = memoryview(data)
        while rest:
            taken = rest[: BLOCK - self.size % BLOCK]
            rest = rest[len(taken) :]
            self._block.update(taken)
            self.size += len(taken)
            if self.size % BLOCK == 0:
                self._whole.update(self._block.digest())
                self._block = hashlib.sha256()

    @property
    def of_blocks(self) -> bytes:
        """The checksum of the whole blocks so far, in 32 bytes."""
        return self._whole.digest()

    def result(self) -> bytes:
        """The checksum of all bytes so far, in 32 bytes; more may follow."""
        whole = self._whole.copy()
        if self.size % BLOCK:
            whole.update(self._block.digest())
        return whole.digest()
