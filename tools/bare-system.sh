#!/bin/sh
# Make a bare Debian in FOLDER, or go on with the one that is there, and let it reach the package registries as we do:
#
#     tools/bare-system.sh FOLDER      SUITE: trixie (13) when it is not set. MIRROR: that of debootstrap
#
# Needs root, debootstrap and what tools/enter.sh needs. Prints the full path of FOLDER.
set -eu

for command in debootstrap unshare pivot_root; do
    command -v "$command" >/dev/null || { echo "tools/bare-system.sh: '$command' is missing" >&2; exit 69; }
done
[ "$(id -u)" -eq 0 ] || { echo "tools/bare-system.sh: needs root, to make a system and to enter it" >&2; exit 77; }
mkdir -p "$1"
root=$(cd "$1" && pwd)
if [ ! -e "$root/etc/debian_version" ]; then
    # shellcheck disable=SC2086 # nothing, or one word
    debootstrap --variant=minbase --include=ca-certificates "${SUITE:-trixie}" "$root" ${MIRROR-} >&2
fi
# Name servers, proxies, certificates. No package comes along.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/npmrc /usr/local/share/ca-certificates/*.crt \
    /etc/apt/apt.conf.d/*proxy*; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
echo "$root"
