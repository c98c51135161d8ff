#!/bin/sh
# Build the image of the kit, let Podman start both compose files in a bare Debian 13, and ask the servers:
#
#     tools/try-containers.sh FOLDER      FOLDER gets the system, 5 GB; remove it with `rm -rf`
#
# Aldis is the wheel of this tree, in the folder `wheels` as docs/deploy.md says ("Until the first release"). No registry of
# images can be reached from everywhere, so all images but that of Aldis are stand-ins: Debian 13 with Python 3.13, and with
# Debian's Caddy, coturn, nginx, Prometheus and Valkey. No authority can reach them, so certificates are self-made. A
# container may have as many files open as this shell, and nginx does without IPv6. The rest is the kit as it is.
#
# Needs root, debootstrap, util-linux, curl, and `make .venv/stamps/dev`.
set -eu

[ "$#" -eq 1 ] || { echo "usage: tools/try-containers.sh FOLDER" >&2; exit 64; }
command -v curl >/dev/null || { echo "tools/try-containers.sh: 'curl' is missing" >&2; exit 69; }
tree=$(cd "$(dirname "$0")/.." && pwd)
root=$("$tree/tools/bare-system.sh" "$1")
rm -rf "$root/root/kit"
cp -R "$tree/deploy" "$root/root/kit"
"$tree/.venv/bin/python" -m build --wheel --no-isolation --outdir "$root/root/kit/container/wheels" "$tree/packaging/server" >/dev/null
files=$(ulimit -H -n)
processes=$(sed -n 's/^Max processes *[^ ]* *\([0-9]*\) .*/\1/p' /proc/self/limits)
sed -i "s/nofile: 65536/nofile: $files/" "$root/root/kit/container/compose.yaml" "$root/root/kit/cluster/compose.yaml"
sed -i '/listen \[::\]/d' "$root/root/kit/cluster/nginx.conf"
{ printf '{\n\tlocal_certs\n\tskip_install_trust\n}\n'; cat "$tree/deploy/container/Caddyfile"; } >"$root/root/kit/container/Caddyfile"
# Debian's coturn has its database in another folder than the image; the settings of the kit need none.
mkdir -p "$root/root/images"
cat >"$root/root/images/caddy" <<'END'
FROM docker.io/library/python:3.13.1-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends caddy >/dev/null
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
END
cat >"$root/root/images/coturn" <<'END'
FROM docker.io/library/python:3.13.1-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends coturn >/dev/null
USER nobody:nogroup
ENTRYPOINT ["turnserver"]
END
cat >"$root/root/images/prometheus" <<'END'
FROM docker.io/library/python:3.13.1-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null \
    && install -d -o nobody /prometheus && rm -r /etc/prometheus && mkdir /etc/prometheus
USER nobody
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
END
# As in the images: nothing is where their files come, and nginx writes to two folders alone.
cat >"$root/root/images/valkey" <<'END'
FROM docker.io/library/python:3.13.1-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends valkey-server >/dev/null \
    && rm -r /etc/valkey && install -d -o 999 -g 999 /data
VOLUME /data
END
cat >"$root/root/images/nginx" <<'END'
FROM docker.io/library/python:3.13.1-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
COPY nginx.conf /etc/nginx/nginx.conf
CMD ["nginx", "-g", "daemon off;"]
END
cat >"$root/root/images/nginx.conf" <<'END'
user www-data;
pid /run/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /var/cache/nginx/body;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    include /etc/nginx/conf.d/*.conf;
}
END
cat >"$root/root/containers.conf" <<END
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
END
cat >"$root/root/environment" <<END
export PODMAN_IGNORE_CGROUPSV1_WARNING=1 CONTAINERS_CONF=/root/containers.conf STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker
export ALDIS_NAME=signal.test ALDIS_TURN_SECRET=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export ALDIS_PACKAGE=/wheels/$(basename "$root"/root/kit/container/wheels/*.whl)
END

enter="unshare --mount --propagation private --pid --uts --fork --kill-child $tree/tools/enter.sh $root"

$enter sh -eu -c '
    update-ca-certificates >/dev/null 2>&1
    if ! command -v podman-compose >/dev/null || ! command -v curl >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends aardvark-dns crun curl debootstrap iproute2 iptables netavark nftables \
            podman podman-compose >/dev/null
    fi
    . /root/environment
    base=docker.io/library/python:3.13.1-slim-bookworm
    if ! podman image exists "$base"; then
        debootstrap --variant=minbase --include=ca-certificates,python3-venv trixie /root/base >/dev/null
        ln -s python3 /root/base/usr/bin/python
        for file in /etc/pip.conf /usr/local/share/ca-certificates/*.crt /etc/apt/apt.conf.d/*proxy*; do
            [ ! -f "$file" ] || install -D -m 644 "$file" "/root/base$file"
        done
        chroot /root/base update-ca-certificates >/dev/null 2>&1
        tar -C /root/base -c . | podman import --quiet - "$base" >/dev/null
    fi
    for kit in container cluster; do
        cd /root/kit/$kit
        for image in $(sed -n "s/^    image: //p" compose.yaml); do
            case $image in */*) name=docker.io/$image ;; *) name=docker.io/library/$image ;; esac
            file=${image%%:*}
            podman image exists "$name" || podman build --quiet --pull=never --tag "$name" \
                --file "/root/images/${file##*/}" /root/images >/dev/null
        done
        [ $kit = container ] || export ALDIS_PACKAGE="${ALDIS_PACKAGE}[redis]"
        podman-compose build
    done
    podman image inspect --format "{{.Config.Healthcheck.Test}} {{.Config.User}}" container_aldis'

cat >"$root/root/up" <<'END'
set -eu
kit=$1
. /root/environment
cd "/root/kit/$kit"
mount -t sysfs none /sys
mount -t cgroup2 none /sys/fs/cgroup
read_metrics() { podman exec "$1" /opt/aldis/bin/python -c \
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9080/metrics').read().decode())" | grep "^$2"; }
trap 'podman-compose logs 2>&1; podman-compose down --volumes >/dev/null 2>&1' EXIT
podman rm --force --all >/dev/null 2>&1 || : # left by a run that was broken off
if [ "$kit" = cluster ]; then # docs/cluster.md, "In containers"
    rm -rf secrets
    install -d -m 700 secrets secrets/tls
    openssl rand -hex 32 >secrets/redis-password
    hash=$(tr -d '\n' <secrets/redis-password | sha256sum | cut -d' ' -f1)
    sed "s/PASSWORD_SHA256/$hash/" users.acl >secrets/users.acl
    chmod 444 secrets/redis-password secrets/users.acl
    openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=signal.test -addext subjectAltName=DNS:signal.test \
        -keyout secrets/tls/privkey.pem -out secrets/tls/fullchain.pem 2>/dev/null
fi
# systemd, which is not here, would ask again and again.
while sleep 1; do
    for one in $(podman ps --format '{{.Names}}'); do podman healthcheck run "$one" >/dev/null 2>&1 || :; done
done &
asking=$!
podman-compose up -d 2>&1
if [ "$kit" = cluster ]; then
    for node in one two; do
        until read_metrics cluster_aldis-${node}_1 'aldis_cluster_servers 2'; do sleep 1; done
        podman healthcheck run cluster_aldis-${node}_1
    done
    cp secrets/tls/fullchain.pem /root/ca.crt
else
    podman healthcheck run container_aldis_1
    podman exec container_aldis_1 sh -c 'id; grep -E "^(Cap(Eff|Bnd)|NoNewPrivs)" /proc/1/status; ! touch /x 2>/dev/null'
    read_metrics container_aldis_1 aldis_turn
    until curl -s 'http://127.0.0.1:9090/api/v1/query?query=aldis_turn_up==1' | grep -q '"server"'; do sleep 1; done
    cp "$(podman volume mount container_caddy)/caddy/pki/authorities/local/root.crt" /root/ca.crt
fi
echo "$kit: the health checks pass"
touch /root/is-up
until [ -e /root/is-asked ]; do sleep 0.2; done
if [ "$kit" = container ]; then
    podman stop container_coturn_1 >/dev/null 2>&1
    until read_metrics container_aldis_1 'aldis_turn_up{.*} 0'; do sleep 1; done
    echo "coturn was stopped, and the server says so"
fi
kill $asking
trap - EXIT
podman-compose down --volumes >/dev/null 2>&1
END
cat >"$root/root/ask" <<END
set -eu
printf '127.0.0.1 localhost\n10.77.0.1 signal.test\n' >"$root/root/hosts"
mount --bind "$root/root/hosts" /etc/hosts
for kit in container cluster; do
    rm -f "$root/root/is-up" "$root/root/is-asked"
    $enter sh /root/up \$kit &
    up=\$!
    until [ -e "$root/root/is-up" ]; do kill -0 \$up; sleep 0.5; done
    # The cluster names no TURN server, which doctor would have us mend.
    HOME=$root/root/home ALDIS_CA_FILE=$root/root/ca.crt "$tree/.venv/bin/aldis" doctor --server wss://signal.test |
        tee "$root/root/said"
    grep -q 'registration .* with proof of the key' "$root/root/said"
    grep -q 'relay  *works' "$root/root/said"
    touch "$root/root/is-asked"
    wait \$up
done
END
exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    timeout 600 "$tree/tools/netns.sh" sh "$root/root/ask"
