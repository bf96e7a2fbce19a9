"""A Prefect worker of one work pool, as `nightsift serve` keeps it: ``python -m flows.pool_worker POOL``."""

from __future__ import annotations

import sys
import threading

from flows.server import end_with_parent


def main(pool: str) -> None:
    """Work for a pool until asked to stop, or until the keeper is gone.

    Parameters
    ----------
    pool : str
        Name of the work pool.
    """
    from flows.prefect_internals import command_line

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", f"nightsift-{pool}"]
    command_line()


if __name__ == "__main__":
    main(sys.argv[1])
