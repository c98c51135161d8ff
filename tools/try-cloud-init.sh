#!/bin/sh
# Let cloud-init run deploy/cloud-init/aldis.yaml in a bare Debian, start what that has set up, and ask the server:
#
#     tools/try-cloud-init.sh FOLDER                    FOLDER gets the system, 900 MB; remove it with `rm -rf`
#     SUITE=bookworm tools/try-cloud-init.sh FOLDER     another Debian than trixie (13)
#
# Aldis is the wheel of this tree, fetched from a URL as docs/deploy.md says ("Until the first release"); here a server on
# loopback has it. systemd does not run there, so the services are started by hand, as their users. No
# authority can reach them, so Caddy makes its certificate itself. All else is as on a real machine.
#
# Needs root, debootstrap, util-linux, curl, and `make .venv/stamps/dev`.
set -eu
export no_proxy="127.0.0.1${no_proxy:+,$no_proxy}"

if [ "$#" -ne 1 ]; then
    echo "usage: tools/try-cloud-init.sh FOLDER" >&2
    exit 64
fi
command -v curl >/dev/null || { echo "tools/try-cloud-init.sh: 'curl' is missing" >&2; exit 69; }
tree=$(cd "$(dirname "$0")/.." && pwd)
root=$("$tree/tools/bare-system.sh" "$1")
# No package starts a service: they would take ports of this machine.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
rm -rf "$root/root/wheels" "$root/var/lib/cloud"
"$tree/.venv/bin/python" -m build --wheel --no-isolation --outdir "$root/root/wheels" "$tree/packaging/server" >/dev/null
: >"$root/root/wheels.log" # not the port of the last run
"$tree/.venv/bin/python" -u -m http.server --bind 127.0.0.1 --directory "$root/root/wheels" 0 >"$root/root/wheels.log" 2>&1 &
files=$!
trap 'kill "$files" 2>/dev/null || :' EXIT
port=
until [ -n "$port" ]; do
    kill -0 "$files" || { cat "$root/root/wheels.log"; exit 1; }
    port=$(sed -n 's/^Serving HTTP on .* port \([0-9]*\) .*/\1/p' "$root/root/wheels.log")
done
wheel=$(echo "$root"/root/wheels/*.whl)
url="http://127.0.0.1:$port/$(basename "$wheel")#sha256=$(sha256sum "$wheel" | cut -d' ' -f1)"
mkdir -p "$root/var/lib/cloud/seed/nocloud" "$root/etc/cloud/cloud.cfg.d"
printf 'instance-id: one\nlocal-hostname: signal\n' >"$root/var/lib/cloud/seed/nocloud/meta-data"
sed -e 's/signal\.example\.com/signal.test/g' -e "s|PACKAGE=aldis-server\[redis\]|& @ $url|" \
    "$tree/deploy/cloud-init/aldis.yaml" >"$root/var/lib/cloud/seed/nocloud/user-data"
# Only what the user-data asks for: the other modules would set up the disks and the network of this machine.
cat >"$root/etc/cloud/cloud.cfg.d/99-try.cfg" <<'END'
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: [write_files]
cloud_config_modules: [runcmd]
cloud_final_modules: [package_update_upgrade_install, scripts_user]
END

enter="unshare --mount --propagation private --pid --uts --fork --kill-child $tree/tools/enter.sh $root"

$enter sh -eu -c '
    update-ca-certificates >/dev/null 2>&1
    if ! command -v cloud-init >/dev/null || ! command -v ip >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends cloud-init iproute2 >/dev/null
    fi
    cloud-init init --local
    cloud-init init
    cloud-init modules --mode=config
    cloud-init modules --mode=final
    cloud-init status'
kill "$files"

cat >"$root/root/serve" <<'END'
set -a
. /etc/aldis/secrets.env
set +a
{ printf '{\n\tlocal_certs\n\tskip_install_trust\n\tadmin off\n}\n'; cat /etc/caddy/Caddyfile; } >/root/Caddyfile
ALDIS_DATA=/var/lib/aldis runuser -u aldis -- $(sed -n 's/^ExecStart=//p' /etc/systemd/system/aldis.service) &
runuser -u turnserver -- turnserver -c /etc/turnserver.conf --pidfile /tmp/turnserver.pid &
exec caddy run --adapter caddyfile --config /root/Caddyfile
END
cat >"$root/root/ask" <<END
set -eu
printf '127.0.0.1 localhost\n10.77.0.1 signal.test\n' >"$root/root/hosts"
mount --bind "$root/root/hosts" /etc/hosts
$enter sh /root/serve >"$root/root/log" 2>&1 &
ca=$root/root/.local/share/caddy/pki/authorities/local/root.crt
curl -sf --retry 30 --retry-all-errors --retry-delay 1 -o /dev/null http://127.0.0.1:9080/readyz
curl -sf --retry 30 --retry-all-errors --retry-delay 1 -o /dev/null --insecure https://signal.test/healthz
HOME=$root/root/home ALDIS_CA_FILE=\$ca "$tree/.venv/bin/aldis" doctor --server wss://signal.test ||
    { code=\$?; cat "$root/root/log"; exit \$code; }
END
exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    "$tree/tools/netns.sh" sh "$root/root/ask"
