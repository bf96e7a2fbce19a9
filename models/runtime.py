"""How Keras is started: quiet, and with as many threads as this process may use.

Exposures run in parallel processes; a TensorFlow that takes every core in each of them makes all of them slower.
The numbers of threads must be set before its first use, so every function that needs Keras gets it from here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

GREETINGS = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")
"""How lines begin that mean nothing to an operator: hints about the build, of the level of information."""


def start_keras(threads: int | None = None) -> ModuleType:
    """Import Keras, and set its number of threads if this is its first use in the process.

    Parameters
    ----------
    threads : int, optional
        Threads for one operation. When not given: ``$TF_NUM_INTRAOP_THREADS``, else ``$OMP_NUM_THREADS`` (so that
        a worker pinned to one thread for BLAS is pinned here too), else as many as there are cores.

    Returns
    -------
    module
        `keras`.
    """
    limit = str(threads) if threads else os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit():
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", limit)
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with _without_greetings():
            import keras
    import keras

    return keras


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Hold back what TensorFlow says of its build on stderr before its logging obeys; everything else passes."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            others = [line for line in held.read().splitlines(keepends=True) if not line.startswith(GREETINGS)]
            os.write(2, b"".join(others))


def versions() -> dict[str, str]:
    """Versions of what a model's numbers depend on.

    Returns
    -------
    dict of str to str
        Version by package: nightsift, keras, its backend, numpy and python.
    """
    import platform
    from importlib.metadata import packages_distributions, version

    import numpy as np

    keras = start_keras()
    backend = keras.backend.backend()
    found = {"nightsift": version("nightsift"), "keras": keras.__version__, "numpy": np.__version__}
    for distribution in packages_distributions().get(backend, [])[:1]:
        found[distribution] = version(distribution)
    return {**found, "python": platform.python_version()}
