#!/usr/bin/env bash
# Builds the image and runs every role of it on this machine: a night in a read-only container, then compose.yaml with
# PostgreSQL, server, deployments and workers, one of which is killed. It ends by removing all it made.
#
#   infra/try_image.sh                    # as root on Debian: podman and a base from debootstrap, no image is fetched
#   ENGINE=docker BASE=docker.io/library/python:3.12-slim-bookworm infra/try_image.sh
#
# BASE: the base image, with Debian's apt-get; made by debootstrap where it is not given.
# COMPOSE: the command for compose.yaml; "docker compose", or podman-compose (from pip, where it is not installed).
# IMAGE: an image that is there, instead of building one.
# POSTGRES_IMAGE: made from the base where it is not given.
# KEEP=1 leaves images, containers and the folder of the trial; they are removed at the next start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ENGINE=${ENGINE:-podman}
WORK=${WORK:-/var/tmp/nightsift-try}
PROJECT=nightsift-try
HARDENED=(--rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges)
SCRATCH=(--tmpfs "/tmp:rw,noexec,nosuid,nodev")

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'try_image.sh: %s\n' "$*" >&2
    exit 1
}
need() { command -v "$1" >/dev/null || fail "$1 is missing: $2"; }
seconds() { awk -v since="$1" -v now="$(date +%s.%N)" 'BEGIN { printf "%.1f", now - since }'; }
wait_for() { # SECONDS WHAT COMMAND...
    local patience=$1 what=$2 until=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || fail "waited $patience s in vain for $what"
        sleep 1
    done
}

check_tools() {
    need "$ENGINE" "apt-get install podman runc catatonit netavark aardvark-dns, or say ENGINE=docker"
    [ "$ENGINE" != podman ] || configure_podman
    "$ENGINE" info >/dev/null || fail "$ENGINE does not answer (the line above says why)"
    if [ -n "${COMPOSE:-}" ]; then return 0; fi
    COMPOSE="docker compose"
    if [ "$ENGINE" != docker ]; then
        COMPOSE=$(command -v podman-compose || echo "$WORK/compose/bin/podman-compose")
        if [ ! -x "$COMPOSE" ]; then
            python3 -m venv "$WORK/compose"
            "$WORK/compose/bin/pip" install --quiet podman-compose
        fi
    fi
}

configure_podman() { # what a machine without the right to raise limits allows, and images in a place of their own
    if [ -z "${CONTAINERS_CONF:-}" ]; then
        export CONTAINERS_CONF=$WORK/containers.conf
        local processes files
        processes=$(ulimit -Hu) files=$(ulimit -Hn)
        if [ "$processes" = unlimited ] || [ "$processes" -gt 32768 ]; then processes=32768; fi
        printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' "$files" "$files" "$processes" "$processes" >"$CONTAINERS_CONF"
        if command -v runc >/dev/null; then printf '[engine]\nruntime = "runc"\n' >>"$CONTAINERS_CONF"; fi
    fi
    if [ -z "${CONTAINERS_STORAGE_CONF:-}${IMAGE:-}" ]; then
        export CONTAINERS_STORAGE_CONF=$WORK/storage.conf
        printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "${STORAGE_DRIVER:-overlay}" "$WORK/storage" "$WORK/run" >"$CONTAINERS_STORAGE_CONF"
    fi
}

compose() { $COMPOSE --env-file "$WORK/env" -p "$PROJECT" -f infra/compose.yaml "$@"; }
container() { "$ENGINE" ps --all --quiet --filter "label=com.docker.compose.project=$PROJECT" --filter "label=com.docker.compose.service=$1" | head -n 1; }

clean_up() {
    [ ! -e "$WORK/env" ] || compose down --volumes >/dev/null 2>&1 || true
    "$ENGINE" rmi --force "localhost/$PROJECT" "localhost/$PROJECT-postgres" "localhost/$PROJECT-base" >/dev/null 2>&1 || true
    [ ! -e "$WORK/storage" ] || "$ENGINE" system prune --all --force >/dev/null 2>&1 || true
    rm -rf "$WORK"
}

make_base() {
    [ -z "${BASE:-}" ] || return 0
    BASE=localhost/$PROJECT-base
    need debootstrap "apt-get install debootstrap, or name a base image: BASE=..."
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root: run this as root, or name a base image: BASE=..."
    local root=$WORK/base
    debootstrap --variant=minbase --include=python3-venv,python-is-python3 bookworm "$root" >"$WORK/debootstrap.log" ||
        fail "debootstrap failed: $(tail -n 1 "$WORK/debootstrap.log")"
    # pip and apt-get in the base reach their indexes in the way that this machine does.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    {
        echo '[global]'
        echo 'cert = /etc/ssl/certs/ca-certificates.crt'
        python3 -m pip config list 2>/dev/null | sed -n "s/^global\.\(index-url\|trusted-host\)='\(.*\)'$/\1 = \2/p"
        [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
    } >"$root/etc/pip.conf"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | "$ENGINE" import - "$BASE" >/dev/null
    rm -rf "$root"
}

build() {
    if [ -n "${IMAGE:-}" ]; then return 0; fi
    IMAGE=localhost/$PROJECT:latest
    local began
    began=$(date +%s.%N)
    say "build: its output goes to $WORK/build.log"
    "$ENGINE" build --network host -f infra/Dockerfile --build-arg "BASE=$BASE" -t "$IMAGE" . >"$WORK/build.log" 2>&1 || {
        tail -n 30 "$WORK/build.log" >&2
        fail "the image could not be built"
    }
    say "built in $(seconds "$began") s: $("$ENGINE" images --format '{{.Size}}' "$IMAGE")"
}

make_postgres() {
    [ -z "${POSTGRES_IMAGE:-}" ] || return 0
    POSTGRES_IMAGE=localhost/$PROJECT-postgres
    mkdir -p "$WORK/postgres"
    cat >"$WORK/postgres/start" <<'END'
#!/bin/sh
set -eu
data=/var/lib/postgresql/data bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s $data/PG_VERSION ]; then
    umask 077
    echo "$POSTGRES_PASSWORD" >/tmp/password
    "$bin/initdb" -D $data -U "$POSTGRES_USER" -E UTF8 --locale=C --pwfile=/tmp/password --auth=scram-sha-256
    echo "host all all all scram-sha-256" >>$data/pg_hba.conf
    echo "create database $POSTGRES_DB" | "$bin/postgres" --single -D $data postgres
fi
exec "$bin/postgres" -D $data -c "listen_addresses=*"
END
    cat >"$WORK/postgres/Dockerfile" <<END
FROM $BASE
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && install -d -o postgres -m 700 /var/lib/postgresql/data
COPY --chmod=755 start /usr/local/bin/start
USER postgres
VOLUME /var/lib/postgresql/data
CMD ["start"]
END
    "$ENGINE" build --quiet --network host -t "$POSTGRES_IMAGE" "$WORK/postgres" >/dev/null
}

in_image() { "$ENGINE" run "${HARDENED[@]}" "$@"; }

try_container() {
    local began
    began=$(date +%s.%N)
    [[ $(in_image "${SCRATCH[@]}" "$IMAGE" --help) == *"Usage: nightsift"* ]] || fail "nightsift --help says something else"
    say "nightsift --help: $(seconds "$began") s, with the start of the container"

    say "its own user, no rights, nothing to write to but /tmp"
    in_image "${SCRATCH[@]}" "$IMAGE" python -c '
import os, pathlib
assert os.getuid() == 10001, os.getuid()
status = dict(line.split(":\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1", status
for place in ("/", "/opt/nightsift", "/usr/local/bin", "/home/nightsift", "/survey", "/var/lib/nightsift"):
    try:
        pathlib.Path(place, "x").write_text("x")
    except OSError as error:
        print(f"{place}: {error.strerror}")
    else:
        raise SystemExit(f"{place} can be written to")
'
    say "doctor"
    in_image "${SCRATCH[@]}" "$IMAGE" doctor --archive /tmp
}

SAME_CODE='
import pathlib
def files(place): return {str(one.relative_to(place)) for one in pathlib.Path(place).rglob("*.nb*")}
shipped, used = files("/opt/nightsift/compiled"), files("/tmp/compiled")
assert shipped, "nothing is compiled in the image"
assert used == shipped, f"compiled anew: {sorted(used - shipped)}"
print(len(shipped), "compiled files came with the image, none was added")
'

try_night() {
    say "a tiny night: frames read-only, archive writable"
    install -d -o 10001 -g 10001 "$WORK/frames" "$WORK/archive" "$WORK/survey" "$WORK/scratch"
    # The night that it is now at the longitude of the site, noon to noon. In the survey the site lies where it never
    # gets as dark as it asks for, so that the deployment of a night reduces what is there and closes it at once.
    in_image "${SCRATCH[@]}" -v "$WORK/frames:/frames" "$IMAGE" simulate /frames --preset tiny --visits 6 --night "$(date -u -d '-791 minutes' +%F)"
    cp -r "$WORK/frames/units" "$WORK/survey/"
    install -d -o 10001 "$WORK/frames/notices"
    sed -e 's|"archive"$|"/archive"|' -e 's|"nights/|"/frames/nights/|' -e 's|"templates/|"/frames/templates/|' \
        -e '/^pattern/a site = "palma"' "$WORK/frames/nightsift.toml" >"$WORK/survey/nightsift.toml"
    cat >>"$WORK/survey/nightsift.toml" <<'END'
[site.palma]
latitude = 88.0
longitude = -17.88
timezone = "Atlantic/Canary"
[watch]
sun_altitude = -30.0
[alert]
folder = "/frames/notices"
END
    local word began
    local mounts=(-v "$WORK/survey:/survey:ro" -v "$WORK/frames:/frames:ro" -v "$WORK/archive:/archive" -v "$WORK/scratch:/tmp")
    for word in template night show report; do
        began=$(date +%s.%N)
            in_image "${mounts[@]}" "$IMAGE" "$word" /survey/nightsift.toml
        say "$word: $(seconds "$began") s"
    done
    say "compiled code of the image was enough"
    in_image "${mounts[@]}" "$IMAGE" python -c "$SAME_CODE"
}

healthy() { # a check of compose.yaml, as the engine runs it
    if [ "$ENGINE" = podman ]; then
        podman healthcheck run "$(container "$1")"
    else
        [ "$("$ENGINE" inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]
    fi
}

try_services() {
    say "compose.yaml: database and server"
    local login service
    login=try:$(secret)
    cat >"$WORK/env" <<END
PREFECT_AUTH=${login}
POSTGRES_PASSWORD=$(secret)
SURVEY=$WORK/survey
FRAMES=$WORK/frames
ARCHIVE=$WORK/services
NIGHTSIFT_IMAGE=$IMAGE
POSTGRES_IMAGE=$POSTGRES_IMAGE
PREFECT_PORT=${PREFECT_PORT:-14200}
END
    chmod 600 "$WORK/env"
    install -d -o 10001 -g 10001 "$WORK/services"
    for service in database server; do
        compose up -d --no-deps "$service"
        wait_for 240 "a healthy $service ($ENGINE logs $(container "$service"))" healthy "$service"
        say "$service is healthy"
    done
    say "the page of runs"
    inside server python -c 'import urllib.request as u; assert b"<html" in u.urlopen("http://127.0.0.1:4200/", timeout=9).read()'
    say "deployments"
    compose run --rm --no-deps -T deployments
    compose up -d --no-deps night backfill alert-worker alert-listener
    say "templates, by the worker of the pool backfill"
    run_deployment templates/templates --watch --watch-interval 2
    say "a night, by the worker of the pool night, which is killed after the first exposure"
    run_deployment nightly/nightly
    wait_for 300 "the first exposure" has_rows 1
    kill -9 "$("$ENGINE" inspect -f '{{.State.Pid}}' "$(container night)")"
    wait_for 60 "the worker to be started again" inside night true
    ! has_rows 6 || fail "the worker was killed too late to show anything"
    say "the night again, by the worker that was started again"
    run_deployment nightly/nightly --watch --watch-interval 2
    has_rows 6 || fail "the archive has not the six exposures of the night: $WORK/services/ledger"
    wait_for 300 "the killed run to be marked as crashed" has_crashed
    inside night nightsift show /survey/nightsift.toml --best 3
    inside night python -c "$SAME_CODE"
    say "the alert listener"
    "$ENGINE" logs "$(container alert-listener)" 2>&1 | grep listening
}

secret() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }
inside() { # SERVICE COMMAND...
    local service=$1
    shift
    "$ENGINE" exec "$(container "$service")" "$@"
}
run_deployment() { inside night prefect --no-prompt deployment run "$@"; }
has_rows() { [ "$(find "$WORK/services/ledger" -name '*.parquet' 2>/dev/null | wc -l)" -ge "$1" ]; }
has_crashed() { inside night prefect flow-run ls --state-type CRASHED --flow-name nightly --output json | grep CRASHED >/dev/null; }

[ ! -e "$WORK" ] || (check_tools && clean_up) # what KEEP=1 has left
mkdir -p "$WORK"
trap '[ -n "${KEEP:-}" ] || clean_up' EXIT
check_tools
make_base
build
make_postgres
try_container
try_night
try_services
say "every role works"
