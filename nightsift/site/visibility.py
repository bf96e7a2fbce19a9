"""When fields can be observed from a site: dark, high enough, away from the Moon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.site.ephemeris import moon_direction, sun_altitude, zenith
from nightsift.site.site import Site
from nightsift.sky.sphere import Values, angle_between, unit_vectors

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
        One value a position.
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
