"""The data directory of the command line: identity keys by name, pinned keys of peers, refused keys.

DIR/keys/alice@example.com.pem      one identity per name, readable by its owner only
DIR/pins.sqlite                     the pinned key of each peer on each server
DIR/journals/<server>/<me>/<device>/<name>.sqlite
                                    what `aldis chat` has to send to a peer, and has received and not shown
DIR/refused/<server>/<name>         the key that a peer last presented in place of the pinned one
DIR/sending/<digest>.json           which files of an interrupted `aldis send` have arrived

Rules: a name only determines a file name, never a path. Characters that a file name cannot have are quoted. Nothing is
made before it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from aldis.environment import data_directory, expand
from aldis.errors import IdentityError, UsageError
from aldis.identity.keys import PUBLIC_KEY_BYTES, Identity
from aldis.identity.pins import FilePins, MemoryPins, Pins
from aldis.protocol.addresses import check_user_id

MEMORY: Final = ":memory:"
_ADVICE: Final = "--data or ALDIS_DATA names another directory"
_SUFFIX: Final = ".pem"
# File systems allow 255 bytes in a name. A longer one is cut, and ends with a digest of the whole.
_LONGEST: Final = 200
_KEPT: Final = 120


def file_name(name: str) -> str:
    """The file name for a user id or a host: readable if possible, always the same, never a path."""
    quoted = quote(name, safe="@+").replace("~", "%7E")  # the tilde marks a name that was cut
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) > _LONGEST:
        quoted = f"{quoted[:_KEPT]}~{sha256(name.encode()).hexdigest()[:32]}"
    return quoted


class Home:
    """The data directory. `:memory:` keeps nothing: each run has a new identity and pins keys only for itself."""

    def __init__(self, directory: str | None = None) -> None:
        """Use `directory`, or the platform's directory for user data when it is None or empty."""
        self.forgets = directory == MEMORY
        self._given = directory

    @cached_property
    def _directory(self) -> Path:
        """The directory, determined when needed: not every user has a home, and not every command needs one.

        Raises `ConfigError` when there is no such directory.
        """
        return expand(self._given) if self._given else data_directory()

    def key_path(self, name: str) -> Path:
        """The file of the identity `name`. Raises `InvalidAddress` when `name` is not valid."""
        return self._keys / (file_name(check_user_id(name)) + _SUFFIX)

    @property
    def doctor_key(self) -> Path:
        """The key of the name that `aldis doctor` registers. It is outside `keys`, where it could be a user's key."""
        return self._directory / "doctor.pem"

    @property
    def sending(self) -> Path | None:
        """The folder for what commands have sent that were interrupted; None when nothing is kept."""
        return None if self.forgets else self._directory / "sending"

    @property
    def _keys(self) -> Path:
        return self._directory / "keys"

    def names(self) -> list[tuple[str, Path]]:
        """All names with a key here, and their files, sorted. A name too long for a file name is shown cut."""
        try:
            files = sorted(path for path in self._keys.iterdir() if path.suffix == _SUFFIX and path.name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._problem("read", self._keys, error) from error
        return [(unquote(path.stem), path) for path in files]

    def identity(self, name: str, key: Path | None = None) -> tuple[Identity, Path | None, bool]:
        """The identity for `name`, its file, and whether it was made just now. `key` is a file to use instead.

        Raises `IdentityError` for a file that cannot be used.
        """
        check_user_id(name)
        if self.forgets and key is None:
            return Identity.generate(), None, True
        path = key or self.key_path(name)
        made = not os.path.exists(path)  # not Path.exists, which raises for a folder that we may not read
        with self.with_advice(key):
            return Identity.load_or_create(path), path, made

    def doctor_identity(self, key: Path | None = None) -> Identity:
        """The identity of `aldis doctor`, the same each time. `key` is a file to use instead."""
        if self.forgets:
            return Identity.generate()
        with self.with_advice(key):
            return Identity.load_or_create(key or self.doctor_key)

    def pins(self) -> Pins:
        """The pinned keys of peers; close them after use."""
        if self.forgets:
            return MemoryPins()
        with self.with_advice():
            return FilePins(self._directory / "pins.sqlite")

    def journal(self, server: str, me: str, device: str, peer: str) -> Path | None:
        """The file of a conversation's journal, which may not be there yet; None when nothing is kept."""
        if self.forgets:
            return None
        folder = self._directory / "journals" / file_name(server) / file_name(me) / file_name(device)
        return folder / (file_name(peer) + ".sqlite")

    @contextmanager
    def with_advice(self, key: Path | None = None) -> Iterator[None]:
        """Add to an error that another directory can be chosen, if the user has not chosen one."""
        try:
            yield
        except IdentityError as error:
            if self._given or key is not None:
                raise
            raise IdentityError(f"{error}; {_ADVICE}") from error

    def remember_refused(self, server: str, user_id: str, public_key: bytes) -> None:
        """Keep the key that a peer presented in place of the pinned one, so that a person can accept it later."""
        if self.forgets:
            return
        path = self._refused(server, user_id)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Write it beside and move it into place, so that it is whole or absent.
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_bytes(public_key)
            draft.replace(path)
        except OSError as error:
            raise self._problem("write", path, error) from error

    def refused(self, server: str, user_id: str) -> bytes | None:
        """The key that was refused last for this peer, or None."""
        path = self._refused(server, user_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._problem("read", path, error) from error
        return data if len(data) == PUBLIC_KEY_BYTES else None

    def forget_refused(self, server: str, user_id: str) -> None:
        """Forget the refused key, because a key was accepted."""
        path = self._refused(server, user_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._problem("remove", path, error) from error

    def _problem(self, what: str, path: Path, error: OSError) -> IdentityError:
        problem = f"cannot {what} {path}: {error.strerror or error}"
        return IdentityError(problem if self._given else f"{problem}; {_ADVICE}")

    def _refused(self, server: str, user_id: str) -> Path:
        return self._directory / "refused" / file_name(server) / file_name(check_user_id(user_id))

    def require_disk(self) -> None:
        """Raise `UsageError` for `:memory:`: for commands whose only purpose is to keep something."""
        if self.forgets:
            raise UsageError("--data :memory: keeps nothing; this command needs a directory")
