#!/bin/sh
# Run a command with the system in FOLDER as its root directory:
#
#     unshare --mount --propagation private --pid --fork --kill-child tools/enter.sh FOLDER COMMAND...
#
# It is for a bare Debian (tools/bare-debian.sh, tools/try-cloud-init.sh), and needs namespaces of its own: there, all that
# the command starts ends with it. The command gets how this machine reaches the package registries, and no other variable
# of this one; NAME=VALUE before it sets more.
set -eu

root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/.outside"
cd "$root"
pivot_root . .outside
cd /
umount -l /.outside
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM-dumb}" \
    http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" no_proxy="${no_proxy-}" \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    DEBIAN_FRONTEND=noninteractive "$@"
