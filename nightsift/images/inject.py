"""Injection of stars of known flux into a frame, for completeness studies, training and tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.flags import Mask
from nightsift.frames import FloatImage, Frame, with_bit
from nightsift.images.psf_grid import LANCZOS, psf_grid, shift_psf
from nightsift.psf import Psf


def inject_stars(
    frame: Frame,
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.floating],
    flux: npt.NDArray[np.floating],
    psf: Psf,
    rng: np.random.Generator | None = None,
) -> Frame:
    """Add stars to a frame, with their photon noise.

    Parameters
    ----------
    frame : Frame
        The frame; with its sky, or background-subtracted with `Frame.sky` known.
    x, y : ndarray, shape (n,)
        Positions (pixel), sub-pixel accurate.
    flux : ndarray, shape (n,)
        Fluxes (ADU), not negative. They include what falls outside the PSF image only if the PSF does.
    psf : Psf
        The PSF to draw them with.
    rng : numpy.random.Generator, optional
        Draws the photon noise of the added light; without it the light is added free of noise.

    Returns
    -------
    Frame
        Data with the stars, variance raised by the photon noise ``flux * psf / gain`` of what was added, and pixels
        that reach saturation clipped to it and marked SATURATED.

    Raises
    ------
    ValueError
        If the lists differ in length, or a flux is negative or not finite.
    """
    x, y, flux = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (x, y, flux))
    if not x.shape == y.shape == flux.shape:
        raise ValueError(f"x, y and flux must be of equal length, got {x.shape}, {y.shape} and {flux.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(flux).all() and (flux >= 0).all()):
        raise ValueError("positions must be finite, and fluxes finite and not negative")
    added = np.zeros(frame.shape, dtype=np.float32)
    grid = psf_grid(psf, frame.shape)
    _draw(added, grid.images, grid.size, grid.step, grid.total, grid.nodes(x, y), x, y, flux)
    light, gain = added, float(frame.meta.gain)
    if rng is not None:
        added, lit = light.copy(), light > 0
        added[lit] = (rng.poisson(light[lit].astype(np.float64) * gain) / gain).astype(np.float32)
    return saturate(frame, added, light)


def saturate(frame: Frame, added: FloatImage, light: FloatImage) -> Frame:
    """Add light with its noise to a frame.

    Parameters
    ----------
    frame : Frame
        The frame; with its sky, or background-subtracted with `Frame.sky` known.
    added : ndarray of float32, shape (ny, nx)
        What is added, noise included (ADU).
    light : ndarray of float32, shape (ny, nx)
        The same without noise (ADU), not negative.

    Returns
    -------
    Frame
        Variance raised by the photon noise ``light / gain``, and lit pixels that reach saturation clipped to it and
        marked SATURATED.
    """
    data, variance = frame.data + added, frame.variance + light / np.float32(frame.meta.gain)
    level = np.float32(frame.meta.saturation - (frame.sky if np.isfinite(frame.sky) else 0.0))
    full = (light > 0) & (data >= level)
    return frame.replace(
        data=np.where(full, level, data), variance=variance, mask=with_bit(frame.mask, Mask.SATURATED, full)
    )


@njit(cache=True, nogil=True)
def _draw(
    image: FloatImage,
    psfs: FloatImage,
    size: int,
    step: int,
    total: float,
    nodes: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    flux: npt.NDArray[np.float64],
) -> None:
    ny, nx = image.shape
    half = size // 2
    work = np.empty((psfs.shape[1], size), np.float32)
    star = np.empty((size, size), np.float32)
    weights = np.empty(2 * LANCZOS + 1, np.float64)
    for n in range(len(x)):
        column, row = int(np.floor(x[n] + 0.5)), int(np.floor(y[n] + 0.5))
        if column < -half or column >= nx + half or row < -half or row >= ny + half:
            continue
        shift_psf(psfs[nodes[n]], step, total, x[n] - column, y[n] - row, work, weights, star)
        # light is not negative: interpolation of an undersampled PSF rings, that is cut off and the flux kept
        np.maximum(star, np.float32(0), star)
        star *= np.float32(total) / star.sum()
        for j in range(max(0, half - row), min(size, ny + half - row)):
            for i in range(max(0, half - column), min(size, nx + half - column)):
                image[row + j - half, column + i - half] += np.float32(flux[n]) * star[j, i]
