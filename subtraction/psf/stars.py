"""Stars that carry a PSF: chosen evenly over the frame, cut out, neighbours left out, noise smoothed.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import HARD
from nightsift.core.frames import Frame, StarTable
from nightsift.images.stars.stars import clean_stars

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

MAX_STARS = 600
TIERS = ((4.0, 30.0, 100), (2.5, 30.0, 100), (2.0, 15.0, 15), (2.0, 10.0, 15), (1.5, 7.0, 0))
"""Isolation (FWHM) and signal-to-noise ratio asked for, and how many stars are enough to ask for no less."""

WHOLE = 0.7
"""Least part of a stamp that must be good."""


@dataclass(slots=True, eq=False)
class Cutouts:
    """Stamps of stars around their nearest pixels, and what is fitted to each.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions on the frame (pixel).
    own : ndarray of float64, shape (n, 4)
        Flux, offset in x and y from the middle of the stamp (pixel), and level of each star.
    data, good : ndarray of float32 and bool, shape (n, size, size)
        Stamps, and which of their pixels count.
    sky_variance : ndarray of float64, shape (n,)
        Variance of a pixel without the star's light.
    photon_variance : float
        Variance that light adds, per unit of light (ADU).
    """

    x: Float64
    y: Float64
    own: Float64
    data: Float32
    good: npt.NDArray[np.bool_]
    sky_variance: Float64
    photon_variance: float

    def __len__(self) -> int:
        return len(self.x)

    def only(self, keep: npt.NDArray[np.bool_]) -> Cutouts:
        """Some of the stars."""
        return Cutouts(
            self.x[keep], self.y[keep], self.own[keep], self.data[keep], self.good[keep], self.sky_variance[keep],
            self.photon_variance,
        )  # fmt: skip


def choose_stars(frame: Frame, stars: StarTable) -> StarTable:
    """Choose clean stars, the brightest of each part of the frame; where there are few, fainter ones too.

    Parameters
    ----------
    frame : Frame
        The frame.
    stars : StarTable
        Its stars.

    Returns
    -------
    StarTable
        At most `MAX_STARS`.

    Raises
    ------
    TooFewStars
        If fewer than three can be used.
    """
    chosen = stars[:0]
    for isolation, snr, enough in TIERS:
        chosen = stars[clean_stars(stars, frame.shape, isolation=isolation, snr=snr)]
        if len(chosen) >= enough:
            break
    if len(chosen) < 3:
        where = frame.meta.path or frame.meta.exposure_id
        raise TooFewStars(found=len(chosen), needed=3, where=f"{where} (clean stars for the PSF)")
    if len(chosen) <= MAX_STARS:
        return chosen
    ny, nx = frame.shape
    cells = max(1, int(np.sqrt(MAX_STARS / 6)))
    cell = (chosen["y"] * cells / ny).astype(np.int64) * cells + (chosen["x"] * cells / nx).astype(np.int64)
    # Rank within the cell, brightest first: every cell gives its best before any gives its second best.
    order = np.lexsort((-chosen["flux"], cell))
    sorted_cell = cell[order]
    first = np.searchsorted(sorted_cell, sorted_cell)
    rank = np.empty(len(chosen), dtype=np.int64)
    rank[order] = np.arange(len(chosen)) - first
    return chosen[np.argsort(rank, kind="stable")[:MAX_STARS]]


def cut_stars(frame: Frame, chosen: StarTable, stars: StarTable, *, half: int, fwhm: float) -> Cutouts:
    """Cut out stars; masked pixels, those outside the frame and those around other stars do not count.

    The variance of the frame may follow the noise of each pixel (as it does where it is made from the data), which
    would make weights prefer pixels that came out low. So it is taken apart in a level for each star and a part
    proportional to light, the same for all, and the light is that of the model.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.
    chosen, stars : StarTable
        Stars to cut out; all known stars.
    half : int
        Half width of a stamp (pixel).
    fwhm : float
        Usual full width at half maximum (pixel).

    Returns
    -------
    Cutouts
        Those stars whose core is whole.
    """
    n, size = len(chosen), 2 * half + 1
    x, y = chosen["x"].astype(np.float64), chosen["y"].astype(np.float64)
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    data, variance = np.zeros((n, size, size), np.float32), np.zeros((n, size, size), np.float32)
    good = np.zeros((n, size, size), dtype=np.bool_)
    copy_stamps(frame.data, frame.variance, frame.mask, np.uint16(HARD), columns, rows, data, variance, good)
    keep = good[:, half - 2 : half + 3, half - 2 : half + 3].all(axis=(1, 2)) & (good.mean(axis=(1, 2)) > WHOLE)
    _leave_out(x, y, columns, rows=rows, stars=stars, fwhm=fwhm, good=good)
    light = _photon_variance(data, variance, good)
    sky = np.maximum(variance - np.float32(light) * np.maximum(data, 0), 0.0)
    level = np.array([float(np.median(s[g])) if g.any() else 0.0 for s, g in zip(sky, good, strict=True)])
    usual = float(np.median(level[level > 0])) if bool((level > 0).any()) else 1.0
    level = np.maximum(level, 0.01 * usual)
    own = np.column_stack((chosen["flux"].astype(np.float64), x - columns, y - rows, np.zeros(n)))
    return Cutouts(x, y, own, data, good, level, light).only(keep)


@nb.njit(cache=True, nogil=True)
def copy_stamps(data, variance, mask, hard, columns, rows, out, noise, good):  # type: ignore[no-untyped-def]
    """Cut stamps out of a frame; pixels outside it and masked ones are left 0 and not good.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Frame and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Its mask.
    hard : uint16
        Bits that keep a pixel out.
    columns, rows : ndarray of int64, shape (n,)
        Middle pixels.
    out, noise : ndarray of float32, shape (n, size, size)
        Receive data and variance.
    good : ndarray of bool, shape (n, size, size)
        Receives which pixels are usable.
    """
    ny, nx = data.shape
    size = out.shape[1]
    half = size // 2
    for s in range(len(columns)):
        for j in range(max(0, half - rows[s]), min(size, ny + half - rows[s])):
            y = rows[s] + j - half
            for i in range(max(0, half - columns[s]), min(size, nx + half - columns[s])):
                x = columns[s] + i - half
                if (mask[y, x] & hard) == 0 and np.isfinite(data[y, x]) and variance[y, x] > 0:
                    out[s, j, i], noise[s, j, i], good[s, j, i] = data[y, x], variance[y, x], True


def _leave_out(
    x: Float64,
    y: Float64,
    columns: npt.NDArray[np.int64],
    *,
    rows: npt.NDArray[np.int64],
    stars: StarTable,
    fwhm: float,
    good: npt.NDArray[np.bool_],
) -> None:
    """Take the pixels around all other known stars out of each stamp."""
    half = good.shape[1] // 2
    all_stars = np.column_stack((stars["x"], stars["y"])).astype(np.float64)
    pairs = cKDTree(np.column_stack((x, y))).sparse_distance_matrix(
        cKDTree(all_stars), 1.5 * half + 1.0, output_type="ndarray"
    )
    pairs = pairs[pairs["v"] > 1.0]
    near = all_stars[pairs["j"]]
    index, distance = np.ascontiguousarray(pairs["i"]), np.ascontiguousarray(pairs["v"])
    _blank(index, distance, near[:, 0] - columns[index], near[:, 1] - rows[index], fwhm, good)


@nb.njit(cache=True, nogil=True)
def _blank(index, distance, x, y, fwhm, good):  # type: ignore[no-untyped-def]
    size = good.shape[1]
    half = size // 2
    for k in range(len(index)):
        reach = min(1.5 * fwhm, 0.6 * distance[k])
        for j in range(max(0, int(y[k] - reach) + half), min(size, int(y[k] + reach) + half + 2)):
            for i in range(max(0, int(x[k] - reach) + half), min(size, int(x[k] + reach) + half + 2)):
                if (i - half - x[k]) ** 2 + (j - half - y[k]) ** 2 <= reach * reach:
                    good[index[k], j, i] = False


def _photon_variance(data: Float32, variance: Float32, good: npt.NDArray[np.bool_]) -> float:
    """Slope of the variance on the light over the cores of the stars, 0 where it does not rise."""
    half = data.shape[1] // 2
    core = (slice(None), slice(half - 2, half + 3), slice(half - 2, half + 3))
    used = good[core].all(axis=(1, 2))
    if not bool(used.any()):
        return 0.0
    light, noise = data[core][used].astype(np.float64), variance[core][used].astype(np.float64)
    light -= light.mean(axis=(1, 2), keepdims=True)
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    slopes = (light * noise).sum(axis=(1, 2)) / np.maximum((light**2).sum(axis=(1, 2)), 1e-30)
    return max(float(np.median(slopes)), 0.0)
