"""Zenith, Sun and Moon as seen from a site, by ERFA: nothing is downloaded, and no table can run out.

UT1 is taken as UTC, of which it is never as far as a second: directions on the sky turn by 15 arcsec at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.site.site import Site
from nightsift.times import JD_OF_MJD, to_tt

Values = npt.NDArray[np.float64]
AU = 149597870700.0  # m
LIGHT = 173.144632674  # au/d
WGS84 = 1


def zenith(site: Site, mjd: Values | float) -> Values:
    """Direction of the zenith among the stars.

    Parameters
    ----------
    site : Site
        The site.
    mjd : ndarray or float
        Times (MJD UTC).

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Unit vectors (GCRS).
    """
    longitude, latitude, _ = site.geodetic
    up = np.array([
        np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude),
    ])  # fmt: skip
    return np.asarray(up @ _terrestrial(mjd))


def observer_position(site: Site, mjd: Values | float) -> Values:
    """Position of a site from the centre of the Earth.

    Parameters
    ----------
    site : Site
        The site.
    mjd : ndarray or float
        Times (MJD UTC).

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Positions (au, GCRS).
    """
    import erfa

    return np.asarray(np.asarray(erfa.gd2gc(WGS84, *site.geodetic)) / AU @ _terrestrial(mjd))


def sun_direction(site: Site, mjd: Values | float) -> Values:
    """Direction of the Sun's centre, with aberration and parallax.

    Parameters
    ----------
    site : Site
        The site.
    mjd : ndarray or float
        Times (MJD UTC).

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Unit vectors (GCRS).
    """
    import erfa

    heliocentric, barycentric = erfa.epv00(JD_OF_MJD, to_tt(mjd))
    sun = _normed(-np.asarray(heliocentric["p"]) - observer_position(site, mjd))
    return _normed(sun + np.asarray(barycentric["v"]) / LIGHT)


def moon_direction(site: Site, mjd: Values | float) -> Values:
    """Direction of the Moon's centre, with parallax.

    Parameters
    ----------
    site : Site
        The site.
    mjd : ndarray or float
        Times (MJD UTC).

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Unit vectors (GCRS).
    """
    import erfa

    return _normed(np.asarray(erfa.moon98(JD_OF_MJD, to_tt(mjd))["p"]) - observer_position(site, mjd))


def sun_altitude(site: Site, mjd: Values | float) -> Values:
    """Altitude of the Sun's centre without refraction.

    Parameters
    ----------
    site : Site
        The site.
    mjd : ndarray or float
        Times (MJD UTC).

    Returns
    -------
    ndarray of float64, shape (...)
        Degrees.
    """
    sine = np.sum(zenith(site, mjd) * sun_direction(site, mjd), axis=-1)
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))))


def _terrestrial(mjd: Values | float) -> Values:
    """Rotation from directions among the stars to directions fixed to the Earth, shape (..., 3, 3)."""
    import erfa

    return np.asarray(erfa.c2t06a(JD_OF_MJD, to_tt(mjd), JD_OF_MJD, mjd, 0.0, 0.0))


def _normed(vectors: Values) -> Values:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
