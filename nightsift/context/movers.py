"""Which minor planets stand in a field, where, and how bright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.context.orbits import Orbits
from nightsift.context.propagate import LIGHT, earth, propagate, two_body
from nightsift.site.ephemeris import observer_position
from nightsift.site.site import Site
from nightsift.sky.sphere import Values, angle_between, positions_of, unit_vectors
from nightsift.times import to_tt

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
    dec: float,
    radius: float,
    *,
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
