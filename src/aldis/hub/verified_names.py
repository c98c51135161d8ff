"""The names whose keys a node of a cluster has verified: it goes by them while the directory is away.

Rules:

* A name is kept while the node hears of its user (`hub.remote_users`). So a change of its key or privacy at another
  node is heard, until an outage begins.
* What came during an outage is not heard. So when it is over, names that nobody has here are forgotten, and the others
  are looked up (`ClusterRouter.restored`).
* A name is not known by another key than the kept one: the directory may know better.

So a node that is cut off may admit a key that was rotated elsewhere meanwhile. Its sessions end when the outage is
over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from aldis.backends.base import Claim
from aldis.hub.privacy_policies import size_of
from aldis.protocol.privacy import Privacy

# Bytes of a name beside its text and its privacy: measured, rounded up.
NAME_BYTES: Final = 350
# Of all of them; beyond, those that registered longest ago are forgotten: first those with long lists, while these take
# more than half. Ninety names with the longest lists would have it all, which is enough for as many as 90,000 others.
MOST_BYTES: Final = 32 * 1024 * 1024
LONG: Final = 4096


class VerifiedNames:
    """The names of one node."""

    def __init__(self) -> None:
        self._claims: OrderedDict[str, Claim] = OrderedDict()
        # Those of more than `LONG` bytes, and what they take.
        self._long: OrderedDict[str, None] = OrderedDict()
        self._long_bytes = 0
        self.bytes = 0
        """What all of them cost."""

    def __len__(self) -> int:
        return len(self._claims)

    def note(self, user_id: str, claim: Claim) -> None:
        """The directory has said which key a name is bound to."""
        self.forget([user_id])
        self._claims[user_id] = claim._replace(new=False)
        size = _size(user_id, claim)
        self.bytes += size
        if size > LONG:
            self._long[user_id] = None
            self._long_bytes += size
        while self.bytes > MOST_BYTES:
            self.forget([next(iter(self._long if 2 * self._long_bytes > MOST_BYTES else self._claims))])

    def bound(self, user_id: str, key: bytes | None) -> None:
        """A name is bound to this key now; None: to none."""
        claim = self._claims.get(user_id)
        if claim is not None and claim.public_key != key:
            self.forget([user_id])
            if key is not None:
                self.note(user_id, claim._replace(public_key=key))

    def changed(self, user_id: str, privacy: Privacy) -> None:
        """The privacy of a user is another one now."""
        claim = self._claims.get(user_id)
        if claim is None or claim.privacy is privacy:
            return
        if claim.privacy == privacy:
            # The same names, of which one copy is enough, and quickly compared the next time.
            self._claims[user_id] = claim._replace(privacy=privacy)
        else:
            self.note(user_id, claim._replace(privacy=privacy))

    def recall(self, user_id: str, public_key: bytes) -> Claim | None:
        """What a claim of the directory would be, as far as is known here."""
        claim = self._claims.get(user_id)
        return claim if claim is not None and claim.public_key == public_key else None

    def forget(self, user_ids: Iterable[str]) -> None:
        """Forget names, and those that are not known change nothing."""
        for user_id in user_ids:
            claim = self._claims.pop(user_id, None)
            if claim is not None:
                size = _size(user_id, claim)
                self.bytes -= size
                if size > LONG:
                    del self._long[user_id]
                    self._long_bytes -= size

    def keep(self, wanted: Callable[[str], bool]) -> list[str]:
        """Forget all names but those that are wanted, and return these."""
        self.forget([user_id for user_id in self._claims if not wanted(user_id)])
        return list(self._claims)


def _size(user_id: str, claim: Claim) -> int:
    return NAME_BYTES + len(user_id) + size_of(claim.privacy)
