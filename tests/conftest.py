"""Fixtures of the whole suite; the environment is set before numpy, TensorFlow or Prefect are imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_PREFECT_HOME = tempfile.mkdtemp(prefix="nightsift-tests-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "MPLBACKEND": "Agg",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": _PREFECT_HOME,
}.items():
    os.environ[_name] = _value

import ipaddress  # noqa: E402
import socket  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from functools import cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests.known_weak import WEAK  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is known to fail; strict, so that the list cannot outlive its reasons."""
    for item in items:
        if item.name in WEAK:
            item.add_marker(pytest.mark.xfail(reason=WEAK[item.name], strict=True))


COSTLY = ("shared(", "prefect_harness", "forks(")
"""How tests use what costs seconds a session: files that use the same one run in one worker, which makes it once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one worker, as loadfile does, and files with a costly fixture too."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFixture(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return ByFixture(config, log)


@cache
def group_of(file: str) -> str:
    """Return the costly fixture that a test file uses, or the file itself."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return next((name for name in COSTLY if name in text), file)


class NetworkBlocked(OSError):
    """A test tried to reach another machine."""


def _is_local(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Let tests talk to loopback and unix sockets only."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(one: socket.socket, address: Any) -> None:
        # Connecting a datagram socket sends nothing: libraries do it to learn their own address.
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type == socket.SOCK_DGRAM:
            return
        if not _is_local(address[0]):
            raise NetworkBlocked(f"tests run without network, and this one connects to {address}")

    def guarded_connect(one: socket.socket, address: Any) -> None:
        check(one, address)
        return connect(one, address)

    def guarded_connect_ex(one: socket.socket, address: Any) -> int:
        check(one, address)
        return connect_ex(one, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            raise NetworkBlocked(f"tests run without network, and this one looks up {host!r}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of shared real data, or skip the test where there is none."""
    named = os.environ.get("NIGHTSIFT_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set NIGHTSIFT_DATA to the folder that holds images/)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded random generator, the same for every test."""
    return np.random.default_rng(20261120)


@pytest.fixture(scope="session")
def prefect_harness() -> Iterator[None]:
    """Run flows against a temporary database and an ephemeral server of their own.

    Heartbeats are off: they make every synchronous flow wait up to a second at its end.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield
