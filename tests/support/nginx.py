"""A real nginx before a server, as an operator sets it up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.kit import program, running

# What each place has to pass on.
PASS = """
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
"""
HOST = "proxy_set_header Host $http_host;"
# How servers are put under /aldis/, by what becomes of the path.
SUB_PATHS = {
    "stripped": "location /aldis/ {{ proxy_pass http://127.0.0.1:{server}/; }}",
    # A slash is missing after the first /aldis, so /aldis/ws comes as //ws.
    "doubled": "location /aldis {{ proxy_pass http://127.0.0.1:{server}/; }}",
    "kept": "location /aldis {{ proxy_pass http://127.0.0.1:{server}; }}",
}
# It says this when its sockets are open.
_LISTENS = b"using the "
_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{sites}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, port: int, places: str, address: str = "127.0.0.1") -> AsyncIterator[None]:
    """One that listens at `port` of `address`; `places` are its `location` blocks and what they share."""
    folder.mkdir()
    async with nginx_with(folder, f"server {{ listen {address}:{port};\n{places}\n}}"):
        yield


@asynccontextmanager
async def nginx_with(folder: Path, sites: str, connections: int = 256) -> AsyncIterator[None]:
    """One with these `server` blocks, for so many connections to clients and servers."""
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, sites=sites, connections=connections))
    command = (program("nginx"), "-e", "stderr", "-p", folder, "-c", configuration)
    async with running(*command, says=_LISTENS):
        yield
