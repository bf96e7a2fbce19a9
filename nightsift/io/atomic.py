"""Writing files so that they are either there and whole, or not there, and creating files that nobody else has."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightsift.core.errors import DiskFull

TEMPORARY = ".writing-"
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


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


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create a file with its content in one step, unless it exists.

    The content is written under another name and then linked, which also holds on network file systems; where there
    are no links, the file is opened with ``O_EXCL``.

    Parameters
    ----------
    path : Path
        The file; its folder is made if needed.
    content : bytes
        What it holds.

    Returns
    -------
    bool
        Whether this call created it.

    Raises
    ------
    DiskFull
        If the disk or quota is full.
    OSError
        If the folder cannot be written to.
    """
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)
            return True
        except FileExistsError:
            # the answer of a file server may be lost and the request repeated: two links mean that it was ours
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        return _opened_exclusively(path, content)
    except OSError as error:
        raise_if_full(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _opened_exclusively(path: Path, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return True
