#!/bin/sh
# Run a command in a network namespace of its own, where nothing but the loopback interface exists:
#
#     tools/netns.sh COMMAND [ARGUMENT...]
#
# So no test can reach another machine, whatever it tries, and none depends on the network of the machine it runs on.
# The second address on `lo` stands for "this host's address": aioice gathers no candidate on 127.0.0.1, so without it
# two aiortc peers would have no way to each other. WRTC_ALLOW_LOOPBACK makes wrtc gather on `lo` at all.
#
# Works as root, and without root where the kernel lets users make namespaces. It never runs the command outside one.
set -eu

if [ "$#" -eq 0 ]; then
    echo "usage: tools/netns.sh COMMAND [ARGUMENT...]" >&2
    exit 64
fi

explain() {
    cat >&2 <<'END'
tools/netns.sh: no network namespace can be made here, and the tests run nowhere else.

They talk over WebRTC, which would otherwise use this machine's real network interfaces. What to do:
  * in a container: give it the capability (docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN ...);
  * on Ubuntu 24.04 and later, where users may not make namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0
  * on Debian, older: sudo sysctl kernel.unprivileged_userns_clone=1
  * else as root: sudo make test
  * macOS and Windows have no network namespaces: use a Linux container or virtual machine.
END
    exit 69
}

for command in unshare ip; do
    command -v "$command" >/dev/null || { echo "tools/netns.sh: '$command' is missing (make test installs it)" >&2; explain; }
done

prepare='ip link set lo up && ip address add 10.77.0.1/32 dev lo'
for namespace in "unshare --net" "unshare --net --user --map-root-user"; do
    if $namespace sh -c "$prepare" 2>/dev/null; then
        export WRTC_ALLOW_LOOPBACK=1
        exec $namespace sh -c "$prepare"' && exec "$@"' netns "$@"
    fi
done
explain
