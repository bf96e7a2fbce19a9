"""The domain of nightsift: frames, tables, units, flags and the doors to disk. No Prefect, no TensorFlow."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import Any

__version__ = "0.1.0"


def open(archive: str | PathLike[str]) -> Any:
    """Open an archive to look at: nights, candidates, stamps, light curves and templates, for notebooks.

    Parameters
    ----------
    archive : str or Path
        Folder of the archive, or a survey file.

    Returns
    -------
    nightsift.archive.view.ArchiveView
        What lies in it; nothing is ever written.

    Raises
    ------
    NotInArchive
        If there is no archive.
    ConfigurationError
        If the survey file is wrong.
    """
    # Imported by its name as text, when it is asked for: the modules that it needs import this one for its version.
    return importlib.import_module("nightsift.archive.view").ArchiveView(archive)
