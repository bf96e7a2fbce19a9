"""Injection of sources into a frame, for completeness studies, training and tests: stars of known flux, and movers.

Movers are minor planets moved onto galaxies: real pixels of a real point source, without their sky and its noise.

A stamp of a mover holds ``S = F P + R``: its light F with the PSF P of the frame, and a residual R of noise and of what
the PSF model does not know (trailing, tracking, the local PSF). Adding the whole stamp to another place doubles the sky
and adds the sky's noise a second time, and a network learns that instead of transients. Here, with a scale ``f <= 1``,

    added = f (F P + a R) + n,     a = min(1, sqrt(F P / (g f V))),     var(n) = f F P / g - f^2 a^2 V,

where g is the gain and ``V = sky + F P / g`` the variance of R. The variance added is
``f^2 a^2 V + var(n) = f F P / g`` in every pixel: the photon noise of the light that was added, and nothing else. The
noise of the sky is that of the new place alone. Where the mover is bright a is 1 and all its real shape stays; where
it sinks into the sky a goes to zero, because there the stamp knows nothing but noise. No pixel is interpolated: a stamp
moves by whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage, Pair, with_bit
from nightsift.core.psf import Psf
from nightsift.images.photometry.psf_grid import LANCZOS, PsfGrid, psf_grid, shift_psf
from nightsift.images.photometry.psf_photometry import UNUSABLE, psf_fluxes
from nightsift.images.stars.moments import moments

Values = npt.NDArray[np.float64]

LEAST_SNR = 12.0
FOREIGN = 3.0  # sigma of the template from which its pixels hold light of something else
CORE = 1.0  # FWHM around a mover in which nothing may be masked and no other light may lie
MAX_SHIFT = 2.5  # px by which a mover may lie off its predicted place


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
    return _saturate(frame, added, light)


def _saturate(frame: Frame, added: FloatImage, light: FloatImage) -> Frame:
    """Add light with its noise to a frame."""
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
        # light is not negative: interpolation of an undersampled PSF rings, that is cut off and the flux preserved
        np.maximum(star, np.float32(0), star)
        star *= np.float32(total) / star.sum()
        for j in range(max(0, half - row), min(size, ny + half - row)):
            for i in range(max(0, half - column), min(size, nx + half - column)):
                image[row + j - half, column + i - half] += np.float32(flux[n]) * star[j, i]


@dataclass(frozen=True, slots=True, eq=False)
class Movers:
    """Stamps of minor planets of one frame, their sky and neighbours taken off.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Where they are (pixel).
    flux : ndarray of float64, shape (n,)
        PSF fluxes (ADU).
    row : ndarray of int64, shape (n,)
        Their rows in the list that was asked for.
    residual : ndarray of float32, shape (n, size, size)
        R (ADU) on whole pixels around the nearest pixel; 0 where a neighbour shines or a pixel is bad.
    sky_variance : ndarray of float32, shape (n,)
        Variance of the sky around each (ADU^2).
    """

    x: Values
    y: Values
    flux: Values
    row: npt.NDArray[np.int64]
    residual: npt.NDArray[np.float32]
    sky_variance: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)


def cut_movers(pair: Pair, psf: Psf, x: Values, y: Values) -> Movers:
    """Cut the movers that stand alone: bright enough, unmasked, on no light of the template.

    Parameters
    ----------
    pair : Pair
        Science frame and template on one grid, both background-subtracted.
    psf : Psf
        PSF of the science frame.
    x, y : ndarray of float64, shape (n,)
        Where movers are expected (pixel); each is centred on its light.

    Returns
    -------
    Movers
        Those of use; the others are left out (their rows are absent).
    """
    science, template, size = pair.science, pair.template, psf.size
    half = size // 2
    ny, nx = science.shape
    inside = np.isfinite(x) & np.isfinite(y)
    inside &= (x >= half) & (y >= half) & (x <= nx - 1 - half) & (y <= ny - 1 - half)
    rows = np.flatnonzero(inside)
    sigma = max(psf.fwhm / 2.355, 0.8)
    found = moments(science.data, science.mask, UNUSABLE, x[rows], y[rows], sigma, CORE * psf.fwhm)
    centred = np.hypot(found[:, 0] - x[rows], found[:, 1] - y[rows]) <= MAX_SHIFT
    rows, px, py = rows[centred], found[centred, 0], found[centred, 1]
    fits = psf_fluxes(science.data, science.variance, science.mask, psf=psf, x=px, y=py)
    old = psf_fluxes(template.data, template.variance, template.mask, psf=psf, x=px, y=py)
    good = (fits.flux > LEAST_SNR * fits.flux_err) & (fits.masked_fraction == 0)
    good &= ~(old.flux > FOREIGN * old.flux_err) & (old.masked_fraction == 0)
    rows, px, py, flux = rows[good], px[good], py[good], fits.flux[good].astype(np.float64)
    residual = np.zeros((len(rows), size, size), dtype=np.float32)
    sky_variance = np.zeros(len(rows), dtype=np.float32)
    grid = psf_grid(psf, science.shape)
    for k in range(len(rows)):
        residual[k], sky_variance[k] = _residual(
            science, template, grid, x=float(px[k]), y=float(py[k]), flux=float(flux[k])
        )
    usable = np.isfinite(sky_variance) & (sky_variance > 0)
    return Movers(px[usable], py[usable], flux[usable], rows[usable], residual[usable], sky_variance[usable])


def transplant(
    frame: Frame,
    psf: Psf,
    movers: Movers,
    *,
    which: npt.NDArray[np.int64],
    x: Values,
    y: Values,
    flux: Values,
    rng: np.random.Generator,
) -> tuple[Frame, Values, Values]:
    """Add movers to other places of their frame.

    Parameters
    ----------
    frame : Frame
        The frame, background-subtracted.
    psf : Psf
        Its PSF.
    movers : Movers
        Movers of this frame.
    which : ndarray of int64, shape (n,)
        Row of the mover that each transplant is made of.
    x, y : ndarray of float64, shape (n,)
        Wanted positions (pixel); a mover keeps its sub-pixel phase, so it comes to lie within half a pixel of them.
    flux : ndarray of float64, shape (n,)
        Wanted fluxes (ADU), at most that of the mover.
    rng : numpy.random.Generator
        Draws the photon noise that the scaled stamp lacks.

    Returns
    -------
    frame : Frame
        With the transplants: variance raised by the photon noise of the added light, pixels that reach saturation
        clipped and marked.
    x, y : ndarray of float64, shape (n,)
        Where they came to lie (pixel).

    Raises
    ------
    ValueError
        If a flux is above that of its mover, or the lists differ in length.
    """
    if not len(which) == len(x) == len(y) == len(flux):
        raise ValueError("one mover, place and flux a transplant are needed")
    scale = flux / movers.flux[which]
    if not bool(np.all((scale > 0) & (scale <= 1))):
        raise ValueError("a transplant can only be fainter than its mover: noise cannot be taken out of light")
    column, row = np.floor(movers.x[which] + 0.5), np.floor(movers.y[which] + 0.5)
    phase_x, phase_y = movers.x[which] - column, movers.y[which] - row
    to_column, to_row = np.floor(x - phase_x + 0.5).astype(np.int64), np.floor(y - phase_y + 0.5).astype(np.int64)
    grid = psf_grid(psf, frame.shape)
    added, light = np.zeros(frame.shape, dtype=np.float32), np.zeros(frame.shape, dtype=np.float32)
    noise = rng.standard_normal((len(which), grid.size, grid.size), dtype=np.float32)
    nodes = grid.nodes(movers.x[which], movers.y[which])
    _add(
        added, light, grid.images, grid.size, grid.step, grid.total, nodes, phase_x, phase_y, to_column, to_row,
        movers.residual[which], movers.flux[which], movers.sky_variance[which], scale, 1.0 / frame.meta.gain, noise,
    )  # fmt: skip
    return _saturate(frame, added, light), to_column + phase_x, to_row + phase_y


def _residual(
    science: Frame, template: Frame, grid: PsfGrid, *, x: float, y: float, flux: float
) -> tuple[FloatImage, np.float32]:
    """Residual of one mover around its nearest pixel, and the variance of the sky around it."""
    size, half = grid.size, grid.size // 2
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    place = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
    star = _star(grid, x, y, dx=x - column, dy=y - row)
    foreign = template.data[place] > FOREIGN * np.sqrt(np.maximum(template.variance[place], 0.0))
    bad = ((science.mask[place] | template.mask[place]) & UNUSABLE) != 0
    free = ~(foreign | bad)
    dark = free & (flux * star < 0.2 * np.sqrt(np.maximum(science.variance[place], 0.0)))
    if dark.sum() < 20:
        return np.zeros((size, size), np.float32), np.float32(np.nan)
    sky = np.float32(np.median(science.data[place][dark]))
    rest = science.data[place] - sky - np.float32(flux) * star
    variance = np.float32(np.median(science.variance[place][dark]))
    return np.where(free, rest, np.float32(0.0)).astype(np.float32), variance


def _star(grid: PsfGrid, x: float, y: float, *, dx: float, dy: float) -> FloatImage:
    out = np.empty((grid.size, grid.size), np.float32)
    image = grid.images[int(grid.nodes(np.array([x]), np.array([y]))[0])]
    work = np.empty((image.shape[0], grid.size), np.float32)
    shift_psf(image, grid.step, grid.total, dx, dy, work, np.empty(2 * LANCZOS + 1, np.float64), out)
    return np.maximum(out, np.float32(0.0))


@njit(cache=True, nogil=True)
def _add(
    added: FloatImage,
    light: FloatImage,
    psfs: FloatImage,
    size: int,
    step: int,
    total: float,
    nodes: npt.NDArray[np.int64],
    dx: Values,
    dy: Values,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    residual: npt.NDArray[np.float32],
    flux: Values,
    sky: npt.NDArray[np.float32],
    scale: Values,
    per_electron: float,
    noise: npt.NDArray[np.float32],
) -> None:
    ny, nx = added.shape
    half = size // 2
    work = np.empty((psfs.shape[1], size), np.float32)
    star = np.empty((size, size), np.float32)
    weights = np.empty(2 * LANCZOS + 1, np.float64)
    for n in range(len(columns)):
        shift_psf(psfs[nodes[n]], step, total, dx[n], dy[n], work, weights, star)
        f = scale[n]
        for j in range(max(0, half - rows[n]), min(size, ny + half - rows[n])):
            for i in range(max(0, half - columns[n]), min(size, nx + half - columns[n])):
                wanted = flux[n] * max(star[j, i], np.float32(0.0))
                photons = wanted * per_electron  # variance of the mover's own light
                variance = sky[n] + photons
                part = min(1.0, np.sqrt(photons / (f * variance)))
                if residual[n, j, i] == 0.0:
                    part = 0.0
                lacking = max(f * photons - f * f * part * part * variance, 0.0)
                y, x = rows[n] + j - half, columns[n] + i - half
                light[y, x] += np.float32(f * wanted)
                added[y, x] += np.float32(f * (wanted + part * residual[n, j, i]) + np.sqrt(lacking) * noise[n, j, i])


def free_of(mask: MaskImage) -> npt.NDArray[np.bool_]:
    """Return True where a pixel may carry a synthetic source: it has none of the bits that exclude it from a fit."""
    return np.asarray((mask & UNUSABLE) == 0)
