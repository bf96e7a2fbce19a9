"""``nightsift serve``: Prefect server, workers, deployments and the schedule of nights under one supervisor.

Each process is started again when it dies, stopped in order, and gone when the supervisor is killed. A worker of one
work pool is this module run by itself: ``python -P -m flows.service POOL``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from httpx import HTTPError

from flows.tracking import LEASES_ON_DISK, QUIET, answers, end_with_parent
from nightsift.archive.survey import Survey
from nightsift.core.errors import ConfigurationError, NightsiftError

LONGEST_PAUSE = 60.0
"""Seconds before a process that dies again and again is started once more."""

STEADY_SECONDS = 120.0
"""A process that lived so long was well: the next pause is short again."""

LOOK_SECONDS = 1.0
PLAN_SECONDS = 60.0
"""The nights are planned again this often: a watch that died is begun again, a changed survey file is seen."""

USER = "nightsift"

_logger = logging.getLogger("nightsift.serve")


@dataclass(slots=True)
class SupervisedProcess:
    """A process that is started again whenever it dies.

    Attributes
    ----------
    name : str
        For people and for the name of its log.
    command : sequence of str
        Module and arguments, run by this Python.
    environment : mapping of str to str
        Its environment.
    log : Path
        Where its output goes.
    stop_seconds : float
        How long it may take to end when it is asked to.
    process : subprocess.Popen or None
        The process; None while there is none.
    starts : int
        How often it was started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    stop_seconds: float = 15.0
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    _started: float = 0.0
    _pause: float = 0.5
    _not_before: float = 0.0
    _asked: bool = False

    def look(self) -> None:
        """Start it, or start it again where it has died, after a pause that grows."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self._pause = 0.5 if now - self._started > STEADY_SECONDS else min(2 * self._pause, LONGEST_PAUSE)
            self._not_before = now + self._pause
            _logger.warning(
                "%s has ended (%s), started again in %.0f s; see %s", self.name, code, self._pause, self.log
            )
            self._close()
        if now >= self._not_before:
            self._start()

    def ask_to_stop(self) -> None:
        """Ask it to end, once: some take a second request for impatience and drop what they hold."""
        if self.process is not None and self.process.poll() is None and not self._asked:
            self._asked = True
            self.process.terminate()

    def stop(self) -> None:
        """Ask it to end, wait, and kill it where it does not."""
        self.ask_to_stop()
        if self.process is not None:
            try:
                self.process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                _logger.warning("%s does not end and is killed", self.name)
                self.process.kill()
                self.process.wait()
            self._close()

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *self.command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(self.environment), start_new_session=True,
            )  # fmt: skip
        self._started, self._asked = time.monotonic(), False
        self.starts += 1

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def environment(**added: str) -> dict[str, str]:
    """Return the environment of a supervised process: this one's and what is added; no secret is ever an argument.

    Neither it nor what it starts imports from the folder where it stands: people keep a ``tasks.py`` of theirs there.
    """
    return {**os.environ, "PYTHONSAFEPATH": "1", **added}


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve.

    Attributes
    ----------
    home : Path
        Folder of the password, the database and the logs.
    host : str
        Address to listen on.
    port : int
        Port of the pages and the API.
    auth : bool
        Whether a password is asked for.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 4200
    auth: bool = True

    @property
    def url(self) -> str:
        """Address of the API, as processes on this machine reach it."""
        return f"http://127.0.0.1:{self.port}/api"


def check_binding(serving: Serving, survey: Survey) -> None:
    """Refuse to listen beyond this machine without a password.

    Parameters
    ----------
    serving : Serving
        How to serve.
    survey : Survey
        For the error.

    Raises
    ------
    ConfigurationError
        If everybody on the network could start and stop runs.
    """
    try:
        local = ipaddress.ip_address(serving.host).is_loopback
    except ValueError:
        local = serving.host == "localhost"
    if not local and not serving.auth:
        raise ConfigurationError(
            file=survey.file, table="command line", key="--host", what=f"{serving.host} without a password",
            advice="leave --no-auth away, or listen on 127.0.0.1 and let people come by ssh -L",
        )  # fmt: skip


def password(home: Path) -> str:
    """Return the password of the server, made on the first call, in a file that only its owner can read.

    Parameters
    ----------
    home : Path
        Folder of the file ``password``.

    Returns
    -------
    str
        ``user:password``, as Prefect wants it.

    Raises
    ------
    ConfigurationError
        If others can read the file.
    """
    home.mkdir(parents=True, exist_ok=True)
    file = home / "password"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(f"{USER}:{secrets.token_urlsafe(24)}\n")
    if file.stat().st_mode & 0o077:
        raise ConfigurationError(
            file=str(file), table="serve", key="password", what="others can read it", advice=f"chmod 600 {file}"
        )
    return file.read_text().strip()


def settings(serving: Serving) -> dict[str, str]:
    """Return the settings of Prefect for the server and its clients; what the user has set stays.

    Parameters
    ----------
    serving : Serving
        How to serve.

    Returns
    -------
    dict of str to str
        Environment variables, the password among them.
    """
    home = serving.home.absolute()
    chosen = {
        **QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "true",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES_ON_DISK,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }
    values = {name: os.environ.get(name, value) for name, value in chosen.items()}
    values["PREFECT_API_URL"] = serving.url
    if serving.auth:
        values["PREFECT_SERVER_API_AUTH_STRING"] = values["PREFECT_API_AUTH_STRING"] = password(home)
    return values


def serve(
    survey: Survey, file: Path, serving: Serving, *, stop: threading.Event, progress: Callable[[str], None]
) -> None:
    """Start everything, keep it alive until `stop` is set, and stop it in order.

    Parameters
    ----------
    survey : Survey
        The survey.
    file : Path
        Its file.
    serving : Serving
        How to serve.
    stop : threading.Event
        Set to stop.
    progress : callable
        Called with a line on each event.

    Raises
    ------
    ConfigurationError
        If it would listen beyond this machine without a password.
    """
    check_binding(serving, survey)
    from flows.deployments import POOLS

    shared = settings(serving)
    server = SupervisedProcess(
        "server", ("flows.tracking", serving.host, str(serving.port)), environment(**shared),
        serving.home / "server.log",
    )  # fmt: skip
    workers = [
        SupervisedProcess(
            f"worker {pool}", ("flows.service", pool), environment(**shared), serving.home / f"{pool}.log", 40.0
        )
        for pool in POOLS
    ]
    if survey.alert.folder or survey.alert.topics:  # warm before a notice comes
        command = ("nightsift", "alert", "listen", str(file.absolute()))
        workers.append(
            SupervisedProcess(
                "alert listener", command, environment(**shared), serving.home / "alert-listener.log", 40.0
            )
        )
    os.environ.update(shared)
    planned, declared = float("-inf"), False
    try:
        while not stop.wait(LOOK_SECONDS):
            server.look()
            if not declared:
                declared = answers(serving.url, 1.0) and _declared(survey, file, progress)
                continue
            for worker in workers:
                worker.look()
            if time.monotonic() - planned > PLAN_SECONDS and answers(serving.url, 1.0):
                planned = time.monotonic()
                _plan(survey, file, progress)
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for one in (*workers, server):
            one.stop()
        progress("all is stopped; started again, it goes on where it was")


def _declared(survey: Survey, file: Path, progress: Callable[[str], None]) -> bool:
    from flows.deployments import declare
    from flows.prefect_internals import refresh_global_settings_context

    refresh_global_settings_context()
    zone = next((survey.sites[one.site].timezone for one in survey.sources if one.site), "UTC")
    try:
        names = declare(str(file.absolute()), zone)
    except HTTPError as error:
        _logger.warning("the server does not take the deployments yet: %s", error)
        return False
    progress(f"deployments: {', '.join(names)}")
    return True


def _plan(survey: Survey, file: Path, progress: Callable[[str], None]) -> None:
    from flows.plan_nights import plan

    try:
        for line in plan(survey, str(file.absolute())):
            progress(f"night at {line}")
    except (HTTPError, NightsiftError) as error:
        _logger.warning("the nights could not be planned: %s", error)


def work_for_pool(pool: str) -> None:
    """Run the worker of a pool until it is asked to stop, or until the supervisor is gone."""
    from flows.prefect_internals import command_line

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", f"nightsift-{pool}"]
    command_line()


if __name__ == "__main__":
    work_for_pool(sys.argv[1])
