"""Minor planets in time: two bodies for a first look at all, the pull of the planets for those that matter.

Positions of the planets come from the analytic theories of ERFA (`plan94`, Simon et al. 1994; `epv00` for the Earth) by
way of astropy: no ephemeris file is needed. They are good to 13 km for the Earth and about an arc minute for the outer
planets as seen from the Sun, which moves a main-belt orbit by about 0.01 arcsec in a year. What is left out (large
asteroids, the shape of the Earth, the Moon as a body of its own, thermal forces) matters for encounters only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nightsift.context.orbits import Orbits

Values = npt.NDArray[np.float64]
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
            return np.concatenate([v, _acceleration(r, v, planets(t), masses)]).ravel()

        state = np.concatenate([start, speed]).ravel()
        done = solve_ivp(pull, (epoch, mjd), state, "DOP853", rtol=_TOLERANCE, atol=_TOLERANCE, t_eval=[mjd])
        if not done.success:
            raise ValueError(f"orbits of the epoch MJD {epoch:g} cannot be followed to {mjd:g}: {done.message}")
        position[rows], velocity[rows] = done.y[:, -1].reshape(2, -1, 3)
    return position, velocity


def earth(mjd: float) -> Values:
    """Heliocentric position of the centre of the Earth.

    Parameters
    ----------
    mjd : float
        Time (MJD, TT).

    Returns
    -------
    ndarray of float64, shape (3,)
        Equatorial J2000 (au).
    """
    return np.asarray(_heliocentric("earth", np.array([mjd]))[0])


def _acceleration(r: Values, v: Values, planets: Values, masses: Values) -> Values:
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
