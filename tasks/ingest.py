"""File to calibrated frame with its artefacts masked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.frames import Frame
from nightsift.images.artefacts import mask_artefacts
from nightsift.io.exposures import load_exposure
from nightsift.units import Unit


@task(name="ingest", persist_result=False, cache_policy=NO_CACHE)
def ingest(path: Path, unit: Unit, night: str | None = None, sha256: str = "", url: str = "") -> Frame:
    """Read one exposure.

    Parameters
    ----------
    path : Path
        Local file.
    unit : Unit
        The telescope unit.
    night : str, optional
        Night label; from the header when not given.
    sha256 : str, optional
        Checksum where it is known.
    url : str, optional
        Where the file came from, for people.

    Returns
    -------
    Frame
        ADU with sky; variance, mask and facts.
    """
    frame = load_exposure(path, unit, night, sha256)
    return frame.replace(meta=dataclasses.replace(frame.meta, path=url or str(path)))


@task(name="artefacts", persist_result=False, cache_policy=NO_CACHE)
def artefacts(frame: Frame, unit: Unit) -> Frame:
    """Mask what is neither sky nor source.

    Parameters
    ----------
    frame : Frame
        Frame with sky.
    unit : Unit
        With its table ``[artefacts]``.

    Returns
    -------
    Frame
        The frame with a larger mask.
    """
    return mask_artefacts(frame, unit)
