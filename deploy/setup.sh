#!/bin/sh
# Turn this Debian machine (12 or later) into an Aldis server with TLS (Caddy) and TURN (coturn):
#
#     sh deploy/setup.sh signal.example.com
#
# The name must lead to this machine. Run it again to upgrade: it keeps names, keys, secrets and aldis.toml, and writes the
# other files anew. ALDIS_PACKAGE names another package than `aldis-server`, such as a version or the path of a wheel.
set -eu

name=${1:-}
case $name in
    '' | -* | *[!A-Za-z0-9.-]*) echo "usage: sh deploy/setup.sh NAME, such as signal.example.com" >&2; exit 64 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "setup.sh: needs root" >&2; exit 77; }
kit=$(cd "$(dirname "$0")" && pwd)

# A file of the kit with the name of this machine, and the secret where it belongs.
put() {
    install -d "$(dirname "$3")"
    sed -e "s/signal\.example\.com/$name/g" -e "s/TURN_SECRET/$secret/" "$kit/$2" >"$3.new"
    chmod "$1" "$3.new"
    mv "$3.new" "$3"
}

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates caddy coturn python3-venv systemd
[ -x /opt/aldis/bin/python ] || python3 -m venv /opt/aldis
/opt/aldis/bin/python -m pip install --quiet --upgrade "${ALDIS_PACKAGE:-aldis-server}"

secret=
put 644 systemd/aldis.sysusers.conf /usr/lib/sysusers.d/aldis.conf
put 644 systemd/aldis.tmpfiles.conf /usr/lib/tmpfiles.d/aldis.conf
put 644 systemd/aldis.service /etc/systemd/system/aldis.service
systemd-sysusers aldis.conf
systemd-tmpfiles --create aldis.conf
if ! grep -q ALDIS_TURN_SECRET= /etc/aldis/secrets.env; then
    echo "ALDIS_TURN_SECRET=$(python3 -c 'import secrets; print(secrets.token_hex(32))')" >>/etc/aldis/secrets.env
fi
[ -e /etc/aldis/aldis.toml ] || put 640 aldis.toml /etc/aldis/aldis.toml
chgrp aldis /etc/aldis/aldis.toml
put 644 caddy/Caddyfile /etc/caddy/Caddyfile
secret=$(sed -n 's/^ALDIS_TURN_SECRET=//p' /etc/aldis/secrets.env)
umask 077 # before the secret is in a file
put 640 coturn/turnserver.conf /etc/turnserver.conf
chgrp turnserver /etc/turnserver.conf

systemctl enable --quiet aldis caddy coturn
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl restart aldis caddy coturn
    echo "Aldis serves https://$name/. Ask it from another machine: aldis doctor --server wss://$name"
fi
