"""Sub-pixel centres, widths and elongations of peaks, and what the shapes of the stars say of the optics.

The air widens every star and hardly changes the shape of its profile. A defocused pupil is a disc or a ring and
flattens the core: such a star is wider in a narrow window than in a wide one, whatever the seeing. The windows scale
with the width of the stars. Few pixels per star leave a relation of shape to width that is the unit's own; it is learnt
where the shapes are compared (`models.drift.exposure_inputs`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.frames import FloatImage, Frame, StarTable
from nightsift.core.parallel import over_rows
from nightsift.core.robust import MAD_TO_SIGMA
from nightsift.images.stars.moments import moments
from nightsift.images.stars.stars import NO_LIGHT, clean_stars, typical_fwhm

Float64 = npt.NDArray[np.float64]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))

NARROW, WIDE = 0.8, 1.2
"""Windows in which the core is measured, in widths of the stars."""

LEAST_STARS = 8
"""Clean stars below which nothing is said."""

_LOOKED_AT, _MEASURED = 4000, 200  # brightest stars: more cost time, and tell no more


def centroids(
    score: FloatImage, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sub-pixel positions of peaks from a quadratic fit to the 3x3 pixels around each.

    The fit is to the logarithm where all nine pixels have the sign of the peak (the peak of a matched-filtered point
    source is close to a Gaussian, for which this is exact), to the values themselves otherwise.

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map.
    columns, rows : ndarray of int64, shape (n,)
        Pixels of the peaks, of either sign.

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        Positions (pixel), within 0.75 pixel of the peak pixel; the peak pixel itself at the edge of the frame.
    """
    x, y = columns.astype(np.float64), rows.astype(np.float64)
    _centroids(score, columns, rows, x, y)
    return x, y


@njit(cache=True, nogil=True)
def _centroids(
    score: FloatImage,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
) -> None:
    ny, nx = score.shape
    v = np.empty((3, 3))
    for n in range(len(columns)):
        i, j = columns[n], rows[n]
        if i < 1 or j < 1 or i > nx - 2 or j > ny - 2:
            continue
        sign = 1.0 if score[j, i] >= 0 else -1.0
        least = np.inf
        for b in range(3):
            for a in range(3):
                v[b, a] = sign * score[j + b - 1, i + a - 1]
                least = min(least, v[b, a])
        if not np.isfinite(least):
            continue
        if least > 0:
            v[:] = np.log(v)
        gx = (v[0, 2] + v[1, 2] + v[2, 2] - v[0, 0] - v[1, 0] - v[2, 0]) / 6.0
        gy = (v[2, 0] + v[2, 1] + v[2, 2] - v[0, 0] - v[0, 1] - v[0, 2]) / 6.0
        total_x = v[0, 0] + v[1, 0] + v[2, 0] + v[0, 2] + v[1, 2] + v[2, 2]
        total_y = v[0, 0] + v[0, 1] + v[0, 2] + v[2, 0] + v[2, 1] + v[2, 2]
        hxx = (total_x - 2.0 * (v[0, 1] + v[1, 1] + v[2, 1])) / 3.0
        hyy = (total_y - 2.0 * (v[1, 0] + v[1, 1] + v[1, 2])) / 3.0
        hxy = (v[0, 0] + v[2, 2] - v[0, 2] - v[2, 0]) / 4.0
        determinant = hxx * hyy - hxy * hxy
        if hxx >= 0 or determinant <= 0:
            continue
        x[n] += min(0.75, max(-0.75, (hxy * gy - hyy * gx) / determinant))
        y[n] += min(0.75, max(-0.75, (hxy * gx - hxx * gy) / determinant))


def widths(
    data: FloatImage,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    sign: npt.NDArray[np.int8],
    fwhm: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Full width at half maximum and elongation from moments under a Gaussian window.

    The window has the width of the PSF and is taken out of the moments again, ``C^-1 = M^-1 - W^-1``, which is exact
    for a Gaussian source.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Background-subtracted image.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    sign : ndarray of int8, shape (n,)
        +1 or -1, the sign of each source.
    fwhm : float
        Full width at half maximum of the PSF (pixel).

    Returns
    -------
    fwhm : ndarray of float32, shape (n,)
        Geometric mean of both axes (pixel); NaN where the moments have no solution.
    elongation : ndarray of float32, shape (n,)
        Major over minor axis; 1 where the moments have no solution.
    """
    width = np.full(len(x), np.nan, dtype=np.float32)
    elongation = np.ones(len(x), dtype=np.float32)
    _widths(data, x, y, sign, max(fwhm, 1.5) / FWHM_PER_SIGMA, width, elongation)
    return width, elongation


@njit(cache=True, nogil=True)
def _widths(
    data: FloatImage,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    sign: npt.NDArray[np.int8],
    sigma: float,
    width: npt.NDArray[np.float32],
    elongation: npt.NDArray[np.float32],
) -> None:
    ny, nx = data.shape
    reach = math.ceil(3.5 * sigma)
    for n in range(len(x)):
        column, row = math.floor(x[n] + 0.5), math.floor(y[n] + 0.5)
        total = mxx = myy = mxy = 0.0
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                value = data[j, i]
                if not np.isfinite(value):
                    continue
                dx, dy = i - x[n], j - y[n]
                weighted = sign[n] * value * math.exp(-0.5 * (dx * dx + dy * dy) / (sigma * sigma))
                total += weighted
                mxx += weighted * dx * dx
                myy += weighted * dy * dy
                mxy += weighted * dx * dy
        if total <= 0:
            continue
        mxx, myy, mxy = mxx / total, myy / total, mxy / total
        determinant = mxx * myy - mxy * mxy
        if mxx <= 0 or determinant <= 0:
            continue
        # inverse moments less the inverse window
        a = myy / determinant - 1.0 / (sigma * sigma)
        c = mxx / determinant - 1.0 / (sigma * sigma)
        b = -mxy / determinant
        inverse = a * c - b * b
        if a <= 0 or inverse <= 0:
            continue
        half = 0.5 * (a + c)
        root = math.sqrt(max(half * half - inverse, 0.0))
        width[n] = FWHM_PER_SIGMA * inverse**-0.25
        elongation[n] = math.sqrt((half + root) / max(half - root, 1e-12))


@dataclass(frozen=True, slots=True)
class StarShapes:
    """Shapes of the stars of a frame.

    Attributes
    ----------
    core_width : float
        Width of the stars in a narrow window over that in a wide one, both freed from the window: 1 for a Gaussian,
        less with wings, more with a flat core.
    ellipticity : float
        Length of the median of (a2 - b2) / (a2 + b2) as a vector of twice the position angle: noise cancels, trails
        stay.
    width_gradient : float
        Relative change of the width along the steepest direction, over half the longer side of the frame.
    """

    core_width: float = float("nan")
    ellipticity: float = float("nan")
    width_gradient: float = float("nan")


def star_shapes(frame: Frame, stars: StarTable) -> StarShapes:
    """Measure the shapes of the clean stars of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : ndarray of STAR_DTYPE, shape (n,)
        Its stars, the brightest first.

    Returns
    -------
    StarShapes
        Medians over the brightest clean stars; NaN for fewer than `LEAST_STARS` of them.
    """
    looked_at = stars[:_LOOKED_AT]
    good = looked_at[clean_stars(looked_at, frame.shape)][:_MEASURED]
    if len(good) < LEAST_STARS:
        return StarShapes()
    sigma = typical_fwhm(stars) / FWHM_PER_SIGMA
    narrow, wide = (_sizes(frame, good, scale * sigma) for scale in (NARROW, WIDE))
    ratio = narrow / wide
    core = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else float("nan")
    a, b, theta = (good[name].astype(np.float64) for name in ("a", "b", "theta"))
    e = (a**2 - b**2) / (a**2 + b**2)
    mean = np.hypot(np.median(e * np.cos(2.0 * theta)), np.median(e * np.sin(2.0 * theta)))
    return StarShapes(core, float(mean), _gradient(good, frame.shape))


def _sizes(frame: Frame, stars: StarTable, sigma: float) -> Float64:
    """Mean standard deviation (pixel) of stars by moments in a window, the window taken out."""
    x, y = stars["x"].astype(np.float64), stars["y"].astype(np.float64)
    out = np.empty(len(stars))

    def some(begin: int, end: int) -> None:
        out[begin:end] = moments(frame.data, frame.mask, NO_LIGHT, x[begin:end], y[begin:end], sigma, 1.0)[:, 2]

    over_rows(some, len(stars), 64)
    return out


def _gradient(stars: StarTable, shape: tuple[int, int]) -> float:
    """Steepest slope of the log width over the field, of a fit with a term for field curvature, outliers clipped."""
    half = 0.5 * max(shape)
    u, v = (stars["x"] - 0.5 * (shape[1] - 1)) / half, (stars["y"] - 0.5 * (shape[0] - 1)) / half
    terms, width = np.stack([np.ones_like(u), u, v, u**2 + v**2], axis=1), np.log(stars["fwhm"].astype(np.float64))
    inside = np.ones(len(stars), dtype=np.bool_)
    solved: Float64 = np.zeros(4)
    for _ in range(3):
        solved = np.asarray(np.linalg.lstsq(terms[inside], width[inside], rcond=None)[0], dtype=np.float64)
        off = np.abs(width - terms @ solved)
        inside = off <= 3.0 * MAD_TO_SIGMA * float(np.median(off)) + 1e-9
        if inside.sum() < LEAST_STARS:
            break
    return float(np.hypot(solved[1], solved[2]))
