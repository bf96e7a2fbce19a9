"""PSF fluxes at given positions: the optimal weighted sum and its chi-square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.psf import Psf
from nightsift.images.photometry.psf_grid import LANCZOS, psf_grid, shift_psf

# The halo of a bright star is a warning; its pixels are measured. All other bits keep a pixel out of a fit.
UNUSABLE = np.uint16(sum(bit.value for bit in Mask) & ~Mask.BRIGHT_STAR.value)
# Where every pixel near a position is masked there would be no measurement at all: then only these keep pixels out.
ABSENT = np.uint16(Mask.NONFINITE.value | Mask.NO_DATA.value)


@dataclass(frozen=True, slots=True, eq=False)
class PsfFluxes:
    """PSF fluxes and how well the PSF fits.

    Attributes
    ----------
    flux, flux_err : ndarray of float32, shape (n,)
        Flux (unit of the data) and its standard deviation from the variance map; NaN where no pixel was usable.
    chi2 : ndarray of float32, shape (n,)
        Reduced chi-square within the core, NaN where fewer than three pixels were usable.
    peak : ndarray of float32, shape (n,)
        Value of the central pixel over ``flux * psf`` there; above one where sharper than the PSF.
    peak_err : ndarray of float32, shape (n,)
        Standard deviation of `peak` from the noise of the central pixel.
    masked_fraction : ndarray of float32, shape (n,)
        Fraction of the pixels within one FWHM that is masked (BRIGHT_STAR apart) or outside the frame.
    bits : ndarray of uint16, shape (n,)
        Union of the mask bits within one pixel of the half-maximum radius.
    """

    flux: npt.NDArray[np.float32]
    flux_err: npt.NDArray[np.float32]
    chi2: npt.NDArray[np.float32]
    peak: npt.NDArray[np.float32]
    peak_err: npt.NDArray[np.float32]
    masked_fraction: npt.NDArray[np.float32]
    bits: npt.NDArray[np.uint16]


def psf_fluxes(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    *,
    psf: Psf,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    threads: int = 0,
) -> PsfFluxes:
    """Measure PSF fluxes at fixed positions, each on its own.

    ``flux = sum(w d) / sum(w p)``, ``var = sum(w^2 v) / sum(w p)^2`` with the PSF ``p`` moved to the sub-pixel
    position and ``w = p / u`` (Horne 1986, eq. 8; Naylor 1998). The weights take a smooth variance ``u``, a level and a
    part proportional to the star fitted to the map ``v``: a map made from the data follows the noise of each pixel,
    and weights that follow it too make every flux too small, by 0.2 sigma on a common sky. The error takes ``v``.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image and its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Masked pixels (BRIGHT_STAR apart) are left out; where less than a tenth of the PSF's weight would remain,
        all pixels that hold data are used instead.
    psf : Psf
        PSF of `data`.
    x, y : ndarray, shape (n,)
        Positions (pixel).
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    PsfFluxes
        Fluxes; `flux_err` holds no correlation between pixels.
    """
    at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    grid = psf_grid(psf, (int(data.shape[0]), int(data.shape[1])))
    columns = np.full((6, len(at_x)), np.nan, dtype=np.float32)
    bits = np.zeros(len(at_x), dtype=np.uint16)
    nodes, fwhm = grid.nodes(at_x, at_y), float(psf.fwhm)

    def some(first: int, last: int) -> None:
        part = slice(first, last)
        _fit(
            data, variance, mask, grid.images, grid.size, grid.step, grid.total, nodes[part], at_x[part], at_y[part],
            fwhm, UNUSABLE, ABSENT, columns[:, part], bits[part],
        )  # fmt: skip

    over_rows(some, len(at_x), 64, threads=threads)
    flux, flux_err, chi2, peak, peak_err, masked_fraction = columns
    return PsfFluxes(flux, flux_err, chi2, peak, peak_err, masked_fraction, bits)


@njit(cache=True, nogil=True)
def _noise_model(
    variance: FloatImage, mask: MaskImage, star: FloatImage, column: int, row: int, excluded: np.uint16
) -> tuple[float, float]:
    """Variance around a position as a level and a part proportional to the star (both not negative)."""
    ny, nx = variance.shape
    size = star.shape[0]
    half = size // 2
    n = sp = spp = sv = spv = 0.0
    for j in range(max(0, half - row), min(size, ny + half - row)):
        for i in range(max(0, half - column), min(size, nx + half - column)):
            v = variance[row + j - half, column + i - half]
            if (mask[row + j - half, column + i - half] & excluded) == 0 and v > 0 and v < np.inf:
                p = star[j, i]
                n, sp, spp, sv, spv = n + 1.0, sp + p, spp + p * p, sv + v, spv + p * v
    if n < 3:
        return 1.0, 0.0
    spread = spp - sp * sp / n
    slope = max((spv - sp * sv / n) / spread, 0.0) if spread > 0 else 0.0
    return max((sv - slope * sp) / n, 0.1 * sv / n), slope


@njit(cache=True, nogil=True)
def _sums(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    star: FloatImage,
    column: int,
    row: int,
    excluded: np.uint16,
) -> tuple[float, float, float]:
    """Flux, its variance, and the sum of p^2 over the pixels used; NaN where there are none."""
    ny, nx = data.shape
    size = star.shape[0]
    half = size // 2
    level, slope = _noise_model(variance, mask, star, column, row, excluded)
    wpd = wpp = wwppv = weight = 0.0
    for j in range(max(0, half - row), min(size, ny + half - row)):
        for i in range(max(0, half - column), min(size, nx + half - column)):
            v = variance[row + j - half, column + i - half]
            d = data[row + j - half, column + i - half]
            plane = mask[row + j - half, column + i - half]
            # exactly 0 under a mask: the subtraction has blanked the pixel
            if (plane & excluded) == 0 and v > 0 and np.isfinite(d + v) and (d != 0 or plane == 0):
                p = star[j, i]
                w = p / (level + slope * max(p, np.float32(0.0)))
                wpd += w * d
                wpp += w * p
                wwppv += w * w * v
                weight += p * p
    if not wpp > 0:
        return np.nan, np.nan, 0.0
    return wpd / wpp, wwppv / (wpp * wpp), weight


@njit(cache=True, nogil=True)
def _core(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    star: FloatImage,
    position: tuple[float, float],
    flux: float,
    radii: tuple[float, float, float],
    excluded: np.uint16,
) -> tuple[float, float, int]:
    """Reduced chi-square within radii[0], masked fraction within radii[1] and mask bits within radii[2]."""
    ny, nx = data.shape
    size = star.shape[0]
    half = size // 2
    column, row = math.floor(position[0] + 0.5), math.floor(position[1] + 0.5)
    chi2, used, masked, inside, bits = 0.0, 0, 0, 0, 0
    for j in range(size):
        for i in range(size):
            y, x = row + j - half, column + i - half
            r2 = (x - position[0]) ** 2 + (y - position[1]) ** 2
            if r2 > radii[0] ** 2 and r2 > radii[1] ** 2 and r2 > radii[2] ** 2:
                continue
            outside = y < 0 or x < 0 or y >= ny or x >= nx
            plane = 0 if outside else int(mask[y, x])
            if r2 <= radii[1] ** 2:
                inside += 1
                masked += 1 if outside or (plane & UNUSABLE) != 0 else 0
            if r2 <= radii[2] ** 2:
                bits |= plane
            if r2 <= radii[0] ** 2 and not outside and (plane & excluded) == 0 and variance[y, x] > 0:
                residual = data[y, x] - flux * star[j, i]
                if np.isfinite(residual):
                    chi2 += residual * residual / variance[y, x]
                    used += 1
    return (chi2 / (used - 1) if used > 2 else np.nan), masked / max(inside, 1), bits


@njit(cache=True, nogil=True)
def _fit(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    psfs: FloatImage,
    size: int,
    step: int,
    total: float,
    nodes: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    fwhm: float,
    unusable: np.uint16,
    absent: np.uint16,
    columns: npt.NDArray[np.float32],
    bits: npt.NDArray[np.uint16],
) -> None:
    ny, nx = data.shape
    half = size // 2
    work = np.empty((psfs.shape[1], size), np.float32)
    star = np.empty((size, size), np.float32)
    weights = np.empty(2 * LANCZOS + 1, np.float64)
    radii = (1.5 * fwhm, max(fwhm, 1.5), 0.5 * fwhm + 1.0)
    for n in range(len(x)):
        column, row = math.floor(x[n] + 0.5), math.floor(y[n] + 0.5)
        if column < 0 or row < 0 or column >= nx or row >= ny:
            columns[5, n] = 1.0
            continue
        shift_psf(psfs[nodes[n]], step, total, x[n] - column, y[n] - row, work, weights, star)
        excluded = unusable
        flux, power, weight = _sums(data, variance, mask, star, column, row, excluded)
        whole = 0.0
        for j in range(size):
            for i in range(size):
                whole += star[j, i] * star[j, i]
        if weight < 0.1 * whole:
            excluded = absent
            flux, power, weight = _sums(data, variance, mask, star, column, row, excluded)
        position = (x[n], y[n])
        chi2, columns[5, n], bits[n] = _core(data, variance, mask, star, position, flux, radii, excluded)
        if weight > 0:
            columns[0, n], columns[1, n], columns[2, n] = flux, math.sqrt(power), chi2
            expected = flux * star[half, half]
            if expected != 0 and variance[row, column] > 0:
                columns[3, n] = data[row, column] / expected
                columns[4, n] = math.sqrt(variance[row, column]) / abs(expected)
