"""The static sky: stars and galaxies of a field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.simulate.options import SkyOptions
from nightsift.sky.sphere import offset_position

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


def star_counts(mag: Values, galactic_latitude: float) -> Values:
    """Stars brighter than a magnitude.

    Bahcall & Soneira (1980, ApJS 44, 73, eq. B1 at the galactic pole), times a plane-parallel disc's
    dependence on latitude: good to a factor of about two, which is what a simulation of blends needs.

    Parameters
    ----------
    mag : ndarray
        Visual magnitudes.
    galactic_latitude : float
        Galactic latitude (deg).

    Returns
    -------
    ndarray
        Stars per square degree.
    """
    disc = 925.0 * 10 ** (0.035 * (mag - 15.75)) / (1 + 10 ** (-0.132 * (mag - 15.75))) ** 3.0
    halo = 1050.0 * 10 ** (0.087 * (mag - 17.5)) / (1 + 10 ** (-0.180 * (mag - 17.5))) ** 2.5
    return np.asarray(disc / (np.abs(np.sin(np.deg2rad(galactic_latitude))) + 0.03) + halo)


def galaxy_counts(mag: Values) -> Values:
    """Galaxies brighter than a magnitude.

    A power law of slope 0.48 through 1,000 per square degree at magnitude 20 (red bands; between the
    Euclidean 0.6 of bright samples and the 0.4 of faint ones, e.g. Yasuda et al. 2001, AJ 122, 1104).

    Parameters
    ----------
    mag : ndarray
        Magnitudes.

    Returns
    -------
    ndarray
        Galaxies per square degree.
    """
    return np.asarray(1000.0 * 10 ** (0.48 * (mag - 20.0)))


def draw_stars(
    rng: np.random.Generator, centre: tuple[float, float], half_width: float, faintest: float, options: SkyOptions
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
    cumulative = star_counts(grid, options.galactic_latitude) * options.star_density * (2 * half_width) ** 2
    cumulative -= cumulative[0] - 0.0
    mag = np.sort(np.interp(rng.random(rng.poisson(cumulative[-1])) * cumulative[-1], cumulative, grid))
    ra, dec = scatter(rng, centre, half_width, len(mag))
    return Stars(ra, dec, mag)


def draw_galaxies(
    rng: np.random.Generator, centre: tuple[float, float], half_width: float, faintest: float, options: SkyOptions
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
    cumulative = galaxy_counts(grid) * options.galaxy_density * (2 * half_width) ** 2
    mag = np.sort(np.interp(rng.random(rng.poisson(cumulative[-1])) * cumulative[-1], cumulative, grid))
    n = len(mag)
    ra, dec = scatter(rng, centre, half_width, n)
    radius = 1.1 * 10 ** (-0.14 * (mag - 20.0)) * 10 ** rng.normal(0.0, 0.2, n)
    spheroid = rng.random(n) < 0.35
    # Discs are thin and seen from any side; spheroids are round to moderately flat.
    disc_ratio = np.sqrt(rng.random(n) ** 2 * (1 - 0.2**2) + 0.2**2)
    ratio = np.where(spheroid, rng.uniform(0.5, 1.0, n), disc_ratio)
    return Galaxies(
        ra, dec, mag, np.clip(radius, 0.2, 40.0), ratio, rng.uniform(0, 180, n), np.where(spheroid, 4.0, 1.0)
    )


def scatter(rng: np.random.Generator, centre: tuple[float, float], half_width: float, n: int) -> tuple[Values, Values]:
    """Draw positions uniformly over a square field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    centre : tuple of float
        Centre ``(ra, dec)`` (deg).
    half_width : float
        Half the width of the field (deg).
    n : int
        Number of positions.

    Returns
    -------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    """
    east, north = rng.uniform(-half_width, half_width, (2, n))
    return offset_position(np.full(n, centre[0]), np.full(n, centre[1]), east, north)
