"""What running alerts want reduced first, as the watch of a night asks at every look."""

from __future__ import annotations

import importlib
import importlib.util

from flows.vigil import Wish
from nightsift.io.paths import Archive

TARGETS = "nightsift.alerts.targets"


def wishes(archive: Archive) -> Wish:
    """Read what the running alerts of an archive want.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    callable
        How much a frame is wanted, by unit, right ascension, declination (deg) and MJD.
    """
    if importlib.util.find_spec("nightsift.alerts") is None:
        return _no_wish
    known = importlib.import_module(TARGETS)
    targets = known.active_targets(archive)
    if not targets:
        return _no_wish
    return lambda unit, ra, dec, mjd: float(known.wants(targets, unit, ra, dec, mjd)) if ra == ra else 0.0


def _no_wish(unit: str, ra: float, dec: float, mjd: float) -> float:
    """No alert runs: frames are begun in the order in which they came."""
    return 0.0
