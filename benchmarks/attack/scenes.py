"""What a server needs for an attack beside its defaults: certificates, open ports, keys of tokens, an application."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from aldis.server.token_keys import make_key, public_part, write_key
from benchmarks.attack.attack import Attack
from benchmarks.attack.wire import ADMIN_TOKEN, FORWARDED, PROXY, PROXY_ADDRESS, Target
from benchmarks.load.helpers import helper
from benchmarks.load.servers import Running, free_port

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.certificates import make_certificates

HOOK_SECRET: Final = "a secret of server and application"


@dataclass(frozen=True)
class Scene:
    """What is around one server. `variables` are of its environment, `ports` of that of the first of a cluster."""

    variables: dict[str, str]
    ports: dict[str, str]
    tls: bool
    proxy: str
    key: str
    stun: int
    redirect: int
    admin: bool

    def target(self, server: Running) -> Target:
        """The server, as its clients dial it."""
        admin = server.admin if self.admin else 0
        return Target(server.port, self.tls, self.proxy, self.key, self.stun, self.redirect, admin)


@contextmanager
def scene_of(kind: type[Attack], core: int) -> Iterator[Scene]:
    """What an attack needs, for the length of the block. What has to run for it runs on `core`."""
    variables, ports, key = dict(kind.settings), {"ALDIS_ADMIN_TOKEN": ADMIN_TOKEN}, ""
    stun = redirect = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="aldis-bench-")))
        if kind.tls:
            files = make_certificates(folder)
            variables |= {"ALDIS_TLS_CERT": str(files.cert), "ALDIS_TLS_KEY": str(files.key)}
        if kind.proxy:
            variables["ALDIS_TRUSTED_PROXIES"] = PROXY_ADDRESS
            variables["ALDIS_PROXY_PROTOCOL"] = "yes" if kind.proxy == PROXY else "no"
            assert kind.proxy in (PROXY, FORWARDED)
        if "stun" in kind.ports:
            stun = free_port()
            ports |= {"ALDIS_STUN_PORT": str(stun), "ALDIS_STUN_ADDRESS": "127.0.0.1"}
        if "redirect" in kind.ports:
            redirect = free_port()
            ports["ALDIS_REDIRECT_PORT"] = str(redirect)
        if kind.tokens:
            private, public = folder / "key.json", folder / "jwks.json"
            made = make_key("EdDSA")
            write_key(private, made)
            public.write_text(json.dumps({"keys": [public_part(made)]}))
            variables |= {"ALDIS_AUTH": "token", "ALDIS_JWKS": str(public)}
            key = str(private)
        if kind.hook:
            port = free_port()
            stack.enter_context(helper(core, "benchmarks.attack.application", str(port)))
            variables |= {"ALDIS_HOOK_URL": f"http://127.0.0.1:{port}/", "ALDIS_HOOK_SECRET": HOOK_SECRET}
            # Else nobody is asked about honest users that come again.
            variables["ALDIS_HOOK_CACHE"] = "0"
        yield Scene(variables, ports, kind.tls, kind.proxy, key, stun, redirect, "admin" in kind.ports)
