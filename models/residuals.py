"""What a subtraction leaves on galaxies where nothing changes: bogus examples that look like transients on hosts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.examples import GALAXY_PIXEL, PLACED
from models.placement import PlacementOptions, draw_hosts
from models.separation import busy_galaxies
from nightsift.context.galaxies import Galaxies
from nightsift.frames import Difference, FloatImage, Pair
from nightsift.images.forced import forced_photometry
from nightsift.images.photometry import ZeroPoint

Values = npt.NDArray[np.float64]
SAMPLE = ("candidate_id", "unit", "night", "field", "exposure_id", "x", "y", "sign", "snr", "flags", "mag")
"""Columns of candidates that an example is made of."""


def quiet_galaxies(
    galaxies: Galaxies,
    changing: Values,
    detected: Values,
    n: int,
    clear: float,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Galaxies:
    """Draw galaxies in which nothing changes and nothing was detected, by the prior of the hosts.

    Parameters
    ----------
    galaxies : Galaxies
        The galaxies.
    changing, detected : ndarray of float64, shape (m, 2)
        x, y of what changes, and of what was detected (pixel).
    n : int
        Number wished.
    clear : float
        Least distance from either (pixel).
    options : PlacementOptions
        Prior and least radius of hosts.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Galaxies
        At most so many.
    """
    free = ~busy_galaxies(galaxies, changing, 0.0, clear) & ~busy_galaxies(galaxies, detected, 0.0, clear)
    return galaxies.take(draw_hosts(rng, galaxies, n, options, free))


def residual_rows(difference: Difference, pair: Pair, zero: ZeroPoint, galaxies: Galaxies) -> pa.Table:
    """Residuals of galaxies as if they had been detected: at the highest score of either sign in the core of each.

    Parameters
    ----------
    difference : Difference
        The difference.
    pair : Pair
        What it was made of.
    zero : ZeroPoint
        Zero point of the frame.
    galaxies : Galaxies
        Galaxies; those outside the frame are left out.

    Returns
    -------
    pyarrow.Table
        Columns `SAMPLE`, one row a galaxy.
    """
    ny, nx = difference.shape
    inside = (galaxies.x > -0.5) & (galaxies.y > -0.5) & (galaxies.x < nx - 0.5) & (galaxies.y < ny - 0.5)
    some = galaxies.take(inside)
    reach = max(1, round(0.5 * difference.psf.fwhm))
    columns, rows = _highest(difference.score, some.x, some.y, reach)
    measured = forced_photometry(difference, columns, rows, zero)
    score, meta, n = difference.score[rows, columns], pair.science.meta, len(some)
    flux = np.asarray(measured["flux"].to_numpy(zero_copy_only=False), dtype=np.float64)
    mag, _ = zero.magnitudes(flux, flux)
    return pa.table(
        {
            "candidate_id": [f"{meta.exposure_id}{PLACED}{one}" for one in some.host_id],
            "unit": pa.array([meta.unit] * n, pa.string()),
            "night": pa.array([meta.night] * n, pa.string()),
            "field": pa.array([meta.field] * n, pa.string()),
            "exposure_id": pa.array([meta.exposure_id] * n, pa.string()),
            "x": columns.astype(np.float64),
            "y": rows.astype(np.float64),
            "sign": np.where(score < 0, -1, 1).astype(np.int8),
            "snr": np.abs(score).astype(np.float32),
            "flags": measured["flags"],
            "mag": pa.array(mag.astype(np.float32), mask=~np.isfinite(mag)),
        }
    )


def detected(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell which examples of a set the pipeline detected.

    The others stand at the highest pixel of a galaxy in which it detected nothing; they are easy, and no survey would
    ask about them.

    Parameters
    ----------
    table : pyarrow.Table
        Schema `models.examples.EXAMPLES`.

    Returns
    -------
    ndarray of bool, shape (n,)
        Whether it was detected.
    """
    return np.array([one != GALAXY_PIXEL for one in table["source"].to_pylist()], dtype=np.bool_)


def places(table: pa.Table) -> Values:
    """Finite positions of a table.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns ``x`` and ``y``.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        x, y (pixel).
    """
    found = np.stack([np.asarray(table[name], dtype=np.float64) for name in ("x", "y")], axis=1)
    return np.asarray(found[np.isfinite(found).all(axis=1)])


def _highest(
    score: FloatImage, x: Values, y: Values, reach: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixel of the largest absolute score within a square around each position."""
    ny, nx = score.shape
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    side = np.arange(-reach, reach + 1)
    i = np.clip(columns[:, None, None] + side[None, None, :], 0, nx - 1)
    j = np.clip(rows[:, None, None] + side[None, :, None], 0, ny - 1)
    i, j = np.broadcast_arrays(i, j)
    flat = (len(x), len(side) ** 2)
    best = np.argmax(np.abs(score[j, i]).reshape(flat), axis=1)
    every = np.arange(len(x))
    return i.reshape(flat)[every, best], j.reshape(flat)[every, best]
