"""Peaks of a score map and how many of them noise alone makes.

See docs/algorithms.md, section 11.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.frames import FloatImage, MaskImage
from nightsift.parallel import over_rows
from nightsift.psf import Psf

Counts = npt.NDArray[np.int64]

SOURCE = 2.0
"""Light of a source of the template at a peak, in sigma of a pixel of the difference."""


def expected_peaks(threshold: float, sigma: float) -> float:
    """Peaks of one sign that Gaussian noise makes in a matched-filtered map.

    ``2^(-5/2) pi^(-3/2) nu exp(-nu^2 / 2) / sigma^2`` (Kaiser 2004; Slater and others, DMTN-006), which is the
    density of peaks of a Gaussian random field at high levels (Bardeen and others 1986, ApJ 304, 15).

    Parameters
    ----------
    threshold : float
        Level nu (sigma).
    sigma : float
        Width of the PSF as that of a Gaussian (pixel), as from `matched_sigma`.

    Returns
    -------
    float
        Peaks a pixel.
    """
    return float(2.0**-2.5 * np.pi**-1.5 * threshold * np.exp(-0.5 * threshold**2) / sigma**2)


def matched_sigma(psf: Psf) -> float:
    """Width of the Gaussian whose matched filter has as many peaks as that of a PSF.

    The density of peaks goes with the mean squared slope of the score, which is ``sum |grad p|^2 / (2 sum p^2)``, and
    ``1 / (2 sigma^2)`` for a Gaussian.

    Parameters
    ----------
    psf : Psf
        PSF of a difference whose noise is white.

    Returns
    -------
    float
        The width (pixel).
    """
    ny, nx = psf.shape
    image = psf.at((nx - 1) / 2, (ny - 1) / 2).astype(np.float64)
    size = image.shape[0]
    frequency = 2.0 * np.pi * np.fft.fftfreq(size)
    power = np.abs(np.fft.fft2(image)) ** 2
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    return float(np.sqrt(power.sum() / (squared * power).sum()))


def count_peaks(
    score: FloatImage,
    mask: MaskImage,
    threshold: float,
    apart: int,
    margin: int,
    threads: int = 0,
    model: FloatImage | None = None,
    variance: FloatImage | None = None,
) -> Counts:
    """Count the peaks of both signs, those near masked pixels and those on sources of the template apart.

    Parameters
    ----------
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise map.
    mask : ndarray of uint16, shape (ny, nx)
        Its mask; any bit counts.
    threshold : float
        Lowest absolute value of a peak (sigma).
    apart : int
        A peak is the highest of its sign within this many pixels along both axes.
    margin : int
        Distance along both axes within which a masked pixel is near (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.
    model, variance : ndarray of float32, shape (ny, nx), optional
        Matched template and variance of the difference: a peak is on a source where the model exceeds `SOURCE` sigma
        of a pixel within `apart` of it. Without them no peak is on a source.

    Returns
    -------
    ndarray of int64, shape (2, 2, 2)
        Numbers of peaks; the axes are: off or on a source, away from or near masked pixels, positive or negative.
    """
    counts: list[Counts] = []
    light = np.zeros((0, 0), np.float32) if model is None else model
    noise = light if variance is None else variance

    def band(first: int, last: int) -> None:
        found = np.zeros((2, 2, 2), dtype=np.int64)
        _count_rows(score, mask, light, noise, np.float32(threshold), apart, margin, first, last, found)
        counts.append(found)

    over_rows(band, score.shape[0], 64, threads)
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)


@nb.njit(cache=True, nogil=True)
def _count_rows(  # type: ignore[no-untyped-def]
    score, mask, model, variance, threshold, apart, margin, first, last, found
):
    ny, nx = score.shape
    for y in range(first, last):
        row = score[y]
        for x in range(nx):
            value = row[x]
            if not abs(value) >= threshold or mask[y, x] != 0:
                continue
            sign = np.float32(1.0) if value > 0 else np.float32(-1.0)
            highest, source = True, 0
            for j in range(max(0, y - apart), min(ny, y + apart + 1)):
                for i in range(max(0, x - apart), min(nx, x + apart + 1)):
                    other, this = sign * score[j, i], sign * value
                    # Of equal ones the first counts.
                    if other > this or (other == this and (j < y or (j == y and i < x))):
                        highest = False
                    if model.size > 0 and model[j, i] > 0 and model[j, i] ** 2 > SOURCE**2 * variance[y, x]:
                        source = 1
            if not highest:
                continue
            near = y < margin or x < margin or y >= ny - margin or x >= nx - margin
            for j in range(max(0, y - margin), min(ny, y + margin + 1)):
                for i in range(max(0, x - margin), min(nx, x + margin + 1)):
                    near = near or mask[j, i] != 0
            found[source, 1 if near else 0, 0 if value > 0 else 1] += 1


def clear_fraction(mask: MaskImage, margin: int, step: int = 16) -> float:
    """Fraction of a frame that lies away from masked pixels, from a sample.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx)
        The mask; any bit counts.
    margin : int
        Distance along both axes within which a masked pixel is near (pixel); so is the edge of the frame.
    step : int, optional
        Distance of the pixels looked at.

    Returns
    -------
    float
        0 to 1.
    """
    return float(_clear(mask, margin, step))


@nb.njit(cache=True, nogil=True)
def _clear(mask, margin, step):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    seen = clear = 0
    for y in range(step // 2, ny, step):
        for x in range(step // 2, nx, step):
            seen += 1
            if y < margin or x < margin or y >= ny - margin or x >= nx - margin:
                continue
            touched = False
            for j in range(y - margin, y + margin + 1):
                for i in range(x - margin, x + margin + 1):
                    if mask[j, i] != 0:
                        touched = True
                        break
                if touched:
                    break
            if not touched:
                clear += 1
    return clear / max(seen, 1)
