"""Which minor planets stand in a field, where, and how bright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.context.orbits import Orbits
from nightsift.context.propagate import LIGHT, earth, propagate, two_body

Values = npt.NDArray[np.float64]
TT_AHEAD = 69.184 / 86400.0  # d by which TT is ahead of UTC since 2017
EARTH_RADIUS = 6378.137 / 149597870.7  # au
FIRST_LOOK, FIRST_LOOK_PER_DAY, FIRST_LOOK_MOST = 0.1, 0.004, 5.0  # deg by which two bodies may be off
FAINT = 1.0  # mag by which predicted magnitudes may be wrong


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Minor planets in a field.

    Attributes
    ----------
    name : ndarray of str, shape (n,)
        Packed designations.
    ra, dec : ndarray of float64, shape (n,)
        Astrometric positions, ICRS (deg).
    mag : ndarray of float64, shape (n,)
        Visual magnitude by the HG system, NaN where unknown.
    rate : ndarray of float64, shape (n,)
        Motion on the sky (arcsec/min).
    """

    name: npt.NDArray[np.str_]
    ra: Values
    dec: Values
    mag: Values
    rate: Values

    def __len__(self) -> int:
        return len(self.ra)


@dataclass(frozen=True, slots=True)
class Observer:
    """Where on Earth it is looked from.

    Attributes
    ----------
    longitude, latitude : float
        East longitude and latitude (deg); NaN for the centre of the Earth.
    """

    longitude: float = float("nan")
    latitude: float = float("nan")


def movers_in_field(
    orbits: Orbits,
    mjd: float,
    ra: float,
    dec: float,
    radius: float,
    observer: Observer | None = None,
    faintest: float = 99.0,
) -> Predicted:
    """Minor planets within a circle on the sky.

    All orbits are looked at by Kepler's laws; those near the field are followed from their epoch under the pull of
    the planets, and seen with light time and parallax.

    Parameters
    ----------
    orbits : Orbits
        The orbits.
    mjd : float
        Time, UTC (MJD), 2017 or later to the millisecond, 1972 or later to half a minute.
    ra, dec, radius : float
        Circle on the sky, ICRS (deg).
    observer : Observer, optional
        Place on Earth; the centre of the Earth without it, which is off by up to 9 arcsec at 1 au.
    faintest : float, optional
        Faintest magnitude wanted, with a margin of a magnitude, because H is uncertain.

    Returns
    -------
    Predicted
        The minor planets. Positions of main-belt orbits are good to 0.1 arcsec within a year of the epoch, as
        far as the elements are.

    Raises
    ------
    ValueError
        If an orbit cannot be followed.
    """
    now = mjd + TT_AHEAD
    seen_from = earth(now) + _parallax(mjd, observer)
    rough, _ = two_body(orbits, now)
    span = np.abs(now - orbits.epoch)
    margin = np.minimum(FIRST_LOOK + FIRST_LOOK_PER_DAY * span, FIRST_LOOK_MOST)
    near = np.flatnonzero(_angle(rough - seen_from, ra, dec) <= radius + margin)
    near = near[~(_magnitudes(orbits.take(near), rough[near], seen_from) > faintest + 2 * FAINT)]
    some = orbits.take(near)
    place, velocity = propagate(some, now)
    seen = place - seen_from
    for _ in range(2):  # where it was when the light left
        delay = np.linalg.norm(seen, axis=1)[:, None] / LIGHT
        seen = place - velocity * delay - seen_from
    mag = _magnitudes(some, place, seen_from)
    # its own motion less that of the observer
    step = 1.0 / 1440.0
    later = seen + velocity * step - (earth(now + step) + _parallax(mjd + step, observer) - seen_from)
    rate = _between(seen, later) * 3600.0
    keep = (_angle(seen, ra, dec) <= radius) & ~(mag > faintest + FAINT)
    lon, lat = _directions(seen[keep])
    return Predicted(some.name[keep], lon, lat, mag[keep], rate[keep])


def _parallax(mjd: float, observer: Observer | None) -> Values:
    """Place of an observer from the centre of the Earth, equatorial (au).

    By the Earth rotation angle and the shift of the equinox since 2000: good to 5 km, 0.01 arcsec at 1 au.
    """
    if observer is None or not np.isfinite(observer.longitude + observer.latitude):
        return np.zeros(3)
    days = mjd - 51544.5
    turn = 2.0 * np.pi * (0.7790572732640 + 1.00273781191135448 * days)  # Capitaine et al. (2000)
    lat = np.deg2rad(observer.latitude)
    flat = 1.0 / 298.257223563
    C = 1.0 / np.sqrt(np.cos(lat) ** 2 + (1.0 - flat) ** 2 * np.sin(lat) ** 2)
    theta = turn + np.deg2rad(observer.longitude)
    place = EARTH_RADIUS * np.array([
        C * np.cos(lat) * np.cos(theta), C * np.cos(lat) * np.sin(theta), C * (1.0 - flat) ** 2 * np.sin(lat),
    ])  # fmt: skip
    # the pole of date lies towards (X, 0, 1) of J2000, X = 2004.19 arcsec a century
    X = np.deg2rad(2004.191903 / 3600.0) * days / 36525.0
    return np.array([place[0] + X * place[2], place[1], place[2] - X * place[0]])


def _magnitudes(orbits: Orbits, place: Values, seen_from: Values) -> Values:
    """HG system (Bowell et al. 1989)."""
    seen = place - seen_from
    r, delta = np.linalg.norm(place, axis=1), np.linalg.norm(seen, axis=1)
    cosine = np.sum(place * seen, axis=1) / (r * delta)
    half = np.tan(0.5 * np.arccos(np.clip(cosine, -1.0, 1.0)))
    phi = np.exp(-3.33 * half**0.63), np.exp(-1.87 * half**1.22)
    dimming = np.maximum((1.0 - orbits.G) * phi[0] + orbits.G * phi[1], 1e-9)
    return np.asarray(orbits.H + 5.0 * np.log10(r * delta) - 2.5 * np.log10(dimming))


def _angle(vectors: Values, ra: float, dec: float) -> Values:
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    return _between(vectors, np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])[None])


def _between(one: Values, other: Values) -> Values:
    """Angles between vectors (deg), exact for small ones."""
    across = np.linalg.norm(np.cross(one, other), axis=1)
    return np.asarray(np.rad2deg(np.arctan2(across, np.sum(one * other, axis=1))))


def _directions(vectors: Values) -> tuple[Values, Values]:
    lon = np.mod(np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])), 360.0)
    return lon, np.rad2deg(np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1])))
