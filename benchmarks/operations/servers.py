"""Servers of PostgreSQL and of Prefect that live in a folder while something is measured on them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

POSTGRES_USER = "nobody"
"""PostgreSQL refuses to run as root: it is started as this user then."""


def find_program(name: str) -> str | None:
    """A program of PostgreSQL, on the PATH or where Debian keeps it."""
    found = shutil.which(name)
    return found or next((str(one) for one in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[int, str, Callable[[str], str]]]:
    """A PostgreSQL server of its own; its process, the URL for Prefect, and a way to ask it."""
    initdb, server, psql = find_program("initdb"), find_program("postgres"), find_program("psql")
    if not (initdb and server and psql):
        raise SystemExit("PostgreSQL needs initdb, postgres and psql")
    data, port = folder / "pg", _free_port()
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, POSTGRES_USER)
        folder.chmod(0o755)
    subprocess.run(
        _as_postgres([initdb, "-D", str(data), "-U", "prefect", "-A", "trust", "-E", "UTF8"]), check=True,
        stdout=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    options = ["-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(data)]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(_as_postgres([server, *options]), stdout=log, stderr=log, cwd="/")
        ask = [psql, "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "-At"]

        def query(sql: str, database: str = "prefect") -> str:
            done = subprocess.run([*ask, "-d", database, "-c", sql], capture_output=True, text=True, check=True)
            return done.stdout.strip()

        try:
            for _ in range(100):
                try:
                    query("CREATE DATABASE prefect", "postgres")
                    break
                except subprocess.CalledProcessError:
                    time.sleep(0.3)
            yield process.pid, f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect", query
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def prefect_server(folder: Path, database: str) -> Iterator[tuple[int, dict[str, str]]]:
    """A Prefect server on that database; its process, and the environment of its clients."""
    port = _free_port()
    environment = {
        **os.environ, "PREFECT_HOME": str(folder / "home"), "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/api"
        try:
            _wait_for(url, 180.0)
            yield process.pid, {**environment, "PREFECT_API_URL": url}
        finally:
            process.terminate()
            process.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _as_postgres(command: list[str]) -> list[str]:
    return ["setpriv", f"--reuid={POSTGRES_USER}", "--clear-groups", *command] if os.geteuid() == 0 else command


def _wait_for(url: str, seconds: float) -> None:
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + seconds
    while True:
        try:
            with opener.open(f"{url}/health", timeout=5.0) as reply:
                if reply.status == 200:
                    return
        except (URLError, OSError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"no Prefect server came up at {url}")
        time.sleep(0.5)
