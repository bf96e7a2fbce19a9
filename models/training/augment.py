"""Augmentation: the changes of a stamp under which real stays real and bogus stays bogus.

Validation and test stamps are never augmented. Sub-pixel shifts and worse seeing are separable filters in compiled
loops, whose taps differ from stamp to stamp. Pixels that are masked or not finite hold no light: they are filled with
the median of their plane before, and their neighbours are masked after. A plane without any good pixel
(`models.network.inputs`) is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from models.network.inputs import PLANES, BoolStamps, FloatStamps
from nightsift.core.robust import nan_mad_sigma

REACH = 3  # taps on each side
Taps = npt.NDArray[np.float32]
_SCIENCE, _TEMPLATE, _DIFFERENCE = (PLANES.index(name) for name in ("science", "template", "difference"))


def shift_taps(shift: npt.NDArray[np.floating]) -> Taps:
    """Return the taps (n, 7) of sub-pixel shifts: Lanczos-3, of sum one (Duchon 1979, J. Appl. Meteor. 18, 1016).

    `shift` (n,), between -1 and 1 pixel, is the move of light to larger indices; taps are weights of the pixels at
    offsets -3 to 3.
    """
    distance = np.arange(-REACH, REACH + 1)[None] + np.asarray(shift, dtype=np.float64)[:, None]
    taps = np.where(np.abs(distance) < REACH, np.sinc(distance) * np.sinc(distance / REACH), 0.0)
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), dtype=np.float32)


def smoothing_taps(sigma: npt.NDArray[np.floating]) -> Taps:
    """Return the taps (n, 7) of a smoothing by `sigma` (n,), at most 0.7 pixel: v/2, 1 - v, v/2 of variance v.

    A sampled Gaussian as narrow as this is narrower than its name says.
    """
    variance = np.asarray(sigma, dtype=np.float32) ** 2
    taps = np.zeros((len(variance), 2 * REACH + 1), dtype=np.float32)
    taps[:, REACH - 1] = taps[:, REACH + 1] = variance / 2
    taps[:, REACH] = 1 - variance
    return taps


def filtered(
    data: FloatStamps, mask: BoolStamps, taps_y: Taps, *, taps_x: Taps, planes: tuple[int, ...]
) -> tuple[FloatStamps, BoolStamps]:
    """Filter some planes of stamps; beyond the edge the last pixel is repeated.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, planes)
        Stamps.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    taps_y, taps_x : ndarray of float32, shape (n, 7)
        Taps of each stamp along both axes.
    planes : tuple of int
        Which planes are filtered.

    Returns
    -------
    data, mask : ndarray
        New arrays; the mask has grown by one pixel.
    """
    out = np.ascontiguousarray(data).copy()
    fill = np.zeros((len(data), data.shape[3]), dtype=np.float32)
    usable = ~mask[..., None] & np.isfinite(data)
    for stamp in np.flatnonzero(~usable.all(axis=(1, 2, 3))):
        for plane in planes:
            values = data[stamp, ..., plane][usable[stamp, ..., plane]]
            fill[stamp, plane] = np.median(values) if len(values) else np.nan
    _filter(np.ascontiguousarray(data), usable, fill, taps_y, taps_x, np.array(planes), out)
    return out, _grown(mask)


@nb.njit(cache=True, nogil=True)
def _filter(data, usable, fill, taps_y, taps_x, planes, out):  # type: ignore[no-untyped-def]
    n, size = data.shape[:2]
    plane, rows = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    for s in range(n):
        for c in planes:
            if not np.isfinite(fill[s, c]):
                continue
            for y in range(size):
                for x in range(size):
                    plane[y, x] = data[s, y, x, c] if usable[s, y, x, c] else fill[s, c]
            for y in range(size):
                for x in range(size):
                    total = np.float32(0)
                    for k in range(-REACH, REACH + 1):
                        total += taps_x[s, k + REACH] * plane[y, min(max(x + k, 0), size - 1)]
                    rows[y, x] = total
            for y in range(size):
                for x in range(size):
                    total = np.float32(0)
                    for k in range(-REACH, REACH + 1):
                        total += taps_y[s, k + REACH] * rows[min(max(y + k, 0), size - 1), x]
                    out[s, y, x, c] = total


def _grown(mask: BoolStamps) -> BoolStamps:
    """The mask with the four neighbours of each bad pixel."""
    grown = mask.copy()
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    grown[:, :, 1:] |= mask[:, :, :-1]
    grown[:, :, :-1] |= mask[:, :, 1:]
    return grown


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """Options of augmentation: the size and the frequency of each change.

    Attributes
    ----------
    turn : bool
        Flip and turn by multiples of 90 degrees, all eight ways equally often.
    shift : int
        Largest shift along each axis by whole pixels: centroids of faint detections are off by as much. What comes
        in at the edge is masked.
    subpixel : float
        Part of the stamps that are moved by up to half a pixel more, by interpolation. Like `seeing` for cameras that
        are not like those trained on; on units like them it costs a little, so that neither is on by itself.
    seeing : float
        Part of the stamps whose science frame is taken under worse seeing: science and difference are smoothed
        by at most `blur` and get back the noise that this takes away.
    blur : float
        Largest standard deviation of that smoothing (pixel, at most 0.7). It must stay below that of the sharpest
        PSF, or a cosmic ray comes to look like a star.
    edge : float
        Part of the stamps of which one side is masked, as at the edge of a frame.
    scale : float
        Part of the stamps whose template is multiplied by a factor of 0.5 to 2: templates made elsewhere or
        of another exposure time are not on the flux scale of the science frame.
    no_difference, no_template, no_science : float
        Parts of the stamps that lose this plane (never two), for a network that also serves where there is none.
        (A fading candidate without template lacks what stands for the science frame.)
    """

    turn: bool = True
    shift: int = 1
    subpixel: float = 0.0
    seeing: float = 0.0
    blur: float = 0.5
    edge: float = 0.04
    scale: float = 0.25
    no_difference: float = 0.05
    no_template: float = 0.05
    no_science: float = 0.01


def augment(
    data: FloatStamps, mask: BoolStamps, options: AugmentOptions, *, rng: np.random.Generator
) -> tuple[FloatStamps, BoolStamps]:
    """Change each stamp of a batch in its own random way.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    options : AugmentOptions
        Size and frequency of each change.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    data, mask : ndarray
        New arrays of the same shapes and types; a plane that is taken away is NaN.
    """
    n = len(data)
    data, mask = data.copy(), mask.copy()
    if options.turn:
        _turn(data, mask, rng)
    if options.shift:
        data, mask = _shift_pixels(data, mask, options.shift, rng=rng)
    _shift_subpixel(data, mask, np.flatnonzero(rng.random(n) < options.subpixel), rng=rng)
    _worsen_seeing(data, mask, np.flatnonzero(rng.random(n) < options.seeing), blur=options.blur, rng=rng)
    _mask_edge(data, mask, np.flatnonzero(rng.random(n) < options.edge), rng=rng)
    rows = np.flatnonzero(rng.random(n) < options.scale)
    with np.errstate(over="ignore"):  # fill values near the end of the range become infinite, which masks them
        data[rows, ..., _TEMPLATE] *= np.exp2(rng.uniform(-1, 1, len(rows))).astype(np.float32)[:, None, None]
    _remove_planes(data, mask, options, rng=rng)
    return data, mask


def _shift_subpixel(
    data: FloatStamps, mask: BoolStamps, rows: npt.NDArray[np.int64], *, rng: np.random.Generator
) -> None:
    if len(rows):
        taps_y, taps_x = (shift_taps(rng.uniform(-0.5, 0.5, len(rows))) for _ in range(2))
        planes = (_SCIENCE, _TEMPLATE, _DIFFERENCE)
        data[rows], mask[rows] = filtered(data[rows], mask[rows], taps_y, taps_x=taps_x, planes=planes)


def _worsen_seeing(
    data: FloatStamps, mask: BoolStamps, rows: npt.NDArray[np.int64], *, blur: float, rng: np.random.Generator
) -> None:
    """Smooth science and difference in place and add white noise, so that each pixel keeps its variance."""
    if not len(rows):
        return
    taps = smoothing_taps(rng.uniform(0.5 * blur, blur, len(rows)))
    before, hidden = data[rows], mask[rows].copy()
    after, mask[rows] = filtered(before, hidden, taps, taps_x=taps, planes=(_SCIENCE, _DIFFERENCE))
    lost = np.sqrt(1.0 - (taps**2).sum(axis=1) ** 2)
    for plane in (_SCIENCE, _DIFFERENCE):
        values = np.where(hidden, np.nan, before[..., plane]).reshape(len(rows), -1)
        there = np.isfinite(values).any(axis=1)
        level = np.nanmedian(values[there], axis=1, keepdims=True)
        noise = np.zeros(len(rows))
        noise[there] = nan_mad_sigma(values[there], level, axis=1)
        after[..., plane] += (rng.normal(size=hidden.shape) * (lost * noise)[:, None, None]).astype(np.float32)
    data[rows] = after


def _remove_planes(data: FloatStamps, mask: BoolStamps, options: AugmentOptions, *, rng: np.random.Generator) -> None:
    """Take one plane away in place, never from a stamp that would be left without any."""
    draw, low = rng.random(len(data)), 0.0
    for plane, part in (
        (_DIFFERENCE, options.no_difference), (_TEMPLATE, options.no_template), (_SCIENCE, options.no_science)
    ):  # fmt: skip
        rows = np.flatnonzero((draw >= low) & (draw < low + part))
        low += part
        others = [one for one in (_SCIENCE, _TEMPLATE, _DIFFERENCE) if one != plane]
        left = (np.isfinite(data[rows][..., others]) & ~mask[rows][..., None]).any(axis=(1, 2, 3))
        data[rows[left], ..., plane] = np.nan


def _mask_edge(data: FloatStamps, mask: BoolStamps, rows: npt.NDArray[np.int64], *, rng: np.random.Generator) -> None:
    """Mask one side in place, at most up to the core of the candidate, as the edge of a frame does."""
    size = mask.shape[1]
    for row in rows:
        turn, deep = int(rng.integers(4)), int(rng.integers(1, size // 2 - 2))
        np.rot90(data[row], turn)[:deep] = 0.0  # a view: the stamp itself changes
        np.rot90(mask[row], turn)[:deep] = True


def _turn(data: FloatStamps, mask: BoolStamps, rng: np.random.Generator) -> None:
    """Flip and turn in place, one of the eight ways of a square for each stamp."""
    way = rng.integers(8, size=len(data))
    for number in range(1, 8):
        rows = np.flatnonzero(way == number)
        if len(rows):
            for array in (data, mask):
                turned = np.rot90(array[rows], number % 4, axes=(1, 2))
                array[rows] = turned[:, ::-1] if number >= 4 else turned


def _shift_pixels(
    data: FloatStamps, mask: BoolStamps, most: int, *, rng: np.random.Generator
) -> tuple[FloatStamps, BoolStamps]:
    """Shift by whole pixels, so that the noise stays as it is; interpolation would smooth it."""
    n, size = mask.shape[:2]
    wide = np.zeros((n, size + 2 * most, size + 2 * most, data.shape[3]), dtype=np.float32)
    covered = np.ones(wide.shape[:3], dtype=np.bool_)
    inner = slice(most, most + size)
    wide[:, inner, inner], covered[:, inner, inner] = data, mask
    offset = rng.integers(0, 2 * most + 1, size=(n, 2))
    for dy in range(2 * most + 1):
        for dx in range(2 * most + 1):
            rows = np.flatnonzero((offset == (dy, dx)).all(axis=1))
            data[rows] = wide[rows, dy : dy + size, dx : dx + size]
            mask[rows] = covered[rows, dy : dy + size, dx : dx + size]
    return data, mask
