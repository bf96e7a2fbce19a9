"""The real engine of the drills: PostgreSQL, a Prefect server on it, workers; each can be killed and started again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
NOBODY = 65534


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE, pause: float = 0.1) -> Any:
    """Wait until a condition gives something, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(pause)
    return found


def logged(command: list[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that writes into a log."""
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, **options)


def binaries() -> Path | None:
    """Folder of initdb and postgres; None where there is no PostgreSQL."""
    found = shutil.which("postgres")
    folder = Path(found).resolve().parent if found else None
    return folder if folder is not None and (folder / "initdb").exists() else None


def unprivileged() -> list[str]:
    """PostgreSQL refuses to be run by root: what to put before its commands there."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=KILL"]


@dataclass
class Postgres:
    """A database server with fsync on, reached by a unix socket that only its owner (and root) can open."""

    binaries: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://prefect@/postgres?host={self.folder}"

    def create(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        command = [self.binaries / "initdb", "-D", self.folder / "data", "-U", "prefect", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*unprivileged(), *map(str, command)], check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self) -> None:
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        options = ["-c", "listen_addresses=", "-c", "max_connections=200"]
        # after a kill the old children take a moment to let go of the shared memory: it is begun again
        for _ in range(20):
            self.process = logged([*unprivileged(), *command, *options], self.folder / "log", cwd=self.folder)
            if self._is_ready():
                return
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _is_ready(self) -> bool:
        assert self.process is not None
        asked = [str(self.binaries / "psql"), "-h", str(self.folder), "-U", "prefect", "-c", "select 1", "postgres"]
        while self.process.poll() is None:
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return True
            time.sleep(0.2)
        return False

    def kill(self) -> None:
        """Kill the postmaster: as a power cut, nothing is written any more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()


@dataclass
class Server:
    """A Prefect server behind a password, on a port of loopback."""

    database: str
    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    password: str = field(default_factory=lambda: f"drill:{secrets.token_hex(8)}")
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def client_settings(self) -> dict[str, str]:
        """Environment of those who talk to it."""
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": self.password,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self) -> None:
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as one:
                self.port = one.getsockname()[1]
        own = {
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database,
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, **self.client_settings, **own, **self.settings}
        self.process = logged(command, self.home / "server.log", env=environment, start_new_session=True)
        wait_for(self.answers, f"the Prefect server ({self.home / 'server.log'})")

    def answers(self, place: str = "ready") -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.log").read_text()[-2000:]
        try:
            with build_opener(ProxyHandler({})).open(f"{self.url}/{place}", timeout=5.0) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False

    def kill(self) -> None:
        """Kill it with all its processes."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Engine:
    """Database, server, and the workers that were started on it."""

    server: Server
    postgres: Postgres | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, pool: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        settings = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *path_of_python()])}
        environment = {**os.environ, **self.server.client_settings, **settings}
        log = self.server.home / f"worker-{len(self.workers)}.log"
        self.workers.append(logged(command, log, env=environment, start_new_session=True, cwd=ROOT))
        return self.workers[-1]

    def stop_workers(self) -> None:
        for one in self.workers:
            for pid in family(one.pid):
                kill(pid)
            if one.poll() is None:
                one.kill()
            one.wait()
        self.workers.clear()


@contextmanager
def engine_on(database: str, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """Run an engine on PostgreSQL or SQLite (``database``) for a `with` block."""
    place = Path(tempfile.mkdtemp(prefix="drill-"))  # a socket has a short path; an unprivileged user can get there
    home = folder / "prefect"
    home.mkdir(parents=True)
    postgres = None
    try:
        if database == "postgresql":
            found = binaries()
            assert found is not None
            postgres = Postgres(found, place)
            postgres.create()
            postgres.start()
        url = postgres.url if postgres is not None else f"sqlite+aiosqlite:///{home / 'prefect.db'}"
        engine = Engine(Server(url, home, settings or {}), postgres)
        try:
            engine.server.start()
            yield engine
        finally:
            engine.stop_workers()
            engine.server.kill()
    finally:
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(place, ignore_errors=True)


def path_of_python() -> list[str]:
    """Folders that PYTHONPATH names already."""
    return [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def family(pid: int) -> list[int]:
    """Living descendants of a process, parents first, by what their environment and their parents say."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, queue = [], [pid]
    while queue:
        mine = children.get(queue.pop(0), [])
        found += mine
        queue += mine
    return found


def processes_of(flow_run: str) -> list[int]:
    """Living processes of a flow run: its own one first, then those that it started."""
    mark = f"PREFECT__FLOW_RUN_ID={flow_run}".encode()
    marked = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                marked.append(int(entry.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    heads = [pid for pid in marked if parent_of(pid) not in marked]
    return [*heads, *(pid for pid in marked if pid not in heads)]


def parent_of(pid: int) -> int:
    """Parent of a process; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
