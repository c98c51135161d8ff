#!/bin/sh
# Install the system packages that are missing:
#
#     tools/system-packages.sh COMMAND=PACKAGE...
#
# A package counts as present when its command is on the path. Where nothing is missing, nothing is asked and nothing
# is changed. Only Debian and its relatives are known; elsewhere the missing names are printed, and the call fails.
set -eu

missing=
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Please install these system packages, or what this system calls them:$missing" >&2
    exit 69
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Please run as root: apt-get install$missing" >&2; exit 77; }
    as_root="sudo"
fi
echo "Installing system packages:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
