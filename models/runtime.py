"""How Keras is started: quiet, and with as many threads as this process may use.

Exposures run in parallel processes; a TensorFlow that takes every core in each of them makes all of them slower.
The numbers of threads must be set before its first use, so every function that needs Keras gets it from here.
"""

from __future__ import annotations

import os
from types import ModuleType


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
    # TensorFlow greets on stderr with hints about its build, which mean nothing to an operator
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


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
