#!/bin/sh
# Run a command in a network namespace of its own:
#
#     tools/netns.sh COMMAND [ARGUMENT...]
#
# So no test can reach another machine, and no test depends on the network of the machine that it runs on. Besides `lo`
# the namespace has a pair of virtual Ethernet devices. Both ends are inside, so nothing leaves. Three programs need it:
#   * aioice gathers no candidate on 127.0.0.1: two aiortc peers need the address 10.77.0.1.
#   * Firefox gathers no candidate on `lo` at all, and none where there is no default route.
#   * wrtc gathers on `lo` because of WRTC_ALLOW_LOOPBACK.
# The default route leads nowhere. The neighbour table gives up after 10 ms instead of 3 s, so that connecting to an
# address outside fails at once, as on a machine without a network. The devices have no IPv6 address: each address more
# is one more candidate to check for every connection.
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

prepare='ip link set lo up &&
    ip link add outside type veth peer name nowhere &&
    ip link set outside addrgenmode none && ip link set nowhere addrgenmode none &&
    ip ntable change name arp_cache dev outside retrans 10 mcast_probes 1 &&
    ip address add 10.77.0.1/32 dev outside &&
    ip link set outside up && ip link set nowhere up &&
    ip route add default dev outside'
for namespace in "unshare --net" "unshare --net --user --map-root-user"; do
    if $namespace sh -c "$prepare" 2>/dev/null; then
        export WRTC_ALLOW_LOOPBACK=1
        exec $namespace sh -c "$prepare"' && exec "$@"' netns "$@"
    fi
done
explain
