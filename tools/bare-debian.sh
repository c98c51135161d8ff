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
command -v git >/dev/null || { echo "tools/bare-debian.sh: 'git' is missing" >&2; exit 69; }
source=$(cd "$(dirname "$0")/.." && pwd)
root=$("$source/tools/bare-system.sh" "$1")
shift
[ "$#" -gt 0 ] || set -- make test
git -C "$source" bundle create --quiet "$root/root/aldis.bundle" HEAD

# A bare machine has none of our variables.
# shellcheck disable=SC2016 # expanded inside
exec unshare --mount --propagation private --pid --fork --kill-child \
    "$source/tools/enter.sh" "$root" KEEP="${KEEP-}" sh -eu -c '
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
    ' sh "$@"
