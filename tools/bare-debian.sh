#!/bin/sh
# Run a command in a fresh clone inside a bare Debian, where nothing is installed but what CONTRIBUTING.md asks for:
#
#     tools/bare-debian.sh FOLDER [COMMAND...]        COMMAND is `make test` when it is not given
#     SUITE=bookworm tools/bare-debian.sh FOLDER      another Debian than trixie (13)
#     KEEP=1 tools/bare-debian.sh FOLDER make check   go on in the clone of the last run
#
# FOLDER gets the system, about 400 MB before the tests install what they need; remove it with `rm -rf`. An existing
# system is used again. What is tested is the last commit, not the working tree.
#
# Needs root, debootstrap, util-linux and git. The command sees the system as its root directory, in a mount and a
# process namespace of its own: all that it starts ends with it.
set -eu

if [ "$#" -eq 0 ]; then
    echo "usage: tools/bare-debian.sh FOLDER [COMMAND...]" >&2
    exit 64
fi
for command in debootstrap unshare pivot_root git; do
    command -v "$command" >/dev/null || { echo "tools/bare-debian.sh: '$command' is missing" >&2; exit 69; }
done
[ "$(id -u)" -eq 0 ] || { echo "tools/bare-debian.sh: needs root, to make a system and to enter it" >&2; exit 77; }

suite=${SUITE:-trixie}
mirror=${MIRROR-} # that of debootstrap when it is empty
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
shift
[ "$#" -gt 0 ] || set -- make test

if [ ! -e "$root/etc/debian_version" ]; then
    # shellcheck disable=SC2086 # nothing, or one word
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" $mirror
fi

# How this machine reaches the package registries: name servers, proxies, certificates. No package comes along.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/npmrc /usr/local/share/ca-certificates/*.crt \
    /etc/apt/apt.conf.d/*proxy*; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
git -C "$source" bundle create --quiet "$root/root/aldis.bundle" HEAD

# In the namespaces: become the system, then install and run. `env -i`, since a bare machine has none of our variables.
# shellcheck disable=SC2016 # expanded inside
exec unshare --mount --propagation private --pid --fork --kill-child sh -eu -c '
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
        http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" no_proxy="${no_proxy-}" KEEP="${KEEP-}" \
        SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
        DEBIAN_FRONTEND=noninteractive sh -eu -c '"'"'
            update-ca-certificates >/dev/null 2>&1
            for command in git make python3; do
                command -v "$command" >/dev/null && continue
                apt-get update -qq
                apt-get install -y -qq --no-install-recommends git make python3 >/dev/null
            done
            cd /root
            if [ -z "$KEEP" ] || [ ! -d aldis ]; then
                rm -rf aldis
                git -c advice.detachedHead=false -c init.defaultBranch=main clone --quiet aldis.bundle aldis
            fi
            cd aldis
            echo "Debian $(cat /etc/debian_version), $(python3 --version), commit $(git log -1 --format=%h): $*"
            exec "$@"
        '"'"' sh "$@"
' sh "$root" "$@"
