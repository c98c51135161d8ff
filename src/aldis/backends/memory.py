"""A directory that lives as long as the process: for tests, and for servers whose names need not survive a restart."""

from __future__ import annotations

from aldis.backends.base import Claim, DirectoryUnavailable


class MemoryDirectory:
    """Bindings in a dictionary; see `base.Directory` for each call."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._closed = False

    def _open_keys(self) -> dict[str, bytes]:
        if self._closed:
            raise DirectoryUnavailable("the directory is closed")
        return self._keys

    @property
    def healthy(self) -> bool:
        return not self._closed

    async def claim(self, user_id: str, public_key: bytes) -> Claim:
        keys = self._open_keys()
        new = user_id not in keys
        return Claim(keys.setdefault(user_id, public_key), new)

    async def find(self, user_id: str) -> bytes | None:
        return self._open_keys().get(user_id)

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        keys = self._open_keys()
        if keys.get(user_id) == old_key:
            keys[user_id] = new_key
        return keys.get(user_id) == new_key

    async def release(self, user_id: str) -> bool:
        return self._open_keys().pop(user_id, None) is not None

    async def check(self) -> None:
        self._open_keys()

    async def close(self) -> None:
        self._closed = True
