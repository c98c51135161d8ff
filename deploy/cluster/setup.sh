#!/bin/sh
# Turn this Debian machine (12 or later) into a node of a cluster: docs/cluster.md, "Two machines, step by step".
#
#     sh deploy/cluster/setup.sh signal.example.com 10.0.0.11     the name of the cluster, this machine's private address
#
# The password of Redis has to be in /etc/aldis/redis-password. Run it again to upgrade: it keeps aldis.toml and the
# password, writes the other files anew, and restarts the node. ALDIS_PACKAGE names another package than
# `aldis-server[redis]`: a version, or a wheel with `[redis]` behind it (docs/deploy.md).
set -eu

name=${1:-}
address=${2:-}
usage() { echo "usage: sh deploy/cluster/setup.sh NAME ADDRESS, such as signal.example.com 10.0.0.11" >&2; exit 64; }
case $name in '' | -* | *[!A-Za-z0-9.-]*) usage ;; esac
case $address in '' | *[!0-9A-Fa-f.:]*) usage ;; esac
[ "$(id -u)" -eq 0 ] || { echo "setup.sh: needs root" >&2; exit 77; }
[ -s /etc/aldis/redis-password ] || { echo "setup.sh: first put the password of Redis into /etc/aldis/redis-password" >&2; exit 66; }
kit=$(cd "$(dirname "$0")/.." && pwd)

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates curl python3-venv systemd
[ -x /opt/aldis/bin/python ] || python3 -m venv /opt/aldis
package=${ALDIS_PACKAGE:-aldis-server[redis]}
/opt/aldis/bin/python -m pip install --quiet --upgrade "$package"
# pip takes no wheel of a version that is there already, and several are built of one version before it is released.
case $package in *.whl*) /opt/aldis/bin/python -m pip install --quiet --force-reinstall --no-deps "$package" ;; esac
ln -sf /opt/aldis/bin/aldis /usr/local/bin/aldis

install -D -m 644 "$kit/systemd/aldis.sysusers.conf" /usr/lib/sysusers.d/aldis.conf
install -D -m 644 "$kit/systemd/aldis.tmpfiles.conf" /usr/lib/tmpfiles.d/aldis.conf
systemd-sysusers aldis.conf
systemd-tmpfiles --create aldis.conf
chown root:aldis /etc/aldis/redis-password
chmod 640 /etc/aldis/redis-password
if [ ! -e /etc/aldis/aldis.toml ]; then
    sed -e "s/signal\.example\.com/$name/" -e "/_proxies/!s/10\.0\.0\.11/$address/" "$kit/cluster/aldis.toml" >/etc/aldis/aldis.toml
    chown root:aldis /etc/aldis/aldis.toml
    chmod 640 /etc/aldis/aldis.toml
fi
# A node opens its port itself. Where systemd holds the port, a proxy connects to a node that does not run, and waits.
sed -e 's/^# Aldis as a system service\./# Aldis as a node of a cluster, which opens its port itself./' \
    -e '/^# Also when this service is started alone/d' -e '/^[A-Za-z]*=aldis\.socket$/d' \
    "$kit/systemd/aldis.service" >/etc/systemd/system/aldis.service

if [ -e /etc/systemd/system/aldis.socket ]; then # a machine that was a server alone before
    [ ! -d /run/systemd/system ] || systemctl stop 'aldis*'
    sockets=aldis.socket
    [ ! -e /etc/systemd/system/aldis-redirect.socket ] || sockets="$sockets aldis-redirect.socket" # without a proxy
    systemctl disable --quiet $sockets
    rm -f /etc/systemd/system/aldis.socket /etc/systemd/system/aldis-redirect.socket \
        /etc/systemd/system/aldis.service.d/direct.conf /etc/systemd/system/aldis.socket.d/direct.conf
fi
systemctl enable --quiet aldis
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl restart aldis
    curl -sf --retry 30 --retry-all-errors --retry-delay 1 "http://$address:9080/readyz"
fi
