"""Streaks of satellites and aircraft: long, straight, narrow and evenly bright."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.images.artefacts.pixel_passes import binned_snr

BIN = 4
# Signal-to-noise ratio from which a binned pixel is lit, and the size (binned pixel) up to which a lit area is compact.
LIT = 2.5
# In crowded fields the level rises so that no more than this part is lit: else stars line up everywhere.
MOST_LIT = 0.15
COMPACT = 8
# Length below which an object can be a galaxy (pixel of the frame), and the part of it that must be lit.
LEAST_LENGTH = 160.0
LEAST_FILLING = 0.7
_GAP = 10
ANGLES = 720
MOST_LINES = 16
# Half-width of the profile across a line (binned pixel); it must fall to this part of its height on both sides.
_ACROSS = 12
LEAST_DROP = 0.3
# Quarters of a streak are about equally bright; a galaxy, a spike and a bleed trail fade towards an end. More is
# allowed to lines from edge to edge of the frame: a tumbling satellite flares.
MOST_TAPER = 2.0
MOST_CONTRAST = 4.0
_EDGE = 6.0
# A streak goes on beyond its lit pixels as long as pieces of it reach this part of its median.
_STILL_LIT = 0.5
# Single pixels count up to this many sigma, so that one hot pixel lights nothing.
_CLIP = 10.0
_SKIP = np.uint16(
    Mask.NONFINITE.value | Mask.NO_DATA.value | Mask.SATURATED.value | Mask.BLEED.value
    | Mask.COSMIC_RAY.value | Mask.DEFECT.value
)  # fmt: skip


def find_streaks(residual: FloatImage, noise: FloatImage, mask: MaskImage, *, fwhm: float) -> npt.NDArray[np.bool_]:
    """Find streaks and mask them over their width.

    The signal-to-noise image is binned, bright compact objects are taken out, and what is left votes for straight lines
    (Hough transform in the form of Duda & Hart 1972). The line with most votes is accepted as a streak if it is
    lit without long gaps over a long way, dark on both sides, and does not fade towards its ends; its pixels are
    removed and the search goes on.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    noise : ndarray of float32, shape (ny, nx)
        Standard deviation of each pixel (ADU).
    mask : ndarray of uint16, shape (ny, nx)
        Pixels that do not vote: missing, saturated, bleeding, hit or defective.
    fwhm : float
        Width of the stars (pixel).

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True under streaks.
    """
    streaks = np.zeros(residual.shape, dtype=np.bool_)
    binned = binned_snr(residual, noise, mask, skip=_SKIP, size=BIN, clip=_CLIP)
    level = max(LIT, float(np.quantile(binned[binned != 0], 1.0 - MOST_LIT))) if binned.any() else LIT
    lit = _without_compact(binned > level)
    rows, columns = (a.astype(np.float64) for a in np.nonzero(lit))
    far = int(math.hypot(*binned.shape)) + 2
    votes = np.zeros((ANGLES, 2 * far + 1), dtype=np.int32)
    _vote(columns, rows, 1, votes)
    for _ in range(MOST_LINES):
        if len(rows) * BIN < LEAST_LENGTH * LEAST_FILLING:
            break
        line, most = _strongest_line(votes)
        if most * BIN < LEAST_LENGTH / 4:
            break
        line, first, last = _refine(columns, rows, line)
        half = _half_width(binned, line, first, last=last)
        if half > 0 and _is_streak(binned, line, first, last=last, half=half, level=level):
            first, last = _extended(binned, line, first, last=last)
            _paint(streaks, line, first - 2, last + 2, (half + 1.0) * BIN + fwhm)
        normal = columns * line[0] + rows * line[1] - line[2]
        along = rows * line[0] - columns * line[1]
        gone = (np.abs(normal) <= max(half, 1.0) + 1.5) & (along >= first - 2) & (along <= last + 2)
        if not gone.any():
            break
        _vote(columns[gone], rows[gone], -1, votes)
        rows, columns = rows[~gone], columns[~gone]
    return streaks


def _without_compact(lit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Take out lit areas that are small in both directions: stars and noise."""
    labels, count = ndimage.label(lit, structure=np.ones((3, 3), dtype=bool))
    if count == 0:
        return lit
    rows, columns = np.nonzero(lit)
    number = labels[rows, columns]
    extent = np.zeros(count + 1, dtype=np.int64)
    for place in (rows, columns):
        low, high = np.full(count + 1, np.iinfo(np.int64).max), np.full(count + 1, -1)
        np.minimum.at(low, number, place)
        np.maximum.at(high, number, place)
        extent = np.maximum(extent, high - low + 1)
    large = extent[number] >= COMPACT
    left = np.zeros_like(lit)
    left[rows[large], columns[large]] = True
    return left


def _refine(
    columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], line: tuple[float, float, float]
) -> tuple[tuple[float, float, float], float, float]:
    """Fit the line to the lit pixels of its longest stretch; return it with both ends of that stretch."""
    first = last = 0.0
    for reach in (3.0, 2.0, 1.5):
        cos, sin, rho = line
        near = np.abs(columns * cos + rows * sin - rho) <= reach
        x, y = columns[near], rows[near]
        along = y * cos - x * sin
        if len(along) < 3:
            return line, 0.0, 0.0
        order = np.argsort(along)
        x, y, along = x[order], y[order], along[order]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(along) > _GAP) + 1, [len(along)]])
        longest = int(np.argmax([along[b - 1] - along[a] for a, b in itertools.pairwise(edges)]))
        part = slice(edges[longest], edges[longest + 1])
        x, y = x[part], y[part]
        first, last = float(along[part][0]), float(along[part][-1])
        if last - first < 4:
            break
        mx, my = x.mean(), y.mean()
        theta = 0.5 * math.atan2(2 * ((x - mx) * (y - my)).sum(), ((x - mx) ** 2 - (y - my) ** 2).sum()) + math.pi / 2
        cos, sin = math.cos(theta), math.sin(theta)
        if cos * line[0] + sin * line[1] < 0:
            cos, sin = -cos, -sin
        line = (cos, sin, mx * cos + my * sin)
        along = y * cos - x * sin
        first, last = float(along.min()), float(along.max())
    return line, first, last


def _samples(
    binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float, offset: float
) -> FloatImage:
    """Binned pixels along a line moved sideways, NaN outside the image."""
    along = np.arange(math.floor(first), math.ceil(last) + 1.0)
    x = np.round((line[2] + offset) * line[0] - along * line[1]).astype(np.int64)
    y = np.round((line[2] + offset) * line[1] + along * line[0]).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < binned.shape[1]) & (y < binned.shape[0])
    values = np.full(len(along), np.nan, dtype=np.float32)
    values[inside] = binned[y[inside], x[inside]]
    return values


def _crest(
    binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float, offset: float
) -> FloatImage:
    """Brightest of three neighbouring pixels across a line, all along it, where there are data."""
    across = [_samples(binned, line, first, last=last, offset=offset + step) for step in (-1.0, 0.0, 1.0)]
    values = np.fmax.reduce(across)
    return np.asarray(values[np.isfinite(values) & (values != 0)], dtype=np.float32)


def _half_width(binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float) -> float:
    """Distance from the line at which the profile across it is low on both sides, 0 where it never is."""
    offsets = np.arange(-_ACROSS, _ACROSS + 1)
    profile = np.zeros(len(offsets))
    for k, offset in enumerate(offsets):
        values = _samples(binned, line, first, last=last, offset=float(offset))
        values = values[np.isfinite(values)]
        profile[k] = np.median(values) if len(values) else 0.0
    peak = profile[_ACROSS - 1 : _ACROSS + 2].max()
    if peak < 0.8 * profile.max():  # the flank of something wider
        return 0.0
    low = profile < LEAST_DROP * peak
    left, right = np.flatnonzero(low[:_ACROSS]), np.flatnonzero(low[_ACROSS + 1 :])
    if len(left) == 0 or len(right) == 0 or peak <= 0:
        return 0.0
    half = max(_ACROSS - left[-1], right[0] + 1)
    beyond = np.concatenate([profile[: max(_ACROSS - half - 1, 1)], profile[_ACROSS + half + 2 :]])
    return float(half) if len(beyond) == 0 or np.median(beyond) < LEAST_DROP * peak else 0.0


def _extended(
    binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float
) -> tuple[float, float]:
    """Follow a streak beyond its ends for as long as pieces of it hold a good part of its light."""
    inside = _samples(binned, line, first, last=last, offset=0.0)
    least = max(_STILL_LIT * float(np.nanmedian(inside)), 1.0)
    far = float(sum(binned.shape))
    while last < far and _piece(binned, line, last + 1, last=last + _GAP) > least:
        last += _GAP
    while first > -far and _piece(binned, line, first - _GAP, last=first - 1) > least:
        first -= _GAP
    return first, last


def _piece(binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float) -> float:
    """Median along a short piece of a line; 0 where there are no data."""
    values = _samples(binned, line, first, last=last, offset=0.0)
    values = values[np.isfinite(values) & (values != 0)]
    return float(np.median(values)) if len(values) >= _GAP // 2 else 0.0


def _is_streak(
    binned: FloatImage, line: tuple[float, float, float], first: float, *, last: float, half: float, level: float
) -> bool:
    """Whether a line is long, lit all along, brighter than lines beside it and evenly bright."""
    if (last - first) * BIN < LEAST_LENGTH:
        return False
    values = _crest(binned, line, first, last=last, offset=0.0)
    if len(values) < 8 or np.mean(values > level) < LEAST_FILLING:
        return False
    # a chance alignment of stars is no brighter than its surroundings all along
    beside = [
        _crest(binned, line, first, last=last, offset=side * (half + gap))
        for side in (-1.0, 1.0)
        for gap in (4.0, 8.0, 12.0)
    ]
    around = np.concatenate(beside)
    if len(around) and float(np.quantile(values, 0.2)) < max(float(np.quantile(around, 0.75)), 0.0):
        return False
    allowance = 2.0 if _at_edge(binned, line, first) and _at_edge(binned, line, last) else 1.0
    quarters = np.array([np.median(part) for part in np.array_split(values, 4)])
    taper = quarters[1:3].mean() / max(quarters[[0, 3]].mean(), 1e-6)
    return bool(
        taper < MOST_TAPER * allowance and quarters.max() < MOST_CONTRAST * allowance * max(quarters.min(), 1e-6)
    )


def _at_edge(binned: FloatImage, line: tuple[float, float, float], along: float) -> bool:
    x, y = line[2] * line[0] - along * line[1], line[2] * line[1] + along * line[0]
    return bool(min(x, y, binned.shape[1] - 1 - x, binned.shape[0] - 1 - y) <= _EDGE)


@njit(cache=True, nogil=True)
def _vote(
    columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], each: int, votes: npt.NDArray[np.int32]
) -> None:
    """Add the votes of points for the lines ``x cos + y sin = rho`` through them; a line of votes for each angle."""
    angles, far = votes.shape[0], votes.shape[1] // 2
    for k in range(angles):
        cos, sin = math.cos(math.pi * k / angles), math.sin(math.pi * k / angles)
        for n in range(len(columns)):
            votes[k, math.floor(columns[n] * cos + rows[n] * sin + 0.5) + far] += each


@njit(cache=True, nogil=True)
def _strongest_line(votes: npt.NDArray[np.int32]) -> tuple[tuple[float, float, float], int]:
    """Line through most points, as (cos, sin, rho), and their number."""
    angles, far = votes.shape[0], votes.shape[1] // 2
    where, place, most = 0, 0, 0
    for k in range(angles):
        for r in range(2 * far):
            if votes[k, r] + votes[k, r + 1] > most:
                where, place, most = k, r, votes[k, r] + votes[k, r + 1]
    angle = math.pi * where / angles
    return (math.cos(angle), math.sin(angle), place + 0.5 - far), most


@njit(cache=True, nogil=True)
def _paint(
    streaks: npt.NDArray[np.bool_], line: tuple[float, float, float], first: float, last: float, half: float
) -> None:
    """Set the pixels of the frame under a line given in binned pixels."""
    ny, nx = streaks.shape
    cos, sin, rho = line
    middle = 0.5 * (BIN - 1)
    for j in range(ny):
        y = (j - middle) / BIN
        left, right = 0.0, nx - 1.0  # where the row is under the line, in pixels of the frame
        if abs(cos) > 1e-3:
            one, other = (rho - y * sin - half / BIN) / cos, (rho - y * sin + half / BIN) / cos
            left, right = max(left, BIN * min(one, other) + middle - 1), min(right, BIN * max(one, other) + middle + 1)
        for i in range(int(max(left, 0.0)), int(max(right, -1.0)) + 1):
            x = (i - middle) / BIN
            if abs(x * cos + y * sin - rho) * BIN <= half and first <= y * cos - x * sin <= last:
                streaks[j, i] = True
