"""The certificate of a running server: it is opened at the start, replaced while clients stay, and told to coturn.

It comes from files, which are looked at once in a while, or from an authority (`server.certificates`). Nothing here
raises once the server runs: a certificate that cannot be used is one error in the log, and the earlier one stays.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from aldis.errors import ConfigError
from aldis.server.certificates.challenges import Challenges
from aldis.server.config import ServerConfig
from aldis.server.logs import Log
from aldis.server.names import ServerNames
from aldis.server.tls import ServerTls, certificate_files, certified_names, check_authorities
from aldis.server.tuning import Tuning
from aldis.server.turn_server import TurnServer

if TYPE_CHECKING:
    from aldis.server.certificates.manager import CertificateManager


class CertificateUpdates:
    """`tls` is None for a server without TLS, `manager` for one whose certificate is in files."""

    def __init__(
        self, config: ServerConfig, names: ServerNames, turn: TurnServer | None, tuning: Tuning, log: Log
    ) -> None:
        self.tls: ServerTls | None = None
        self.manager: CertificateManager | None = None
        self.challenges = Challenges()
        # Why the last new certificate could not be used; empty when it could.
        self.problem = ""
        self._config = config
        self._names = names
        self._turn = turn
        self._every = tuning.certificate_look
        self._log = log
        self._next_look = 0.0
        self._managing: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the certificate of these settings."""
        return () if self.tls is None else certified_names(self._config)

    def open(self) -> None:
        """Load the certificate. Raises `ConfigError`."""
        config = self._config
        if not config.secure:
            return
        check_authorities(config)
        try:
            self.tls = ServerTls(certificate_files(config))
        except ConfigError:
            if not config.acme_domain:
                raise
            self.tls = ServerTls(None)  # another one is ordered
        self._use(self.tls)

    def start(self, *, with_http: bool) -> None:
        """Order certificates, if the settings say so. `with_http`: the port for plain HTTP listens."""
        if self._config.acme_domain:
            # Imported here: it loads `acme` with `requests`, which few servers need.
            from aldis.server.certificates.manager import manager_for

            self.manager = manager_for(
                self._config, self.challenges, self._log, with_http=with_http, use=lambda: self.load(self._config)
            )
            self._managing = asyncio.create_task(self.manager.run(), name="aldis-certificates")

    async def close(self) -> None:
        """Order no more."""
        if self._managing is not None:
            self._managing.cancel()
            with suppress(asyncio.CancelledError):
                await self._managing

    def tick(self, now: float) -> None:
        """Look about once a minute whether the files have changed."""
        if self.tls is not None and now >= self._next_look:
            self._next_look = now + self._every
            if self.tls.changed():
                self.load(self._config)

    def load(self, config: ServerConfig) -> bool:
        """Take over the certificate that these settings name. Returns False, and changes nothing, if that cannot be
        used."""
        tls, files, is_new = self.tls, certificate_files(config), False
        if tls is not None and files is not None:
            try:
                is_new = tls.load(*files, for_names=not config.names)
            except ConfigError as error:
                self.problem = str(error)
                self._log.error("the new certificate cannot be used; the earlier one stays", reason=self.problem)
                return False
        self._config = config
        if tls is not None and files is not None:
            # Files that could not be used and are the earlier ones again are news as well.
            is_new, self.problem = is_new or bool(self.problem), ""
            self._use(tls)
            if is_new:
                if self._turn is not None:
                    self._turn.change(self._turn.use_certificate(*files))
                self._log.info("new certificate", expires=str(tls.expires))
        return True

    def retry(self) -> None:
        """Order a certificate at once if the last order failed: an operator may have mended what kept it."""
        if self.manager is not None and self.manager.failures:
            self.manager.renew_now()

    def not_ready(self) -> str | None:
        """Why no client can connect; None if that is not because of the certificate."""
        if self.tls is None or self.tls.files is not None:
            return None
        problem = "" if self.manager is None else self.manager.error
        return f"there is no certificate yet: {problem or 'it is being ordered'}"

    def note(self) -> str | None:
        """Why clients refuse the certificate in use, as far as its dates tell. The server goes on, since another
        one may come at any time."""
        problem = "" if self.tls is None else self.tls.validity_problem(time.time())
        return f"the certificate {problem}" if problem else None

    def _use(self, tls: ServerTls) -> None:
        if not self._config.names:
            self._names.certify(tls.names or self._config.acme_domain)
        if problem := self.note():
            self._log.error(problem, expires=str(tls.expires))
