"""Minor planets in a field: two bodies for a first look at all, the pull of the planets for those that matter.

Positions of the planets come from the analytic theories of ERFA (`plan94`, Simon et al. 1994; `epv00` for the Earth) by
way of astropy: no ephemeris file is needed. They are good to 13 km for the Earth and about an arc minute for the outer
planets as seen from the Sun, which moves a main-belt orbit by about 0.01 arcsec in a year. What is left out (large
asteroids, the shape of the Earth, the Moon as a body of its own, thermal forces) matters for encounters only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.context.orbits import Orbits
from nightsift.core.times import to_tt
from nightsift.site.ephemeris import observer_position
from nightsift.site.site import Site
from nightsift.sky.sphere import Values, angle_between, positions_of, unit_vectors

GM_SUN = 0.01720209895**2  # au^3/d^2, Gauss
LIGHT = 173.14463267424  # au/d
OBLIQUITY = np.deg2rad(84381.448 / 3600.0)  # of the ecliptic of J2000 in which orbits are given (IAU 1976)
# Masses of the Sun over those of the planets (with their moons).
PLANETS = {
    "mercury": 6023600.0, "venus": 408523.71, "earth-moon-barycenter": 328900.5614, "mars": 3098708.0,
    "jupiter": 1047.3486, "saturn": 3497.898, "uranus": 22902.98, "neptune": 19412.24,
}  # fmt: skip

_NODES = 2.0  # d between the positions of the planets that are interpolated
_TOLERANCE = 1e-10
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


def movers_in_field(
    orbits: Orbits,
    mjd: float,
    ra: float,
    *,
    dec: float,
    radius: float,
    site: Site | None = None,
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
        Time, UTC (MJD).
    ra, dec, radius : float
        Circle on the sky, ICRS (deg).
    site : Site, optional
        Where on Earth it is looked from; the centre of the Earth without it or without its latitude, which is off by up
        to 9 arcsec at 1 au.
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
    now = float(to_tt(mjd))
    field = unit_vectors(ra, dec)
    seen_from = earth(now) + _parallax(mjd, site)
    rough, _ = two_body(orbits, now)
    span = np.abs(now - orbits.epoch)
    margin = np.minimum(FIRST_LOOK + FIRST_LOOK_PER_DAY * span, FIRST_LOOK_MOST)
    near = np.flatnonzero(angle_between(rough - seen_from, field) <= radius + margin)
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
    later = seen + velocity * step - (earth(now + step) + _parallax(mjd + step, site) - seen_from)
    rate = angle_between(seen, later) * 3600.0
    keep = (angle_between(seen, field) <= radius) & ~(mag > faintest + FAINT)
    lon, lat = positions_of(seen[keep])
    return Predicted(some.name[keep], lon, lat, mag[keep], rate[keep])


def propagate(orbits: Orbits, mjd: float) -> tuple[Values, Values]:
    """Heliocentric states under the pull of the Sun, with its relativistic part, and of the eight planets.

    Numerical integration (DOP853, Hairer, Norsett & Wanner 1993) from the epoch of the elements; orbits of one epoch go
    together.

    Parameters
    ----------
    orbits : Orbits
        The orbits.
    mjd : float
        Time (MJD, TT).

    Returns
    -------
    position, velocity : ndarray of float64, shape (n, 3)
        Equatorial J2000 (au, au/d).

    Raises
    ------
    ValueError
        If an orbit cannot be integrated, as when it hits the Sun.
    """
    from scipy.integrate import solve_ivp

    position, velocity = np.empty((len(orbits), 3)), np.empty((len(orbits), 3))
    for epoch in np.unique(orbits.epoch):
        rows = np.flatnonzero(orbits.epoch == epoch)
        start, speed = two_body(orbits.take(rows), float(epoch))
        if epoch == mjd:
            position[rows], velocity[rows] = start, speed
            continue
        planets = _planets(min(epoch, mjd), max(epoch, mjd))
        masses = GM_SUN / np.array(list(PLANETS.values()))

        def pull(t: float, state: Values, planets=planets, masses=masses) -> Values:  # type: ignore[no-untyped-def]
            r, v = state.reshape(2, -1, 3)
            return np.concatenate([v, _acceleration(r, v, planets(t), masses=masses)]).ravel()

        state = np.concatenate([start, speed]).ravel()
        done = solve_ivp(pull, (epoch, mjd), state, "DOP853", rtol=_TOLERANCE, atol=_TOLERANCE, t_eval=[mjd])
        if not done.success:
            raise ValueError(f"orbits of the epoch MJD {epoch:g} cannot be followed to {mjd:g}: {done.message}")
        position[rows], velocity[rows] = done.y[:, -1].reshape(2, -1, 3)
    return position, velocity


def two_body(orbits: Orbits, mjd: float) -> tuple[Values, Values]:
    """Heliocentric states by Kepler's laws alone.

    Off by arc seconds within weeks of the epoch and by arc minutes within a year for the main belt: a first look.

    Parameters
    ----------
    orbits : Orbits
        The orbits.
    mjd : float
        Time (MJD, TT).

    Returns
    -------
    position, velocity : ndarray of float64, shape (n, 3)
        Equatorial J2000 (au, au/d).
    """
    motion = np.sqrt(GM_SUN / orbits.a**3)
    mean = np.mod(orbits.anomaly + motion * (mjd - orbits.epoch) + np.pi, 2.0 * np.pi) - np.pi
    E = eccentric_anomaly(mean, orbits.e)
    cos_e, sin_e, root = np.cos(E), np.sin(E), np.sqrt(1.0 - orbits.e**2)
    speed = motion * orbits.a / (1.0 - orbits.e * cos_e)
    plane = np.stack([orbits.a * (cos_e - orbits.e), orbits.a * root * sin_e])
    drift = np.stack([-speed * sin_e, speed * root * cos_e])
    turn = _orientation(orbits)
    return np.einsum("kin,kn->ni", turn, plane), np.einsum("kin,kn->ni", turn, drift)


def eccentric_anomaly(mean: Values, e: Values) -> Values:
    """Solve Kepler's equation ``E - e sin E = M`` by Newton's method in Halley's form.

    Parameters
    ----------
    mean : ndarray of float64, shape (n,)
        Mean anomalies, -pi to pi (rad).
    e : ndarray of float64, shape (n,)
        Eccentricities, below 1.

    Returns
    -------
    ndarray of float64, shape (n,)
        Eccentric anomalies (rad).
    """
    E = mean + 0.85 * e * np.sign(np.sin(mean))  # Danby's start: converges for every eccentricity
    for _ in range(12):
        miss = E - e * np.sin(E) - mean
        slope, bend = 1.0 - e * np.cos(E), e * np.sin(E)
        step = miss / (slope - 0.5 * miss * bend / slope)
        E = E - step
        if np.max(np.abs(step), initial=0.0) < 1e-13:
            break
    return np.asarray(E)


def earth(mjd: float) -> Values:
    """Return the heliocentric position of the Earth's centre (au, equatorial J2000) at a time (MJD, TT), shape (3,)."""
    return np.asarray(_heliocentric("earth", np.array([mjd]))[0])


def _acceleration(r: Values, v: Values, planets: Values, *, masses: Values) -> Values:
    distance2 = np.sum(r * r, axis=1)[:, None]
    distance = np.sqrt(distance2)
    potential = GM_SUN / distance
    total = -potential / distance2 * r
    # first post-Newtonian term of the Sun (Moyer 1971): 0.1 arcsec a year at 1 au
    total += (
        potential
        / (distance2 * LIGHT**2)
        * ((4.0 * potential - np.sum(v * v, axis=1)[:, None]) * r + 4.0 * np.sum(r * v, axis=1)[:, None] * v)
    )
    apart = planets[None] - r[:, None]
    direct = apart / (np.sum(apart * apart, axis=2) ** 1.5)[:, :, None]
    indirect = planets / (np.sum(planets * planets, axis=1) ** 1.5)[:, None]
    return np.asarray(total + np.einsum("k,nki->ni", masses, direct - indirect[None]))


def _planets(first: float, last: float):  # type: ignore[no-untyped-def]
    """Interpolated heliocentric positions of the planets, (8, 3) at a time."""
    from scipy.interpolate import CubicSpline

    count = max(4, int(np.ceil((last - first) / _NODES)) + 3)
    times = np.linspace(first - 1.0, last + 1.0, count)
    return CubicSpline(times, np.stack([_heliocentric(name, times) for name in PLANETS], axis=1))


def _heliocentric(body: str, mjd: Values) -> Values:
    """Positions by ERFA through astropy; its built-in theories need no file and no network."""
    from astropy.coordinates import get_body_barycentric
    from astropy.time import Time

    when = Time(mjd, format="mjd", scale="tdb")  # TDB and TT differ by 2 ms
    places = [get_body_barycentric(one, when, ephemeris="builtin").xyz.to_value("au") for one in (body, "sun")]
    return np.asarray((places[0] - places[1]).T)


def _orientation(orbits: Orbits) -> Values:
    """Unit vectors towards perihelion and 90 deg ahead, equatorial, shape (2, 3, n)."""
    cos_o, sin_o = np.cos(orbits.node), np.sin(orbits.node)
    cos_w, sin_w = np.cos(orbits.peri), np.sin(orbits.peri)
    cos_i, sin_i = np.cos(orbits.inclination), np.sin(orbits.inclination)
    ahead = np.array([
        [cos_o * cos_w - sin_o * sin_w * cos_i, sin_o * cos_w + cos_o * sin_w * cos_i, sin_w * sin_i],
        [-cos_o * sin_w - sin_o * cos_w * cos_i, -sin_o * sin_w + cos_o * cos_w * cos_i, cos_w * sin_i],
    ])  # fmt: skip
    c, s = np.cos(OBLIQUITY), np.sin(OBLIQUITY)
    return np.stack([ahead[:, 0], c * ahead[:, 1] - s * ahead[:, 2], s * ahead[:, 1] + c * ahead[:, 2]], axis=1)


def _parallax(mjd: float, site: Site | None) -> Values:
    """Position of an observer from the centre of the Earth (au)."""
    return np.zeros(3) if site is None or site.latitude is None else observer_position(site, mjd)


def _magnitudes(orbits: Orbits, place: Values, seen_from: Values) -> Values:
    """HG system (Bowell et al. 1989)."""
    seen = place - seen_from
    r, delta = np.linalg.norm(place, axis=1), np.linalg.norm(seen, axis=1)
    cosine = np.sum(place * seen, axis=1) / (r * delta)
    half = np.tan(0.5 * np.arccos(np.clip(cosine, -1.0, 1.0)))
    phi = np.exp(-3.33 * half**0.63), np.exp(-1.87 * half**1.22)
    dimming = np.maximum((1.0 - orbits.G) * phi[0] + orbits.G * phi[1], 1e-9)
    return np.asarray(orbits.H + 5.0 * np.log10(r * delta) - 2.5 * np.log10(dimming))
