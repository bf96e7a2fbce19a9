"""Creating a file that nobody else has created: the one step on which claims rest."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nightsift.io.atomic import TEMPORARY, raise_if_full

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


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
