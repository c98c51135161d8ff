"""What coturn reads: the settings of our TURN server, and a folder with its configuration, secrets and certificate.

Only this user reads the folder. coturn reads its database of secrets for each request, and the certificate at the start
and on SIGUSR2. A folder whose server was killed is removed when another one starts.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aldis.errors import ConfigError
from aldis.server.config import ServerConfig
from aldis.server.temporary_folder import TemporaryFolder, remove_abandoned
from aldis.server.tls import certificate_files

# Networks that are nobody's on the internet: RFC 6890, and the addresses of cloud metadata among them.
_PRIVATE: Final = (
    "0.0.0.0-0.255.255.255",
    "10.0.0.0-10.255.255.255",
    "100.64.0.0-100.127.255.255",
    "127.0.0.0-127.255.255.255",
    "169.254.0.0-169.254.255.255",
    "172.16.0.0-172.31.255.255",
    "192.0.0.0-192.0.0.255",
    "192.168.0.0-192.168.255.255",
    "198.18.0.0-198.19.255.255",
    "::1",
    "fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)


# As coturn itself makes it.
_SECRETS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS turn_secret "
    "(realm varchar(127) default '', value varchar(127), primary key (realm, value))"
)
# How long coturn's database may be held by coturn, which only reads it.
_DATABASE_SECONDS: Final = 5.0
_PREFIX: Final = "aldis-turn-"
_PROCESS: Final = "turnserver.pid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    """`address` is what clients dial; `listen` the address to listen on, None for all."""

    address: str
    listen: str | None
    port: int
    tls_port: int
    relay_ports: tuple[int, int]
    cert: Path | None = None
    key: Path | None = None
    secret: str = ""

    @property
    def urls(self) -> list[str]:
        """The URLs for clients, the fastest first."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        found = [f"turn:{host}:{self.port}?transport={transport}" for transport in ("udp", "tcp")]
        return found if self.cert is None else [*found, f"turns:{host}:{self.tls_port}?transport=tcp"]

    @property
    def stun_url(self) -> str:
        """The same server answers STUN."""
        return f"stun:{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"

    @property
    def check_url(self) -> str:
        """Where a process of this machine asks it for a relay."""
        host = self.listen or "127.0.0.1"
        return f"turn:{f'[{host}]' if ':' in host else host}:{self.port}"


class TurnFolder:
    """The folder of one TURN server, which is there until `remove`. Raises `OSError`."""

    def __init__(self) -> None:
        remove_abandoned(_PREFIX, _has_a_process)
        self._made = TemporaryFolder(_PREFIX)
        self.path = self._made.path
        self.configuration = self.path / "turnserver.conf"
        self._database = self.path / "turndb"
        self._certificate, self._key = self.path / "certificate.pem", self.path / "key.pem"

    def remove(self) -> None:
        """Delete all of it."""
        self._made.remove()

    def write(self, settings: TurnSettings, accepted: Sequence[str]) -> None:
        """Write all that a start needs. Raises `OSError`."""
        self.write_secrets(settings.address, accepted)
        self.link_certificate(settings)
        _write(self.configuration, "\n".join([*self.lines(settings), ""]).encode())

    def write_secrets(self, realm: str, accepted: Sequence[str]) -> None:
        """Have coturn take these secrets and no others. Raises `OSError`."""
        os.close(os.open(self._database, os.O_WRONLY | os.O_CREAT, 0o600))
        try:
            with closing(sqlite3.connect(self._database, timeout=_DATABASE_SECONDS)) as database, database:
                database.execute(_SECRETS_TABLE)
                database.execute("DELETE FROM turn_secret")
                rows = [(realm, secret) for secret in accepted]
                database.executemany("INSERT OR IGNORE INTO turn_secret (realm, value) VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise OSError(f"coturn's database cannot be written: {error}") from None

    def link_certificate(self, settings: TurnSettings) -> None:
        """Have coturn read these files at its next look. Links, since a copy of the key may stay behind.

        Raises `OSError`.
        """
        for source, link in ((settings.cert, self._certificate), (settings.key, self._key)):
            if source is not None:
                new = link.with_suffix(".new")
                new.unlink(missing_ok=True)
                new.symlink_to(source.absolute())
                new.replace(link)

    def lines(self, settings: TurnSettings) -> list[str]:
        """The configuration."""
        first, last = settings.relay_ports
        lines = [
            f"listening-port={settings.port}",
            f"min-port={first}",
            f"max-port={last}",
            "use-auth-secret",
            f"realm={settings.address}",
            "fingerprint",
            "stale-nonce=600",
            "no-cli",
            "no-dtls",
            "no-multicast-peers",
            "no-rfc5780",  # it would take the next port as well
            "no-software-attribute",
            # Allocations at a time: of one user (a peer connection takes one or two for each interface), and of all.
            "user-quota=32",
            f"total-quota={last - first + 1}",
            f"userdb={self._database}",
            f"pidfile={self.path / _PROCESS}",
            "log-file=stdout",
            "simple-log",
        ]
        if settings.listen is not None:
            lines.append(f"listening-ip={settings.listen}")
        if settings.cert is not None and settings.key is not None:
            lines += [f"tls-listening-port={settings.tls_port}"]
            lines += [f"cert={self._certificate}", f"pkey={self._key}", "no-tlsv1", "no-tlsv1_1"]
        else:
            lines.append("no-tls")
        if not _is_private(settings.address):
            lines += [f"denied-peer-ip={network}" for network in _PRIVATE]
        return lines


def turn_settings(config: ServerConfig) -> TurnSettings:
    """What a server's settings say about its TURN server. Raises `ConfigError` when nobody knows how to reach it."""
    everywhere = config.host in ("0.0.0.0", "::")  # noqa: S104 - compared with
    address = config.turn_address
    if not address and config.names:
        address = urlsplit(f"//{config.names[0]}").hostname or ""
    if not address and config.acme_domain:
        address = config.acme_domain[0]
    if not address and not everywhere:
        address = "127.0.0.1" if config.host == "localhost" else config.host
    if not address:
        raise ConfigError("turn_address", "is needed with turn_server: the address or name by which clients reach it")
    cert, key = certificate_files(config) or (None, None)
    return TurnSettings(
        address=address,
        listen=None if everywhere else _as_address(config.host),
        port=config.turn_port,
        tls_port=config.turn_tls_port,
        relay_ports=config.turn_relay_ports,
        cert=cert,
        key=key,
        secret=config.turn_secret,
    )


def _write(path: Path, content: bytes) -> None:
    """Replace a file that only this user reads. Raises `OSError`."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)


def _has_a_process(folder: Path) -> bool:
    """Whether the coturn of a folder without a lock may be running. Its killed process has left its number.

    Without a number the folder has just been made.
    """
    try:
        os.kill(int((folder / _PROCESS).read_text()), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True


def _as_address(host: str) -> str | None:
    """The address to listen on; None, all of them, for a name."""
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        return None


def _is_private(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return address == "localhost" or address.endswith((".local", ".internal", ".lan"))
    return not ip.is_global
