"""Writing files so that they are either there and whole, or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightsift.errors import DiskFull

TEMPORARY = ".writing-"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file so that it is either there and whole, or not there.

    Parameters
    ----------
    path : str or Path
        The file; its folder is made if needed.

    Yields
    ------
    Path
        A temporary file in the same folder to write to; it takes the place of `path` when all went well, and is
        removed otherwise.

    Raises
    ------
    DiskFull
        If the disk or quota is full.
    """
    path = Path(path)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}-{path.name[-80:]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise_if_full(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Force a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot sync a folder; the rename is still atomic there
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(descriptor)


def raise_if_full(error: BaseException, path: Path) -> None:
    """Turn an error of a full disk into one that says so; other errors pass.

    Parameters
    ----------
    error : BaseException
        What happened.
    path : Path
        What was being written.

    Raises
    ------
    DiskFull
        If the disk or quota is full.
    """
    if not isinstance(error, OSError) or error.errno not in FULL:
        return
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        free = -1
    raise DiskFull(path=str(path), free=free) from error
