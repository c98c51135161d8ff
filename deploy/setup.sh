#!/bin/sh
# Turn this Debian machine (12 or later) into an Aldis server with TLS (Caddy) and TURN (coturn):
#
#     sh deploy/setup.sh signal.example.com
#     sh deploy/setup.sh --direct signal.example.com    without Caddy: Aldis gets its certificate and does TLS itself
#
# The name must lead to this machine. Run it again to upgrade: it keeps names, keys, secrets and aldis.toml, and writes the
# other files anew. Where aldis.toml has `turn_server = true`, the server runs coturn itself, and the service stays off.
# ALDIS_PACKAGE names another package than `aldis-server[redis]`: a version, a wheel, or the URL of one (docs/deploy.md).
set -eu

proxy=caddy
[ "${1:-}" != --direct ] || { proxy=; shift; }
name=${1:-}
case $name in
    '' | -* | *[!A-Za-z0-9.-]*) echo "usage: sh deploy/setup.sh [--direct] NAME, such as signal.example.com" >&2; exit 64 ;;
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

# What coturn has to know behind address translation, as at many cloud providers: there the name leads to an address that
# this machine does not have.
external_ip() {
    public=$(getent ahostsv4 "$1" | sed -n '1s/[[:space:]].*//p')
    case $public in '' | 127.*) return 0 ;; esac
    ! ip -4 -o address | grep -qF " $public/" || return 0
    private=$(ip -4 -o route get "$public" | sed -n 's/.* src \([0-9.]*\).*/\1/p')
    [ -z "$private" ] || echo "external-ip=$public/$private"
}

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates curl iproute2 $proxy coturn python3-venv systemd
[ -x /opt/aldis/bin/python ] || python3 -m venv /opt/aldis
package=${ALDIS_PACKAGE:-aldis-server[redis]}
/opt/aldis/bin/python -m pip install --quiet --upgrade "$package"
# pip takes no wheel of a version that is there already, and several are built of one version before it is released.
case $package in *.whl*) /opt/aldis/bin/python -m pip install --quiet --force-reinstall --no-deps "$package" ;; esac
ln -sf /opt/aldis/bin/aldis /usr/local/bin/aldis

secret=
put 644 systemd/aldis.sysusers.conf /usr/lib/sysusers.d/aldis.conf
put 644 systemd/aldis.tmpfiles.conf /usr/lib/tmpfiles.d/aldis.conf
put 644 systemd/aldis.service /etc/systemd/system/aldis.service
put 644 systemd/aldis.socket /etc/systemd/system/aldis.socket
systemd-sysusers aldis.conf
systemd-tmpfiles --create aldis.conf
turn_before=$(cksum /etc/turnserver.conf 2>/dev/null || true)
coturn=coturn
! grep -Eqs '^[[:space:]]*turn[_-]server[[:space:]]*=[[:space:]]*true' /etc/aldis/aldis.toml || coturn=
if [ -n "$coturn" ] && ! grep -q ALDIS_TURN_SECRET= /etc/aldis/secrets.env; then
    echo "ALDIS_TURN_SECRET=$(python3 -c 'import secrets; print(secrets.token_hex(32))')" >>/etc/aldis/secrets.env
fi
if [ -n "$proxy" ]; then
    [ -e /etc/aldis/aldis.toml ] || put 640 aldis.toml /etc/aldis/aldis.toml
    put 644 caddy/Caddyfile /etc/caddy/Caddyfile
else
    [ -e /etc/aldis/aldis.toml ] || put 640 direct/aldis.toml /etc/aldis/aldis.toml
    put 644 direct/socket.conf /etc/systemd/system/aldis.socket.d/direct.conf
    put 644 direct/service.conf /etc/systemd/system/aldis.service.d/direct.conf
    put 644 direct/aldis-redirect.socket /etc/systemd/system/aldis-redirect.socket
fi
chgrp aldis /etc/aldis/aldis.toml
if [ -n "$coturn" ]; then
    secret=$(sed -n 's/^ALDIS_TURN_SECRET=//p' /etc/aldis/secrets.env)
    umask 077 # before the secret is in a file
    put 640 coturn/turnserver.conf /etc/turnserver.conf
    external_ip "$name" >>/etc/turnserver.conf
    chgrp turnserver /etc/turnserver.conf
else
    systemctl disable --quiet coturn
fi

systemctl enable --quiet aldis aldis.socket "${proxy:-aldis-redirect.socket}" $coturn
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # A server that opened the port itself, as earlier versions did, has to end first.
    systemctl is-active --quiet aldis.socket || systemctl stop aldis
    [ -n "$coturn" ] || systemctl stop coturn
    systemctl restart aldis
    # An upgrade: Caddy keeps its ports open, and coturn the connections that it relays if nothing has changed for it.
    [ -z "$proxy" ] || systemctl reload-or-restart "$proxy"
    if [ -n "$coturn" ]; then
        how=start
        [ "$turn_before" = "$(cksum /etc/turnserver.conf)" ] || how=restart
        systemctl "$how" coturn
    fi
    echo "Aldis serves https://$name/. Ask it from another machine: aldis doctor --server wss://$name"
fi
