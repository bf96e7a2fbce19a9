"""Saturated stars, their cores, halos and bleed trails along columns and rows; saturated cosmic rays are no stars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage

# Part of a star's light that subtraction may leave behind; where it drops below the noise the halo ends.
RESIDUAL_PART = 0.05

LARGEST_HALO = 40.0  # FWHM

# A saturated star is surrounded by light; a cosmic ray or hot pixel is not. Level, as a share of that within, which the
# fourth brightest pixel around must reach; the median would fail where a long trail has dark sky on both sides.
LEAST_SURROUND = 0.1

# Brightness of a trail over what lies beside it, and the length from which it counts (pixel).
TRAIL_CONTRAST = 2.0

TRAIL_SNR = 3.0
LEAST_TRAIL = 8
_GAP = 6


@dataclass(frozen=True, slots=True, eq=False)
class SaturatedStars:
    """Connected saturated areas that are stars.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Centres (pixel).
    radius : ndarray of float64, shape (n,)
        Half of the smaller side of each area: a bleed trail is longer than it is wide (pixel).
    labels : ndarray of int32, shape (ny, nx)
        Number of the area from 1, 0 elsewhere.
    boxes : ndarray of int64, shape (n, 4)
        First and last row, first and last column.
    number : ndarray of int32, shape (n,)
        Label of each star.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    radius: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int64]
    number: npt.NDArray[np.int32]


def saturated_stars(residual: FloatImage, mask: MaskImage) -> tuple[SaturatedStars, npt.NDArray[np.bool_]]:
    """Tell saturated stars from saturated cosmic rays and hot pixels.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    mask : ndarray of uint16, shape (ny, nx)
        SATURATED marks the pixels that saturate.

    Returns
    -------
    stars : SaturatedStars
        The areas that are surrounded by light.
    others : ndarray of bool, shape (ny, nx)
        Saturated pixels of areas that are not.
    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    boxes = _label(mask, np.uint16(Mask.SATURATED.value), labels)
    count = len(boxes)
    measured = np.zeros((count, 4), dtype=np.float64)
    _measure(residual, labels, boxes, measured)
    star = measured[:, 3] > LEAST_SURROUND
    number = (np.flatnonzero(star) + 1).astype(np.int32)
    lone = np.zeros(labels.shape, dtype=np.bool_)
    for k in np.flatnonzero(~star):
        place = (slice(boxes[k, 0], boxes[k, 1] + 1), slice(boxes[k, 2], boxes[k, 3] + 1))
        lone[place] |= labels[place] == k + 1
    return SaturatedStars(measured[star, 0], measured[star, 1], measured[star, 2], labels, boxes[star], number), lone


@njit(cache=True, nogil=True)
def _label(mask: MaskImage, bit: np.uint16, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Number the connected areas (eight neighbours) of a bit; only their pixels are written to. Their boxes."""
    ny, nx = mask.shape
    boxes = np.empty((16, 4), np.int64)
    stack = np.empty(1024, np.int64)
    count = 0
    for y in range(ny):
        row = mask[y]
        for start in range(0, nx, 64):
            piece, seen = row[start : start + 64], np.uint16(0)
            for x in range(len(piece)):
                seen |= piece[x]
            if seen & bit == 0:
                continue
            for x in range(start, min(nx, start + 64)):
                if not row[x] & bit or labels[y, x] != 0:
                    continue
                if count == len(boxes):
                    boxes = np.concatenate((boxes, np.empty_like(boxes)))
                count += 1
                box = boxes[count - 1]
                box[0], box[1], box[2], box[3] = y, y, x, x
                labels[y, x], stack[0], waiting = count, y * nx + x, 1
                while waiting > 0:
                    waiting -= 1
                    j, i = stack[waiting] // nx, stack[waiting] % nx
                    box[0], box[1], box[2], box[3] = min(box[0], j), max(box[1], j), min(box[2], i), max(box[3], i)
                    if waiting + 8 > len(stack):
                        stack = np.concatenate((stack, np.empty_like(stack)))
                    for b in range(max(0, j - 1), min(ny, j + 2)):
                        for a in range(max(0, i - 1), min(nx, i + 2)):
                            if mask[b, a] & bit and labels[b, a] == 0:
                                labels[b, a], stack[waiting] = count, b * nx + a
                                waiting += 1
    return boxes[:count].copy()


@njit(cache=True, nogil=True)
def _measure(
    residual: FloatImage,
    labels: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.int64],
    measured: npt.NDArray[np.float64],
) -> None:
    """Centre, radius and brightness of the pixels around each area over that within."""
    ny, nx = labels.shape
    for n in range(len(boxes)):
        top, bottom, left, right = boxes[n]
        sx = sy = inside = 0.0
        area = 0
        around = np.empty(2 * (bottom - top + 3) * (right - left + 3), np.float32)
        beside = 0
        for j in range(max(0, top - 1), min(ny, bottom + 2)):
            for i in range(max(0, left - 1), min(nx, right + 2)):
                if labels[j, i] == n + 1:
                    area += 1
                    sx += i
                    sy += j
                    inside += residual[j, i]
                    continue
                touches = False
                for b in range(max(0, j - 1), min(ny, j + 2)):
                    for a in range(max(0, i - 1), min(nx, i + 2)):
                        touches = touches or labels[b, a] == n + 1
                if touches and np.isfinite(residual[j, i]):
                    around[beside] = residual[j, i]
                    beside += 1
        measured[n, 0], measured[n, 1] = sx / area, sy / area
        measured[n, 2] = max(0.5 * min(bottom - top + 1, right - left + 1), 0.5)
        level = inside / area
        if beside > 0 and level > 0:
            measured[n, 3] = np.sort(around[:beside])[max(0, beside - 4)] / level
        else:
            measured[n, 3] = 1.0


def grow_cores(stars: SaturatedStars, grow: int, mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Grow saturated cores by `grow` pixels and a quarter of their radius; True on the grown cores.

    `mask` only gives the shape (ny, nx).
    """
    grown = np.zeros(mask.shape, dtype=np.bool_)
    if grow > 0:
        _grow(stars.labels, stars.boxes, stars.number, grow + 0.25 * stars.radius, grown)
    return grown


@njit(cache=True, nogil=True)
def _grow(
    labels: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.int64],
    number: npt.NDArray[np.int32],
    reach: npt.NDArray[np.float64],
    grown: npt.NDArray[np.bool_],
) -> None:
    ny, nx = labels.shape
    for n in range(len(boxes)):
        r = math.floor(reach[n])
        for j in range(boxes[n, 0], boxes[n, 1] + 1):
            for i in range(boxes[n, 2], boxes[n, 3] + 1):
                if labels[j, i] != number[n]:
                    continue
                inner = 0 < j < ny - 1 and 0 < i < nx - 1
                if inner and labels[j - 1, i] == labels[j + 1, i] == labels[j, i - 1] == labels[j, i + 1] == number[n]:
                    continue  # only the rim grows outwards
                for b in range(max(0, j - r), min(ny, j + r + 1)):
                    for a in range(max(0, i - r), min(nx, i + r + 1)):
                        if (a - i) ** 2 + (b - j) ** 2 <= reach[n] ** 2:
                            grown[b, a] = True


def halos(
    stars: SaturatedStars, residual: FloatImage, sigma: float, *, fwhm: float, radius: float
) -> npt.NDArray[np.bool_]:
    """Return True within halos of saturated stars, to where a twentieth of their light drops below the noise.

    `residual` is the sky-subtracted image (ADU), `sigma` the noise of its sky (ADU), `fwhm` the width of the stars
    (pixel) and `radius` the least radius of a halo (FWHM), 0 for none.
    """
    inside = np.zeros(residual.shape, dtype=np.bool_)
    if radius > 0:
        limits = (radius * fwhm, LARGEST_HALO * fwhm, sigma / RESIDUAL_PART)
        _halos(residual, stars.x, stars.y, stars.radius, limits, inside)
    return inside


@njit(cache=True, nogil=True)
def _halos(
    residual: FloatImage,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    core: npt.NDArray[np.float64],
    limits: tuple[float, float, float],
    inside: npt.NDArray[np.bool_],
) -> None:
    ny, nx = residual.shape
    least, most, level = limits
    ring = np.empty(64, np.float32)
    for n in range(len(x)):
        reach = core[n]
        while reach < core[n] + most:  # median of 64 pixels on a circle, outwards
            used = 0
            for k in range(64):
                j = int(y[n] + reach * math.sin(2 * math.pi * k / 64) + 0.5)
                i = int(x[n] + reach * math.cos(2 * math.pi * k / 64) + 0.5)
                if 0 <= j < ny and 0 <= i < nx and np.isfinite(residual[j, i]):
                    ring[used] = residual[j, i]
                    used += 1
            if used < 8 or np.median(ring[:used]) < level:
                break
            reach = max(reach + 1.0, 1.05 * reach)
        reach = max(reach, core[n] + least)
        for j in range(max(0, int(y[n] - reach)), min(ny, int(y[n] + reach) + 2)):
            for i in range(max(0, int(x[n] - reach)), min(nx, int(x[n] + reach) + 2)):
                if (i - x[n]) ** 2 + (j - y[n]) ** 2 <= reach * reach:
                    inside[j, i] = True


def bleed_trails(stars: SaturatedStars, residual: FloatImage, sigma: float, *, fwhm: float) -> npt.NDArray[np.bool_]:
    """Follow bleed trails of saturated stars along columns and rows, on either side.

    Within the saturated area a trail is what lies farther along one axis than the core is wide; beyond it a trail is
    followed as long as it is twice as bright as the pixels beside it.

    Parameters
    ----------
    stars : SaturatedStars
        The saturated stars.
    residual : ndarray of float32, shape (ny, nx)
        Sky-subtracted image (ADU).
    sigma : float
        Noise of the sky (ADU).
    fwhm : float
        Width of the stars (pixel).

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True on trails.
    """
    trails = np.zeros(residual.shape, dtype=np.bool_)
    if len(stars.x):
        _trails(residual, stars.labels, stars.boxes, stars.number, sigma, fwhm, trails)
        across = stars.boxes[:, [2, 3, 0, 1]]
        _trails(residual.T, stars.labels.T, across, stars.number, sigma, fwhm, trails.T)
    return trails


@njit(cache=True, nogil=True)
def _trails(
    residual: FloatImage,
    labels: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.int64],
    number: npt.NDArray[np.int32],
    sigma: float,
    fwhm: float,
    trails: npt.NDArray[np.bool_],
) -> None:
    """Trails along columns."""
    ny, nx = residual.shape
    for n in range(len(boxes)):
        top, bottom, left, right = boxes[n]
        height, width = bottom - top + 1, right - left + 1
        widest, widest_row = 0, top
        for j in range(top, bottom + 1):
            run = 0
            for i in range(left, right + 1):
                run += 1 if labels[j, i] == number[n] else 0
            if run > widest:
                widest, widest_row = run, j
        if height > 1.5 * width + 4:
            for j in range(top, bottom + 1):
                if abs(j - widest_row) > 0.75 * widest + 1:
                    for i in range(left, right + 1):
                        if labels[j, i] == number[n]:
                            trails[j, max(0, i - 1) : min(nx, i + 2)] = True
        beside = int(max(0.5 * width, fwhm)) + 3
        for i in range(left, right + 1):
            for step in (-1, 1):
                j = top if step < 0 else bottom
                while top <= j <= bottom and labels[j, i] != number[n]:
                    j -= step
                if j < top or j > bottom:
                    continue
                # close to the core the halo outshines the trail: a first gap as wide as the core is granted
                start, last, missed = j, j, -beside
                while 2 <= j + step < ny - 2 and missed < _GAP:
                    j += step
                    own = side = 0.0
                    for k in range(-2, 3):
                        own += residual[j + k, i]
                        side += residual[j + k, max(0, i - beside)] + residual[j + k, min(nx - 1, i + beside)]
                    own, side = own / 5.0, max(side / 10.0, 0.0)
                    if own > TRAIL_CONTRAST * side + TRAIL_SNR * sigma / 2.0:
                        last, missed = j, 0
                    else:
                        missed += 1
                length = abs(last - start)
                if length >= LEAST_TRAIL + 0.5 * width + fwhm:
                    for j in range(min(start, last), max(start, last) + 1):
                        trails[j, max(0, i - 1) : min(nx, i + 2)] = True
