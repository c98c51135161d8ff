"""A directory that lives as long as the process: for tests, and for servers whose names need not survive a restart."""

from __future__ import annotations

import heapq

from aldis.backends.base import Binding, Claim, DirectoryUnavailable, PrivacyRefusal
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange


class MemoryDirectory:
    """Bindings in a dictionary; see `base.Directory` for each call."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        # Of the names that have another one than the default.
        self._privacies: dict[str, Privacy] = {}
        self._listed: set[str] = set()
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
        return Claim(keys.setdefault(user_id, public_key), new, self._privacies.get(user_id, DEFAULT_PRIVACY))

    async def find(self, user_id: str) -> bytes | None:
        return self._open_keys().get(user_id)

    async def load(self, user_id: str) -> Claim | None:
        key = self._open_keys().get(user_id)
        return None if key is None else Claim(key, False, self._privacies.get(user_id, DEFAULT_PRIVACY))

    async def change_privacy(self, user_id: str, public_key: bytes, change: PrivacyChange) -> Privacy | PrivacyRefusal:
        if self._open_keys().get(user_id) != public_key:
            return PrivacyRefusal.NOT_BOUND
        privacy = self._privacies.get(user_id, DEFAULT_PRIVACY).changed(change)
        if privacy is None:
            return PrivacyRefusal.TOO_LARGE
        self._keep_privacy(user_id, privacy)
        return privacy

    def _keep_privacy(self, user_id: str, privacy: Privacy) -> None:
        if privacy == DEFAULT_PRIVACY:
            self._privacies.pop(user_id, None)
        else:
            self._privacies[user_id] = privacy

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        keys = self._open_keys()
        if keys.get(user_id) == old_key:
            keys[user_id] = new_key
        return keys.get(user_id) == new_key

    async def release(self, user_id: str) -> bool:
        keys = self._open_keys()
        self._privacies.pop(user_id, None)
        return keys.pop(user_id, None) is not None

    async def is_listed(self, user_id: str) -> bool:
        self._open_keys()
        return user_id in self._listed

    async def list_name(self, user_id: str) -> bool:
        new = not await self.is_listed(user_id)
        self._listed.add(user_id)
        return new

    async def unlist_name(self, user_id: str) -> bool:
        listed = await self.is_listed(user_id)
        self._listed.discard(user_id)
        return listed

    async def listed_names(self, after: str, most: int) -> list[str]:
        self._open_keys()
        return heapq.nsmallest(most, (name for name in self._listed if name > after))

    async def bindings(self, after: str, most: int) -> list[Binding]:
        keys = self._open_keys()
        names = heapq.nsmallest(most, (name for name in keys if name > after))
        return [Binding(name, keys[name], self._privacies.get(name, DEFAULT_PRIVACY)) for name in names]

    async def put(self, binding: Binding) -> None:
        self._open_keys()[binding.user_id] = binding.public_key
        self._keep_privacy(binding.user_id, binding.privacy)

    async def check(self) -> None:
        self._open_keys()

    async def close(self) -> None:
        self._closed = True
