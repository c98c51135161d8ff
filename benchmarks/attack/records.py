"""Records of TLS 1.3 that no library sends at will: the keys of a connection are taken from the log of OpenSSL."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.attack.attack import Attack, attack, forever, together
from benchmarks.attack.wire import Target, Wire, tls_context

HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
# RFC 8446 section 4.6.3: a KeyUpdate that asks for one, too.
_ASKING: Final = b"\x18\0\0\1\1"
# Those that are sent at once: 40 KB, which the kernel of the server takes in one go.
AT_ONCE: Final = 1500


class Sealed:
    """What a client of TLS 1.3 sends, record by record (RFC 8446 sections 5 and 7)."""

    def __init__(self, secret: bytes, cipher: str) -> None:
        self._hash, self._hash_bytes = ("sha384", 48) if cipher.endswith("SHA384") else ("sha256", 32)
        self._key_bytes = 32 if "_256_" in cipher else 16
        self._use(secret)

    @classmethod
    async def after_handshake(cls, wire: Wire, folder: Path) -> Sealed:
        """Shake hands, and go on by hand."""
        log = folder / f"{id(wire)}.log"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, tls_context().verify_mode
        context.keylog_filename = str(log)
        await wire.secure(context)
        assert wire.tls is not None
        lines = [line.split() for line in log.read_text().splitlines()]
        log.unlink()
        secret = next(line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        return cls(bytes.fromhex(secret), wire.tls.cipher)

    def record(self, content: bytes, kind: int) -> bytes:
        """One record."""
        content += bytes([kind])
        head = b"\x17\3\3" + (len(content) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._key.encrypt(nonce, content, head)

    def key_update(self) -> bytes:
        """A record after which the keys of the client are others, and which asks the server for the same."""
        record = self.record(_ASKING, HANDSHAKE)
        self._use(self._expand(b"traffic upd", self._hash_bytes))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret, self._number = secret, 0
        self._key = AESGCM(self._expand(b"key", self._key_bytes))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return hmac.digest(self._secret, info + b"\1", self._hash)[:size]


@attack("tls-key-updates")
class KeyUpdates(Attack):
    """Records that ask for new keys, 1,500 at once on 8 connections: 27 bytes each, for which two keys are derived."""

    tls = True
    reads = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._folder = TemporaryDirectory(prefix="aldis-bench-")

    def end(self) -> None:
        super().end()
        self._folder.cleanup()

    async def strike(self) -> None:
        await together(forever(self._once) for _ in range(8))

    async def _once(self) -> None:
        wire = await self.dial()
        reading: asyncio.Task[None] | None = None
        try:
            sealed = await Sealed.after_handshake(wire, Path(self._folder.name))
            if self.reads:
                reading = asyncio.create_task(wire.discard())
            while reading is None or not reading.done():
                records = b""
                while len(records) < 27 * AT_ONCE:
                    records += b"".join(sealed.key_update() for _ in range(25))
                    await asyncio.sleep(0)
                await wire.send_raw(records)
        finally:
            if reading is not None:
                reading.cancel()
            wire.abort()


@attack("tls-key-updates-unread")
class KeyUpdatesUnread(KeyUpdates):
    """The same by clients that read no answer."""

    reads = False
