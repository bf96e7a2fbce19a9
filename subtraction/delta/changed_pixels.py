"""Pixels of the fit whose light changed between the two frames: variable stars, transients, hits.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from subtraction.delta.source_pixels import SourcePixels

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clip:
    """When pixels are left out because they changed.

    Attributes
    ----------
    box : int
        Half width of the square over which a change of flux is summed (pixel); about the seeing.
    flux : float
        Least change of the light in it, as a part of it.
    peak : float
        Least mean residual of three by three pixels, as a part of the brightest pixel in the box.
    sigma : float
        Least significance of either.
    """

    box: int
    flux: float
    peak: float
    sigma: float = 6.0


def drop_pixels(
    index: npt.NDArray[np.int64],
    pixels: SourcePixels,
    cell: int,
    planes: tuple[Float32, Float32, Float32],
    clip: Clip,
    keep: npt.NDArray[np.bool_],
) -> None:
    """Drop the pixels around changes in one cell.

    Parameters
    ----------
    index : ndarray of int64, shape (n,)
        Flat indices of the cell's pixels.
    pixels : SourcePixels
        All pixels of the fit.
    cell : int
        Which cell.
    planes : tuple of ndarray of float32, shape (n,)
        Matched model, variance and residual of the pixels; the median residual counts as background.
    clip : Clip
        What counts as a change.
    keep : ndarray of bool, shape (n,)
        Pixels that take part; those dropped become False.
    """
    model, variance, residual = planes
    row, column = divmod(cell, pixels.grid[1])
    level = np.float32(np.median(residual[keep]))
    sigma, flux, peak = (np.float32(one) for one in (clip.sigma, clip.flux, clip.peak))
    corner = (row * pixels.cell, column * pixels.cell)
    size = (pixels.cell, pixels.shape[1])
    _mark_changed(index, *corner, *size, model, variance, residual - level, clip.box, flux, peak, sigma, keep)


@nb.njit(cache=True, nogil=True)
def _mark_changed(  # type: ignore[no-untyped-def]
    index, y0, x0, side, nx, model, variance, residual, box, flux, peak, sigma, kept
):
    """Drop pixels around changes of flux and around misfits of three by three pixels."""
    lights = np.zeros((side, side), np.float32)
    noises = np.zeros((side, side), np.float32)
    rests = np.zeros((side, side), np.float32)
    hit = np.zeros((side, side), np.bool_)
    for p in range(index.shape[0]):
        if kept[p]:
            y, x = index[p] // nx - y0, index[p] % nx - x0
            lights[y, x], noises[y, x], rests[y, x] = model[p], variance[p], residual[p]
    for p in range(index.shape[0]):
        if not kept[p]:
            continue
        y, x = index[p] // nx - y0, index[p] % nx - x0
        top = light = noise = rest = np.float32(0)
        near = near_noise = np.float32(0)
        for j in range(max(0, y - box), min(side, y + box + 1)):
            for i in range(max(0, x - box), min(side, x + box + 1)):
                light += lights[j, i]
                noise += noises[j, i]
                rest += rests[j, i]
                top = max(top, lights[j, i])
                if abs(j - y) <= 1 and abs(i - x) <= 1:
                    near += rests[j, i]
                    near_noise += noises[j, i]
        changed = rest * rest > sigma * sigma * noise and abs(rest) > flux * abs(light)
        misfit = near * near > sigma * sigma * near_noise and abs(near) > 9 * peak * top
        hit[y, x] = changed or misfit
    for p in range(index.shape[0]):
        y, x = index[p] // nx - y0, index[p] % nx - x0
        for j in range(max(0, y - box), min(side, y + box + 1)):
            for i in range(max(0, x - box), min(side, x + box + 1)):
                if hit[j, i]:
                    kept[p] = False
