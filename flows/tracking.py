"""Running a flow with, without and in spite of a Prefect server: the ledger is the truth, Prefect the window.

Every flow goes through `recorded`: without Prefect where that is asked for, tracked where a server answers, and to its
end untracked where the server dies in the middle. Where none is configured, one is started for the run (this module run
by itself) on loopback with SQLite. Prefect can start such a server too, but that one outlives a parent killed with -9
and picks its port among a thousand by chance; ours ends when the pipe to its parent breaks, on a port of the system.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, Generic, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from httpx import HTTPError as ClientError
from prefect import Flow
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

STARTUP_SECONDS = 90.0
"""How long a server may take to start; the first one on a new database needs 12 to 17 s on two cores."""

DRAIN_SECONDS = 10.0
"""How long to wait for the last logs and events to leave."""

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}
"""Nothing is sent to anybody; the log lines of runs go to the API, and only errors to the terminal as well."""

OWN = {"PREFECT_CLIENT_MAX_RETRIES": "2"}
"""Nobody starts a server of one run again: requests to one that was killed are sent again for 6 s, not for a minute."""

LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"
"""Leases of concurrency limits lie in memory by default: a server that is killed forgets them, and a healthy run whose
lease is not known any more is ended by its own process. As files under PREFECT_HOME they outlive the server."""

ANSWER_SECONDS = 2.0
"""A server may take so long to say that it is well, before a run begins that a long-lived process tracks."""

R = TypeVar("R")

_logger = logging.getLogger("nightsift.server")


def recorded(flow: Flow[..., R], name: str, *plan: Any, track: bool = True) -> R:
    """Run a flow, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    flow : Flow
        The flow; its function takes the plan and ``tracked``, and goes on where it was when it is begun again.
    name : str
        Name of the run.
    *plan
        Its arguments.
    track : bool, optional
        False to run without Prefect: nothing is started or asked.

    Returns
    -------
    object
        What the function returned.
    """
    if not track:
        return flow.fn(*plan, tracked=False)
    with tracking() as tracked:
        return run_recorded(flow, name, *plan, tracked=tracked)


def run_recorded(flow: Flow[..., R], name: str, *plan: Any, tracked: bool) -> R:
    """Run a flow inside a `flows.tracking.tracking` block, to its end whatever becomes of the server.

    A process that lives for long opens the block and runs many flows in it, each tracked if the server answers then.

    Parameters
    ----------
    flow : Flow
        The flow, as for `recorded`.
    name : str
        Name of the run.
    *plan
        Its arguments.
    tracked : bool
        What the block said.

    Returns
    -------
    object
        What the function returned.
    """
    if not tracked:
        return flow.fn(*plan, tracked=False)
    if not answers(PREFECT_API_URL.value() or "", ANSWER_SECONDS):
        _logger.warning("the Prefect server does not answer: '%s' is not tracked", name)
        return flow.fn(*plan, tracked=False)
    return _Attempt(flow, name).run(plan)


class _Attempt(Generic[R]):
    """A tracked run whose result or error is held here, whatever the engine of Prefect makes of it."""

    def __init__(self, flow: Flow[..., R], name: str) -> None:
        self._flow, self._name = flow, name
        self._results: list[R] = []
        self._error: Exception | None = None

    def run(self, plan: tuple[Any, ...]) -> R:
        @wraps(self._flow.fn)
        def work(*given: Any, **named: Any) -> R:
            try:
                self._results.append(self._flow.fn(*given, **named, tracked=True))
            except Exception as error:
                self._error = error
                raise
            return self._results[0]

        shown = signature(self._flow.fn)
        parameters = [one for name, one in shown.parameters.items() if name != "tracked"]
        work.__signature__ = shown.replace(parameters=parameters)  # type: ignore[attr-defined]
        run: Flow[..., R] = Flow(
            work, name=self._flow.name, flow_run_name=self._name, persist_result=False, validate_parameters=False
        )
        try:
            return run(*plan)
        except Exception as error:  # noqa: BLE001
            # Prefect fails in many ways where its server is gone. The work's own error is raised again by `_end`.
            return self._end(plan, error)

    def _end(self, plan: tuple[Any, ...], error: Exception) -> R:
        """Return the result of the run although Prefect failed, or raise the error of the work itself."""
        line = f"the Prefect server fails ({type(error).__name__}: {str(error).partition(chr(10))[0] or 'no answer'})"
        if self._results:
            _logger.error("%s: the run is done, but its record is not complete", line)
            return self._results[0]
        if self._error is not None and not isinstance(self._error, ClientError | PrefectException):
            raise self._error
        _logger.error("%s: from here on this run is not tracked", line)
        return self._flow.fn(*plan, tracked=False)


@contextmanager
def tracking(startup_seconds: float = STARTUP_SECONDS, retries: int | None = None) -> Iterator[bool]:
    """Make a Prefect API available for the `with` block.

    Parameters
    ----------
    startup_seconds : float, optional
        How long to wait for an answer before going on without Prefect.
    retries : int, optional
        How often a request is sent again where the configured server does not answer, after 2 s, 4 s, 8 s and so on;
        as Prefect has it when None.

    Yields
    ------
    bool
        Whether an API answers; when it does not, a warning was logged and the caller should run untracked.
    """
    from flows.prefect_internals import forget_what_is_left, send_what_is_left

    if configured := PREFECT_API_URL.value():
        alive = answers(configured, min(startup_seconds, 15.0))
        refusal = _refusal(configured) if alive else "does not answer"
        if refusal:
            _logger.warning("the Prefect server at %s %s: this run is not tracked", configured, refusal)
        with _settings(QUIET if retries is None else {**QUIET, "PREFECT_CLIENT_MAX_RETRIES": str(retries)}):
            try:
                yield not refusal
            finally:
                if not refusal and not answers(configured, 2.0):
                    forget_what_is_left()
        return
    process, url = _start(startup_seconds)
    try:
        if url and answers(url, startup_seconds):
            with _settings({**QUIET, **OWN, "PREFECT_API_URL": url}):
                try:
                    yield True
                finally:
                    if process.poll() is None:
                        send_what_is_left(DRAIN_SECONDS)
                    else:
                        forget_what_is_left()
        else:
            _logger.warning("no Prefect server came up within %.0f s: this run is not tracked", startup_seconds)
            yield False
    finally:
        _stop(process)


def _start(seconds: float) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.tracking"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **QUIET, "PREFECT_UI_ENABLED": "0"},
        text=True,
    )
    # A line that never comes must not hang the night: the timer ends the process, which ends the pipe.
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    timer.cancel()
    return process, f"http://127.0.0.1:{port}/api" if port else ""


@contextmanager
def _settings(values: dict[str, str]) -> Iterator[None]:
    """Give settings to this process with all its threads, and to those it starts; what the user has set stays."""
    from flows.prefect_internals import refresh_global_settings_context

    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    refresh_global_settings_context()
    try:
        with _console_level(os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"]):
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        refresh_global_settings_context()


@contextmanager
def _console_level(level: str) -> Iterator[None]:
    """Give the handlers that write to the terminal another level: Prefect set up its logging on import."""
    from flows.prefect_internals import console_handlers

    before = {one: one.level for one in console_handlers()}
    for one in before:
        one.setLevel(level)
    try:
        yield
    finally:
        for one, old in before.items():
            one.setLevel(old)


def answers(url: str, seconds: float) -> bool:
    """Whether an API answers.

    Parameters
    ----------
    url : str
        Its address.
    seconds : float
        How long to try.

    Returns
    -------
    bool
        Whether its health check passed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with _opener(url).open(f"{url}/health", timeout=5.0) as reply:
                if reply.status == 200:
                    return True
        except (URLError, OSError, ValueError):
            pass
        time.sleep(0.2)
    return False


def _refusal(url: str) -> str:
    """Return why a server would not take a run: its health says nothing of its database and of our password."""
    key, password = PREFECT_API_KEY.value(), PREFECT_API_AUTH_STRING.value()
    request = Request(f"{url}/flows/count", data=b"{}", headers={"Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    elif password:
        coded = base64.b64encode(password.encode()).decode()
        request.add_header("Authorization", f"Basic {coded}")
    try:
        with _opener(url).open(request, timeout=15.0):
            return ""
    except HTTPError as error:
        if error.code in (401, 403):
            return "refuses the password (PREFECT_API_AUTH_STRING)"
        return f"answers with error {error.code} (is its database up?)"
    except (URLError, OSError, ValueError) as error:
        return f"does not answer in time ({error})"


def _opener(url: str) -> OpenerDirector:
    # The server of a loopback address is not behind the proxy that the environment may name.
    local = "//127.0.0.1" in url or "//localhost" in url
    return build_opener(ProxyHandler({})) if local else build_opener()


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.terminate()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdin.close()
    process.stdout.close()


def end_with_parent() -> None:
    """Wait until the pipe to the parent breaks, and end this process at once."""
    sys.stdin.read()
    os._exit(0)


def serve_api(host: str = "127.0.0.1", port: int = 0, lasting: bool = False) -> None:
    """Serve the API until the standard input ends; the port is printed as the first line.

    Parameters
    ----------
    host : str, optional
        Address to listen on.
    port : int, optional
        Port; 0 for a free one.
    lasting : bool, optional
        With the pages and with all services, schedules among them; without, only what one run needs.
    """
    import socket

    import uvicorn

    from flows.prefect_internals import server_app

    threading.Thread(target=end_with_parent, daemon=True).start()
    with socket.create_server((host, port)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(server_app(ephemeral=not lasting), log_level="error", lifespan="on")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        serve_api(sys.argv[1], int(sys.argv[2]), lasting=True)
    else:
        serve_api()
