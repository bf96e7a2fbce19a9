"""When fields can be observed from a place: dark, high enough, away from the Moon; by ERFA, without any download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.alerts.fields import unit_vectors

STEP_MINUTES = 10.0
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a telescope stands.

    Attributes
    ----------
    latitude, longitude : float
        Degrees, north and east positive.
    height : float
        Metres.
    """

    latitude: float
    longitude: float
    height: float = 0.0


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


def visibility(ra: Values, dec: Values, place: Place, start: float, hours: float, limits: Limits) -> Visibility:
    """Work out when positions can be observed.

    Directions are those of ERFA with its own model of the rotation of the Earth: without tables of UT1, which would be
    downloaded, altitudes are good to 15 arcsec.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg, ICRS).
    place : Place
        The place.
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
    turn = _celestial_to_local(times, place)
    up = turn[:, 2, :]  # direction of the zenith among the stars, shape (t, 3)
    stars = unit_vectors(ra, dec)
    altitude = np.degrees(np.arcsin(np.clip(up @ stars.T, -1.0, 1.0)))
    sun, moon = _sun_and_moon(times, up, place)
    dark = np.degrees(np.arcsin(np.einsum("tc,tc->t", up, sun))) <= limits.sun_altitude
    moon_up = np.einsum("tc,tc->t", up, moon) > 0.0
    away = np.degrees(np.arccos(np.clip(moon @ stars.T, -1.0, 1.0)))
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


def _celestial_to_local(times: Values, place: Place) -> Values:
    """Rotation from ICRS to south-east-zenith at each time, shape (t, 3, 3); UT1 is taken as UTC."""
    import erfa

    tt = times + 69.2 / 86400.0
    matrix = np.asarray(erfa.c2t06a(2400000.5, tt, 2400000.5, times, 0.0, 0.0))
    lon, lat = np.radians(place.longitude), np.radians(place.latitude)
    south = [np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), -np.cos(lat)]
    east = [-np.sin(lon), np.cos(lon), 0.0]
    zenith = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
    return np.asarray(np.array([south, east, zenith]) @ matrix)


def _sun_and_moon(times: Values, up: Values, place: Place) -> tuple[Values, Values]:
    """Directions of the Sun and of the Moon as seen from the place, shape (t, 3); the Moon's parallax is in it."""
    import erfa

    tt = times + 69.2 / 86400.0
    heliocentric, _ = erfa.epv00(2400000.5, tt)
    sun = -np.asarray(heliocentric["p"])
    moon = np.asarray(erfa.moon98(2400000.5, tt)["p"])
    radius = (6371000.0 + place.height) / 149597870700.0
    return _directions(sun), _directions(moon - radius * up)


def _directions(vectors: Values) -> Values:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
