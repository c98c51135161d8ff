"""Write deploy/cloud-init/aldis.yaml from the files of the kit: `python tools/cloud_init.py` after a change of one.

A machine that starts with this user-data has no copy of the project, so the file holds all that `setup.sh` needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
PLACE: Final = "/usr/local/share/aldis-deploy"
FILES: Final = (
    "setup.sh",
    "aldis.toml",
    "caddy/Caddyfile",
    "coturn/turnserver.conf",
    "direct/aldis.toml",
    "direct/socket.conf",
    "direct/service.conf",
    "direct/aldis-redirect.socket",
    "systemd/aldis.service",
    "systemd/aldis.socket",
    "systemd/aldis.sysusers.conf",
    "systemd/aldis.tmpfiles.conf",
)
_HEAD: Final = """\
#cloud-config
# A fresh Debian machine (12 or later) of any provider becomes an Aldis server with TLS and TURN: docs/deploy.md.
# Replace signal.example.com, which has to lead to the machine. tools/cloud_init.py writes this file.
package_update: true
write_files:
"""
_TAIL: Final = f"""\
runcmd:
  - [env, "ALDIS_PACKAGE=aldis-server[redis]", sh, {PLACE}/setup.sh, signal.example.com]
"""


def user_data() -> str:
    """The text of the file."""
    parts = [_HEAD]
    for name in FILES:
        text = (DEPLOY / name).read_text(encoding="utf-8")
        parts.append(f"  - path: {PLACE}/{name}\n    content: |\n")
        parts += [f"      {line}\n" if line else "\n" for line in text.splitlines()]
    return "".join([*parts, _TAIL])


if __name__ == "__main__":
    (DEPLOY / "cloud-init" / "aldis.yaml").write_text(user_data(), encoding="utf-8")
