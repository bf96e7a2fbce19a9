#!/bin/sh
# What a container starts with: its words are a command of nightsift, or one of the other programs below.
set -eu

# numba reads compiled code only in a folder that it can write to: a read-only container gets a copy in its /tmp.
if [ ! -d "$NUMBA_CACHE_DIR" ]; then
    copy=$(mktemp -d "$NUMBA_CACHE_DIR.XXXXXX") || {
        echo "$NUMBA_CACHE_DIR cannot be made: give the container a /tmp that can be written to (--tmpfs /tmp)" >&2
        exit 1
    }
    cp -R /opt/nightsift/compiled/. "$copy"
    mv -T "$copy" "$NUMBA_CACHE_DIR"
fi

case "${1:-}" in
    prefect | dask | python | nice) ;;
    *) set -- nightsift "$@" ;;
esac
exec "$@"
