"""Stars and galaxies of a field; galaxies are drawn as Sersic profiles times the point-spread function, by Fourier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
from numba import njit
from scipy.special import gammaincinv, j0

from nightsift.simulate.optics import FramePsf
from nightsift.simulate.options import SkyOptions
from nightsift.sky.sphere import offset_position

Image = npt.NDArray[np.float32]
SIZES = (32, 64, 128, 256, 384)
TABLE_STEP, TABLE_END = 0.005, 30.0
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stars:
    """Stars of a field.

    Attributes
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    mag : ndarray of float64, shape (n,)
        Magnitudes.
    """

    ra: Values
    dec: Values
    mag: Values


@dataclass(frozen=True, slots=True, eq=False)
class Galaxies:
    """Galaxies of a field.

    Attributes
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    mag : ndarray of float64, shape (n,)
        Total magnitudes.
    radius : ndarray of float64, shape (n,)
        Effective radii along the major axis (arcsec).
    axis_ratio : ndarray of float64, shape (n,)
        Minor over major axis.
    angle : ndarray of float64, shape (n,)
        Position angles, north to east (deg).
    index : ndarray of float64, shape (n,)
        Sersic indices, 1 or 4.
    """

    ra: Values
    dec: Values
    mag: Values
    radius: Values
    axis_ratio: Values
    angle: Values
    index: Values


@lru_cache(maxsize=8)
def truncation(index: float) -> float:
    """Return the radius (effective radii) at which a Sersic profile is cut off: 5 for discs, 8 for spheroids."""
    return float(2.0 + 3.0 * np.sqrt(index))


def _sersic_profile(radius: npt.NDArray[np.float64], index: float) -> npt.NDArray[np.float64]:
    """Surface brightness of a Sersic (1963) profile at radii (effective radii), tapered to zero at its truncation."""
    scale = float(gammaincinv(2.0 * index, 0.5))
    end = truncation(index)
    fade = np.clip((end - radius) / (0.15 * end), 0.0, 1.0)
    return np.asarray(np.exp(-scale * radius ** (1.0 / index)) * fade**2 * (3.0 - 2.0 * fade))


@lru_cache(maxsize=8)
def _light(index: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Radii crowded at the centre, and the light in each ring, summing to one."""
    nodes, weights = np.polynomial.legendre.leggauss(1500)
    power = 4.0 if index > 2 else 2.0
    t = 0.5 * (nodes + 1.0)
    radius = truncation(index) * t**power
    light = _sersic_profile(radius, index) * radius * power * t ** (power - 1.0) * weights
    return radius, light / light.sum()


@lru_cache(maxsize=8)
def sersic_transform(index: float) -> npt.NDArray[np.float32]:
    """Return the transform of a circular Sersic profile of unit flux and effective radius, float32, shape (n,).

    The Hankel transform of order zero by Gauss-Legendre quadrature, at 0, 0.005, ... 30 cycles per effective radius.
    """
    radius, light = _light(index)
    coarse = np.concatenate([np.linspace(0, 2, 401)[:-1], np.linspace(2, 6, 201)[:-1], np.linspace(6, 30, 401)])
    values = j0(2.0 * np.pi * np.outer(coarse, radius)) @ light
    return np.asarray(np.interp(np.arange(0.0, TABLE_END, TABLE_STEP), coarse, values), dtype=np.float32)


def draw_radii(index: float, fractions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the elliptical radii (effective radii) that enclose fractions of a profile's light, shape (n,)."""
    radius, light = _light(index)
    return np.asarray(np.interp(fractions, np.cumsum(light), radius))


def render_galaxies(
    shape: tuple[int, int],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    flux: npt.ArrayLike,
    effective_radius: npt.ArrayLike,
    axis_ratio: npt.ArrayLike,
    angle: npt.ArrayLike,
    index: npt.ArrayLike,
    psf: FramePsf,
    noise: float = 1.0,
    into: Image | None = None,
) -> Image:
    """Draw galaxies convolved with the local point-spread function and integrated over pixels.

    The product of both transforms is folded to the frequencies of the pixel grid, which is sampling at the
    pixel centres (no approximation of profile or point-spread function is involved).

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    x, y : array_like, shape (n,)
        Positions (pixel).
    flux : array_like, shape (n,)
        Total fluxes.
    effective_radius : array_like, shape (n,)
        Half-light radii along the major axis (pixel).
    axis_ratio : array_like, shape (n,)
        Minor over major axis.
    angle : array_like, shape (n,)
        Direction of the major axis (radian from +x to +y).
    index : array_like, shape (n,)
        Sersic indices.
    psf : FramePsf
        Point-spread function of the frame.
    noise : float, optional
        Noise of a pixel in units of `flux`; it sets how far out profiles are drawn.
    into : ndarray of float32, shape (ny, nx), optional
        Image to add to.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The image (`into` when given).
    """
    image = np.zeros(shape, dtype=np.float32) if into is None else into
    table = np.stack(
        [np.atleast_1d(np.asarray(p, float)) for p in (x, y, flux, effective_radius, axis_ratio, angle, index)], axis=1
    )
    margin = SIZES[-1] / 2
    inside = (table[:, 0] > -margin) & (table[:, 0] < shape[1] + margin)
    inside &= (table[:, 1] > -margin) & (table[:, 1] < shape[0] + margin)
    # Even as a point source it would not reach a twentieth of the noise of a pixel.
    inside &= table[:, 2] > 0.05 * noise * psf.noise_pixels
    table = table[inside]
    weights = psf.weights(np.clip(table[:, 0], 0, shape[1] - 1), np.clip(table[:, 1], 0, shape[0] - 1))
    stamp = _stamp_sizes(table, psf, noise)
    for size in np.unique(stamp):
        at = np.flatnonzero(stamp == size)
        nodes, parts = psf.nodes, weights[at]
        if len(at) < len(nodes):  # fewer transforms when each galaxy has its own point-spread function
            nodes, parts = np.tensordot(parts, nodes, axes=1), np.eye(len(at), dtype=np.float32)
        transform = _psf_transform(nodes, psf.oversampling, int(size))
        for sersic in np.unique(table[at, 6]):
            same = np.flatnonzero(table[at, 6] == sersic)
            for start in range(0, len(same), 64):
                some = same[start : start + 64]
                spectra = _spectra(
                    int(size), table[at[some]], parts[some], transform, sersic_transform(float(sersic)), TABLE_STEP
                )
                stamps = scipy.fft.irfft2(spectra, s=(int(size), int(size)), overwrite_x=True)
                _add_stamps(image, table[at[some]], stamps.astype(np.float32, copy=False))
    return image


def _stamp_sizes(table: npt.NDArray[np.float64], psf: FramePsf, noise: float) -> npt.NDArray[np.int64]:
    """Stamp for each galaxy: out to where it sinks into the noise, or to its truncation."""
    radius = np.zeros(len(table))
    for sersic in np.unique(table[:, 6]):
        rows = table[:, 6] == sersic
        radii = np.linspace(0.05, truncation(float(sersic)), 200)
        profile = _sersic_profile(radii, float(sersic))
        profile /= np.trapezoid(profile * 2 * np.pi * radii, radii)
        level = table[rows, 2] / (table[rows, 3] ** 2 * table[rows, 4])
        seen = (profile[None, :] * level[:, None] > 0.02 * noise).sum(axis=1)
        radius[rows] = radii[np.minimum(seen, len(radii) - 1)] * table[rows, 3]
    wanted = 2.0 * radius + 2.0 * min(3.5 * psf.fwhm, psf.radius)
    return np.asarray(np.array(SIZES)[np.minimum(np.searchsorted(SIZES, wanted), len(SIZES) - 1)])


def _psf_transform(nodes: npt.NDArray[np.float32], step: int, size: int) -> npt.NDArray[np.complex64]:
    """Transform images at ``fy = -size..size, fx = 0..size`` in units of ``1 / size`` cycle/pixel."""
    length, m = step * size, nodes.shape[1]
    tiles = -(-m // length)
    out = np.empty((len(nodes), 2 * size + 1, size + 1), dtype=np.complex64)
    for index, node in enumerate(nodes):
        # Folding an image to the period of the stamp is sampling its transform at the frequencies of the stamp.
        padded = np.zeros((tiles * length, tiles * length), dtype=np.float32)
        padded[:m, :m] = node
        padded = np.roll(padded, (-(m // 2), -(m // 2)), axis=(0, 1))
        folded = padded.reshape(tiles, length, tiles, length).sum(axis=(0, 2))
        transform = scipy.fft.rfft2(folded)[:, : size + 1]
        out[index] = np.concatenate([transform[-size:], transform[: size + 1]]) / transform[0, 0].real
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _spectra(size, table, weights, psf_ft, profile, table_step):  # type: ignore[no-untyped-def]
    n, n_nodes = len(table), weights.shape[1]
    half = size // 2
    out = np.zeros((n, size, half + 1), dtype=np.complex64)
    phase_x = np.empty(2 * size + 1, dtype=np.complex64)
    phase_y = np.empty(2 * size + 1, dtype=np.complex64)
    for g in range(n):
        x, y, flux, radius = table[g, 0], table[g, 1], table[g, 2], table[g, 3]
        ratio, angle = table[g, 4], table[g, 5]
        dx, dy = x - np.floor(x + 0.5) + half, y - np.floor(y + 0.5) + half
        for k in range(2 * size + 1):
            f = (k - size) / size
            phase_x[k] = np.complex64(np.exp(-2j * np.pi * f * dx))
            phase_y[k] = np.complex64(np.exp(-2j * np.pi * f * dy))
        major_x, major_y = radius * np.cos(angle), radius * np.sin(angle)
        minor_x, minor_y = -radius * ratio * np.sin(angle), radius * ratio * np.cos(angle)
        for row in range(size):
            for alias_y in range(2):
                ky = row - size * alias_y  # fy in [0, 1) and [-1, 0)
                for column in range(half + 1):
                    total = np.complex64(0.0)
                    for alias_x in range(2):
                        kx = column - size * alias_x
                        along = (kx * major_x + ky * major_y) / size
                        across = (kx * minor_x + ky * minor_y) / size
                        s = np.sqrt(along * along + across * across) / table_step
                        i = int(s)
                        if i + 1 >= len(profile):
                            continue
                        light = profile[i] + (s - i) * (profile[i + 1] - profile[i])
                        blend = np.complex64(0.0)
                        if kx >= 0:
                            for m in range(n_nodes):
                                blend += weights[g, m] * psf_ft[m, ky + size, kx]
                        else:
                            for m in range(n_nodes):
                                blend += weights[g, m] * psf_ft[m, size - ky, -kx]
                            blend = np.conj(blend)
                        total += np.float32(light * flux) * blend * phase_x[kx + size] * phase_y[ky + size]
                    out[g, row, column] += total
    return out


@njit(cache=True, nogil=True)
def _add_stamps(image, table, stamps):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    size = stamps.shape[1]
    half = size // 2
    for g in range(len(table)):
        left, bottom = int(np.floor(table[g, 0] + 0.5)) - half, int(np.floor(table[g, 1] + 0.5)) - half
        for j in range(max(0, -bottom), min(size, ny - bottom)):
            for i in range(max(0, -left), min(size, nx - left)):
                image[bottom + j, left + i] += stamps[g, j, i]


def _star_counts(mag: Values, galactic_latitude: float) -> Values:
    """Stars brighter than a visual magnitude per square degree.

    Bahcall & Soneira (1980, ApJS 44, 73, eq. B1 at the galactic pole), times a plane-parallel disc's dependence on
    latitude: good to a factor of about two, which is what a simulation of blends needs.
    """
    disc = 925.0 * 10 ** (0.035 * (mag - 15.75)) / (1 + 10 ** (-0.132 * (mag - 15.75))) ** 3.0
    halo = 1050.0 * 10 ** (0.087 * (mag - 17.5)) / (1 + 10 ** (-0.180 * (mag - 17.5))) ** 2.5
    return np.asarray(disc / (np.abs(np.sin(np.deg2rad(galactic_latitude))) + 0.03) + halo)


def _galaxy_counts(mag: Values) -> Values:
    """Galaxies brighter than a magnitude per square degree.

    A power law of slope 0.48 through 1,000 per square degree at magnitude 20 (red bands; between the Euclidean 0.6 of
    bright samples and the 0.4 of faint ones, e.g. Yasuda et al. 2001, AJ 122, 1104).
    """
    return np.asarray(1000.0 * 10 ** (0.48 * (mag - 20.0)))


def draw_stars(
    rng: np.random.Generator, centre: tuple[float, float], half_width: float, *, faintest: float, options: SkyOptions
) -> Stars:
    """Draw the stars of a square field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    centre : tuple of float
        Centre ``(ra, dec)`` (deg).
    half_width : float
        Half the width of the field (deg).
    faintest : float
        Faintest magnitude.
    options : SkyOptions
        Densities.

    Returns
    -------
    Stars
        The stars, brightest first.
    """
    grid = np.linspace(options.brightest, max(faintest, options.brightest + 0.1), 400)
    cumulative = _star_counts(grid, options.galactic_latitude) * options.star_density * (2 * half_width) ** 2
    cumulative -= cumulative[0] - 0.0
    mag = np.sort(np.interp(rng.random(rng.poisson(cumulative[-1])) * cumulative[-1], cumulative, grid))
    ra, dec = scatter(rng, centre, half_width, n=len(mag))
    return Stars(ra, dec, mag)


def draw_galaxies(
    rng: np.random.Generator, centre: tuple[float, float], half_width: float, *, faintest: float, options: SkyOptions
) -> Galaxies:
    """Draw the galaxies of a square field.

    Effective radii follow magnitude as ``1.1 arcsec * 10**(-0.14 (mag - 20))`` with 0.2 dex scatter, about
    what Shen et al. (2003, MNRAS 343, 978) give for the mix of types at these magnitudes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    centre : tuple of float
        Centre ``(ra, dec)`` (deg).
    half_width : float
        Half the width of the field (deg).
    faintest : float
        Faintest magnitude.
    options : SkyOptions
        Densities.

    Returns
    -------
    Galaxies
        The galaxies, brightest first.
    """
    grid = np.linspace(13.0, max(faintest, 13.1), 400)
    cumulative = _galaxy_counts(grid) * options.galaxy_density * (2 * half_width) ** 2
    mag = np.sort(np.interp(rng.random(rng.poisson(cumulative[-1])) * cumulative[-1], cumulative, grid))
    n = len(mag)
    ra, dec = scatter(rng, centre, half_width, n=n)
    radius = 1.1 * 10 ** (-0.14 * (mag - 20.0)) * 10 ** rng.normal(0.0, 0.2, n)
    spheroid = rng.random(n) < 0.35
    # Discs are thin and seen from any side; spheroids are round to moderately flat.
    disc_ratio = np.sqrt(rng.random(n) ** 2 * (1 - 0.2**2) + 0.2**2)
    ratio = np.where(spheroid, rng.uniform(0.5, 1.0, n), disc_ratio)
    return Galaxies(
        ra, dec, mag, np.clip(radius, 0.2, 40.0), ratio, rng.uniform(0, 180, n), np.where(spheroid, 4.0, 1.0)
    )


def scatter(
    rng: np.random.Generator, centre: tuple[float, float], half_width: float, *, n: int
) -> tuple[Values, Values]:
    """Draw `n` positions (deg) uniformly over a square field around a centre (deg)."""
    east, north = rng.uniform(-half_width, half_width, (2, n))
    return offset_position(np.full(n, centre[0]), np.full(n, centre[1]), east, north=north)
