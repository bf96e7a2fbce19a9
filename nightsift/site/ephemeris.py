"""Zenith, Sun and Moon as seen from a site, and when fields can be observed, by ERFA without any download.

UT1 is taken as UTC, of which it is never as far as a second: directions on the sky turn by 15 arcsec at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.core.times import JD_OF_MJD, to_tt
from nightsift.site.site import Site
from nightsift.sky.sphere import Values, angle_between, unit_vectors

AU = 149597870700.0  # m
LIGHT = 173.144632674  # au/d
WGS84 = 1
STEP_MINUTES = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as observable.

    Attributes
    ----------
    altitude : float
        Least altitude (deg).
    sun_altitude : float
        Highest altitude of the Sun (deg).
    moon_distance : float
        Least distance from the Moon while it is up (deg).
    """

    altitude: float = 30.0
    sun_altitude: float = -12.0
    moon_distance: float = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Visibility:
    """When each field can be observed.

    Attributes
    ----------
    hours : ndarray of float64, shape (n,)
        Hours within the time asked for.
    first, best : ndarray of float64, shape (n,)
        First time and time of greatest altitude (MJD UTC); NaN where there is none.
    altitude : ndarray of float64, shape (n,)
        Altitude at the best time, or the greatest in the dark where there is none (deg).
    moon : ndarray of float64, shape (n,)
        Distance from the Moon in the middle of the time asked for (deg).
    reason : tuple of str
        Why a field cannot be observed; empty where it can.
    """

    hours: Values
    first: Values
    best: Values
    altitude: Values
    moon: Values
    reason: tuple[str, ...]


def zenith(site: Site, mjd: Values | float) -> Values:
    """Return the directions of the zenith among the stars (GCRS) at times (MJD UTC), shape (..., 3)."""
    longitude, latitude, _ = site.geodetic
    up = np.array([
        np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude),
    ])  # fmt: skip
    return np.asarray(up @ _terrestrial(mjd))


def observer_position(site: Site, mjd: Values | float) -> Values:
    """Return the positions of a site from the centre of the Earth (au, GCRS) at times (MJD UTC), shape (..., 3)."""
    import erfa

    return np.asarray(np.asarray(erfa.gd2gc(WGS84, *site.geodetic)) / AU @ _terrestrial(mjd))


def sun_direction(site: Site, mjd: Values | float) -> Values:
    """Return the directions of the Sun's centre (GCRS), with aberration and parallax, shape (..., 3)."""
    import erfa

    heliocentric, barycentric = erfa.epv00(JD_OF_MJD, to_tt(mjd))
    sun = _normed(-np.asarray(heliocentric["p"]) - observer_position(site, mjd))
    return _normed(sun + np.asarray(barycentric["v"]) / LIGHT)


def moon_direction(site: Site, mjd: Values | float) -> Values:
    """Return the directions of the Moon's centre (GCRS), with parallax, shape (..., 3)."""
    import erfa

    return _normed(np.asarray(erfa.moon98(JD_OF_MJD, to_tt(mjd))["p"]) - observer_position(site, mjd))


def sun_altitude(site: Site, mjd: Values | float) -> Values:
    """Return the altitudes of the Sun's centre (deg), without refraction, at times (MJD UTC)."""
    sine = np.sum(zenith(site, mjd) * sun_direction(site, mjd), axis=-1)
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))))


def _terrestrial(mjd: Values | float) -> Values:
    """Rotation from directions among the stars to directions fixed to the Earth, shape (..., 3, 3)."""
    import erfa

    return np.asarray(erfa.c2t06a(JD_OF_MJD, to_tt(mjd), JD_OF_MJD, mjd, 0.0, 0.0))


def _normed(vectors: Values) -> Values:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def visibility(ra: Values, dec: Values, site: Site, *, start: float, hours: float, limits: Limits) -> Visibility:
    """Work out when positions can be observed.

    Altitudes are without refraction, and good to 15 arcsec.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg, ICRS).
    site : Site
        The site, with its latitude.
    start : float
        From when on (MJD UTC).
    hours : float
        For how long.
    limits : Limits
        What counts as observable.

    Returns
    -------
    Visibility
        One value per position.
    """
    times = start + np.arange(0.0, hours / 24.0 + 1e-9, STEP_MINUTES / 1440.0)
    up, stars = zenith(site, times), unit_vectors(ra, dec)
    altitude = np.degrees(np.arcsin(np.clip(up @ stars.T, -1.0, 1.0)))
    dark = sun_altitude(site, times) <= limits.sun_altitude
    moon = moon_direction(site, times)
    moon_up = np.einsum("tc,tc->t", up, moon) > 0.0
    away = angle_between(moon[:, None, :], stars[None, :, :])
    clear = ~(moon_up[:, None] & (away < limits.moon_distance))
    high = altitude >= limits.altitude
    good = dark[:, None] & high & clear
    possible = good.any(axis=0)
    best = np.argmax(np.where(good, altitude, -99.0), axis=0)
    highest = np.where(dark[:, None], altitude, -90.0).max(axis=0)
    reasons = tuple("" if possible[k] else _why(bool(dark.any()), float(highest[k]), limits) for k in range(len(stars)))
    columns = np.arange(len(stars))
    return Visibility(
        hours=good.sum(axis=0) * STEP_MINUTES / 60.0,
        first=np.where(possible, times[np.argmax(good, axis=0)], np.nan),
        best=np.where(possible, times[best], np.nan),
        altitude=np.where(possible, altitude[best, columns], highest),
        moon=away[len(times) // 2],
        reason=reasons,
    )


def _why(is_dark: bool, highest: float, limits: Limits) -> str:
    if not is_dark:
        return "no darkness"
    if highest < limits.altitude:
        return f"rises to {highest:.0f} deg only" if highest > 0.0 else "never up in the dark"
    return "too near to the Moon"
